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
  if (context.memory()) context.memory()->synchronize();
  return to;
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

}  // namespace coca
