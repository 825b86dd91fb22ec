// coca/text/bpe.h - byte pair encoding of one word: symbols of bytes or characters, merged in the order of ranks.
// The result equals that of the tokenizers package: always the pair of lowest rank, the leftmost among equal ones.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "coca/text/json_field.h"
#include "coca/text/tokenizer_file.h"

namespace coca::text {

// The symbols of a word before merging. kBytes: the vocabulary writes each byte as a printable letter (ByteLevel).
enum class BpeSymbols { kBytes, kCharacters };

class Bpe {
 public:
  // `model` is the file's "model". The vocabulary must outlive this.
  Bpe(const JsonField& model, const Vocabulary& vocabulary, const MergeList& merges, BpeSymbols symbols);
  ~Bpe();

  // Appends the ids of a word (any bytes with kBytes, else valid UTF-8). Thread-safe; each thread keeps a cache.
  void encode(std::string_view word, std::vector<int32_t>& ids) const;

  // With kCharacters: whether no token has `mark` after another character. Then a text may be cut before each
  // mark that follows another character, and its parts may be encoded separately.
  bool splits_before(std::string_view mark) const;

 private:
  struct Merge {
    uint64_t pair;  // left << 32 | right; kNoPair: empty
    uint32_t rank;
    int32_t id;
  };
  static constexpr uint64_t kNoPair = ~uint64_t{0};

  void read_options(const JsonField& model);
  void read_merges(const JsonField& model, const MergeList& merges);
  void read_symbols(const JsonField& model);
  const Merge* find(int32_t left, int32_t right) const;
  void encode_uncached(std::string_view word, std::vector<int32_t>& ids) const;
  void byte_symbols(std::string_view word, std::vector<int32_t>& ids) const;
  void character_symbols(std::string_view word, std::vector<int32_t>& ids) const;
  void merge_short(std::vector<int32_t>& ids, size_t begin) const;
  void merge_long(std::vector<int32_t>& ids, size_t begin) const;
  int32_t character_id(uint32_t c) const;

  const Vocabulary& vocabulary_;
  BpeSymbols symbols_;
  uint32_t owner_;  // identifies this model's entries in a thread's cache
  bool fuse_unknown_ = false, byte_fallback_ = false, ignore_merges_ = false;
  int32_t unknown_ = -1;
  std::string suffix_;                            // of the last symbol of a word; often empty
  int32_t last_byte_ids_[256];                    // kBytes: with the suffix
  int32_t byte_ids_[256];                         // of a byte's letter, or of <0x00>...; -1: none
  std::vector<std::vector<int32_t>> characters_;  // [c >> 8][c & 255]; pages without any are empty
  std::vector<Merge> merges_;                     // open addressing
  uint32_t shift_ = 0;
};

// The letters of ByteLevel: byte -> code point and back (-1: no letter of it).
uint32_t byte_letter(uint8_t byte);
int letter_byte(uint32_t c);

}  // namespace coca::text
