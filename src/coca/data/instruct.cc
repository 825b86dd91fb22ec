// coca/data/instruct.cc - see instruct.h.
// SPDX-License-Identifier: Apache-2.0
#include "coca/data/instruct.h"

#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>

#include "coca/base/error.h"
#include "coca/base/stop.h"
#include "coca/io/fs.h"
#include "coca/io/json_file.h"
#include "coca/io/mmap.h"

namespace coca::data {

using nlohmann::json;

namespace {

std::string take_text(json& object, const char* field, const std::string& where) {
  const auto it = object.find(field);
  COCA_CHECK_AS(kBadFile, it != object.end(), "{}: field \"{}\" is missing", where, field);
  COCA_CHECK_AS(kBadFile, it->is_string(), "{}: field \"{}\" is {}; expected a string", where, field, it->type_name());
  return std::move(it->get_ref<std::string&>());
}

Role role_of(const std::string& name, const std::string& where) {
  if (name == "system") return Role::kSystem;
  if (name == "user" || name == "human") return Role::kUser;
  if (name == "assistant" || name == "bot" || name == "gpt") return Role::kAssistant;
  fail(ErrorKind::kBadFile, "{}: role \"{}\" is unknown; expected system, user (human) or assistant (bot, gpt)", where,
       name);
}

std::vector<Message> take_messages(json& list, const char* field, const std::string& name) {
  COCA_CHECK_AS(kBadFile, list.is_array(), "{}: field \"{}\" is {}; expected a list of messages", name, field,
                list.type_name());
  std::vector<Message> messages;
  bool answered = false;
  for (size_t i = 0; i < list.size(); ++i) {
    const std::string where = fmt::format("{}: {}[{}]", name, field, i);
    COCA_CHECK_AS(kBadFile, list[i].is_object(), "{} is {}; expected an object with role and content", where,
                  list[i].type_name());
    const Role role = role_of(take_text(list[i], "role", where), where);
    messages.push_back({role, take_text(list[i], "content", where)});
    answered |= role == Role::kAssistant;
  }
  COCA_CHECK_AS(kBadFile, answered, "{}: field \"{}\" has {} messages and none of an assistant: nothing to learn", name,
                field, list.size());
  return messages;
}

Example example_of(json& object, const std::string& name) {
  COCA_CHECK_AS(kBadFile, object.is_object(), "{}: found {}; expected an object", name, object.type_name());
  for (const char* field : {"messages", "chat_rounds"})
    if (object.contains(field))
      return {.name = name,
              .form = ExampleForm::kMessages,
              .text = "",
              .messages = take_messages(object[field], field, name)};
  if (object.contains("prompt") || object.contains("answer")) {
    Example example{.name = name, .form = ExampleForm::kPrompt, .text = "", .messages = {}};
    if (object.contains("system")) example.messages.push_back({Role::kSystem, take_text(object, "system", name)});
    example.messages.push_back({Role::kUser, take_text(object, "prompt", name)});
    example.messages.push_back({Role::kAssistant, take_text(object, "answer", name)});
    return example;
  }
  for (const char* field : {"content", "text"})
    if (object.contains(field))
      return {.name = name, .form = ExampleForm::kText, .text = take_text(object, field, name), .messages = {}};
  std::string found;
  for (const auto& item : object.items())
    if (found.size() < 200) found += (found.empty() ? "" : ", ") + item.key();
  fail(ErrorKind::kBadFile,
       "{}: no field \"prompt\" and \"answer\", \"messages\", \"chat_rounds\", \"text\" or \"content\"; found {}", name,
       found.empty() ? "no fields" : found);
}

struct LineReader {
  const std::function<void(Example&&, int64_t bytes)>& take;
  ReadReport report;

  void file(const std::filesystem::path& path) {
    ++report.files;
    const io::MappedFile mapped(path);
    std::string_view rest(reinterpret_cast<const char*>(mapped.bytes().data()), mapped.bytes().size());
    if (rest.starts_with("\xef\xbb\xbf")) rest.remove_prefix(3);
    for (int64_t number = 1; !rest.empty(); ++number) {
      const size_t end = std::min(rest.find('\n'), rest.size());
      const std::string_view line = rest.substr(0, end);
      rest.remove_prefix(std::min(end + 1, rest.size()));
      if (line.find_first_not_of(" \t\r") == std::string_view::npos) {
        ++report.skipped_lines;
        continue;
      }
      const std::string name = fmt::format("{}:{}", path.string(), number);
      json object = io::parse_json(line, name);
      ++report.examples;
      take(example_of(object, name), static_cast<int64_t>(line.size()) + 1);
    }
  }
};

ReadReport read_lines(const std::vector<std::string>& inputs, const std::function<void(Example&&, int64_t)>& take) {
  COCA_CHECK(!inputs.empty(), "examples: no .jsonl files, folders or globs given");
  LineReader reader{take, {}};
  for (const auto& file : io::expand_inputs(inputs, {".jsonl"})) reader.file(file);
  COCA_CHECK_AS(kBadFile, reader.report.examples > 0, "examples: none in {} files, first input \"{}\"",
                reader.report.files, inputs.front());
  return reader.report;
}

std::vector<Segment> by_template(const Example& example, const ChatTemplate& chat) {
  try {
    return chat(example.messages);
  } catch (const Error& error) {
    fail(ErrorKind::kBadFile, "{}: {}", example.name, error.what());
  }
}

}  // namespace

std::vector<Segment> plain_chat(const std::vector<Message>& messages) {
  std::vector<Segment> segments;
  std::string before;  // what does not count, since the last answer
  for (const Message& message : messages) {
    switch (message.role) {
      case Role::kSystem:
        before += "system: " + message.content + "\n";
        break;
      case Role::kUser:
        before += "user: " + message.content + "\n";
        break;
      case Role::kAssistant:
        segments.push_back({.text = std::move(before) + "assistant:"});
        segments.push_back({.text = " " + message.content, .counts = Counts::kYes, .close = Close::kEos});
        before.clear();
        break;
    }
  }
  return segments;  // what follows the last answer would be read for nothing
}

ChatTemplate chat_by(text::ChatTemplate given) {
  const auto chat = std::make_shared<const text::ChatTemplate>(std::move(given));
  return [chat](const std::vector<Message>& messages) {
    constexpr std::time_t kDay = 1721952000;
    std::vector<text::ChatMessage> all;
    all.reserve(messages.size());
    for (const Message& m : messages)
      all.push_back({m.role == Role::kSystem ? "system" : m.role == Role::kUser ? "user" : "assistant", m.content});
    const text::RenderedChat rendered = chat->render_with_answers(all, {.now = kDay});
    std::vector<Segment> segments;
    size_t at = 0;
    const auto add = [&](size_t end, Counts counts) {
      if (end > at)
        segments.push_back(
            {.text = rendered.text.substr(at, end - at), .counts = counts, .special = text::SpecialTokens::kParse});
      at = end;
    };
    for (const text::AnswerSpan& answer : rendered.answers) {
      add(answer.begin, Counts::kNo);
      add(answer.end, Counts::kYes);
    }
    return segments;  // what follows the last answer would be read for nothing
  };
}

std::vector<Segment> segments_of(const Example& example, const ChatTemplate& chat) {
  switch (example.form) {
    case ExampleForm::kText:
      return {{.text = example.text, .counts = Counts::kYes, .close = Close::kEos}};
    case ExampleForm::kMessages:
      return by_template(example, chat);
    case ExampleForm::kPrompt:
      break;
  }
  std::string prompt;
  for (const Message& message : example.messages)
    if (message.role != Role::kAssistant) prompt += message.content + (message.role == Role::kSystem ? "\n" : "");
  return {{.text = std::move(prompt)},
          {.text = example.messages.back().content, .counts = Counts::kYes, .close = Close::kEos}};
}

TokenDocument encode_segments(const std::vector<Segment>& segments, const text::Tokenizer& tokenizer,
                              std::optional<int32_t> bos) {
  TokenDocument document;
  const auto add = [&](int32_t id, Counts counts) {
    document.ids.push_back(id);
    document.counts.push_back(counts == Counts::kYes);
  };
  const bool own_bos = !segments.empty() && segments.front().special == text::SpecialTokens::kParse;
  if (bos && !own_bos) add(*bos, Counts::kNo);
  for (const Segment& segment : segments) {
    for (const int32_t id : tokenizer.encode(segment.text, segment.special)) add(id, segment.counts);
    if (segment.close == Close::kNone) continue;
    COCA_CHECK(tokenizer.eos_id(), "examples: the {} tokenizer has no eos to close answers with", tokenizer.kind());
    add(*tokenizer.eos_id(), segment.counts);
  }
  return document;
}

ReadReport read_examples(const std::vector<std::string>& inputs, const std::function<void(Example&&)>& take) {
  return read_lines(inputs, [&](Example&& example, int64_t) { take(std::move(example)); });
}

TokenDocuments load_examples(const text::Tokenizer& tokenizer, const LoadOptions& options, LoadReport* report) {
  TokenDocuments documents;
  int64_t done = 0, total = 0;
  for (const auto& file : io::expand_inputs(options.inputs, {".jsonl"}))
    total += static_cast<int64_t>(io::file_bytes(file));
  const ReadReport read = read_lines(options.inputs, [&](Example&& example, int64_t bytes) {
    COCA_CHECK_AS(kInterrupted, !stop_requested(), "examples: stopped before {}", example.name);
    documents.add(encode_segments(segments_of(example, options.chat), tokenizer, options.bos));
    done = std::min(total, done + bytes);
    if (options.progress) options.progress(done, total);
  });
  if (report) *report = {.read = read, .documents = documents.documents(), .tokens = documents.tokens()};
  return documents;
}

}  // namespace coca::data
