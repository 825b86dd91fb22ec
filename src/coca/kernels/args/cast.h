// coca/kernels/args/cast.h - what cast takes; ops/cast.h says what it does.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "coca/kernels/args/implementation.h"

namespace coca::ops {

struct Cast {
  TensorRef x;     // any shape, contiguous, f32 or bf16
  MutTensorRef y;  // the same shape, contiguous, written: the other type
};

struct CastFunctions {
  void (*cast)(Context&, const Cast&);
};
using CastImpl = Implementation<CastFunctions>;

}  // namespace coca::ops
