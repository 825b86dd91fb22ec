// coca/data/token_file.h - a tokenized corpus in one mapped file. Layout: docs/formats.md.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "coca/data/corpus.h"
#include "coca/io/mmap.h"
#include "coca/text/tokenizer.h"

namespace coca::data {

struct BuildOptions {
  CorpusOptions corpus;
  std::filesystem::path output;
  bool add_eos = true;                                        // the tokenizer's eos after every document
  std::function<void(int64_t done, int64_t total)> progress;  // bytes of input; may be empty
  std::function<void(const Document&)> each;                  // called for every document; may be empty
};

struct BuildReport {
  CorpusReport corpus;
  int64_t tokens = 0, documents = 0;
  double bytes_per_token = 0;  // text bytes by tokens, eos included
};

// Streams document by document; the file appears whole or not at all. Stops with Error kInterrupted when
// asked to.
BuildReport build_token_file(const text::Tokenizer& tokenizer, const BuildOptions& options);

class TokenFile {
 public:
  // Checks sizes, header, checksum and document offsets; token ids are checked by read().
  explicit TokenFile(const std::filesystem::path& file);
  // In memory. doc_offsets has documents + 1 entries from 0 to tokens.size().
  static TokenFile from_tokens(std::vector<int32_t> tokens, std::vector<int64_t> doc_offsets, int64_t vocab_size);

  int64_t size() const { return tokens_; }
  int64_t documents() const { return static_cast<int64_t>(offsets_.size()) - 1; }
  int64_t vocab_size() const { return vocab_size_; }
  const std::string& tokenizer_kind() const { return kind_; }
  std::string tokenizer_fingerprint() const { return fingerprint_; }
  // A fingerprint of the text: 16 hexadecimal digits of the ids and their number, whether in a file or in memory. If
  // there are more than 4 Mi tokens, 1024 evenly spaced blocks of 4096 are read, the first and the last included (tens
  // of ms).
  std::string content_fingerprint() const;
  std::pair<int64_t, int64_t> document(int64_t i) const;  // first token and one past the last
  // Tokens start .. start + out.size() - 1. Error when out of range or an id is not below the vocabulary
  // size.
  void read(int64_t start, std::span<int32_t> out) const;

 private:
  TokenFile() = default;
  void parse(std::span<const std::byte> bytes);
  void check_offsets() const;

  std::string name_ = "tokens in memory";
  io::MappedFile file_;
  std::vector<int32_t> owned_;
  const std::byte* payload_ = nullptr;  // null: owned_
  int64_t token_bytes_ = 4, tokens_ = 0, vocab_size_ = 0;
  std::string kind_, fingerprint_;
  std::vector<int64_t> offsets_;
};

}  // namespace coca::data
