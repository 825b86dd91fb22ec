// SPDX-License-Identifier: Apache-2.0
#include "coca/tensor/float_copies.h"

namespace coca {

namespace {

// Element by element, following the strides; the caller handles dims before `dim`.
template <typename From, typename To>
void copy_dims(const From* from, const Dims& from_strides, To* to, const Dims& to_strides, const Dims& shape, int dim) {
  if (dim == shape.rank) {
    *to = static_cast<To>(*from);
    return;
  }
  for (int64_t i = 0; i < shape[dim]; ++i)
    copy_dims(from + i * from_strides[dim], from_strides, to + i * to_strides[dim], to_strides, shape, dim + 1);
}

bool needs_copy(TensorRef t) { return !t.empty() && t.dtype == DType::kBF16; }

Tensor float_copy(TensorRef t) {
  Tensor copy(t.shape);
  copy_dims(t.as<BF16>(), t.strides, copy.ref().as<float>(), copy.ref().strides, t.shape, 0);
  return copy;
}

}  // namespace

FloatInput::FloatInput(TensorRef t) : ref_(t) {
  if (!needs_copy(t)) return;
  copy_ = float_copy(t);
  ref_ = copy_.ref();
}

FloatOutput::FloatOutput(MutTensorRef t) : target_(t), ref_(t) {
  if (!needs_copy(t)) return;
  copy_ = float_copy(t);
  ref_ = copy_.ref();
}

void FloatOutput::store() const {
  if (!needs_copy(target_)) return;
  copy_dims(copy_.ref().as<float>(), ref_.strides, target_.as<BF16>(), target_.strides, target_.shape, 0);
}

}  // namespace coca
