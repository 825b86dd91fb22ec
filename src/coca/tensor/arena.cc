// SPDX-License-Identifier: Apache-2.0
#include "coca/tensor/arena.h"

#include <algorithm>
#include <utility>

namespace coca {

void ArenaPlan::add(std::string name, const Dims& shape, DType dtype, MutTensorRef* slot) {
  const size_t bytes = static_cast<size_t>(shape.product()) * dtype_size(dtype);
  entries_.push_back({std::move(name), cursor_, shape, dtype, slot});
  cursor_ += (bytes + 63) / 64 * 64;
  peak_ = std::max(peak_, cursor_);
}

Arena::Arena(const ArenaPlan& plan) { bind(plan); }

void Arena::bind(const ArenaPlan& plan) {
  if (plan.bytes() > capacity_ || !buffer_) {
    buffer_.reset();  // free first: two large blocks at once could be more than the machine has
    buffer_ = allocate_aligned(plan.bytes());
    capacity_ = plan.bytes();
  }
  for (const ArenaPlan::Entry& entry : plan.entries())
    *entry.slot = MutTensorRef(buffer_.get() + entry.offset, entry.dtype, entry.shape);
}

}  // namespace coca
