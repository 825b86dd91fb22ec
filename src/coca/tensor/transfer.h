// coca/tensor/transfer.h - tensors from the host to a device, back, and within one.
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

}  // namespace coca
