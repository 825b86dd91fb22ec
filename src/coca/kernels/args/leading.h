// coca/kernels/args/leading.h - how libraries for matrix products want the strides of a matrix.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cstdint>

#include "coca/tensor/tensor_ref.h"

namespace coca::ops {

// Elements from one row to the next; of a single row its length, at least 1.
inline int64_t leading(TensorRef t) { return t.size(0) <= 1 ? std::max<int64_t>(1, t.size(1)) : t.stride(0); }

}  // namespace coca::ops
