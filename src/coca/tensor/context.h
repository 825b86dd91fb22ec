// coca/tensor/context.h - the first argument of every op: device, scratch memory, forced implementations, trace hook.
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

// Receives every named intermediate ("layer.3.attn.o"), for verification and to locate NaNs.
using TraceHook = std::function<void(std::string_view name, TensorRef value)>;

// Options that a Context is given and keeps.
struct ContextOptions {
  // Forced implementations, by op: {"attention", "ref"}. ops::check_forced compares them with the table of ops.
  std::map<std::string, std::string, std::less<>> forced = {};
  int threads = 0;  // number of threads that compute for the Context; 0: as for the process (base/parallel.h)
};
// Parses "attention:ref,linear:ref"; for any other form throws Error (kInvalidArgument) naming `source`, a flag or
// variable.
std::map<std::string, std::string, std::less<>> parse_forced(std::string_view source, std::string_view text);

// Sets the options of Contexts that are made without any, and the device of those made without one. Programs call it
// once, at their start; before that, the options are empty and the device is the CPU.
void set_default_context_options(ContextOptions, DeviceMemory* = nullptr);

// Users of scratch memory. kOp: any op; the next op overwrites it. The others stay valid while their user calls other
// ops.
enum class ScratchUser : uint8_t { kOp, kLora, kLogits, kDilated, kFoldedT, kProduct, kIds, kLoss };
inline constexpr size_t kScratchUsers = 8;

class Context {
 public:
  Context();                               // on the default device, with the default options
  explicit Context(DeviceMemory* memory);  // null: the CPU; with the default options
  Context(DeviceMemory* memory, ContextOptions options);

  // The device on which ops run; their operands must lie there.
  Device device() const { return memory_ ? memory_->device() : Device{}; }
  DeviceMemory* memory() const { return memory_; }
  // Returns when everything queued on the device is done; on the CPU nothing is queued.
  void synchronize() const {
    if (memory_) memory_->synchronize();
  }
  int threads() const { return options_.threads; }  // 0: as many as the process uses

  // Scratch of at least `bytes` on the device, 64-byte aligned, contents unspecified; valid until the next call for the
  // same user.
  void* scratch(size_t bytes, ScratchUser user = ScratchUser::kOp);
  MutTensorRef scratch_tensor(const Dims& shape, DType dtype = DType::kF32, ScratchUser user = ScratchUser::kOp);

  // Implementation forced for an op ("ref", "cpu", ...), or "" when the op may choose.
  std::string_view forced_impl(std::string_view op) const;
  void force_impl(std::string op, std::string impl);
  const std::map<std::string, std::string, std::less<>>& forced_impls() const { return options_.forced; }

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
  std::array<Scratch, kScratchUsers> scratch_;  // indexed by ScratchUser
  ContextOptions options_;
  TraceHook trace_;
};

}  // namespace coca
