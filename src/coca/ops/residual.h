// coca/ops/residual.h - y = a + b (sequential residual) or a + b + c (parallel, GPT-NeoX), over flat tensors.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "coca/kernels/args/residual.h"

namespace coca::ops {

void residual_forward(Context&, const ResidualForward&);

}  // namespace coca::ops
