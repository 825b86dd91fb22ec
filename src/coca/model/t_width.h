// coca/model/t_width.h - CoCA's T projection at full width (one row for each dim of a head, the official layout) and at
// half (one for each rotary pair). t = relu((T_a x + T_b x) / 2) = relu(((T_a + T_b) / 2) x), so either is the other's
// function. Math: docs/math/collinear.md, "Half the projection".
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <vector>

#include "coca/model/params.h"
#include "coca/model/spec.h"

namespace coca::model {

// The same model with T at another width. Error if that is not the same function: without t, or with norms of heads.
ModelSpec with_t_width(const ModelSpec&, TWidth);
bool has_half_t(const ModelSpec&);  // whether with_t_width(spec, kHalf) is possible
// At half the width if possible; else the spec unchanged.
ModelSpec folded_t(const ModelSpec&);

// The values of a tensor, a matrix or a bias that holds T's rows, of `from` as they are in `to`, two widths of one
// model. The rows of a pair become their mean; a pair's one row becomes both. `width` is the row length: C, or 1 for a
// bias.
std::vector<float> change_t_width(const ModelSpec& from, const ModelSpec& to, std::vector<float> values, int64_t width);

}  // namespace coca::model
