// tools/arguments.h - the command line before it is parsed: old names, forgotten values, misspelt flags and commands.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace CLI {
class App;
}

namespace coca::tools {

// "train", "eval ppl"; "" of the program itself.
std::string command_path(const CLI::App&);

// The present name of what `command` once called `name`, flags without their dashes; "" where it has no other.
std::string_view renamed(std::string_view command, std::string_view name);

struct Arguments {
  std::vector<std::string> args;   // every flag is one of the command's, and every value follows its flag
  std::vector<std::string> notes;  // for the user: old names, values that do not count
};

// `args` without the program's name. "help X" becomes "X --help". Error, for one that is neither flag, value nor
// command, with the nearest name; it begins with what was found. `command` is set to the command as far as it was
// understood.
Arguments understand(const CLI::App& root, const std::vector<std::string>& args, std::string& command);

}  // namespace coca::tools
