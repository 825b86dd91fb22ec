// coca/text/chat_choice.h - which chat template a user means.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <filesystem>
#include <optional>
#include <string>

#include "coca/text/chat_template.h"

namespace coca::text {

// "auto": the model folder's, if it has one; one of chat_template_names(); or a file with a template.
std::optional<ChatTemplate> choose_chat_template(const std::string& choice, const std::filesystem::path& model_dir);

}  // namespace coca::text
