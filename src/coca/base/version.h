// coca/base/version.h - version and build of the program, for `coca --version` and every saved run.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string_view>

namespace coca {

std::string_view version();     // "0.1.0"
std::string_view git_commit();  // short hash at configure time, or "unknown"
std::string_view build_type();  // CMAKE_BUILD_TYPE

}  // namespace coca
