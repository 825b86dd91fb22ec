// SPDX-License-Identifier: Apache-2.0
#include "companions.h"

#include "coca/io/fs.h"
#include "coca/io/json_file.h"
#include "coca/text/chat_choice.h"
#include "coca/text/tokenizer_import.h"

namespace coca::tools {

namespace fs = std::filesystem;

namespace {

constexpr const char* kCompanions[] = {"tokenizer.json",
                                       "tokenizer.model",
                                       "tokenizer_config.json",
                                       "special_tokens_map.json",
                                       "added_tokens.json",
                                       "vocab.json",
                                       "merges.txt",
                                       "chat_template.jinja",
                                       "chat_template.json",
                                       text::kChatVariablesFile,
                                       "passkey.json",
                                       "coca_tokenizer.json",
                                       "generation_config.json"};

}  // namespace

void check_companions(const fs::path& from) {
  for (const char* name : kCompanions) {
    if (!io::is_regular_file(from / name)) continue;
    const std::string content = io::read_file(from / name);
    const bool json = fs::path(name).extension() == ".json";
    if (json && !nlohmann::json::accept(content))
      io::parse_json(content, (from / name).string());  // its error names the position
    if (fs::path(name).extension() == ".model") text::load_tokenizer(from / name);
  }
}

void save_chat_template(const text::ChatTemplate& chat, const fs::path& to) {
  io::write_file_atomic(to / "chat_template.jinja", chat.source_with_tokens());
}

void save_chat_variables(const nlohmann::ordered_json& values, const fs::path& from, const fs::path& to) {
  if (!values.empty() || io::exists(from / text::kChatVariablesFile))
    io::write_json(to / text::kChatVariablesFile, values);
}

std::vector<std::string> copy_companions(const fs::path& from, const fs::path& to) {
  std::vector<std::string> copied;
  const bool imported = !io::exists(to / "tokenizer.json") && text::is_imported(from);
  if (imported) {
    text::load_tokenizer(from)->save(to);
    copied.emplace_back(io::exists(from / "tokenizer.model") ? "tokenizer.json (made from tiktoken's tokenizer.model)"
                                                             : "tokenizer.json (made from tekken.json)");
  }
  for (const char* name : kCompanions) {
    if (imported && std::string_view(name) == "tokenizer.model")
      continue;  // only the library that wrote it can read it
    if (!io::is_regular_file(from / name) || io::exists(to / name)) continue;
    io::write_file_atomic(to / name, io::read_file(from / name));
    copied.emplace_back(name);
  }
  return copied;
}

}  // namespace coca::tools
