// coca/text/chat_choice.h - which chat template a user means.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <filesystem>
#include <optional>
#include <string>

#include "coca/text/chat_template.h"

namespace coca::text {

// Variables for a template: an object in JSON; as a flag, given once for each, "name=value", where a value that is not
// JSON is a text.
struct ChatVariables {
  nlohmann::ordered_json values = nlohmann::ordered_json::object();

  nlohmann::ordered_json to_option_json() const { return values; }
  void from_option_json(const nlohmann::json& value, const std::string& where);
  void from_option_text(std::string_view flag, const std::string& text);
};

// The variables that a model was trained with, in its folder or in the adapter's.
inline constexpr const char* kChatVariablesFile = "chat_variables.json";
// Those that belong to the template which choose_chat_template() takes from a folder; none for other choices. Error
// kBadFile if the file is no JSON object.
nlohmann::ordered_json saved_chat_variables(const std::string& choice, const std::filesystem::path& model_dir,
                                            const std::filesystem::path& adapter_dir = {});

// "auto": that of the adapter's folder (empty: no adapter), else the model folder's, if either has one; one of
// chat_template_names(); or a file with a template.
std::optional<ChatTemplate> choose_chat_template(const std::string& choice, const std::filesystem::path& model_dir,
                                                 const std::filesystem::path& adapter_dir = {});

}  // namespace coca::text
