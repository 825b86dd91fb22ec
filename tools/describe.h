// tools/describe.h - the commands and flags of the program as data, taken from the objects that print --help.
// Completions and the manual page are generated from it.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "coca/base/enum_names.h"

namespace CLI {
class App;
}

namespace coca::tools {

struct FlagDescription {
  enum class Takes : uint8_t { kNothing, kPerhapsBool, kValue };

  std::vector<std::string> names;  // "-V", "--version"; for a positional argument its label, "DIR"
  bool positional = false;
  Takes takes = Takes::kValue;
  bool list = false;                // several values, separated by commas or given with repeated flags
  bool path = false;                // the value may be a file or folder
  std::vector<std::string> values;  // known values; with `path` or `open` others are allowed
  bool open = false;
  std::string type, fallback, text, group;
};

struct CommandDescription {
  std::string path;  // "train", "eval ppl"; "" for the program itself
  std::string text, footer;
  std::vector<std::string> commands;   // its subcommands: "ppl", "ruler"
  std::vector<FlagDescription> flags;  // without the program's own, which every command accepts
};

// The program first, then every command followed by its subcommands.
std::vector<CommandDescription> describe(const CLI::App& root);

enum class Shell : uint8_t { kBash, kZsh, kFish };

// A script with which the shell completes commands, flags and values.
std::string completion_script(Shell, const std::vector<CommandDescription>&);
// The manual page in roff, using the man(7) macros.
std::string manual_page(const std::vector<CommandDescription>&);

}  // namespace coca::tools

COCA_ENUM_NAMES(coca::tools::Shell, "shell", {coca::tools::Shell::kBash, "bash"}, {coca::tools::Shell::kZsh, "zsh"},
                {coca::tools::Shell::kFish, "fish"})
