// coca/tensor/context.h - what every op gets first: the device, scratch memory, forced implementations and the trace hook.
// One Context serves one caller at a time; several may exist side by side.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <string_view>

#include "coca/tensor/tensor.h"

namespace coca {

// Receives every named intermediate ("layer.3.attn.o"); for verification and the hunt for NaNs.
using TraceHook = std::function<void(std::string_view name, TensorRef value)>;

// Whose scratch: that of an op, which the next op overwrites, or that of an op which calls other ops meanwhile.
enum class ScratchUser : uint8_t { kOp, kCaller };

class Context {
 public:
  explicit Context(DeviceMemory* memory = nullptr);  // null: the CPU. Reads COCA_FORCE_IMPL ("attention:ref,linear:ref") once

  // Where ops run; their operands must lie there.
  Device device() const { return memory_ ? memory_->device() : Device{}; }
  DeviceMemory* memory() const { return memory_; }

  // Scratch of at least `bytes` on the device, 64-byte aligned, contents unspecified; valid until the next call for the same user.
  void* scratch(size_t bytes, ScratchUser user = ScratchUser::kOp);
  MutTensorRef scratch_tensor(const Dims& shape, DType dtype = DType::kF32);

  // Implementation forced for an op ("ref", "cpu", ...), or "" when the op may choose.
  std::string_view forced_impl(std::string_view op) const;
  void force_impl(std::string op, std::string impl);
  const std::map<std::string, std::string, std::less<>>& forced_impls() const { return forced_; }

  void set_trace(TraceHook hook) { trace_ = std::move(hook); }
  bool tracing() const { return static_cast<bool>(trace_); }
  void trace(std::string_view name, TensorRef value) const {
    if (trace_) trace_(name, value);
  }

 private:
  struct Scratch {
    Buffer buffer;
    size_t bytes = 0;
  };
  DeviceMemory* memory_;
  std::array<Scratch, 2> scratch_;  // by ScratchUser
  std::map<std::string, std::string, std::less<>> forced_;
  TraceHook trace_;
};

}  // namespace coca
