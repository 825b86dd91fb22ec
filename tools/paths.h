// tools/paths.h - the list of flags that name files and folders, and the checks made on them before a command starts.
// Every flag in the list of paths.cc is checked in each command that has it, and its --help says PATH. A test reads the
// help texts and fails if a flag takes TEXT and is not known to be something other than a path.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

namespace coca::tools {

// A flag as the user typed it.
struct TypedFlag {
  std::vector<std::string> names;   // long names without dashes
  std::string label;                // its name in --help if it may be given without the flag, and was not given with it
  std::vector<std::string> values;  // empty: not typed
};

// A flag's values after --config and defaults are applied. Empty texts mean that it is not given.
struct SettledFlag {
  std::string flag;
  std::vector<std::string> values;
};

// Throws an error that names the flags and the path if
//   a path is empty, or an input does not exist;
//   an output file's folder does not exist, or the output is a folder or cannot be written;
//   a result in a folder of --text has a name that would make later runs read it as text;
//   an output would replace an input, or two outputs are the same file, also through links and hard links.
// Folders of texts are searched for the files that would be read. Streams (/dev/null, a FIFO, >(...)) may be given
// several times. Flags that are not in `settled` are taken as typed.
void check_paths(const std::vector<TypedFlag>& typed, const std::vector<SettledFlag>& settled);

// Whether the flag with this long name takes a path and --help therefore says PATH.
bool takes_path(std::string_view name);

// Throws an error if `output` lies in the folder `input`.
void check_outside(std::string_view output_flag, const std::filesystem::path& output, std::string_view input_flag,
                   const std::filesystem::path& input);
// Throws an error if the output folder is an existing file.
void check_is_no_file(std::string_view flag, const std::filesystem::path& folder);
// Throws an error if both are the same file or folder. For files that a command writes inside its --out.
void check_apart(std::string_view output_flag, const std::filesystem::path& output, std::string_view input_flag,
                 const std::filesystem::path& input);

}  // namespace coca::tools
