// SPDX-License-Identifier: Apache-2.0
#include "coca/tensor/context.h"

#include <algorithm>
#include <utility>

namespace coca {

namespace {

struct Defaults {
  ContextOptions options;
  DeviceMemory* memory = nullptr;
};
Defaults& defaults() {
  static Defaults defaults;
  return defaults;
}

}  // namespace

std::map<std::string, std::string, std::less<>> parse_forced(std::string_view source, std::string_view text) {
  std::map<std::string, std::string, std::less<>> forced;
  for (std::string_view rest = text; !rest.empty();) {
    const size_t comma = rest.find(',');
    const std::string_view item = rest.substr(0, comma);
    const size_t colon = item.find(':');
    COCA_CHECK(colon != std::string_view::npos && colon > 0 && colon + 1 < item.size(),
               "{}: \"{}\" is not op:implementation", source, item);
    forced[std::string(item.substr(0, colon))] = std::string(item.substr(colon + 1));
    rest = comma == std::string_view::npos ? "" : rest.substr(comma + 1);
  }
  return forced;
}

void set_default_context_options(ContextOptions options, DeviceMemory* memory) {
  defaults() = {std::move(options), memory};
}

Context::Context() : Context(defaults().memory) {}

Context::Context(DeviceMemory* memory) : Context(memory, defaults().options) {}

Context::Context(DeviceMemory* memory, ContextOptions options) : memory_(memory), options_(std::move(options)) {}

void* Context::scratch(size_t bytes, ScratchUser user) {
  Scratch& scratch = scratch_[static_cast<size_t>(user)];
  if (bytes > scratch.bytes || !scratch.buffer) {
    // On a device allocating waits for all queued work, so what grows little by little gets room to grow.
    if (memory_) bytes = std::max(bytes, scratch.bytes + scratch.bytes / 4);
    scratch.buffer.reset();
    scratch.bytes = 0;
    scratch.buffer = allocate(memory_, bytes, "the scratch memory of an op");
    scratch.bytes = bytes;
  }
  return scratch.buffer.get();
}

MutTensorRef Context::scratch_tensor(const Dims& shape, DType dtype, ScratchUser user) {
  return {scratch(static_cast<size_t>(shape.product()) * dtype_size(dtype), user), dtype, shape, device()};
}

std::string_view Context::forced_impl(std::string_view op) const {
  const auto it = options_.forced.find(op);
  return it == options_.forced.end() ? std::string_view{} : std::string_view(it->second);
}

void Context::force_impl(std::string op, std::string impl) { options_.forced[std::move(op)] = std::move(impl); }

}  // namespace coca
