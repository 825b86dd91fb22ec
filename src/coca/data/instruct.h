// coca/data/instruct.h - examples for fine-tuning from JSON files, and which part of each the loss counts. The forms of
// examples are in example_forms.h. Rules: docs/data.md.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "coca/data/example_forms.h"
#include "coca/data/packing.h"
#include "coca/text/chat_template.h"
#include "coca/text/tokenizer.h"

namespace coca::data {

enum class Close : uint8_t { kNone, kEos };
// A piece of an example's text. It is tokenized by itself, so that the tokens that count are known exactly.
struct Segment {
  std::string text;
  Counts counts = Counts::kNo;
  Close close = Close::kNone;  // whether eos follows; it counts if the piece does
  text::SpecialTokens special = text::SpecialTokens::kAsText;
};
// `variables` are the example's own for the template ("tools").
using ChatTemplate =
    std::function<std::vector<Segment>(const std::vector<Message>&, const nlohmann::ordered_json& variables)>;

// "system: ...\n", "user: ...\n", "assistant: ..." and eos; the answers, their leading space included, and eos count.
// Other roles are written by their names, calls of tools as JSON.
std::vector<Segment> plain_chat(const std::vector<Message>&, const nlohmann::ordered_json& variables = {});
// The same for generation: what follows the last answer is kept, and "assistant:" ends the prompt.
std::vector<Segment> plain_prompt(const std::vector<Message>&);

// In the form that the template expects: templates that do not know the role "developer" get "system" instead.
std::vector<text::ChatMessage> chat_messages(const std::vector<Message>&, const text::ChatTemplate&);

// A chat model's own template. The answers count, with the tokens that end them, as text/chat_template.h finds them.
// Control tokens are parsed, including bos. `variables` apply to every example; the example's own override them. A
// template that writes the date writes 26 July 2024, so that examples do not change from day to day.
ChatTemplate chat_by(text::ChatTemplate, const nlohmann::ordered_json& variables = nlohmann::ordered_json::object());

// A text counts as a whole, and eos follows. A prompt (after its system text and a newline) and its answer are joined
// without anything in between; the answer and eos count. Messages are rendered by the template.
std::vector<Segment> segments_of(const Example&, const ChatTemplate&);

// bos, if given, begins the document, unless its text contains control tokens: a template writes its own bos.
TokenDocument encode_segments(const std::vector<Segment>&, const text::Tokenizer&, std::optional<int32_t> bos);

struct ReadReport {
  int64_t files = 0, examples = 0, skipped_lines = 0;  // blank lines are skipped
  int64_t blank = 0;                                   // examples without any text, which are skipped with a warning
  int64_t rendered = 0;                                // examples that the chat template writes
  int64_t answers = 0, masked_answers = 0;             // of the examples; of them with a weight of 0
  std::map<ExampleForm, int64_t> forms;                // examples of each
};
struct ReadOptions {
  std::vector<std::string>
      inputs;  // files, globs, folders (their .jsonl files, or their .json files where there are none)
  ExampleForm form = ExampleForm::kAuto;
};
// Passes on every example, in the order of the sorted files: one per line, or the items of a JSON array. Errors name
// file, line (or item) and field.
ReadReport read_examples(const ReadOptions&, const std::function<void(Example&&)>& take);

struct LoadReport {
  ReadReport read;
  int64_t documents = 0, tokens = 0;
};
struct LoadOptions {
  std::vector<std::string> inputs;
  ExampleForm form = ExampleForm::kAuto;
  ChatTemplate chat = plain_chat;
  std::optional<int32_t> bos;
  std::function<void(int64_t done, int64_t total)> progress;  // bytes of input; may be empty
  std::string* list = nullptr;                                // of the examples, for find_overlap (overlap.h); added to
};
// All examples, tokenized, in memory: 4 1/8 bytes per token. Error kInterrupted on a request to stop.
TokenDocuments load_examples(const text::Tokenizer&, const LoadOptions&, LoadReport* = nullptr);

}  // namespace coca::data
