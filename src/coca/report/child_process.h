// coca/report/child_process.h - runs one program to its end: no shell, input and output through unnamed
// files.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace coca::report {

struct ProcessResult {
  int exit_code = 0;  // 128 + signal when a signal ended it
  std::string out, err;
};

// arguments[0] is looked up in PATH. Throws Error kIo when the program cannot be started.
ProcessResult run_process(const std::vector<std::string>& arguments, std::string_view input);

// Whether PATH names an executable file `program`.
bool program_in_path(const std::string& program);

}  // namespace coca::report
