// coca/tensor/tensor.h - a tensor that owns its memory (64-byte aligned, zero-filled). Move-only.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <memory>
#include <span>

#include "coca/tensor/tensor_ref.h"

namespace coca {

// 64-byte aligned zero-filled memory; throws Error naming the size when the system has none left.
struct AlignedDeleter {
  void operator()(void* p) const;
};
using AlignedBuffer = std::unique_ptr<std::byte, AlignedDeleter>;
AlignedBuffer allocate_aligned(size_t bytes);

class Tensor {
 public:
  Tensor() = default;
  explicit Tensor(const Dims& shape, DType dtype = DType::kF32);

  MutTensorRef ref() { return {buffer_.get(), dtype_, shape_}; }
  TensorRef ref() const { return {buffer_.get(), dtype_, shape_}; }
  operator MutTensorRef() { return ref(); }   // NOLINT: implicit on purpose
  operator TensorRef() const { return ref(); }  // NOLINT
  operator TensorRef() { return ref(); }        // NOLINT

  const Dims& shape() const { return shape_; }
  DType dtype() const { return dtype_; }
  int64_t size(int dim) const { return ref().size(dim); }
  int64_t numel() const { return shape_.product(); }
  bool empty() const { return buffer_ == nullptr; }

  template <typename T>
  std::span<T> values() {
    return {ref().as<T>(), static_cast<size_t>(numel())};
  }
  template <typename T>
  std::span<const T> values() const {
    return {ref().as<T>(), static_cast<size_t>(numel())};
  }

 private:
  Dims shape_;
  DType dtype_ = DType::kF32;
  AlignedBuffer buffer_;
};

}  // namespace coca
