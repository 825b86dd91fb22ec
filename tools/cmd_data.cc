// coca data: tokenizes a corpus into one file, imports a dataset that is already tokenized, and describes such files.
// Formats: docs/formats.md.
// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <filesystem>

#include "cli.h"
#include "coca/base/clock.h"
#include "coca/base/count.h"
#include "coca/base/log.h"
#include "coca/data/indexed_dataset.h"
#include "coca/data/pg19.h"
#include "coca/data/token_file.h"
#include "coca/io/fs.h"
#include "coca/report/table.h"
#include "output_flags.h"

namespace coca::tools {

namespace {

struct BuildFlags {
  std::vector<std::string> text;
  std::string tokenizer, out, field;
  std::optional<data::Split> split;
  data::InvalidUtf8 invalid_utf8 = data::InvalidUtf8::kReplace;
  int64_t max_documents = 0;
  bool no_eos = false;

  template <class V>
  void visit(V&& v) {
    v("text", "files, globs or folders (their .txt and .jsonl files)", text);
    v("tokenizer", "\"byte\", a sentencepiece .model file or a folder holding a tokenizer", tokenizer);
    v("out", "token file to write", out);
    v("split", "split of a folder in PG-19's layout; default for such folders: train", split);
    v("field", "field of JSON lines; default: content, then text", field);
    v("invalid_utf8", "what to do with text that is not UTF-8", invalid_utf8);
    v("max_documents", "use only this many documents, the first ones; 0: all", max_documents);
    v("no_eos", "do not put an end-of-text token after each document", no_eos);
  }
};

int run_build(const BuildFlags& flags) {
  COCA_CHECK(!flags.text.empty(), "--text: no text given");
  COCA_CHECK(!flags.tokenizer.empty(), "--tokenizer: none given; \"byte\" needs no file");
  COCA_CHECK(!flags.out.empty(), "--out: no file given");
  const auto tokenizer = text::load_tokenizer(flags.tokenizer);
  LateProgress progress;
  data::BuildOptions options{
      .corpus = {.inputs = data::choose_split(flags.text, flags.split, data::Split::kTrain).inputs,
                 .invalid_utf8 = flags.invalid_utf8,
                 .json_field = flags.field,
                 .max_documents = flags.max_documents},
      .output = flags.out,
      .add_eos = !flags.no_eos};
  options.progress = [&](int64_t done, int64_t total) {
    progress.shown({.total = total, .unit = "bytes", .label = "tokenizing"}).update(done);
  };
  const Stopwatch watch;
  const data::BuildReport r = data::build_token_file(*tokenizer, options);
  progress.finish();
  for (const std::string& warning : r.corpus.warnings) std::fprintf(stderr, "warning: %s\n", warning.c_str());
  report::Table table{.title = flags.out, .header = {"", "value"}, .rows = {}, .align = {}};
  table.rows = {{"files", grouped(r.corpus.files)},
                {"documents", grouped(r.documents)},
                {"empty documents skipped", grouped(r.corpus.empty_documents)},
                {"documents with invalid UTF-8", grouped(r.corpus.invalid_utf8_documents)},
                {"text", report::format_bytes(r.corpus.bytes)},
                {"tokens", grouped(r.tokens)},
                {"bytes per token", report::format_number(r.bytes_per_token)},
                {"tokenizer", fmt::format("{}, {}", tokenizer->kind(), counted(tokenizer->vocab_size(), "id"))},
                {"time", report::format_duration(watch.seconds())}};
  print(table_text(table));
  return 0;
}

struct ImportFlags {
  std::string dataset, tokenizer, out;

  template <class V>
  void visit(V&& v) {
    v("dataset", "PREFIX of PREFIX.idx and PREFIX.bin, as Megatron-LM, GPT-NeoX and CoCA's official code write them",
      dataset);
    v("tokenizer", "tokenizer that made the ids: \"byte\", a sentencepiece .model file or a folder holding a tokenizer",
      tokenizer);
    v("out", "token file to write", out);
  }
};

int run_import(const ImportFlags& flags) {
  COCA_CHECK(!flags.dataset.empty(), "--dataset: none given; expected PREFIX of PREFIX.idx and PREFIX.bin");
  COCA_CHECK(!flags.tokenizer.empty(), "--tokenizer: none given; expected the one that made the ids");
  COCA_CHECK(!flags.out.empty(), "--out: no file given");
  const auto tokenizer = text::load_tokenizer(flags.tokenizer);
  const data::IndexedDataset dataset(flags.dataset);
  auto progress = make_progress({.total = dataset.tokens(), .unit = "tokens", .label = "importing"});
  const data::ImportReport r = data::import_indexed(
      dataset, *tokenizer, {.output = flags.out, .progress = [&](int64_t done, int64_t) { progress.update(done); }});
  progress.finish();
  if (r.closed_documents < r.documents)
    log_warning("{} of {} {} not end with this tokenizer's eos", grouped(r.documents - r.closed_documents),
                counted(r.documents, "document"), r.documents - r.closed_documents == 1 ? "does" : "do");
  report::Table table{.title = flags.out, .header = {"", "value"}, .rows = {}, .align = {}};
  table.rows = {{"documents", grouped(r.documents)},
                {"sequences", grouped(r.sequences)},
                {"tokens", grouped(r.tokens)},
                {"tokenizer", fmt::format("{}, {}", tokenizer->kind(), counted(tokenizer->vocab_size(), "id"))}};
  print(table_text(table));
  return 0;
}

struct InfoFlags {
  std::string file, json;

  template <class V>
  void visit(V&& v) {
    v("file", "token file", file);
    v("json", "write this to a file, as JSON; -: to standard output, instead of the table", json);
  }
};

int run_info(const InfoFlags& flags) {
  const std::string& path = flags.file;
  COCA_CHECK(!path.empty(), "FILE: no token file given");
  const data::TokenFile file(path);
  int64_t shortest = file.documents() > 0 ? file.size() : 0, longest = 0;
  for (int64_t i = 0; i < file.documents(); ++i) {
    const auto [begin, end] = file.document(i);
    shortest = std::min(shortest, end - begin);
    longest = std::max(longest, end - begin);
  }
  const auto bytes = static_cast<int64_t>(io::file_bytes(path));
  write_json_output(flags.json, nlohmann::ordered_json{{"file", path},
                                                       {"bytes", bytes},
                                                       {"tokens", file.size()},
                                                       {"documents", file.documents()},
                                                       {"shortest_document", shortest},
                                                       {"longest_document", longest},
                                                       {"vocab_size", file.vocab_size()},
                                                       {"tokenizer", file.tokenizer_kind()},
                                                       {"fingerprint", file.tokenizer_fingerprint()}});
  if (is_stdout(flags.json)) return 0;
  report::Table table{.title = path, .header = {"", "value"}, .rows = {}, .align = {}};
  table.rows = {{"size", report::format_bytes(bytes)},
                {"tokens", grouped(file.size())},
                {"documents", grouped(file.documents())},
                {"tokens per document",
                 file.documents() > 0 ? fmt::format("{} to {}", grouped(shortest), grouped(longest)) : "-"},
                {"vocabulary", grouped(file.vocab_size())},
                {"tokenizer", fmt::format("{} ({})", file.tokenizer_kind(), file.tokenizer_fingerprint())}};
  print(table_text(table));
  return 0;
}

}  // namespace

void add_data(CLI::App& root, Action* action) {
  CLI::App& app =
      add_group(root, "data", "Tokenize a corpus into one file, import a tokenized one, or describe such a file",
                "Example: coca data build --text books/train --tokenizer byte --out train.tok");

  add_command<BuildFlags>(app, action, "build", "Tokenize files into a token file",
                          "Example: coca data build --text books/train --tokenizer byte --out train.tok", run_build);
  add_command<ImportFlags>(app, action, "import", "Make a token file of an indexed dataset (.idx and .bin)",
                           "Example: coca data import --dataset pile_input_ids --tokenizer gpt-neox-20b --out pile.tok",
                           run_import);
  add_command<InfoFlags>(app, action, "info", "Describe a token file (and check it)",
                         "Example: coca data info train.tok", run_info, {{"file", "FILE"}});
}

}  // namespace coca::tools
