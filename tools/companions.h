// tools/companions.h - the files in a model folder other than its weights and config.json.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "coca/text/chat_template.h"

namespace coca::tools {

// Throws an error that names the file if one of them cannot be read: a damaged tokenizer.model or an invalid .json
// file. Call it before anything is written.
void check_companions(const std::filesystem::path& from);

// Writes chat_template.jinja, which takes precedence over other files with a template.
void save_chat_template(const text::ChatTemplate&, const std::filesystem::path& to);

// Writes chat_variables.json (text/chat_choice.h) if there are any variables, or if copy_companions(from, to) would
// bring others along.
void save_chat_variables(const nlohmann::ordered_json& values, const std::filesystem::path& from,
                         const std::filesystem::path& to);

// Copies the tokenizer, the chat template, the generation defaults and the passkey task that `from` has and `to` lacks.
// Returns the names of the files copied.
std::vector<std::string> copy_companions(const std::filesystem::path& from, const std::filesystem::path& to);

}  // namespace coca::tools
