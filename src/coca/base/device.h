// coca/base/device.h - the processor in whose memory a tensor lies, or on which an op runs.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "coca/base/enum_names.h"

namespace coca {

enum class DeviceKind : uint8_t { kCpu, kCuda };

struct Device {
  DeviceKind kind = DeviceKind::kCpu;
  int index = 0;  // of the GPU, in CUDA's order; 0 for the CPU

  bool is_cpu() const { return kind == DeviceKind::kCpu; }
  std::string text() const;  // "cpu", "cuda:1"
  friend bool operator==(const Device&, const Device&) = default;
};

// Memory of the host.
inline constexpr Device kHost{};

// "cpu", "cuda" (the first GPU) or "cuda:1"; throws Error naming the text for anything else. `others`: what the caller
// takes besides, for the message: "auto, ".
Device parse_device(std::string_view text, std::string_view others = {});

}  // namespace coca

COCA_ENUM_NAMES(coca::DeviceKind, "device", {coca::DeviceKind::kCpu, "cpu"}, {coca::DeviceKind::kCuda, "cuda"})
