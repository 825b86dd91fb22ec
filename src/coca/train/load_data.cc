// SPDX-License-Identifier: Apache-2.0
#include "coca/train/load_data.h"

#include "coca/base/count.h"
#include "coca/base/log.h"
#include "coca/base/stop.h"
#include "coca/io/fs.h"
#include "coca/io/names.h"

namespace coca::train {

namespace fs = std::filesystem;

namespace {

// Changes when a file is added, removed, resized or rewritten.
std::string stamp_of(const std::vector<std::string>& inputs, const text::Tokenizer& tokenizer) {
  std::string all = tokenizer.fingerprint() + "\n";
  for (const fs::path& file : io::expand_inputs(inputs, {".txt", ".jsonl"})) {
    std::error_code error;
    const fs::path whole = fs::absolute(file, error);
    const auto written = error ? fs::file_time_type() : fs::last_write_time(file, error);
    COCA_CHECK_AS(kIo, !error, "{}: cannot tell when it was written: {}", file.string(), error.message());
    all += fmt::format("{}\t{}\t{}\n", whole.string(), io::file_bytes(file), written.time_since_epoch().count());
  }
  return all;
}

bool is_token_file(const std::vector<std::string>& inputs) { return inputs.size() == 1 && inputs[0].ends_with(".tok"); }
fs::path list_file(const fs::path& cache) { return cache.string() + ".documents"; }

std::string decoded_list(const std::string& name, const data::TokenFile& tokens, const text::Tokenizer& tokenizer) {
  std::string list;
  if (tokens.size() > kMostCompared) {
    log_once(LogLevel::kInfo,
             fmt::format("{}: holds {}; of more than {}, documents are not compared with those of the other text",
                         io::shown_name(name), counted(tokens.size(), "token"), grouped(kMostCompared)));
    return list;
  }
  std::vector<int32_t> ids;
  for (int64_t d = 0; d < tokens.documents(); ++d) {
    COCA_CHECK_AS(kInterrupted, !stop_requested(), "{}: stopped before document {} was compared", name, d + 1);
    const auto [begin, end] = tokens.document(d);
    ids.resize(static_cast<size_t>(end - begin));
    tokens.read(begin, ids);
    list += data::document_line(fmt::format("{}: document {}", name, d + 1), tokenizer.decode(ids));
  }
  return list;
}

}  // namespace

std::vector<std::string> text_inputs(const std::vector<std::string>& given, const text::Tokenizer& tokenizer,
                                     std::optional<data::Split> split, data::Split otherwise) {
  COCA_CHECK(!given.empty(), "no text given");
  std::vector<std::string> inputs = data::choose_split(given, split, otherwise).inputs;
  if (is_token_file(inputs)) {
    const data::TokenFile file{fs::path(inputs[0])};
    COCA_CHECK(file.tokenizer_fingerprint() == tokenizer.fingerprint(), "{} was made with tokenizer {}; given is {}",
               inputs[0], file.tokenizer_fingerprint(), tokenizer.fingerprint());
  } else {
    io::expand_inputs(inputs, {".txt", ".jsonl"});
    COCA_CHECK(tokenizer.eos_id(), "token file: the {} tokenizer has no eos to put after documents", tokenizer.kind());
  }
  return inputs;
}

data::TokenFile sample_tokens(const std::vector<std::string>& given, const text::Tokenizer& tokenizer,
                              SampleSize enough, std::optional<data::Split> split, data::Split otherwise,
                              std::string* list) {
  const std::vector<std::string> inputs = text_inputs(given, tokenizer, split, otherwise);
  if (is_token_file(inputs)) {
    data::TokenFile file{fs::path(inputs[0])};
    if (list) *list += decoded_list(inputs[0], file, tokenizer);
    return file;
  }
  std::vector<int32_t> tokens;
  std::vector<int64_t> offsets{0};
  data::CorpusOptions options{.inputs = inputs};
  const auto has_enough = [&] {
    return static_cast<int64_t>(tokens.size()) >= enough.tokens &&
           static_cast<int64_t>(offsets.size()) > enough.documents;
  };
  if (!list) options.enough = has_enough;
  const data::CorpusReport report = data::read_corpus(options, [&](data::Document&& document) {
    if (list) *list += data::document_line(document.name, document.text);
    if (has_enough()) return;
    const std::vector<int32_t> ids = tokenizer.encode(document.text);
    tokens.insert(tokens.end(), ids.begin(), ids.end());
    tokens.push_back(*tokenizer.eos_id());
    offsets.push_back(static_cast<int64_t>(tokens.size()));
  });
  if (list)
    for (const std::string& warning : report.warnings) log_warning("{}", warning);
  return data::TokenFile::from_tokens(std::move(tokens), std::move(offsets), tokenizer.vocab_size());
}

data::TokenFile load_tokens(const std::vector<std::string>& given, const text::Tokenizer& tokenizer,
                            const fs::path& cache, const std::function<void(int64_t, int64_t)>& progress,
                            std::optional<data::Split> split, data::Split otherwise) {
  const std::vector<std::string> inputs = text_inputs(given, tokenizer, split, otherwise);
  if (is_token_file(inputs)) return data::TokenFile{fs::path(inputs[0])};
  const std::string stamp = stamp_of(inputs, tokenizer);
  const fs::path stamp_file = cache.string() + ".stamp";
  if (io::exists(cache) && io::exists(list_file(cache)) && io::exists(stamp_file) && io::read_file(stamp_file) == stamp)
    return data::TokenFile(cache);
  io::make_dirs(cache.parent_path());
  data::BuildOptions options;
  options.corpus.inputs = inputs;
  options.output = cache;
  options.progress = progress;
  std::string list;
  options.each = [&](const data::Document& document) { list += data::document_line(document.name, document.text); };
  const data::BuildReport report = data::build_token_file(tokenizer, options);
  for (const std::string& warning : report.corpus.warnings) log_warning("{}", warning);
  io::write_file_atomic(list_file(cache), list);
  io::write_file_atomic(stamp_file, stamp);
  return data::TokenFile(cache);
}

int64_t cache_bytes(const std::vector<std::string>& given, const text::Tokenizer& tokenizer,
                    std::optional<data::Split> split, data::Split otherwise) {
  if (given.empty()) return 0;
  const std::vector<std::string> inputs = text_inputs(given, tokenizer, split, otherwise);
  if (is_token_file(inputs)) return 0;
  int64_t bytes = 0;
  for (const fs::path& file : io::expand_inputs(inputs, {".txt", ".jsonl"}))
    bytes += static_cast<int64_t>(io::file_bytes(file));
  constexpr int64_t kTokens = 100'000;  // enough for the ratio
  const data::TokenFile part = sample_tokens(given, tokenizer, {.tokens = kTokens}, split, otherwise);
  std::vector<int32_t> ids(static_cast<size_t>(std::min(part.size(), kTokens)));
  part.read(0, ids);
  const size_t part_bytes = tokenizer.decode(ids).size();
  if (part_bytes == 0) return 0;
  const double tokens_per_byte = static_cast<double>(ids.size()) / static_cast<double>(part_bytes);
  const double token_bytes = tokenizer.vocab_size() <= 65536 ? 2 : 4;
  return static_cast<int64_t>(static_cast<double>(bytes) * tokens_per_byte * token_bytes);
}

std::string document_list(const std::vector<std::string>& inputs, const data::TokenFile& tokens,
                          const text::Tokenizer& tokenizer, const fs::path& cache) {
  return is_token_file(inputs) ? decoded_list(inputs[0], tokens, tokenizer) : io::read_file(list_file(cache));
}

}  // namespace coca::train
