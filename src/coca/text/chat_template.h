// coca/text/chat_template.h - conversations as the prompt text a chat model was trained on. The text holds control
// tokens as they are spelled: encode it with SpecialTokens::kParse. docs/chat-templates.md.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ctime>
#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace coca::text {

struct ChatMessage {
  std::string role;  // "system", "user", "assistant"; templates may know others
  std::string content;
  // Other fields that a template may use: "tool_calls", "name", "reasoning_content"; "content" here (null, a list)
  // takes the place of the text.
  nlohmann::ordered_json fields = nlohmann::ordered_json::object();
};

// Whether the prompt ends with the beginning of the assistant's next answer.
enum class GenerationPrompt { kNone, kAdd };

struct ChatOptions {
  GenerationPrompt prompt = GenerationPrompt::kNone;
  std::optional<std::time_t> now;  // for templates that write the date; default: the time of the call
  nlohmann::ordered_json variables = nlohmann::ordered_json::object();  // other variables of the template
};

struct TextSpan {
  size_t begin, end;  // bytes
};
struct AnswerSpan {
  size_t begin, end;  // bytes
  size_t message;     // whose answer it is
};
struct RenderedChat {
  std::string text;
  std::vector<AnswerSpan> answers;  // the assistant's answers with the tokens that end them, in the order of the text
};

class ChatTemplate {
 public:
  // A template of coca's own: chat_template_names(). The texts of bos and eos are those of its models unless given.
  static ChatTemplate named(std::string_view name);
  // Jinja source; `origin` names it in errors. Error kBadFile says line and construct when it is not supported.
  static ChatTemplate from_source(std::string source, std::string origin);
  ~ChatTemplate();
  ChatTemplate(ChatTemplate&&) noexcept;
  ChatTemplate& operator=(ChatTemplate&&) noexcept;

  // What {{ bos_token }} and others write; a folder's tokenizer_config.json sets them.
  void set_token(std::string_view name, std::string text);

  // Content must be UTF-8. Error kInvalidArgument if the template refuses the messages.
  std::string render(std::span<const ChatMessage> messages, const ChatOptions& options = {}) const;
  // For loss on answers only. Places come from the template's {% generation %} blocks, else from marks that a second
  // rendering carries in the answers: docs/chat-templates.md. An answer that the template leaves out has none. Error
  // kInvalidArgument if the places cannot be determined, or if all answers are left out.
  RenderedChat render_with_answers(std::span<const ChatMessage> messages, const ChatOptions& options = {}) const;

  const std::string& source() const;
  const std::string& origin() const;  // its name in errors
  // The source for a file that renders the same in every folder: it begins by setting the tokens it uses.
  std::string source_with_tokens() const;
  // Whether this is the named template "plain", whose text data::plain_chat() makes, with the ids of bos and eos.
  bool is_plain() const;

 private:
  struct Parsed;
  explicit ChatTemplate(std::unique_ptr<Parsed> parsed);
  std::unique_ptr<Parsed> parsed_;
};

std::vector<std::string> chat_template_names();
// bos_token, eos_token and the other tokens of the folder's tokenizer_config.json, if it has one.
void set_folder_tokens(ChatTemplate&, const std::filesystem::path& dir);
// From a file: the template itself, or if its name ends in .json the field "chat_template" (of a list, the one called
// "default").
ChatTemplate load_template_file(const std::filesystem::path& file);
// The template of a model's folder: chat_template.jinja, else the field chat_template of chat_template.json, else of
// tokenizer_config.json (of a list, the one called `which`), with the folder's bos, eos and other tokens. None when the
// folder has none.
std::optional<ChatTemplate> load_chat_template(const std::filesystem::path& dir, std::string_view which = "default");

}  // namespace coca::text
