// coca/kernels/cpu/cast.h - fp32 to bf16 and back over n elements (Highway).
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "coca/base/dtype.h"

namespace coca::cpu {

void cast(const float* x, BF16* y, int64_t n) noexcept;  // to nearest even; NaN stays NaN
void cast(const BF16* x, float* y, int64_t n) noexcept;  // exact

}  // namespace coca::cpu
