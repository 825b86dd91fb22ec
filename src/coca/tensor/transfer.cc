// SPDX-License-Identifier: Apache-2.0
#include "coca/tensor/transfer.h"

#include <cstring>

namespace coca {

namespace {

void check_end(const Context& context, const char* name, TensorRef t) {
  COCA_CHECK(t.device.is_cpu() || t.device == context.device(), "[transfer] {} {} lies on {}; expected cpu{}", name,
             t.shape.text(), t.device.text(), context.memory() ? " or " + context.device().text() : "");
  COCA_CHECK(t.contiguous(), "[transfer] {} {} must be contiguous", name, t.shape.text());
  COCA_CHECK(!t.empty() || t.numel() == 0, "[transfer] {} {} is missing", name, t.shape.text());
}

Tensor complete_copy(Context& context, TensorRef from, DeviceMemory* memory) {
  Tensor to(from.shape, from.dtype, memory);
  transfer(context, to, from);
  context.synchronize();
  return to;
}

// From the first element to the last, with what strides leave out in between.
size_t spanned_bytes(TensorRef t) {
  if (t.numel() == 0) return 0;
  int64_t last = 0;
  for (int i = 0; i < t.rank(); ++i) last += (t.size(i) - 1) * t.stride(i);
  return static_cast<size_t>(last + 1) * dtype_size(t.dtype);
}

}  // namespace

void transfer(Context& context, MutTensorRef to, TensorRef from) {
  check_end(context, "to", to);
  check_end(context, "from", from);
  COCA_CHECK(to.shape == from.shape && to.dtype == from.dtype, "[transfer] to is {} {}, from {} {}; expected the same",
             to.shape.text(), dtype_name(to.dtype), from.shape.text(), dtype_name(from.dtype));
  const size_t bytes = from.bytes();
  if (bytes == 0) return;
  DeviceMemory* memory = context.memory();
  if (to.device.is_cpu() && from.device.is_cpu())
    std::memmove(to.data, from.data, bytes);
  else if (to.device.is_cpu())
    memory->download(to.data, from.data, bytes);
  else if (from.device.is_cpu())
    memory->upload(to.data, from.data, bytes);
  else
    memory->copy(to.data, from.data, bytes);
}

Tensor to_device(Context& context, TensorRef from) { return complete_copy(context, from, context.memory()); }
Tensor to_host(Context& context, TensorRef from) { return complete_copy(context, from, nullptr); }

void set_zero(Context& context, MutTensorRef t) {
  check_end(context, "t", t);
  if (t.device.is_cpu())
    std::memset(t.data, 0, t.bytes());
  else
    context.memory()->zero(t.data, t.bytes());
}

SentTensor::SentTensor(const Dims& shape, DType dtype, DeviceMemory* memory) : host_(shape, dtype) {
  if (memory) there_ = Tensor(shape, dtype, memory);
}

void SentTensor::send(int64_t elements) {
  if (there_.empty()) return;
  there_.memory()->upload_copy(there_.ref().data, host_.ref().data,
                               static_cast<size_t>(elements) * dtype_size(host_.dtype()));
}

void FetchedTensor::queue(Context& context, TensorRef from) {
  const size_t bytes = spanned_bytes(from);
  if (bytes > bytes_ || !buffer_) {
    buffer_ = allocate_pinned(context.memory(), bytes, "a copy of a tensor of shape " + from.shape.text());
    bytes_ = bytes;
  }
  if (from.device.is_cpu())
    std::memcpy(buffer_.get(), from.data, bytes);
  else
    context.memory()->download(buffer_.get(), from.data, bytes);
  ref_ = TensorRef(buffer_.get(), from.dtype, from.shape, from.strides, kHost);
}

TensorRef FetchedTensor::now(Context& context, TensorRef from) {
  if (from.device.is_cpu()) return from;
  queue(context, from);
  context.synchronize();
  return ref_;
}

}  // namespace coca
