// SPDX-License-Identifier: Apache-2.0
#include "coca/tensor/tensor_ref.h"

namespace coca {

Dims::Dims(std::initializer_list<int64_t> list) {
  COCA_CHECK(list.size() <= static_cast<size_t>(kMaxRank), "tensors have at most {} dimensions, not {}", kMaxRank,
             list.size());
  for (int64_t extent : list) d[static_cast<size_t>(rank++)] = extent;
}

int64_t Dims::product() const {
  int64_t n = 1;
  bool fits = true;
  for (int i = 0; i < rank; ++i) fits = !__builtin_mul_overflow(n, d[static_cast<size_t>(i)], &n) && fits;
  COCA_CHECK(fits, "shape {}: more elements than 63 bits count", text());
  return n;
}

std::string Dims::text() const {
  std::string out = "[";
  for (int i = 0; i < rank; ++i) out += fmt::format("{}{}", i ? ", " : "", d[static_cast<size_t>(i)]);
  return out + "]";
}

Dims contiguous_strides(const Dims& shape) {
  Dims strides;
  strides.rank = shape.rank;
  int64_t step = 1;
  for (int i = shape.rank - 1; i >= 0; --i) {
    strides[i] = step;
    if (__builtin_mul_overflow(step, shape[i], &step)) step = 0;  // product() reports the overflow
  }
  return strides;
}

namespace {

template <typename Ref>
Ref reshape_ref(const Ref& t, const Dims& shape) {
  COCA_CHECK(t.contiguous(), "reshape of a strided tensor of shape {}", t.shape.text());
  COCA_CHECK(shape.product() == t.numel(), "reshape of {} to {}: element counts differ", t.shape.text(), shape.text());
  return Ref(t.data, t.dtype, shape, t.device);
}

template <typename Ref, typename Byte>
Ref narrow_ref(const Ref& t, int dim, int64_t start, int64_t length) {
  COCA_CHECK(dim >= 0 && dim < t.rank() && start >= 0 && length >= 0 && start + length <= t.size(dim),
             "narrow({}, {}, {}) of shape {}", dim, start, length, t.shape.text());
  Ref out = t;
  out.data = static_cast<Byte*>(t.data) + start * t.strides[dim] * static_cast<int64_t>(dtype_size(t.dtype));
  out.shape[dim] = length;
  return out;
}

template <typename Ref, typename Byte>
Ref select_ref(const Ref& t, int dim, int64_t index) {
  Ref out = narrow_ref<Ref, Byte>(t, dim, index, 1);
  for (int i = dim; i + 1 < t.rank(); ++i) {
    out.shape[i] = out.shape[i + 1];
    out.strides[i] = out.strides[i + 1];
  }
  --out.shape.rank;
  --out.strides.rank;
  return out;
}

}  // namespace

void TensorRef::check_dtype(DType wanted) const {
  COCA_CHECK(empty() || dtype == wanted, "tensor of type {} where {} is expected", dtype_name(dtype),
             dtype_name(wanted));
}

TensorRef TensorRef::reshape(const Dims& s) const { return reshape_ref(*this, s); }
TensorRef TensorRef::narrow(int dim, int64_t start, int64_t length) const {
  return narrow_ref<TensorRef, const char>(*this, dim, start, length);
}
TensorRef TensorRef::select(int dim, int64_t index) const {
  return select_ref<TensorRef, const char>(*this, dim, index);
}
MutTensorRef MutTensorRef::reshape(const Dims& s) const { return reshape_ref(*this, s); }
MutTensorRef MutTensorRef::resized(const Dims& s) const {
  COCA_CHECK(contiguous() && s.product() <= numel(), "a tensor of shape {} has no room for {}", shape.text(), s.text());
  return {data, dtype, s, device};
}
MutTensorRef MutTensorRef::narrow(int dim, int64_t start, int64_t length) const {
  return narrow_ref<MutTensorRef, char>(*this, dim, start, length);
}
MutTensorRef MutTensorRef::select(int dim, int64_t index) const {
  return select_ref<MutTensorRef, char>(*this, dim, index);
}

}  // namespace coca
