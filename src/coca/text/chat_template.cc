// coca/text/chat_template.cc - see chat_template.h. The named templates are in named_templates.cc.
// SPDX-License-Identifier: Apache-2.0
#include "coca/text/chat_template.h"

#include <algorithm>

#include "coca/base/count.h"
#include "coca/base/error.h"
#include "coca/base/suggest.h"
#include "coca/io/fs.h"
#include "coca/io/json_file.h"
#include "coca/text/chat_answers.h"
#include "coca/text/jinja_interpreter.h"
#include "coca/text/json_field.h"
#include "coca/text/named_templates.h"
#include "coca/text/utf8.h"

namespace coca::text {

namespace stdfs = std::filesystem;

namespace {

constexpr size_t kMaxSource = 1 << 20;

// As Jinja reads a source: newlines are \n, the last one goes.
std::string clean(const std::string& source) {
  std::string out;
  for (size_t i = 0; i < source.size(); ++i) {
    if (source[i] == '\r') {
      out += '\n';
      if (i + 1 < source.size() && source[i + 1] == '\n') ++i;
    } else {
      out += source[i];
    }
  }
  if (out.ends_with('\n')) out.pop_back();
  return out;
}

}  // namespace

struct ChatTemplate::Parsed {
  std::string source, origin, cleaned;
  jinja::Body body;
  std::vector<std::pair<std::string, std::string>> tokens;

  jinja::Output run(std::span<const ChatMessage> messages, const ChatOptions& options, GenerationPrompt prompt) const {
    jinja::Dict variables;
    for (const auto& [name, text] : tokens) variables.set(name, text);
    for (const auto& [name, value] : options.variables.items()) variables.set(name, jinja::Value::from_json(value));
    jinja::List list;
    for (const ChatMessage& message : messages) {
      jinja::Dict dict;
      dict.set("role", message.role);
      dict.set("content", message.content);
      for (const auto& [name, value] : message.fields.items()) dict.set(name, jinja::Value::from_json(value));
      list.push_back(std::move(dict));
    }
    variables.set("messages", std::move(list));
    variables.set("add_generation_prompt", prompt == GenerationPrompt::kAdd);
    for (const char* absent : {"tools", "documents"})
      if (!variables.find(absent)) variables.set(absent, nullptr);
    return jinja::run_template(body, variables, {options.now.value_or(std::time(nullptr))}, cleaned, origin);
  }
};

ChatTemplate::ChatTemplate(std::unique_ptr<Parsed> parsed) : parsed_(std::move(parsed)) {}
ChatTemplate::~ChatTemplate() = default;
ChatTemplate::ChatTemplate(ChatTemplate&&) noexcept = default;
ChatTemplate& ChatTemplate::operator=(ChatTemplate&&) noexcept = default;

const std::string& ChatTemplate::origin() const { return parsed_->origin; }
const std::string& ChatTemplate::source() const { return parsed_->source; }

std::string ChatTemplate::source_with_tokens() const {
  std::string out;
  for (const auto& [name, text] : parsed_->tokens) {
    if (text.empty() || parsed_->source.find(name) == std::string::npos) continue;
    std::string quoted;
    for (const char c : text) {
      if (c == '\\' || c == '\'') quoted += '\\';
      quoted += c;
    }
    out += fmt::format("{{% set {} = '{}' %}}\n", name, quoted);
  }
  return out + parsed_->source;
}

bool ChatTemplate::is_plain() const {
  return std::ranges::any_of(named_templates(), [&](const NamedTemplate& entry) {
    return entry.name == kPlainName && entry.source == parsed_->cleaned;
  });
}

ChatTemplate ChatTemplate::from_source(std::string source, std::string origin) {
  COCA_CHECK_AS(kBadFile, source.size() <= kMaxSource, "{}: a template of {}; at most {}", origin,
                counted(source.size(), "byte"), grouped(kMaxSource));
  COCA_CHECK_AS(kBadFile, is_valid_utf8(source), "{}: not UTF-8", origin);
  auto parsed = std::make_unique<Parsed>();
  parsed->cleaned = clean(source);
  parsed->source = std::move(source);
  parsed->origin = std::move(origin);
  parsed->body = jinja::parse_template(parsed->cleaned, parsed->origin);
  return ChatTemplate(std::move(parsed));
}

ChatTemplate ChatTemplate::named(std::string_view name) {
  const auto templates = named_templates();
  const auto found = std::ranges::find(templates, name, &NamedTemplate::name);
  if (found == templates.end())
    fail(ErrorKind::kInvalidArgument, "chat template \"{}\" is unknown; expected one of {}{}", name,
         fmt::join(chat_template_names(), ", "), did_you_mean(name, chat_template_names()));
  ChatTemplate made = from_source(std::string(found->source), fmt::format("chat template {}", name));
  made.set_token("bos_token", std::string(found->bos));
  made.set_token("eos_token", std::string(found->eos));
  return made;
}

std::vector<std::string> chat_template_names() {
  std::vector<std::string> names;
  for (const NamedTemplate& entry : named_templates()) names.emplace_back(entry.name);
  return names;
}

void ChatTemplate::set_token(std::string_view name, std::string text) {
  for (auto& [known, old] : parsed_->tokens)
    if (known == name) {
      old = std::move(text);
      return;
    }
  parsed_->tokens.emplace_back(std::string(name), std::move(text));
}

std::string ChatTemplate::render(std::span<const ChatMessage> messages, const ChatOptions& options) const {
  for (const ChatMessage& message : messages)
    COCA_CHECK(is_valid_utf8(message.role) && is_valid_utf8(message.content), "a chat message is not UTF-8");
  return parsed_->run(messages, options, options.prompt).text;
}

RenderedChat ChatTemplate::render_with_answers(std::span<const ChatMessage> messages,
                                               const ChatOptions& options) const {
  for (const ChatMessage& message : messages)
    COCA_CHECK(is_valid_utf8(message.role) && is_valid_utf8(message.content), "a chat message is not UTF-8");
  ChatOptions fixed = options;  // all renderings at the same time
  if (!fixed.now) fixed.now = std::time(nullptr);
  return find_answers(
      messages, options.prompt,
      [&](std::span<const ChatMessage> some, GenerationPrompt prompt) { return parsed_->run(some, fixed, prompt); },
      parsed_->origin);
}

namespace {

// "chat_template" of a JSON file: a string, or a list of {"name", "template"}.
std::optional<std::string> template_of(const JsonField& config, std::string_view which) {
  if (!config.has("chat_template")) return std::nullopt;
  const JsonField field = config.at("chat_template");
  if (!field.value().is_array()) return field.string();
  std::vector<std::string> names;
  for (size_t i = 0; i < field.size(); ++i) {
    names.push_back(field.item(i).at("name").string());
    if (names.back() == which) return field.item(i).at("template").string();
  }
  fail(ErrorKind::kBadFile, "{}: has no template \"{}\"; expected one of {}{}", field.where(), which,
       fmt::join(names, ", "), did_you_mean(which, names));
}

// The template of a JSON file, if it has one.
std::optional<ChatTemplate> template_in(const nlohmann::json& content, const stdfs::path& file,
                                        std::string_view which) {
  std::optional<std::string> source = template_of(JsonField(content, file.string()), which);
  if (!source) return std::nullopt;
  return ChatTemplate::from_source(std::move(*source), file.string() + ": chat_template");
}

}  // namespace

ChatTemplate load_template_file(const stdfs::path& file) {
  if (file.extension() != ".json") {
    std::string source = io::read_file(file);
    strip_bom(source);
    return ChatTemplate::from_source(std::move(source), file.string());
  }
  std::optional<ChatTemplate> made = template_in(io::read_json(file), file, "default");
  COCA_CHECK_AS(kBadFile, made, "{}: has no field \"chat_template\"", file.string());
  return std::move(*made);
}

void set_folder_tokens(ChatTemplate& made, const stdfs::path& dir) {
  const stdfs::path config_file = dir / "tokenizer_config.json";
  if (!io::exists(config_file)) return;
  const nlohmann::json config = io::read_json(config_file);
  const JsonField field(config, config_file.string());
  for (const auto& [key, value] : config.items()) {
    if (!key.ends_with("_token") || value.is_null()) continue;
    if (value.is_string()) made.set_token(key, value.get<std::string>());
    if (value.is_object() && value.contains("content")) made.set_token(key, field.at(key).at("content").string());
  }
}

std::optional<ChatTemplate> load_chat_template(const stdfs::path& dir, std::string_view which) {
  const stdfs::path config_file = dir / "tokenizer_config.json", jinja_file = dir / "chat_template.jinja",
                    json_file = dir / "chat_template.json";
  nlohmann::json config = nlohmann::json::object();
  if (io::exists(config_file)) config = io::read_json(config_file);
  std::optional<ChatTemplate> made;
  if (io::exists(jinja_file))
    made = load_template_file(jinja_file);
  else if (io::exists(json_file))
    made = template_in(io::read_json(json_file), json_file, which);
  if (!made) made = template_in(config, config_file, which);
  if (made) set_folder_tokens(*made, dir);
  return made;
}

}  // namespace coca::text
