// coca/data/instruct.h - examples for fine-tuning from JSON lines, and which part of each the loss counts. Rules:
// docs/data.md.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "coca/data/packing.h"
#include "coca/text/chat_template.h"
#include "coca/text/tokenizer.h"

namespace coca::data {

enum class Role : uint8_t { kSystem, kUser, kAssistant };
struct Message {
  Role role = Role::kUser;
  std::string content;
};

enum class ExampleForm : uint8_t { kText, kPrompt, kMessages };
struct Example {
  std::string name;  // "file.jsonl:17"
  ExampleForm form = ExampleForm::kText;
  std::string text;               // kText only
  std::vector<Message> messages;  // kPrompt: [system,] user, assistant
};

enum class Counts : uint8_t { kNo, kYes };  // in the loss
enum class Close : uint8_t { kNone, kEos };
// A piece of an example's text, tokenized by itself, so that the tokens that count are known exactly.
struct Segment {
  std::string text;
  Counts counts = Counts::kNo;
  Close close = Close::kNone;  // an eos behind it, which counts as the piece does
  text::SpecialTokens special = text::SpecialTokens::kAsText;
};
using ChatTemplate = std::function<std::vector<Segment>(const std::vector<Message>&)>;

// "system: ...\n", "user: ...\n", "assistant: ..." and eos; the answers, their leading space included, and eos count.
std::vector<Segment> plain_chat(const std::vector<Message>&);

// A chat model's own template: the answers count with the tokens that end them, as text/chat_template.h finds them.
// Control tokens are parsed, bos among them. A template that writes the date writes 26 July 2024: examples must not
// change by the day.
ChatTemplate chat_by(text::ChatTemplate);

// A text counts whole, and eos follows. A prompt (behind its system text and a newline) and its answer are joined as
// they are; the answer and eos count. Messages go through the template.
std::vector<Segment> segments_of(const Example&, const ChatTemplate&);

// bos, when given, leads the document, unless its text holds control tokens: a template writes its own.
TokenDocument encode_segments(const std::vector<Segment>&, const text::Tokenizer&, std::optional<int32_t> bos);

struct ReadReport {
  int64_t files = 0, examples = 0, skipped_lines = 0;  // blank lines are skipped
};
// Hands out every example of the .jsonl files (or of folders with such), in the order of the sorted files. A line is
// one object: {"prompt", "answer"[, "system"]}, {"messages": [{"role", "content"}]}, the same as "chat_rounds",
// {"text"} or
// {"content"}; other fields are ignored. Roles: system; user or human; assistant, bot or gpt. Errors name file, line
// and field.
ReadReport read_examples(const std::vector<std::string>& inputs, const std::function<void(Example&&)>& take);

struct LoadReport {
  ReadReport read;
  int64_t documents = 0, tokens = 0;
};
struct LoadOptions {
  std::vector<std::string> inputs;
  ChatTemplate chat = plain_chat;
  std::optional<int32_t> bos;
  std::function<void(int64_t done, int64_t total)> progress;  // bytes of input; may be empty
};
// All examples, tokenized, in memory: 4 1/8 bytes a token. Stops with Error kInterrupted when asked to.
TokenDocuments load_examples(const text::Tokenizer&, const LoadOptions&, LoadReport* = nullptr);

}  // namespace coca::data
