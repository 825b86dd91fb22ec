// tools/paths.h - the flags that name files and folders, in one list, and what is checked of them before a command
// starts. A flag whose name is in the list of paths.cc is checked in every command that has it, and --help says PATH of
// it. A test reads that help and fails where a flag that takes a TEXT is not known to be no path.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

namespace coca::tools {

// A flag of a command as it was typed.
struct TypedFlag {
  std::vector<std::string>
      names;  // its long names, without dashes; of what stands without a flag, the name that --help gives it
  bool positional = false;
  std::vector<std::string> values;  // none: not typed
};

// What a flag holds once --config and defaults are in: empty texts mean that it is not given.
struct SettledFlag {
  std::string flag;
  std::vector<std::string> values;
};

// Errors that name the flags and the path, where
//   a path is given as "", or what is to be read is not there;
//   an output file is to lie in a folder that does not exist, or is a folder, or cannot be written;
//   a result would be read as text the next time, as it lies in a folder of --text and is called so;
//   an output would replace an input, or two outputs are one file, whatever the spelling: through links and hard links
//   too.
// Folders given as text are searched for the files that would be read. Streams (/dev/null, a FIFO, >(...)) may be given
// several times. Flags that are not in `settled` count as they were typed.
void check_paths(const std::vector<TypedFlag>& typed, const std::vector<SettledFlag>& settled);

// Whether the flag of this long name takes a path, so that --help says PATH.
bool takes_path(std::string_view name);

// Error where `output` lies in the folder `input`.
void check_outside(std::string_view output_flag, const std::filesystem::path& output, std::string_view input_flag,
                   const std::filesystem::path& input);
// Error where the folder to write is a file.
void check_is_no_file(std::string_view flag, const std::filesystem::path& folder);
// Error where both are the same file or folder; for what a command writes below its --out.
void check_apart(std::string_view output_flag, const std::filesystem::path& output, std::string_view input_flag,
                 const std::filesystem::path& input);

}  // namespace coca::tools
