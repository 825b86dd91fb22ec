// coca/kernels/args/float_types.h - chooses typed code for operands that may be fp32 or bf16.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "coca/base/dtype.h"

namespace coca::ops {

// Calls body(T{}) with T = float or BF16; the caller has checked that `type` is one of them.
template <typename Body>
decltype(auto) with_float_type(DType type, const Body& body) {
  return type == DType::kBF16 ? body(BF16{}) : body(float{});
}

}  // namespace coca::ops
