// coca/tensor/transfer.h - tensors from the host to a device, back, and within one. What the host writes again and
// again for ops to read is a SentTensor; what it reads again and again is a FetchedTensor. On the CPU both are one
// tensor, and nothing waits.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "coca/tensor/context.h"

namespace coca {

// to = from, both contiguous and of equal shape and type, each on the host or on the context's device. The copy is
// queued in order with other ops and transfers. If one end is on the host, that memory must not change until
// context.memory()->synchronize(). If both ends are on the host, it is done at once.
void transfer(Context&, MutTensorRef to, TensorRef from);

// Copies that are complete on return: on the context's device, and on the host.
Tensor to_device(Context&, TensorRef from);
Tensor to_host(Context&, TensorRef from);
// A contiguous tensor on the context's device; queued.
void set_zero(Context&, MutTensorRef);

// A tensor that the host writes and ops read.
class SentTensor {
 public:
  SentTensor() = default;
  SentTensor(const Dims& shape, DType, DeviceMemory*);

  bool empty() const { return host_.empty(); }
  const Dims& shape() const { return host_.shape(); }
  MutTensorRef host() { return host_.ref(); }
  // Call it after writing: all elements, or the first of them. Queued, but the host may write again at once.
  void send() { send(host_.numel()); }
  void send(int64_t elements);
  TensorRef ref() const { return there_.empty() ? host_.ref() : there_.ref(); }  // for ops

 private:
  Tensor host_, there_;
};

// A copy on the host of what ops have written; its memory is kept for the next. `from` may have any strides, which the
// copy has too.
class FetchedTensor {
 public:
  // Queues a copy. The result is complete after context.memory()->synchronize(), on the CPU at once.
  void queue(Context&, TensorRef from);
  TensorRef ref() const { return ref_; }
  // Waits for the copy. What is on the host already is returned itself, without a copy. Valid until the next call.
  TensorRef now(Context&, TensorRef from);

 private:
  Buffer buffer_;
  size_t bytes_ = 0;
  TensorRef ref_;
};

}  // namespace coca
