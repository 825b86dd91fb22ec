// coca tokenizer: train a sentencepiece model; encode and decode by hand.
// SPDX-License-Identifier: Apache-2.0
#include <filesystem>
#include <sstream>

#include "cli.h"
#include "coca/base/clock.h"
#include "coca/io/fs.h"
#include "coca/report/table.h"
#include "coca/text/tokenizer.h"
#include "model_flags.h"

namespace coca::tools {

namespace {

namespace fs = std::filesystem;

struct TrainFlags {
  std::vector<std::string> input;
  std::string output, type = "bpe";
  int64_t vocab_size = 4096, max_sentences = 2'000'000;
  double character_coverage = 0.9995;
  bool byte_fallback = true, split_digits = true;

  template <class V>
  void visit(V&& v) {
    v("input", "text files, globs or folders (their .txt files)", input);
    v("output", "folder, for OUTPUT/tokenizer.model; or a name that ends in .model", output);
    v("vocab_size", "ids", vocab_size);
    v("type", "bpe or unigram", type);
    v("byte_fallback", "characters outside the vocabulary become bytes", byte_fallback);
    v("split_digits", "each digit is a token of its own", split_digits);
    v("character_coverage", "share of the characters that get an id", character_coverage);
    v("max_sentences", "lines used, spread evenly over the inputs; 0: all", max_sentences);
  }
};

int run_train(const TrainFlags& flags) {
  COCA_CHECK(!flags.input.empty(), "--input: no text given");
  COCA_CHECK(!flags.output.empty(), "--output: no folder or file given");
  fs::path model = flags.output;
  if (model.extension() != ".model" || fs::is_directory(model)) model /= "tokenizer.model";
  if (model.has_parent_path()) io::make_dirs(model.parent_path());
  const Stopwatch watch;
  text::train_sentencepiece({.inputs = io::expand_inputs(flags.input, {".txt"}),
                             .model_prefix = fs::path(model).replace_extension(),
                             .vocab_size = flags.vocab_size,
                             .model_type = flags.type,
                             .byte_fallback = flags.byte_fallback,
                             .split_digits = flags.split_digits,
                             .character_coverage = flags.character_coverage,
                             .max_sentences = flags.max_sentences});
  const auto tokenizer = text::load_tokenizer(model);
  print(fmt::format("{}: {} ids, trained in {}\n", model.string(),
                    report::format_count(tokenizer->vocab_size()), report::format_duration(watch.seconds())));
  return 0;
}

struct Codec {
  std::string tokenizer;
  std::optional<std::string> text;
  std::vector<int32_t> ids;
};

int run_encode(const Codec& c) {
  const std::vector<int32_t> ids = text::load_tokenizer(c.tokenizer)->encode(text_or_stdin(c.text));
  print(fmt::format("{}\n", fmt::join(ids, " ")));
  return 0;
}

int run_decode(Codec c) {
  if (c.ids.empty()) {
    std::istringstream words(text_or_stdin(std::nullopt));
    for (std::string word; words >> word;) {
      int64_t id = 0;
      detail::parse_text("ids", word, id);
      COCA_CHECK(id >= 0 && id <= INT32_MAX, "token id {} is out of range", id);
      c.ids.push_back(static_cast<int32_t>(id));
    }
  }
  print(text::load_tokenizer(c.tokenizer)->decode(c.ids) + "\n");
  return 0;
}

}  // namespace

void add_tokenizer(CLI::App& root, Action* action) {
  CLI::App* app = root.add_subcommand("tokenizer", "Train a sentencepiece tokenizer; encode and decode text");
  app->require_subcommand(1);

  CLI::App* train = app->add_subcommand("train", "Train a sentencepiece model");
  auto options = std::make_shared<TrainFlags>();
  auto flags = std::make_shared<OptionFlags>(*train, *options);
  flags->add_config_flag();
  train->footer("Example: coca tokenizer train --input books/train --output tok --vocab-size 4096");
  train->callback([=] {
    *action = [=] {
      flags->finish();
      return run_train(*options);
    };
  });

  auto codec = std::make_shared<Codec>();
  CLI::App* encode = app->add_subcommand("encode", "Text to ids, without bos and eos");
  encode->add_option("--tokenizer", codec->tokenizer, "\"byte\", a .model file or a folder")->required();
  encode->add_option("TEXT", codec->text, "default: standard input, without its last newline");
  encode->callback([=] { *action = [=] { return run_encode(*codec); }; });
  CLI::App* decode = app->add_subcommand("decode", "Ids to text");
  decode->add_option("--tokenizer", codec->tokenizer, "\"byte\", a .model file or a folder")->required();
  decode->add_option("IDS", codec->ids, "default: standard input");
  decode->callback([=] { *action = [=] { return run_decode(*codec); }; });
}

}  // namespace coca::tools
