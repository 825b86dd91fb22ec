// tools/describe.h - the commands and flags of the program as data, read from the objects that --help prints.
// Completions and the manual page are made from them.
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

  std::vector<std::string> names;  // "-V" "--version"; of an argument without a flag its label, "DIR"
  bool positional = false;
  Takes takes = Takes::kValue;
  bool list = false;                // values may be separated by commas, and the flag given several times
  bool path = false;                // the value may be a file or folder
  std::vector<std::string> values;  // names that the value may have; with `path` or `open` it may be another
  bool open = false;
  std::string type, fallback, text, group;
};

struct CommandDescription {
  std::string path;  // "train", "eval ppl"; "" of the program itself
  std::string text, footer;
  std::vector<std::string> commands;   // its own: "ppl", "ruler"
  std::vector<FlagDescription> flags;  // without the program's, which every command takes
};

// The program first, then every command, in front of its own commands.
std::vector<CommandDescription> describe(const CLI::App& root);

enum class Shell : uint8_t { kBash, kZsh, kFish };

// A script that the shell reads to complete commands, flags and values.
std::string completion_script(Shell, const std::vector<CommandDescription>&);
// In the man(7) macros of roff.
std::string manual_page(const std::vector<CommandDescription>&);

}  // namespace coca::tools

COCA_ENUM_NAMES(coca::tools::Shell, "shell", {coca::tools::Shell::kBash, "bash"}, {coca::tools::Shell::kZsh, "zsh"},
                {coca::tools::Shell::kFish, "fish"})
