// SPDX-License-Identifier: Apache-2.0
#include "coca/text/chat_choice.h"

#include <algorithm>

#include "coca/base/error.h"
#include "coca/io/fs.h"

namespace coca::text {

std::optional<ChatTemplate> choose_chat_template(const std::string& choice, const std::filesystem::path& model_dir) {
  if (choice == "auto") return load_chat_template(model_dir);
  const std::vector<std::string> names = chat_template_names();
  if (std::find(names.begin(), names.end(), choice) != names.end()) return ChatTemplate::named(choice);
  COCA_CHECK(choice.ends_with(".jinja") || io::is_regular_file(choice), "chat template \"{}\" is neither a file nor one of auto, {}", choice,
             fmt::join(names, ", "));
  return ChatTemplate::from_source(io::read_file(choice), choice);
}

}  // namespace coca::text
