// coca/kernels/cpu/target.h - the SIMD targets of the Highway kernels: list them, see the active one, limit them.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace coca::cpu {

std::vector<std::string> supported_targets();  // of this CPU and build, best first
std::string active_target();
bool select_target(std::string_view name);  // false when not supported; affects the whole process

}  // namespace coca::cpu
