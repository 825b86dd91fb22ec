// coca/text/sentencepiece_train.cc - see tokenizer.h.
// SPDX-License-Identifier: Apache-2.0
#include <sentencepiece_trainer.h>

#include <algorithm>
#include <unordered_map>

#include "coca/base/count.h"
#include "coca/base/error.h"
#include "coca/base/stop.h"
#include "coca/io/fs.h"
#include "coca/text/tokenizer.h"
#include "coca/text/utf8.h"

namespace coca::text {

namespace {

// The trainer drops longer sentences without a word; longer lines are cut, at a space if there is one.
constexpr size_t kMaxSentenceBytes = 4096;

void check_stop() { COCA_CHECK_AS(kInterrupted, !stop_requested(), "stopped; nothing was written"); }

// Calls take(sentence) for the lines of a file, without their newlines: "\n" is a token by itself.
template <typename Take>
void for_each_sentence(const std::filesystem::path& file, const Take& take) {
  check_stop();
  std::string text = io::read_file(file);
  strip_bom(text);
  if (!is_valid_utf8(text)) text = replace_invalid(text);
  for (size_t begin = 0; begin < text.size();) {
    const size_t newline = std::min(text.find('\n', begin), text.size());
    size_t end = newline;
    if (end - begin > kMaxSentenceBytes) {
      end = begin + kMaxSentenceBytes;
      const size_t space = text.rfind(' ', end);
      if (space != std::string::npos && space > begin) end = space;
      while ((static_cast<unsigned char>(text[end]) & 0xc0u) == 0x80u) --end;  // not within a character
    }
    if (end > begin) take(std::string_view(text).substr(begin, end - begin));
    begin = end == newline ? end + 1 : end;
  }
}

// `wanted` of `total` sentences, evenly spread: number i is taken when i * wanted / total moves on.
std::vector<std::string> load_sentences(const SentencePieceTraining& training) {
  uint64_t total = 0;
  for (const auto& file : training.inputs) for_each_sentence(file, [&](std::string_view) { ++total; });
  COCA_CHECK_AS(kBadFile, total > 0, "text: there is none in {}", counted(training.inputs.size(), "input file"));
  const uint64_t wanted = training.max_sentences == 0 ? total : std::min(total, uint64_t(training.max_sentences));
  std::vector<std::string> sentences;
  sentences.reserve(wanted);
  uint64_t index = 0;
  for (const auto& file : training.inputs)
    for_each_sentence(file, [&](std::string_view sentence) {
      if ((index + 1) * wanted / total > index * wanted / total) sentences.emplace_back(sentence);
      ++index;
    });
  return sentences;
}

class Sentences final : public sentencepiece::SentenceIterator {
 public:
  explicit Sentences(const std::vector<std::string>& sentences) : sentences_(sentences) {}
  bool done() const override { return next_ >= sentences_.size(); }
  void Next() override { ++next_; }
  const std::string& value() const override { return sentences_[next_]; }
  sentencepiece::util::Status status() const override { return {}; }

 private:
  const std::vector<std::string>& sentences_;
  size_t next_ = 0;
};

// The library's messages begin with its own source line and condition, "./src/x.cc(1) [a == b] Reason.", and name its
// own flags.
std::string reason(const std::string& message) {
  const size_t at = message.find("] ");
  std::string text = at == std::string::npos || at + 2 == message.size() ? message : message.substr(at + 2);
  constexpr std::string_view kFlag = " with --character_coverage option";
  if (const size_t flag = text.find(kFlag); flag != std::string::npos) text.erase(flag, kFlag.size());
  return text;
}

void refuse_existing(const std::filesystem::path& file) {
  COCA_CHECK_AS(kIo, !io::exists(file), "{} exists already; remove it, or choose another place for the new tokenizer",
                file.string());
}

// Atomically, and never over a file that another process has written in the meantime.
void write_new(const std::filesystem::path& file, const std::string& content) {
  refuse_existing(file);
  const io::AtomicDir scratch(file);  // never committed: it only holds the file until that has its name
  const std::filesystem::path whole = scratch.path() / file.filename();
  io::write_file_atomic(whole, content);
  std::error_code error;
  std::filesystem::create_hard_link(whole, file, error);
  const bool taken = error == std::errc::file_exists;
  if (error && !taken) std::filesystem::rename(whole, file, error);  // a file system without hard links
  COCA_CHECK_AS(kIo, !error, "{}: cannot write: {}", file.string(), error.message());
  io::fsync_path(file.has_parent_path() ? file.parent_path() : ".");
}

const char* flag(bool value) { return value ? "true" : "false"; }

}  // namespace

void train_sentencepiece(const SentencePieceTraining& training) {
  COCA_CHECK(!training.inputs.empty(), "sentencepiece training: no input files");
  COCA_CHECK(!training.model_prefix.empty(), "sentencepiece training: model_prefix is empty");
  COCA_CHECK(training.model_type == "bpe" || training.model_type == "unigram",
             "type is \"{}\"; expected bpe or unigram", training.model_type);
  const int64_t least = training.byte_fallback ? 256 + 3 + 1 : 5;
  COCA_CHECK(training.vocab_size >= least && training.vocab_size <= 1'000'000,
             "vocab_size is {}; expected {} to 1000000", training.vocab_size, least);
  COCA_CHECK(training.character_coverage >= 0.98 && training.character_coverage <= 1.0,
             "character_coverage is {}; expected 0.98 to 1", training.character_coverage);
  COCA_CHECK(training.max_sentences >= 0, "max_sentences is {}; expected 0 or more", training.max_sentences);

  std::filesystem::path file = training.model_prefix;
  file += ".model";
  refuse_existing(file);

  const std::vector<std::string> sentences = load_sentences(training);
  std::unordered_map<std::string, std::string> arguments = {
      {"vocab_size", fmt::format("{}", training.vocab_size)},
      {"model_type", training.model_type},
      {"byte_fallback", flag(training.byte_fallback)},
      {"split_digits", flag(training.split_digits)},
      {"character_coverage", fmt::format("{}", training.character_coverage)},
      {"normalization_rule_name", "identity"},
      {"remove_extra_whitespaces", "false"},
      {"allow_whitespace_only_pieces", "true"},
      {"add_dummy_prefix", "false"},
      {"max_sentence_length", fmt::format("{}", kMaxSentenceBytes + 64)},
      {"input_sentence_size", "0"},
      {"shuffle_input_sentence", "false"},
      {"num_threads", "1"},  // the order of sums, and so the model, would depend on it
      {"minloglevel", "3"},  // the trainer talks to stderr otherwise
  };
  // Newlines never reach the trainer. With bytes they are <0x0A>; without, they need a piece of their own.
  if (!training.byte_fallback) arguments.emplace("user_defined_symbols", "\n");

  Sentences iterator(sentences);
  std::string model;
  if (training.training_begins) training.training_begins(static_cast<int64_t>(sentences.size()));
  check_stop();
  const auto status = sentencepiece::SentencePieceTrainer::Train(arguments, &iterator, &model);
  COCA_CHECK(status.ok(), "vocab_size is {}; sentencepiece cannot train that on {}: {}", training.vocab_size,
             counted(sentences.size(), "line"), reason(status.error_message()));
  if (training.training_ended) training.training_ended();
  check_stop();
  write_new(file, model);
}

}  // namespace coca::text
