// coca/text/tokenizer_file.h - tokenizer.json read in one pass: the vocabulary and the merges into flat memory,
// the small rest as JSON. Memory stays a small multiple of the file, whatever it holds.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace coca::text {

// Strings with ids: all text in one block, found by id or by a hash of the text.
class Vocabulary {
 public:
  void add(std::string_view token, int64_t id);
  // After the last add(). Error kBadFile if a token or an id occurs twice, or if gaps between ids are too large.
  void index(std::string_view origin);

  size_t count() const { return entries_.size(); }
  int32_t size() const { return static_cast<int32_t>(by_id_.size()); }  // largest id + 1
  std::optional<int32_t> find(std::string_view token) const;
  bool holds(int32_t id) const { return id >= 0 && id < size() && by_id_[static_cast<size_t>(id)] >= 0; }
  std::string_view token(int32_t id) const { return text_of(by_id_[static_cast<size_t>(id)]); }  // of held ids

 private:
  struct Entry {
    size_t begin;
    uint32_t length;
    int32_t id;
  };
  std::string_view text_of(int32_t entry) const {
    const Entry& e = entries_[static_cast<size_t>(entry)];
    return std::string_view(text_).substr(e.begin, e.length);
  }
  size_t slot_of(std::string_view token) const;

  std::string text_;
  std::vector<Entry> entries_;
  std::vector<int32_t> by_id_, slots_;  // indices of entries; -1: none
};

// Pairs of tokens in the order of their ranks.
class MergeList {
 public:
  void add(std::string_view left, std::string_view right);
  size_t size() const { return lengths_.size(); }
  template <typename Visit>
  void for_each(const Visit& visit) const {
    size_t at = 0;
    for (const auto& [left, right] : lengths_) {
      visit(std::string_view(text_).substr(at, left), std::string_view(text_).substr(at + left, right));
      at += size_t{left} + right;
    }
  }

 private:
  std::string text_;
  std::vector<std::pair<uint32_t, uint32_t>> lengths_;
};

struct TokenizerFile {
  nlohmann::json rest;  // the file without model.vocab and model.merges
  Vocabulary vocabulary;
  MergeList merges;
};
TokenizerFile parse_tokenizer_json(std::string_view text, std::string_view origin);

// A good hash of short strings.
uint64_t hash_bytes(std::string_view text);

}  // namespace coca::text
