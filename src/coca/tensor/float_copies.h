// coca/tensor/float_copies.h - fp32 stand-ins for bf16 operands, for code that knows no bf16, on the host.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "coca/tensor/tensor.h"

namespace coca {

// The tensor itself when it is fp32 or not given, else a packed fp32 copy.
class FloatInput {
 public:
  explicit FloatInput(TensorRef t);
  TensorRef ref() const { return ref_; }

 private:
  Tensor copy_;
  TensorRef ref_;
};

// Likewise for what is written or accumulated; store() rounds the copy into the tensor.
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
