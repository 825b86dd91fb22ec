// coca/tensor/tensor_ref.h - type-erased, non-owning tensor handles: the operands of ops.
// TensorRef is read-only, MutTensorRef writable; a MutTensorRef converts to a TensorRef. An empty ref (null data)
// means that an optional tensor is not given.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstdint>
#include <initializer_list>
#include <string>

#include "coca/base/device.h"
#include "coca/base/dtype.h"
#include "coca/base/error.h"
#include "coca/tensor/view.h"

namespace coca {

inline constexpr int kMaxRank = 5;

// Extents or strides of up to kMaxRank dimensions, slowest first.
struct Dims {
  int rank = 0;
  std::array<int64_t, kMaxRank> d{};

  Dims() = default;
  Dims(std::initializer_list<int64_t> list);
  int64_t operator[](int i) const { return d[static_cast<size_t>(i)]; }
  int64_t& operator[](int i) { return d[static_cast<size_t>(i)]; }
  int64_t product() const;
  friend bool operator==(const Dims& a, const Dims& b) {
    if (a.rank != b.rank) return false;
    for (int i = 0; i < a.rank; ++i)
      if (a[i] != b[i]) return false;
    return true;
  }
  std::string text() const;  // "[2, 3, 4]"
};

Dims contiguous_strides(const Dims& shape);

namespace detail {

template <typename Pointer>  // const void* or void*
struct BasicTensorRef {
  Pointer data = nullptr;
  DType dtype = DType::kF32;
  Dims shape;
  Dims strides;  // in elements
  Device device;

  BasicTensorRef() = default;
  BasicTensorRef(Pointer data_, DType dtype_, const Dims& shape_, Device device_)
      : data(data_), dtype(dtype_), shape(shape_), strides(contiguous_strides(shape_)), device(device_) {}
  BasicTensorRef(Pointer data_, DType dtype_, const Dims& shape_, const Dims& strides_, Device device_)
      : data(data_), dtype(dtype_), shape(shape_), strides(strides_), device(device_) {}

  bool empty() const { return data == nullptr; }
  int rank() const { return shape.rank; }
  int64_t size(int dim) const { return shape[dim < 0 ? shape.rank + dim : dim]; }
  int64_t stride(int dim) const { return strides[dim < 0 ? shape.rank + dim : dim]; }
  int64_t numel() const { return shape.product(); }
  size_t bytes() const { return static_cast<size_t>(numel()) * dtype_size(dtype); }
  bool contiguous() const {
    const Dims packed = contiguous_strides(shape);
    for (int i = 0; i < shape.rank; ++i)
      if (shape[i] > 1 && strides[i] != packed[i]) return false;
    return true;
  }
};

}  // namespace detail

struct TensorRef : detail::BasicTensorRef<const void*> {
  using BasicTensorRef::BasicTensorRef;

  // Pointer to the first element, in the device's memory, as T; throws unless T is the dtype.
  template <typename T>
  const T* as() const {
    check_dtype(DTypeOf<T>::value);
    return static_cast<const T*>(data);
  }
  template <typename T, int Rank>
  TensorView<const T, Rank> view() const;
  // The same elements under another shape; needs a contiguous tensor and an equal element count.
  TensorRef reshape(const Dims& new_shape) const;
  // Elements start..start+length-1 of one dimension.
  TensorRef narrow(int dim, int64_t start, int64_t length) const;
  // Drops one dimension at `index`.
  TensorRef select(int dim, int64_t index) const;
  void check_dtype(DType wanted) const;
};

struct MutTensorRef : detail::BasicTensorRef<void*> {
  using BasicTensorRef::BasicTensorRef;

  operator TensorRef() const { return {data, dtype, shape, strides, device}; }  // NOLINT: implicit on purpose
  template <typename T>
  T* as() const {
    TensorRef(*this).check_dtype(DTypeOf<T>::value);
    return static_cast<T*>(data);
  }
  template <typename T, int Rank>
  TensorView<T, Rank> view() const;
  MutTensorRef reshape(const Dims& new_shape) const;
  // The same memory, packed, for a shape of no more elements: scratch that serves smaller calls.
  MutTensorRef resized(const Dims& new_shape) const;
  MutTensorRef narrow(int dim, int64_t start, int64_t length) const;
  MutTensorRef select(int dim, int64_t index) const;
};

template <typename T, int Rank>
TensorView<const T, Rank> TensorRef::view() const {
  COCA_CHECK(empty() || rank() == Rank, "tensor of shape {} where rank {} is expected", shape.text(), Rank);
  TensorView<const T, Rank> v;
  v.data = as<T>();
  for (int i = 0; i < Rank && !empty(); ++i) {
    v.shape[static_cast<size_t>(i)] = shape[i];
    v.strides[static_cast<size_t>(i)] = strides[i];
  }
  return v;
}

template <typename T, int Rank>
TensorView<T, Rank> MutTensorRef::view() const {
  const TensorView<const T, Rank> v = TensorRef(*this).view<T, Rank>();
  return {const_cast<T*>(v.data), v.shape, v.strides};
}

}  // namespace coca
