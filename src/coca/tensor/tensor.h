// coca/tensor/tensor.h - a tensor that owns its memory (aligned, zero-filled), on the host or a device. Move-only.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <span>

#include "coca/tensor/device_memory.h"
#include "coca/tensor/tensor_ref.h"

namespace coca {

class Tensor {
 public:
  Tensor() = default;
  // `memory` null: on the host. If there is not enough memory, throws Error (kIo) naming `what`, or else the shape, and
  // the size.
  explicit Tensor(const Dims& shape, DType dtype = DType::kF32, DeviceMemory* memory = nullptr,
                  std::string_view what = {});

  MutTensorRef ref() { return {buffer_.get(), dtype_, shape_, device()}; }
  TensorRef ref() const { return {buffer_.get(), dtype_, shape_, device()}; }
  operator MutTensorRef() { return ref(); }     // NOLINT: implicit on purpose
  operator TensorRef() const { return ref(); }  // NOLINT
  operator TensorRef() { return ref(); }        // NOLINT

  const Dims& shape() const { return shape_; }
  DType dtype() const { return dtype_; }
  DeviceMemory* memory() const { return buffer_.get_deleter().memory; }  // null: the host's
  Device device() const { return memory() ? memory()->device() : Device{}; }
  int64_t size(int dim) const { return ref().size(dim); }
  int64_t numel() const { return shape_.product(); }
  bool empty() const { return buffer_ == nullptr; }
  void set_zero();  // on a device queued

  // The elements; throws unless T is the dtype and the tensor is on the host (tensor/transfer.h copies it there).
  template <typename T>
  std::span<T> values() {
    check_on_host();
    return {ref().as<T>(), static_cast<size_t>(numel())};
  }
  template <typename T>
  std::span<const T> values() const {
    check_on_host();
    return {ref().as<T>(), static_cast<size_t>(numel())};
  }

 private:
  void check_on_host() const;

  Dims shape_;
  DType dtype_ = DType::kF32;
  Buffer buffer_;
};

}  // namespace coca
