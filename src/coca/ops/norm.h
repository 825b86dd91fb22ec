// coca/ops/norm.h - LayerNorm (Ba et al. 2016) and RMSNorm (Zhang, Sennrich 2019) over the last dimension.
// Math: docs/math/norm.md. Statistics in fp32 (accumulated blockwise), saved for the backward pass.
// y and dy may be bf16 (rounded once). x may be bf16 too; then y, dy and a written dx are bf16. Everything else is f32.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "coca/kernels/args/norm.h"

namespace coca::ops {

void norm_forward(Context&, const NormForward&);
void norm_backward(Context&, const NormBackward&);

}  // namespace coca::ops
