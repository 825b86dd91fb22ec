// coca tokenizer: trains a sentencepiece model, describes any tokenizer, and encodes or decodes text.
// SPDX-License-Identifier: Apache-2.0
#include <fmt/ranges.h>

#include <algorithm>
#include <filesystem>
#include <sstream>

#include "cli.h"
#include "coca/base/clock.h"
#include "coca/base/count.h"
#include "coca/io/fs.h"
#include "coca/report/table.h"
#include "coca/text/tokenizer.h"
#include "model_flags.h"
#include "output_flags.h"
#include "signals.h"

namespace coca::tools {

namespace {

namespace fs = std::filesystem;

struct TrainFlags {
  std::vector<std::string> text;
  std::string out, type = "bpe";
  int64_t vocab_size = 4096, max_sentences = 2'000'000;
  double character_coverage = 0.9995;
  bool byte_fallback = true, split_digits = true;

  template <class V>
  void visit(V&& v) {
    v("text", "files, globs or folders (their .txt files)", text);
    v("out", "folder, for OUT/tokenizer.model; or a name that ends in .model; must not hold a tokenizer yet", out);
    v("vocab_size", "ids", vocab_size, Least{5});
    v("type", "bpe or unigram", type);
    v("byte_fallback", "encode characters outside the vocabulary as bytes", byte_fallback);
    v("split_digits", "each digit is a token of its own", split_digits);
    v("character_coverage", "share of the characters of the text that get an id", character_coverage);
    v("max_sentences", "most lines to use, spread evenly over the inputs; 0: all", max_sentences);
  }
};

constexpr int64_t kLongText = int64_t{1} << 20;  // bytes; shorter text takes seconds

int run_train(const TrainFlags& flags) {
  COCA_CHECK(!flags.text.empty(), "--text: no text given");
  COCA_CHECK(!flags.out.empty(), "--out: no folder or file given");
  fs::path model = flags.out;
  if (model.extension() != ".model" || io::is_folder(model)) {
    check_is_no_file("--out", model);
    for (const char* name : {"tokenizer.json", "tokenizer.model", "tekken.json", "vocab.json"})
      COCA_CHECK_AS(kIo, !io::exists(model / name), "--out {}: {} exists already; choose another folder",
                    model.string(), (model / name).string());
    model /= "tokenizer.model";
  }
  const Stopwatch watch;
  const std::vector<fs::path> inputs = io::expand_inputs(flags.text, {".txt"});
  int64_t bytes = 0;
  for (const fs::path& file : inputs) bytes += static_cast<int64_t>(io::file_bytes(file));
  const auto say = [&](const std::string& stage) {
    if (bytes >= kLongText) std::fprintf(stderr, "%s\n", stage.c_str());
  };
  say(fmt::format("reading {} of text", report::format_bytes(bytes)));
  std::optional<EndsAtFirstSignal> at_once;  // sentencepiece's trainer runs to its end
  text::train_sentencepiece({.inputs = inputs,
                             .model_prefix = fs::path(model).replace_extension(),
                             .vocab_size = flags.vocab_size,
                             .model_type = flags.type,
                             .byte_fallback = flags.byte_fallback,
                             .split_digits = flags.split_digits,
                             .character_coverage = flags.character_coverage,
                             .max_sentences = flags.max_sentences,
                             .training_begins =
                                 [&](int64_t lines) {
                                   at_once.emplace();
                                   say(fmt::format("training on {}; this can take minutes", counted(lines, "line")));
                                 },
                             .training_ended = [&] { at_once.reset(); }});
  const auto tokenizer = text::load_tokenizer(model);
  print_prose(fmt::format("{}: {}, trained in {}\n", model.string(), counted(tokenizer->vocab_size(), "id"),
                          report::format_duration(watch.seconds())));
  return 0;
}

constexpr const char* kWhichTokenizer = "\"byte\", a .model or .json file, or a folder";

struct EncodeFlags {
  std::string tokenizer, lines, json_lines;
  std::optional<std::string> string;
  bool special = false;

  template <class V>
  void visit(V&& v) {
    v("tokenizer", kWhichTokenizer, tokenizer);
    v("string", "text to encode; default: standard input, without its last newline", string);
    v("special", "parse text that spells a control token as that token", special);
    v("lines", "each line of this file is a text; prints a JSON array for each", lines);
    v("json_lines", "the same, each line a JSON string", json_lines);
  }
};

struct DecodeFlags {
  std::string tokenizer, lines;
  std::vector<int64_t> ids;

  template <class V>
  void visit(V&& v) {
    v("tokenizer", kWhichTokenizer, tokenizer);
    v("ids", "ids to decode; default: standard input", ids);
    v("lines", "each line of this file is a JSON array of ids; prints a JSON string for each", lines);
  }
};

struct InfoFlags {
  std::string tokenizer, json;

  template <class V>
  void visit(V&& v) {
    v("tokenizer", kWhichTokenizer, tokenizer);
    v("json", "write this to a file, as JSON; -: to standard output, instead of the list", json);
  }
};

std::unique_ptr<text::Tokenizer> tokenizer_of(const std::string& name) {
  COCA_CHECK(!name.empty(), "--tokenizer: none given; expected {}", kWhichTokenizer);
  return text::load_tokenizer(name);
}

template <typename Each>
void for_each_line(const std::string& file, const Each& each) {
  const std::string content = utf8_of(io::read_file(file), file);
  for (size_t at = 0, number = 1; at < content.size(); ++number) {
    const size_t end = std::min(content.find('\n', at), content.size());
    each(std::string_view(content).substr(at, end - at), fmt::format("{}:{}", file, number));
    at = end + 1;
  }
}

int encode(const EncodeFlags& c) {
  const auto tokenizer = tokenizer_of(c.tokenizer);
  const auto ids_of = [&](std::string_view text) {
    return tokenizer->encode(text, c.special ? text::SpecialTokens::kParse : text::SpecialTokens::kAsText);
  };
  COCA_CHECK(int{c.string.has_value()} + int{!c.lines.empty()} + int{!c.json_lines.empty()} <= 1,
             "TEXT, --lines and --json-lines exclude each other");
  if (c.lines.empty() && c.json_lines.empty()) {
    print(fmt::format("{}\n", fmt::join(ids_of(text_or_stdin(c.string)), " ")));
    return 0;
  }
  std::string out;
  const bool json = !c.json_lines.empty();
  for_each_line(json ? c.json_lines : c.lines, [&](std::string_view line, const std::string& where) {
    if (json) {
      const nlohmann::json text = io::parse_json(line, where);
      COCA_CHECK_AS(kBadFile, text.is_string(), "{}: expected a JSON string", where);
      out += fmt::format("[{}]\n", fmt::join(ids_of(text.get_ref<const std::string&>()), ","));
    } else {
      out += fmt::format("[{}]\n", fmt::join(ids_of(line), ","));
    }
  });
  print(out);
  return 0;
}

int run_encode(const EncodeFlags& c) {
  return all_or_nothing([&] { return encode(c); });
}

int run_decode(const DecodeFlags& c) {
  const auto tokenizer = tokenizer_of(c.tokenizer);
  COCA_CHECK(c.ids.empty() || c.lines.empty(), "IDS and --lines exclude each other");
  if (!c.lines.empty()) {
    std::string out;
    for_each_line(c.lines, [&](std::string_view line, const std::string& where) {
      const nlohmann::json ids = io::parse_json(line, where);
      const bool good =
          ids.is_array() && std::ranges::all_of(ids, [](const auto& id) { return id.is_number_integer(); });
      COCA_CHECK_AS(kBadFile, good, "{}: expected a JSON array of ids", where);
      const nlohmann::json text = tokenizer->decode(ids.get<std::vector<int32_t>>());
      out += text.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace) + "\n";
    });
    print(out);
    return 0;
  }
  std::vector<int64_t> ids = c.ids;
  if (ids.empty()) {
    std::istringstream words(text_or_stdin(std::nullopt));
    for (std::string word; words >> word;) {
      int64_t id = 0;
      detail::parse_text("standard input", word, id);
      ids.push_back(id);
    }
  }
  for (const int64_t id : ids) COCA_CHECK(id >= 0 && id <= INT32_MAX, "token id {} is out of range", id);
  print_bytes(tokenizer->decode(std::vector<int32_t>(ids.begin(), ids.end())) + "\n");
  return 0;
}

int run_info(const InfoFlags& c) {
  const auto tokenizer = tokenizer_of(c.tokenizer);
  const auto number = [](std::optional<int32_t> id) { return id ? nlohmann::ordered_json(*id) : nullptr; };
  const text::SequenceFrame frame = tokenizer->frame();
  const nlohmann::ordered_json facts = {{"kind", tokenizer->kind()},
                                        {"vocab_size", tokenizer->vocab_size()},
                                        {"bos", number(tokenizer->bos_id())},
                                        {"eos", number(tokenizer->eos_id())},
                                        {"ends", tokenizer->eos_ids()},
                                        {"before", frame.before},
                                        {"after", frame.after},
                                        {"fingerprint", tokenizer->fingerprint()}};
  write_json_output(c.json, facts);
  if (is_stdout(c.json)) return 0;
  const std::pair<const char*, const char*> labels[] = {{"kind", "kind"},
                                                        {"vocab_size", "ids"},
                                                        {"bos", "bos"},
                                                        {"eos", "eos"},
                                                        {"ends", "ends a text"},
                                                        {"before", "in front of a text"},
                                                        {"after", "behind a text"},
                                                        {"fingerprint", "fingerprint"}};
  for (const auto& [key, label] : labels) {
    const nlohmann::ordered_json& value = facts[key];
    const bool none = value.is_null() || (value.is_array() && value.empty());
    std::string text = none ? "none" : value.is_string() ? value.get<std::string>() : value.dump();
    std::erase_if(text, [](char x) { return x == '[' || x == ']'; });
    print_prose(fmt::format("{:<18}  {}\n", label, text));
  }
  return 0;
}

}  // namespace

void add_tokenizer(CLI::App& root, Action* action) {
  CLI::App& app = add_group(root, "tokenizer", "Train a sentencepiece tokenizer; encode and decode text with any",
                            "Example: coca tokenizer encode --tokenizer tok \"the cat\"");

  add_command<TrainFlags>(app, action, "train", "Train a sentencepiece model",
                          "Example: coca tokenizer train --text books/train --out tok --vocab-size 4096", run_train);
  add_command<EncodeFlags>(app, action, "encode", "Text to ids, without bos and eos",
                           "Example: coca tokenizer encode --tokenizer tok \"the cat\"", run_encode,
                           {{"string", "TEXT"}});
  add_command<DecodeFlags>(app, action, "decode", "Ids to text",
                           "Example: coca tokenizer decode --tokenizer byte 97 98", run_decode, {{"ids", "IDS"}});
  add_command<InfoFlags>(app, action, "info", "Kind, number of ids, control ids", "Example: coca tokenizer info tok",
                         run_info, {{"tokenizer", "TOKENIZER"}});
}

}  // namespace coca::tools
