// coca/model/select.h - which parameters are trained, by patterns over their names.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "coca/model/params.h"

namespace coca::model {

// "*" stands for any characters, "?" for one; all others, dots included, for themselves.
bool glob_matches(std::string_view pattern, std::string_view name);

// Patterns apply in order: each adds the parameters it matches, or with a leading "!" removes them; if the first
// one removes, it starts from all. A text may hold several patterns, separated by commas. No patterns at all:
// everything. A part of a fused projection has its own name and matches that of the whole; if all three are selected,
// the whole is. A pattern that matches nothing is an Error naming it and the nearest names, and so is an empty
// selection. `what` names the patterns in errors.
std::vector<ParamInfo> select_parameters(const ModelSpec&, const std::vector<std::string>& patterns,
                                         std::string_view what = "train");

// The same for any names: whether each of `names` is selected.
std::vector<bool> select_names(const std::vector<std::string>& names, const std::vector<std::string>& patterns,
                               std::string_view what);

int64_t element_count(const std::vector<ParamInfo>&);

}  // namespace coca::model
