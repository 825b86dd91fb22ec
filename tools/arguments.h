// tools/arguments.h - the command line before parsing: old names, missing values, misspelt flags and commands.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace CLI {
class App;
}

namespace coca::tools {

// "train", "eval ppl"; "" for the program itself.
std::string command_path(const CLI::App&);

// The current name of the option that `command` used to call `name`, without dashes; "" if it has not been renamed.
std::string_view renamed(std::string_view command, std::string_view name);

struct Arguments {
  std::vector<std::string> args;   // every flag belongs to the command, and every value follows its flag
  std::vector<std::string> notes;  // for the user: old names used, values overridden
  std::vector<std::string> flags;  // those that were typed with a value: "--model"
};

// `args` does not include the program's name. "help X" becomes "X --help". An argument that is neither a flag, a value
// nor a command is an error, which begins with that argument and suggests the nearest name. `command` is set to the
// part of the command's name that was understood, also when an error is thrown.
Arguments understand(const CLI::App& root, const std::vector<std::string>& args, std::string& command);

}  // namespace coca::tools
