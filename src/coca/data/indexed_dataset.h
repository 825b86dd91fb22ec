// coca/data/indexed_dataset.h - tokenized corpora in the format of Megatron-LM, GPT-NeoX and CoCA's official code:
// PREFIX.idx and PREFIX.bin. Read through a memory map; nothing in them is trusted. Layout: docs/formats.md.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <span>
#include <string>
#include <utility>

#include "coca/io/mmap.h"
#include "coca/text/tokenizer.h"

namespace coca::data {

class IndexedDataset {
 public:
  // "PREFIX", "PREFIX.idx" or "PREFIX.bin". Checks all of the index and the size of the data; ids are checked by
  // read().
  explicit IndexedDataset(const std::filesystem::path& prefix);

  int64_t tokens() const { return tokens_; }
  int64_t sequences() const { return sequences_; }
  int64_t documents() const { return documents_; }
  std::pair<int64_t, int64_t> document(int64_t i) const;  // first token and one past the last
  // Tokens start .. start + out.size() - 1. Error when out of range or an id is not one of the vocabulary's.
  void read(int64_t start, std::span<int32_t> out, int64_t vocab_size) const;
  const std::string& name() const { return name_; }  // of the index

 private:
  void parse();
  void check_sequences();
  void check_documents() const;
  int64_t size_of(int64_t sequence) const;
  int64_t pointer_of(int64_t sequence) const;  // bytes
  int64_t first_sequence(int64_t document) const;
  int64_t first_token(int64_t document) const;
  template <typename Stored>
  void read_as(int64_t start, std::span<int32_t> out, int64_t vocab_size) const;

  std::string name_, data_name_;
  io::MappedFile index_, data_;
  uint8_t type_ = 0;
  int64_t token_bytes_ = 0, tokens_ = 0, sequences_ = 0, documents_ = 0;
};

struct ImportOptions {
  std::filesystem::path output;
  std::function<void(int64_t done, int64_t total)> progress;  // tokens; may be empty
};
struct ImportReport {
  int64_t documents = 0, sequences = 0, tokens = 0;
  int64_t closed_documents = 0;  // those that end with the tokenizer's eos
};
// Writes the same documents as a token file of this tokenizer. Ids are kept, and nothing is added. Error if an id is
// not one of the tokenizer's. The file is either complete or absent.
ImportReport import_indexed(const IndexedDataset&, const text::Tokenizer&, const ImportOptions&);

}  // namespace coca::data
