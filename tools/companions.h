// tools/companions.h - the files of a model folder beside its weights and config.json.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <filesystem>
#include <string>
#include <vector>

namespace coca::tools {

// Error naming the file if one of those in the folder cannot be read: a broken tokenizer.model, or a .json file that is
// none. For use before anything is written.
void check_companions(const std::filesystem::path& from);

// Tokenizer, chat template and generation defaults, as far as `from` has them and `to` does not. Returns what was
// copied.
std::vector<std::string> copy_companions(const std::filesystem::path& from, const std::filesystem::path& to);

}  // namespace coca::tools
