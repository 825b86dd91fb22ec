// SPDX-License-Identifier: Apache-2.0
#include "coca/tensor/arena.h"

#include <algorithm>
#include <utility>

#include "coca/base/count.h"
#include "coca/base/sizes.h"

namespace coca {

void ArenaPlan::add(std::string name, const Dims& shape, DType dtype, MutTensorRef* slot) {
  const auto bytes = static_cast<size_t>(
      checked_product(name, {{"elements", shape.product()}, {"bytes", static_cast<int64_t>(dtype_size(dtype))}}));
  COCA_CHECK_AS(kIo, cursor_ + bytes < size_t{1} << 62,
                "out of memory: {} {} and the tensors before it need more than 2^62 bytes", name, shape.text());
  entries_.push_back({std::move(name), cursor_, shape, dtype, slot});
  cursor_ += (bytes + 63) / 64 * 64;
  peak_ = std::max(peak_, cursor_);
}

std::string ArenaPlan::text() const {
  const auto bytes = [](const Entry& e) { return static_cast<size_t>(e.shape.product()) * dtype_size(e.dtype); };
  const auto largest = std::max_element(entries_.begin(), entries_.end(),
                                        [&](const Entry& a, const Entry& b) { return bytes(a) < bytes(b); });
  if (largest == entries_.end()) return "no activations";
  return fmt::format("{}, the largest {} {} {}", counted(entries_.size(), "activation"), largest->name,
                     largest->shape.text(), dtype_name(largest->dtype));
}

Arena::Arena(const ArenaPlan& plan, DeviceMemory* memory) : memory_(memory) { bind(plan); }

void Arena::bind(const ArenaPlan& plan) {
  if (plan.bytes() > capacity_ || !buffer_) {
    buffer_.reset();  // free first: two large blocks at once could be more than the machine has
    capacity_ = 0;
    buffer_ = allocate(memory_, plan.bytes(), plan.text() + " (a smaller batch or shorter sequences need less)");
    capacity_ = plan.bytes();
  }
  const Device device = memory_ ? memory_->device() : Device{};
  for (const ArenaPlan::Entry& entry : plan.entries())
    *entry.slot = MutTensorRef(buffer_.get() + entry.offset, entry.dtype, entry.shape, device);
}

}  // namespace coca
