// coca/tensor/transfer.h - tensors from the host to a device, back, and within one.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "coca/tensor/context.h"

namespace coca {

// to = from, both contiguous and of equal shape and type, each on the host or on the context's device. Queued behind what ops
// and transfers were asked before, and ahead of what is asked next: where one end is the host's, that memory must stay as it
// is until context.memory()->synchronize(). On the host alone it is done at once.
void transfer(Context&, MutTensorRef to, TensorRef from);

// Copies which are complete when they return: on the context's device, on the host.
Tensor to_device(Context&, TensorRef from);
Tensor to_host(Context&, TensorRef from);

}  // namespace coca
