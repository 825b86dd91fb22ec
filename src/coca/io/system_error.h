// coca/io/system_error.h - what the system refused, as an Error; inside this module.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <filesystem>

namespace coca::io {

// Error kIo "FILE: WHAT: reason". Where a folder on the way may not be entered, it is named in place of the file.
[[noreturn]] void fail_errno(const std::filesystem::path& file, const char* what, int error);

}  // namespace coca::io
