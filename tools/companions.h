// tools/companions.h - the files of a model folder beside its weights and config.json.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <filesystem>
#include <string>
#include <vector>

namespace coca::tools {

// Tokenizer, chat template and generation defaults, as far as `from` has them and `to` does not. Returns what was
// copied.
std::vector<std::string> copy_companions(const std::filesystem::path& from, const std::filesystem::path& to);

}  // namespace coca::tools
