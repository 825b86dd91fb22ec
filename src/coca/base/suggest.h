// coca/base/suggest.h - the known names that a misspelt name may mean.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace coca {

// At most three names, all equally near, the shortest first; empty if none is near. A name is near if at most about a
// third of its letters differ (swapped neighbours count once), if it begins with what was typed, if its words begin
// with the typed letters ("lr": learning-rate), if what was typed is the name without some letters ("attn"), or if what
// was typed contains all its words ("num-layers": layers). Capital letters, dashes and underscores make no difference.
std::vector<std::string> nearest_names(std::string_view typed, std::span<const std::string> known);

// "; did you mean a, b or c?", or "" if no name is near.
std::string did_you_mean(std::string_view typed, std::span<const std::string> known);
std::string did_you_mean(const std::vector<std::string>& names);

}  // namespace coca
