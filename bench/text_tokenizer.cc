// Encoding with tokenizer.json in one thread, for generated text and for a given file whose documents are separated by
// two zero bytes:
//   COCA_BENCH_TOKENIZER=tokenizer.json COCA_BENCH_TEXT=file bench/text_tokenizer --benchmark_filter=encode_file
// Prints MB/s of text.
// SPDX-License-Identifier: Apache-2.0
#include <benchmark/benchmark.h>

#include <cstdlib>

#include "coca/base/rng.h"
#include "coca/io/fs.h"
#include "coca/text/tokenizer.h"

namespace coca {
namespace {

namespace fs = std::filesystem;

void encode_all(benchmark::State& state, const text::Tokenizer& tokenizer, const std::vector<std::string>& documents) {
  int64_t bytes = 0, ids = 0;
  for (auto _ : state)
    for (const std::string& document : documents) {
      ids += std::ssize(tokenizer.encode(document));
      bytes += std::ssize(document);
    }
  state.SetBytesProcessed(bytes);
  state.counters["ids/s"] = benchmark::Counter(static_cast<double>(ids), benchmark::Counter::kIsRate);
}

void encode_file(benchmark::State& state) {
  const char *file = std::getenv("COCA_BENCH_TOKENIZER"), *text = std::getenv("COCA_BENCH_TEXT");
  if (file == nullptr || text == nullptr) return state.SkipWithError("set COCA_BENCH_TOKENIZER and COCA_BENCH_TEXT");
  const std::string content = io::read_file(text);
  std::vector<std::string> documents;
  for (size_t at = 0; at < content.size();) {
    const size_t end = std::min(content.find(std::string_view("\0\0", 2), at), content.size());
    documents.push_back(content.substr(at, end - at));
    at = end + 2;
  }
  encode_all(state, *text::load_tokenizer(file), documents);
}
BENCHMARK(encode_file)->Unit(benchmark::kMillisecond);

// 2,000 words of one to nine letters with frequencies like those of prose.
std::string prose(size_t bytes) {
  Rng rng(1);
  std::vector<std::string> words(2000);
  for (std::string& word : words)
    for (size_t n = 1 + rng.below(9); word.size() < n;) word += "etaoinshrdlucmfwygpbvk"[rng.below(22)];
  std::string text;
  while (text.size() < bytes) {
    const size_t pick = rng.below(1 + rng.below(1 + rng.below(words.size())));
    text += words[pick] + (rng.below(12) == 0 ? ".\n" : rng.below(9) == 0 ? ", " : " ");
  }
  return text;
}

void encode_prose(benchmark::State& state, const char* name) {
  const fs::path folder = fs::path("tests/data/tokenizers") / name;
  if (!fs::exists(folder)) return state.SkipWithError("run this from the project's folder");
  encode_all(state, *text::load_tokenizer(folder), {prose(1 << 20)});
}
BENCHMARK_CAPTURE(encode_prose, gpt_neox, "gpt_neox")->Unit(benchmark::kMillisecond);
BENCHMARK_CAPTURE(encode_prose, llama_3, "llama_3")->Unit(benchmark::kMillisecond);
BENCHMARK_CAPTURE(encode_prose, qwen2, "qwen2")->Unit(benchmark::kMillisecond);
BENCHMARK_CAPTURE(encode_prose, gpt_4o, "gpt_4o")->Unit(benchmark::kMillisecond);
BENCHMARK_CAPTURE(encode_prose, llama_2, "llama_2")->Unit(benchmark::kMillisecond);

}  // namespace
}  // namespace coca
