// coca/base/suggest.h - the known names that a misspelt one may stand for.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace coca {

// At most three, all equally near, the shortest first; empty where none is near. Near is a name that differs in about a
// third of its letters at most (neighbours swapped count once), that begins with what was typed, whose words begin with
// its letters ("lr": learning-rate), or that shares all words with it ("num-layers": layers). Capital letters, dashes
// and underscores make no difference.
std::vector<std::string> nearest_names(std::string_view typed, std::span<const std::string> known);

// "; did you mean a, b or c?", or "" where no name is near.
std::string did_you_mean(std::string_view typed, std::span<const std::string> known);
std::string did_you_mean(const std::vector<std::string>& names);

}  // namespace coca
