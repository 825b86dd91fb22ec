// coca/data/instruct.cc - see instruct.h.
// SPDX-License-Identifier: Apache-2.0
#include "coca/data/instruct.h"

#include <algorithm>
#include <filesystem>
#include <iterator>
#include <memory>
#include <nlohmann/json.hpp>
#include <set>

#include "coca/base/count.h"
#include "coca/base/error.h"
#include "coca/base/log.h"
#include "coca/base/stop.h"
#include "coca/data/overlap.h"
#include "coca/io/fs.h"
#include "coca/io/json_file.h"
#include "coca/io/mmap.h"
#include "coca/io/names.h"
#include "coca/text/utf16.h"

namespace coca::data {

namespace {

constexpr const char* kRoleNames[] = {"system", "user", "assistant", "tool"};  // of Role
constexpr std::string_view kBlanks = " \t\r\n";

// Whether an item of an array is a message, so that the array is one example.
bool is_message(std::string_view item) {
  const nlohmann::json object = nlohmann::json::parse(item, nullptr, false);
  return object.is_object() && (object.contains("role") || object.contains("from"));
}

// The items of a JSON array, each as its text; nothing when the text is no single array.
std::optional<std::vector<std::string_view>> items_of(std::string_view text) {
  size_t at = text.find_first_not_of(kBlanks);
  if (at == std::string_view::npos || text[at] != '[') return std::nullopt;
  std::vector<std::string_view> items;
  size_t begin = ++at, depth = 0;
  bool quoted = false;
  const auto close = [&] {
    const std::string_view item = text.substr(begin, at - begin);
    if (item.find_first_not_of(kBlanks) != std::string_view::npos) items.push_back(item);
    begin = at + 1;
  };
  for (; at < text.size(); ++at) {
    const char c = text[at];
    if (quoted) {
      at += c == '\\' ? 1 : 0;
      quoted = c != '"';
    } else if (c == '"') {
      quoted = true;
    } else if (c == '[' || c == '{') {
      ++depth;
    } else if (c == ',' && depth == 0) {
      close();
    } else if (c == ']' && depth == 0) {
      close();
      const bool last = text.find_first_not_of(kBlanks, at + 1) == std::string_view::npos;
      return last && (items.empty() || !is_message(items.front())) ? std::optional(std::move(items)) : std::nullopt;
    } else if (c == ']' || c == '}') {
      --depth;
    }
  }
  return std::nullopt;
}

struct Reader {
  const ReadOptions& options;
  const std::function<void(Example&&, int64_t bytes)>& take;
  ReadReport report;
  // Of the file that is read.
  std::set<std::string> ignored = {};
  int64_t blank = 0;
  std::string first_blank = {};

  void file(const std::filesystem::path& path) {
    ++report.files;
    read(path);
    const std::string name = io::shown_name(path.string());
    for (const std::string& fields : ignored)
      log_once(LogLevel::kWarning,
               fmt::format("{}: {}{}", name, fields,
                           options.form == ExampleForm::kAuto ? "; --format reads another form of examples" : ""));
    if (blank > 0)
      log_once(LogLevel::kWarning, fmt::format("{}: {} without any text skipped, the first at {}", name,
                                               counted(blank, "example"), io::shown_name(first_blank)));
    report.blank += blank;
    ignored.clear();
    blank = 0;
  }

  void read(const std::filesystem::path& path) {
    const io::MappedFile mapped(path);
    std::string_view text(reinterpret_cast<const char*>(mapped.bytes().data()), mapped.bytes().size());
    const std::optional<text::WideText> wide = text::read_wide(text);
    if (wide) {
      log_once(LogLevel::kWarning,
               fmt::format("{}: {} text read as UTF-8", io::shown_name(path.string()), wide->encoding));
      text = wide->text;
    }
    if (text.starts_with("\xef\xbb\xbf")) text.remove_prefix(3);
    if (const auto items = items_of(text)) {
      for (size_t i = 0; i < items->size(); ++i) one((*items)[i], fmt::format("{}: item {}", path.string(), i + 1));
    } else if (path.extension() == ".json" && !nlohmann::json::accept(text.substr(0, text.find('\n')))) {
      one(text, path.string());  // one object over several lines, or an error
    } else {
      lines(text, path);
    }
  }

  void lines(std::string_view rest, const std::filesystem::path& path) {
    for (int64_t number = 1; !rest.empty(); ++number) {
      const size_t end = std::min(rest.find('\n'), rest.size());
      const std::string_view line = rest.substr(0, end);
      rest.remove_prefix(std::min(end + 1, rest.size()));
      if (line.find_first_not_of(kBlanks) == std::string_view::npos)
        ++report.skipped_lines;
      else
        one(line, fmt::format("{}:{}", path.string(), number));
    }
  }

  void one(std::string_view source, const std::string& name) {
    nlohmann::ordered_json object = io::parse_ordered_json(source, name);
    Example example = read_example(object, name, options.form);
    if (!example.ignored.empty()) ignored.insert(example.ignored);
    if (example.blank) {
      if (blank++ == 0) first_blank = name;
      return;
    }
    ++report.examples;
    ++report.forms[example.form];
    report.rendered += example.form != ExampleForm::kText && !example.joined ? 1 : 0;
    for (const Message& message : example.messages) {
      if (message.role != Role::kAssistant) continue;
      ++report.answers;
      report.masked_answers += message.counts == Counts::kNo ? 1 : 0;
    }
    take(std::move(example), static_cast<int64_t>(source.size()) + 1);
  }
};

std::vector<std::filesystem::path> example_files(const std::vector<std::string>& inputs) {
  std::vector<std::string> json;  // folders without .jsonl files
  std::vector<std::string> lines;
  for (const std::string& input : inputs) {
    bool has_lines = !std::filesystem::is_directory(input);
    if (!has_lines)
      for (const auto& entry : std::filesystem::recursive_directory_iterator(input))
        has_lines |= entry.path().extension() == ".jsonl";
    (has_lines ? lines : json).push_back(input);
  }
  std::vector<std::filesystem::path> files;
  if (!lines.empty()) files = io::expand_inputs(lines, {".jsonl"});
  if (!json.empty()) std::ranges::copy(io::expand_inputs(json, {".json"}), std::back_inserter(files));
  std::ranges::sort(files);
  return files;
}

ReadReport read_all(const ReadOptions& options, const std::function<void(Example&&, int64_t)>& take) {
  COCA_CHECK(!options.inputs.empty(), "examples: no .jsonl or .json files, folders or globs given");
  Reader reader{options, take, {}};
  for (const auto& file : example_files(options.inputs)) reader.file(file);
  COCA_CHECK_AS(kBadFile, reader.report.examples > 0, "examples: none in {}, first input \"{}\"{}",
                counted(reader.report.files, "file"), options.inputs.front(),
                reader.report.blank == 0 ? "" : "; " + counted(reader.report.blank, "example") + " without any text");
  return reader.report;
}

// What users and assistants say up to the last answer: the same in every form, and under every chat template.
std::string said(const Example& example) {
  std::string all;
  size_t answered = 0;
  for (const Message& message : example.messages) {
    if (message.role == Role::kSystem || message.role == Role::kTool) continue;
    const bool answer = message.role == Role::kAssistant;
    all += (!answer && !example.asked.empty() ? example.asked : message.content) + "\n";
    if (const auto calls = message.fields.find("tool_calls"); calls != message.fields.end())
      all += calls->dump(-1, ' ', false, nlohmann::json::error_handler_t::replace) + "\n";
    if (answer) answered = all.size();
  }
  all.resize(answered);
  return all;
}

// Its lines in a list of documents: as it is trained on and, of messages, what they say.
std::string example_lines(const Example& example, const std::vector<Segment>& segments) {
  std::string text;
  for (const Segment& segment : segments) text += segment.text;
  std::string lines = document_line(example.name, text);
  if (example.form != ExampleForm::kText) lines += document_line(example.name, said(example));
  return lines;
}

std::vector<Segment> by_template(const Example& example, const ChatTemplate& chat) {
  try {
    return chat(example.messages, example.variables);
  } catch (const Error& error) {
    fail(ErrorKind::kBadFile, "{}: {}", example.name, error.what());
  }
}

}  // namespace

std::vector<Segment> plain_chat(const std::vector<Message>& messages, const nlohmann::ordered_json&) {
  std::vector<Segment> segments;
  std::string before;  // what does not count, since the last answer
  for (const Message& message : messages) {
    const auto calls = message.fields.find("tool_calls");
    std::string text = message.content;
    if (calls != message.fields.end())
      text += (text.empty() ? "" : "\n") + calls->dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
    if (message.role != Role::kAssistant) {
      before += fmt::format("{}: {}\n", kRoleNames[static_cast<size_t>(message.role)], text);
      continue;
    }
    segments.push_back({.text = std::move(before) + "assistant:"});
    segments.push_back({.text = " " + text, .counts = message.counts, .close = Close::kEos});
    before.clear();
  }
  return segments;  // what follows the last answer would be read for nothing
}

std::vector<Segment> plain_prompt(const std::vector<Message>& messages) {
  std::vector<Message> all = messages;
  all.push_back({.role = Role::kAssistant});
  std::vector<Segment> segments = plain_chat(all);
  segments.pop_back();  // the answer to come
  return segments;
}

std::vector<text::ChatMessage> chat_messages(const std::vector<Message>& messages, const text::ChatTemplate& chat) {
  const bool developers = chat.source().find("developer") != std::string::npos;
  std::vector<text::ChatMessage> all;
  all.reserve(messages.size());
  for (const Message& m : messages)
    all.push_back({m.role_name == "developer" && developers ? m.role_name : kRoleNames[static_cast<size_t>(m.role)],
                   m.content, m.fields});
  return all;
}

ChatTemplate chat_by(text::ChatTemplate given, const nlohmann::ordered_json& variables) {
  const auto chat = std::make_shared<const text::ChatTemplate>(std::move(given));
  return [chat, variables](const std::vector<Message>& messages, const nlohmann::ordered_json& own) {
    constexpr std::time_t kDay = 1721952000;
    text::ChatOptions options{.now = kDay, .variables = variables};
    options.variables.update(own);
    const text::RenderedChat rendered = chat->render_with_answers(chat_messages(messages, *chat), options);
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
      add(answer.end, messages[answer.message].counts);
    }
    return segments;  // what follows the last answer would be read for nothing
  };
}

std::vector<Segment> segments_of(const Example& example, const ChatTemplate& chat) {
  if (example.form == ExampleForm::kText) return {{.text = example.text, .counts = Counts::kYes, .close = Close::kEos}};
  if (!example.joined) return by_template(example, chat);
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

ReadReport read_examples(const ReadOptions& options, const std::function<void(Example&&)>& take) {
  return read_all(options, [&](Example&& example, int64_t) { take(std::move(example)); });
}

TokenDocuments load_examples(const text::Tokenizer& tokenizer, const LoadOptions& options, LoadReport* report) {
  TokenDocuments documents;
  int64_t done = 0, total = 0;
  for (const auto& file : example_files(options.inputs)) total += static_cast<int64_t>(io::file_bytes(file));
  const ReadReport read = read_all({options.inputs, options.form}, [&](Example&& example, int64_t bytes) {
    COCA_CHECK_AS(kInterrupted, !stop_requested(), "examples: stopped before {}", example.name);
    const std::vector<Segment> segments = segments_of(example, options.chat);
    if (options.list) *options.list += example_lines(example, segments);
    documents.add(encode_segments(segments, tokenizer, options.bos));
    done = std::min(total, done + bytes);
    if (options.progress) options.progress(done, total);
  });
  if (report) *report = {.read = read, .documents = documents.documents(), .tokens = documents.tokens()};
  return documents;
}

}  // namespace coca::data
