// SPDX-License-Identifier: Apache-2.0
#include "coca/tensor/tensor.h"

#include <cstring>

#include "coca/base/sizes.h"

namespace coca {

Tensor::Tensor(const Dims& shape, DType dtype, DeviceMemory* memory, std::string_view what)
    : shape_(shape), dtype_(dtype) {
  for (int i = 0; i < shape.rank; ++i) COCA_CHECK(shape[i] >= 0, "tensor of shape {}: negative extent", shape.text());
  buffer_ =
      allocate(memory,
               static_cast<size_t>(checked_product(
                   shape.text(), {{"elements", shape.product()}, {"bytes", static_cast<int64_t>(dtype_size(dtype))}})),
               what.empty() ? fmt::format("a tensor of shape {} and type {}", shape.text(), dtype_name(dtype))
                            : std::string(what));
}

void Tensor::set_zero() {
  if (empty()) return;
  if (memory())
    memory()->zero(buffer_.get(), ref().bytes());
  else
    std::memset(buffer_.get(), 0, ref().bytes());
}

void Tensor::check_on_host() const {
  COCA_CHECK(!memory(), "tensor of shape {} lies on {}; expected it on the host", shape_.text(), device().text());
}

}  // namespace coca
