// SPDX-License-Identifier: Apache-2.0
#include "coca/text/chat_choice.h"

#include <algorithm>

#include "coca/base/error.h"
#include "coca/base/suggest.h"
#include "coca/io/fs.h"
#include "coca/io/json_file.h"

namespace coca::text {

void ChatVariables::from_option_json(const nlohmann::json& value, const std::string& where) {
  COCA_CHECK(value.is_object(), "{} is {}; expected an object of names and values", where, value.type_name());
  values = value;
}

void ChatVariables::from_option_text(std::string_view flag, const std::string& text) {
  const size_t equals = text.find('=');
  COCA_CHECK(equals != std::string::npos && equals > 0, "{}: \"{}\"; expected NAME=VALUE, as in enable_thinking=false",
             flag, text);
  auto value = nlohmann::ordered_json::parse(text.substr(equals + 1), nullptr, false);
  values[text.substr(0, equals)] =
      value.is_discarded() ? nlohmann::ordered_json(text.substr(equals + 1)) : std::move(value);
}

nlohmann::ordered_json saved_chat_variables(const std::string& choice, const std::filesystem::path& model_dir,
                                            const std::filesystem::path& adapter_dir) {
  nlohmann::ordered_json values = nlohmann::ordered_json::object();
  if (choice != "auto") return values;
  const bool adapters =
      !adapter_dir.empty() && (io::exists(adapter_dir / kChatVariablesFile) || load_chat_template(adapter_dir));
  const std::filesystem::path file = (adapters ? adapter_dir : model_dir) / kChatVariablesFile;
  if (io::exists(file)) values = io::parse_ordered_json(io::read_file(file), file.string());
  COCA_CHECK_AS(kBadFile, values.is_object(), "{}: found {}; expected an object of names and values", file.string(),
                values.type_name());
  return values;
}

std::optional<ChatTemplate> choose_chat_template(const std::string& choice, const std::filesystem::path& model_dir,
                                                 const std::filesystem::path& adapter_dir) {
  if (choice == "auto") {
    std::optional<ChatTemplate> own;
    if (!adapter_dir.empty()) own = load_chat_template(adapter_dir);
    return own ? std::move(own) : load_chat_template(model_dir);
  }
  const std::vector<std::string> names = chat_template_names();
  if (std::find(names.begin(), names.end(), choice) != names.end()) return ChatTemplate::named(choice);
  COCA_CHECK(choice.ends_with(".jinja") || io::is_regular_file(choice),
             "chat_template is \"{}\"; expected a file, or one of auto, {}{}", choice, fmt::join(names, ", "),
             did_you_mean(choice, names));
  ChatTemplate made = load_template_file(choice);
  set_folder_tokens(made, model_dir);
  return made;
}

}  // namespace coca::text
