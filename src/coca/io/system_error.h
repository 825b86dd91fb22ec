// coca/io/system_error.h - failures of the system as an Error. Internal to io.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <filesystem>

namespace coca::io {

// Error kIo "FILE: WHAT: reason". What is in the way is named in place of the file: a folder that may not be entered, a
// file where a folder is needed.
[[noreturn]] void fail_errno(const std::filesystem::path& file, const char* what, int error);

}  // namespace coca::io
