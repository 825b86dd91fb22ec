// coca/tensor/float_copies.h - fp32 copies of bf16 operands, for code that handles fp32 only, on the host.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "coca/tensor/tensor.h"

namespace coca {

// The tensor itself if it is fp32 or not given, else a packed fp32 copy.
class FloatInput {
 public:
  explicit FloatInput(TensorRef t);
  TensorRef ref() const { return ref_; }

 private:
  Tensor copy_;
  TensorRef ref_;
};

// The same for outputs that are written or accumulated; store() rounds the copy into the tensor.
class FloatOutput {
 public:
  explicit FloatOutput(MutTensorRef t);
  MutTensorRef ref() const { return ref_; }
  void store() const;

 private:
  Tensor copy_;
  MutTensorRef target_, ref_;
};

}  // namespace coca
