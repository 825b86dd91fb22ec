// coca/ops/float_types.h - arguments that may be fp32 or bf16: the choice of typed code, and fp32 stand-ins for the
// references, which know no bf16. Internal to ops.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "coca/tensor/tensor.h"

namespace coca::ops {

// body(T{}) with T = float or BF16; `type` was checked to be one of them.
template <typename Body>
decltype(auto) with_float_type(DType type, const Body& body) {
  return type == DType::kBF16 ? body(BF16{}) : body(float{});
}

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

}  // namespace coca::ops
