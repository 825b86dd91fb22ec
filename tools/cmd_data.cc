// coca data: tokenize a corpus into one file, make one of a dataset that is tokenized already, and look at such a file.
// Formats: docs/formats.md.
// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <filesystem>

#include "cli.h"
#include "coca/base/clock.h"
#include "coca/data/indexed_dataset.h"
#include "coca/data/pg19.h"
#include "coca/data/token_file.h"
#include "coca/io/fs.h"
#include "coca/report/table.h"

namespace coca::tools {

namespace {

struct BuildFlags {
  std::vector<std::string> input;
  std::string tokenizer, output, field;
  std::optional<data::Split> split;
  data::InvalidUtf8 invalid_utf8 = data::InvalidUtf8::kReplace;
  int64_t max_documents = 0;
  bool no_eos = false;  // a flag without a value, not in --config

  template <class V>
  void visit(V&& v) {
    v("input", "files, globs or folders (their .txt and .jsonl files)", input);
    v("tokenizer", "\"byte\", a sentencepiece .model file or a folder holding a tokenizer", tokenizer);
    v("output", "token file to write", output);
    v("split", "folder of PG-19's layout; default there: train", split);
    v("field", "field of JSON lines; default: content, then text", field);
    v("invalid_utf8", "what to do with text that is not UTF-8", invalid_utf8);
    v("max_documents", "take the first so many; 0: all", max_documents);
  }
};

int run_build(const BuildFlags& flags) {
  COCA_CHECK(!flags.input.empty(), "--input: no text given");
  COCA_CHECK(!flags.tokenizer.empty(), "--tokenizer: none given; \"byte\" needs no file");
  COCA_CHECK(!flags.output.empty(), "--output: no file given");
  const auto tokenizer = text::load_tokenizer(flags.tokenizer);
  std::optional<report::Progress> progress;
  data::BuildOptions options{.corpus = {.inputs = data::choose_split(flags.input, flags.split, data::Split::kTrain).inputs,
                                        .invalid_utf8 = flags.invalid_utf8,
                                        .json_field = flags.field,
                                        .max_documents = flags.max_documents},
                             .output = flags.output,
                             .add_eos = !flags.no_eos};
  options.progress = [&](int64_t done, int64_t total) {
    if (!progress) progress = make_progress({.total = total, .unit = "bytes", .label = "tokenizing"});
    progress->update(done);
  };
  const Stopwatch watch;
  const data::BuildReport r = data::build_token_file(*tokenizer, options);
  if (progress) progress->finish();
  for (const std::string& warning : r.corpus.warnings) std::fprintf(stderr, "warning: %s\n", warning.c_str());
  report::Table table{.title = flags.output, .header = {"", "value"}, .rows = {}, .align = {}};
  table.rows = {{"files", report::format_count(r.corpus.files)},
                {"documents", report::format_count(r.documents)},
                {"empty documents skipped", report::format_count(r.corpus.empty_documents)},
                {"documents with invalid UTF-8", report::format_count(r.corpus.invalid_utf8_documents)},
                {"text", report::format_bytes(r.corpus.bytes)},
                {"tokens", report::format_count(r.tokens)},
                {"bytes per token", report::format_number(r.bytes_per_token)},
                {"tokenizer",
                 fmt::format("{}, {} ids", tokenizer->kind(), report::format_count(tokenizer->vocab_size()))},
                {"time", report::format_duration(watch.seconds())}};
  print(report::to_text(table));
  return 0;
}

struct ImportFlags {
  std::string input, tokenizer, output;

  template <class V>
  void visit(V&& v) {
    v("input", "PREFIX of PREFIX.idx and PREFIX.bin, as Megatron-LM, GPT-NeoX and CoCA's official code write them", input);
    v("tokenizer", "the one the ids are of: \"byte\", a sentencepiece .model file or a folder holding a tokenizer", tokenizer);
    v("output", "token file to write", output);
  }
};

int run_import(const ImportFlags& flags) {
  COCA_CHECK(!flags.input.empty(), "--input: no dataset given");
  COCA_CHECK(!flags.tokenizer.empty(), "--tokenizer: none given; expected the one that made the ids");
  COCA_CHECK(!flags.output.empty(), "--output: no file given");
  const auto tokenizer = text::load_tokenizer(flags.tokenizer);
  const data::IndexedDataset dataset(flags.input);
  auto progress = make_progress({.total = dataset.tokens(), .unit = "tokens", .label = "importing"});
  const data::ImportReport r = data::import_indexed(
      dataset, *tokenizer, {.output = flags.output, .progress = [&](int64_t done, int64_t) { progress.update(done); }});
  progress.finish();
  if (r.closed_documents < r.documents)
    std::fprintf(stderr, "warning: %lld of %lld documents do not end with this tokenizer's eos\n",
                 static_cast<long long>(r.documents - r.closed_documents), static_cast<long long>(r.documents));
  report::Table table{.title = flags.output, .header = {"", "value"}, .rows = {}, .align = {}};
  table.rows = {{"documents", report::format_count(r.documents)},
                {"sequences", report::format_count(r.sequences)},
                {"tokens", report::format_count(r.tokens)},
                {"tokenizer",
                 fmt::format("{}, {} ids", tokenizer->kind(), report::format_count(tokenizer->vocab_size()))}};
  print(report::to_text(table));
  return 0;
}

int run_info(const std::string& path, bool json) {
  const data::TokenFile file(path);
  int64_t shortest = file.documents() > 0 ? file.size() : 0, longest = 0;
  for (int64_t i = 0; i < file.documents(); ++i) {
    const auto [begin, end] = file.document(i);
    shortest = std::min(shortest, end - begin);
    longest = std::max(longest, end - begin);
  }
  const auto bytes = static_cast<int64_t>(io::file_bytes(path));
  if (json) {
    const nlohmann::ordered_json facts = {{"file", path},
                                          {"bytes", bytes},
                                          {"tokens", file.size()},
                                          {"documents", file.documents()},
                                          {"shortest_document", shortest},
                                          {"longest_document", longest},
                                          {"vocab_size", file.vocab_size()},
                                          {"tokenizer", file.tokenizer_kind()},
                                          {"fingerprint", file.tokenizer_fingerprint()}};
    print(io::json_text(facts) + "\n");
    return 0;
  }
  report::Table table{.title = path, .header = {"", "value"}, .rows = {}, .align = {}};
  table.rows = {{"size", report::format_bytes(bytes)},
                {"tokens", report::format_count(file.size())},
                {"documents", report::format_count(file.documents())},
                {"tokens per document",
                 file.documents() > 0
                     ? fmt::format("{} to {}", report::format_count(shortest), report::format_count(longest))
                     : "-"},
                {"vocabulary", report::format_count(file.vocab_size())},
                {"tokenizer", fmt::format("{} ({})", file.tokenizer_kind(), file.tokenizer_fingerprint())}};
  print(report::to_text(table));
  return 0;
}

}  // namespace

void add_data(CLI::App& root, Action* action) {
  CLI::App* app = root.add_subcommand("data", "Tokenize a corpus into one file, import a tokenized one, or describe such a file");
  app->require_subcommand(1);

  CLI::App* build = app->add_subcommand("build", "Tokenize files into a token file");
  auto options = std::make_shared<BuildFlags>();
  auto flags = std::make_shared<OptionFlags>(*build, *options);
  flags->add_config_flag();
  build->add_flag("--no-eos", options->no_eos, "put no end-of-text token after each document");
  build->footer("Example: coca data build --input books/train --tokenizer byte --output train.tok");
  build->callback([=] {
    *action = [=] {
      flags->finish();
      return run_build(*options);
    };
  });

  CLI::App* import = app->add_subcommand("import", "Make a token file of an indexed dataset (.idx and .bin)");
  auto import_options = std::make_shared<ImportFlags>();
  auto import_flags = std::make_shared<OptionFlags>(*import, *import_options);
  import->footer("Example: coca data import --input pile_input_ids --tokenizer gpt-neox-20b --output pile.tok");
  import->callback([=] {
    *action = [=] {
      import_flags->finish();
      return run_import(*import_options);
    };
  });

  CLI::App* info = app->add_subcommand("info", "Describe a token file (and check it)");
  auto file = std::make_shared<std::string>();
  auto json = std::make_shared<bool>(false);
  info->add_option("FILE", *file, "token file")->required();
  info->add_flag("--json", *json, "as JSON");
  info->callback([=] { *action = [=] { return run_info(*file, *json); }; });
}

}  // namespace coca::tools
