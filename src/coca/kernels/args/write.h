// coca/kernels/args/write.h - whether an output replaces what was there or adds to it.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

namespace coca::ops {

enum class Write : uint8_t { kAssign, kAccumulate };

}  // namespace coca::ops
