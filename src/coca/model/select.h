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

// Patterns apply in order: each adds the parameters it matches, or with a "!" in front takes them out; when the first
// one takes out, all are in before. A text may hold several patterns, separated by commas. No patterns at all:
// everything. A part of a fused projection goes by its own name and by its whole's; where all three are in, the whole
// is. A pattern that matches nothing is an Error naming it and the nearest names, and so is an empty selection.
// `what` names the patterns in errors.
std::vector<ParamInfo> select_parameters(const ModelSpec&, const std::vector<std::string>& patterns, std::string_view what = "train");

// One by one in the same way: for each of `names` whether it is in.
std::vector<bool> select_names(const std::vector<std::string>& names, const std::vector<std::string>& patterns,
                               std::string_view what);

int64_t element_count(const std::vector<ParamInfo>&);

}  // namespace coca::model
