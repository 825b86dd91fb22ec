// coca/text/special_ids.cc - see special_ids.h.
// SPDX-License-Identifier: Apache-2.0
#include "coca/text/special_ids.h"

#include <algorithm>

#include "coca/base/error.h"
#include "coca/io/fs.h"
#include "coca/io/json_file.h"
#include "coca/text/generation_config.h"

namespace coca::text {

namespace {

constexpr size_t kMostFrame = 1024;

// "bos_token": a string, or an object with "content"; null and "" name none.
std::optional<std::string> token_name(const JsonField& config, std::string_view key) {
  if (!config.has(key)) return std::nullopt;
  const JsonField token = config.at(key);
  std::string name = token.value().is_object() ? token.at("content").string() : token.string();
  return name.empty() ? std::nullopt : std::optional(std::move(name));
}

void add_frame(const JsonField& field, SequenceFrame& frame, bool& seen) {
  const JsonField type = field.at("type");
  if (type.string() == "ByteLevel") return;  // moves offsets only
  if (type.string() == "Sequence") {
    const JsonField list = field.at("processors");
    for (size_t i = 0; i < list.size(); ++i) add_frame(list.item(i), frame, seen);
    return;
  }
  const bool pair = type.string() == "RobertaProcessing" || type.string() == "BertProcessing";
  if (!pair && type.string() != "TemplateProcessing")
    type.refuse("TemplateProcessing, RobertaProcessing, BertProcessing, ByteLevel or Sequence");
  if (seen) type.refuse("one that puts ids around a text");
  seen = true;
  if (pair) {  // "cls" before and "sep" after, each [token, id]
    const auto id_of = [&](const char* name) {
      const JsonField token = field.at(name);
      if (token.size() != 2) token.refuse("a token and its id");
      return token.item(1).id();
    };
    frame.before.push_back(id_of("cls"));
    frame.after.push_back(id_of("sep"));
    return;
  }
  const JsonField single = field.at("single");
  bool behind = false;
  for (size_t i = 0; i < single.size(); ++i) {
    const JsonField item = single.item(i);
    if (item.has("Sequence")) {
      if (behind) item.refuse("one Sequence");
      behind = true;
      continue;
    }
    const std::string& name = item.at("SpecialToken").at("id").string();
    const JsonField ids = field.at("special_tokens").at(name).at("ids");
    if (frame.before.size() + frame.after.size() + ids.size() > kMostFrame)
      ids.refuse(fmt::format("at most {} ids around a text", kMostFrame));
    for (size_t k = 0; k < ids.size(); ++k) (behind ? frame.after : frame.before).push_back(ids.item(k).id());
  }
  if (!behind) single.refuse("a Sequence in it");
}

}  // namespace

std::map<std::string, std::string> read_files_beside(const std::filesystem::path& dir) {
  std::map<std::string, std::string> files;
  for (const char* name : {"added_tokens.json", "tokenizer_config.json", "special_tokens_map.json",
                           "generation_config.json", "chat_template.jinja", "chat_template.json"})
    if (io::exists(dir / name)) files[name] = io::read_file(dir / name);
  return files;
}

SpecialIds read_special_ids(const std::map<std::string, std::string>& files, const std::string& origin,
                            const std::vector<const char*>& order,
                            const std::function<std::optional<int32_t>(std::string_view)>& id_of) {
  SpecialIds out;
  const auto path_of = [&](const char* name) { return (std::filesystem::path(origin).parent_path() / name).string(); };
  for (const char* name : order) {
    const auto file = files.find(name);
    if (file == files.end()) continue;
    const nlohmann::json config = io::parse_json(file->second, path_of(name));
    const JsonField field(config, path_of(name));
    const auto read = [&](std::string_view key, std::optional<int32_t>& id) {
      const auto token = token_name(field, key);
      if (id || !token) return;
      id = id_of(*token);
      if (!id) field.at(key).refuse("a token of the tokenizer");
    };
    read("bos_token", out.bos);
    read("eos_token", out.eos);
  }
  if (out.eos) out.ends.push_back(*out.eos);
  if (const auto file = files.find("generation_config.json"); file != files.end()) {
    const nlohmann::json config = io::parse_json(file->second, path_of(file->first.c_str()));
    const GenerationIds ids = generation_ids(JsonField(config, path_of(file->first.c_str())));
    if (!out.bos) out.bos = ids.bos;
    for (const int32_t id : ids.eos) {
      if (!out.eos) out.eos = id;
      if (std::ranges::find(out.ends, id) == out.ends.end()) out.ends.push_back(id);
    }
  }
  return out;
}

SequenceFrame read_frame(const JsonField& post_processor) {
  SequenceFrame frame;
  bool seen = false;
  add_frame(post_processor, frame, seen);
  return frame;
}

}  // namespace coca::text
