// SPDX-License-Identifier: Apache-2.0
#include "coca/tensor/context.h"

#include <cstdlib>

namespace coca {

Context::Context(DeviceMemory* memory) : memory_(memory) {
  const char* text = std::getenv("COCA_FORCE_IMPL");
  std::string_view rest = text ? text : "";
  while (!rest.empty()) {
    const size_t comma = rest.find(',');
    const std::string_view item = rest.substr(0, comma);
    const size_t colon = item.find(':');
    COCA_CHECK(colon != std::string_view::npos && colon > 0 && colon + 1 < item.size(),
               "COCA_FORCE_IMPL: \"{}\" is not op:implementation", item);
    force_impl(std::string(item.substr(0, colon)), std::string(item.substr(colon + 1)));
    rest = comma == std::string_view::npos ? "" : rest.substr(comma + 1);
  }
}

void* Context::scratch(size_t bytes, ScratchUser user) {
  Scratch& scratch = scratch_[static_cast<size_t>(user)];
  if (bytes > scratch.bytes || !scratch.buffer) {
    scratch.buffer.reset();
    scratch.bytes = 0;
    scratch.buffer = allocate(memory_, bytes, "the workings of an op");
    scratch.bytes = bytes;
  }
  return scratch.buffer.get();
}

MutTensorRef Context::scratch_tensor(const Dims& shape, DType dtype) {
  return {scratch(static_cast<size_t>(shape.product()) * dtype_size(dtype)), dtype, shape, device()};
}

std::string_view Context::forced_impl(std::string_view op) const {
  const auto it = forced_.find(op);
  return it == forced_.end() ? std::string_view{} : std::string_view(it->second);
}

void Context::force_impl(std::string op, std::string impl) { forced_[std::move(op)] = std::move(impl); }

}  // namespace coca
