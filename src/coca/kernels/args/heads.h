// coca/kernels/args/heads.h - what heads takes; ops/heads.h says what it does.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "coca/kernels/args/implementation.h"
#include "coca/tensor/tensor.h"

namespace coca::ops {

struct HeadsFunctions {
  void (*zero)(Context&, MutTensorRef);
  void (*copy)(Context&, TensorRef, MutTensorRef);
  void (*add)(Context&, TensorRef, MutTensorRef);
};
using HeadsImpl = Implementation<HeadsFunctions>;

}  // namespace coca::ops
