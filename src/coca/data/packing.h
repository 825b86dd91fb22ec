// coca/data/packing.h - documents of different lengths packed into windows of one length, without attention across
// them: each window says where the document of every token starts. Rules: docs/data.md.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "coca/base/enum_names.h"

namespace coca::data {

inline constexpr int32_t kNoTarget = -1;  // ops::kIgnoreTarget

struct TokenDocument {
  std::vector<int32_t> ids;
  std::vector<bool> counts;  // of each id: whether predicting it is part of the loss
};

// Documents back to back in memory.
class TokenDocuments {
 public:
  void add(const TokenDocument&);
  int64_t documents() const { return static_cast<int64_t>(starts_.size()) - 1; }
  int64_t tokens() const { return static_cast<int64_t>(ids_.size()); }
  int64_t start(int64_t document) const { return starts_[static_cast<size_t>(document)]; }
  int64_t length(int64_t document) const { return start(document + 1) - start(document); }
  int32_t id(int64_t token) const { return ids_[static_cast<size_t>(token)]; }
  bool counts(int64_t token) const { return counts_[static_cast<size_t>(token)]; }
  // A fingerprint of all ids, of which ids count, and of the bounds of the documents: 16 hexadecimal digits.
  std::string fingerprint() const;

 private:
  std::vector<int32_t> ids_;
  std::vector<bool> counts_;
  std::vector<int64_t> starts_{0};
};

// What to do with a document that needs more than one window.
enum class LongDocuments : uint8_t {
  kSplit,     // pieces that overlap by one token: the last target of one is the first input of the next
  kTruncate,  // keep its first window
  kDrop,
};

struct PackingOptions {
  int64_t length = 0;  // N: inputs of a window
  uint64_t seed = 0;   // order of documents and windows
  LongDocuments long_documents = LongDocuments::kSplit;
};

struct PackingReport {
  int64_t documents = 0;                          // given
  int64_t split = 0, truncated = 0, dropped = 0;  // of them longer than a window
  int64_t without_loss = 0;                       // documents left out because none of their (remaining) tokens counts
  int64_t pieces = 0, windows = 0;
  int64_t inputs = 0, targets = 0;  // tokens read; of them with a target that counts
};

// One row of a batch, N of each. A document of T tokens takes T - 1 places: its last is a target only.
struct WindowRow {
  std::span<int32_t> ids, targets;    // kNoTarget where nothing counts
  std::span<int32_t> document_start;  // place in the window where this token's document starts; for padding, its own
};

// Documents are taken in random order, and each is put into the fullest window that has room for it (best fit). The
// windows are the same in every epoch, in another order: window k is a function of (documents, options, k) alone.
class PackedWindows {
 public:
  // The documents must outlive this. Error if no token counts. Takes 24 bytes per piece and 8 per window.
  PackedWindows(const TokenDocuments&, const PackingOptions&);

  const PackingReport& report() const { return report_; }
  int64_t length() const { return options_.length; }
  int64_t windows() const { return report_.windows; }  // in an epoch
  // The k-th window of all epochs, k >= 0.
  void shuffled(int64_t k, const WindowRow&) const;
  // The i-th window in the order of packing, i < windows().
  void window(int64_t i, const WindowRow&) const;

 private:
  struct Piece {
    int64_t start = 0, inputs = 0;  // reads tokens start .. start + inputs, the last one as a target only
    int64_t window = 0;
  };
  void cut(int64_t document);
  bool keep(int64_t start, int64_t inputs);
  void pack();

  const TokenDocuments* documents_;
  PackingOptions options_;
  PackingReport report_;
  std::vector<Piece> pieces_;   // ordered by window
  std::vector<int64_t> first_;  // piece of each window, and one past the last
};

}  // namespace coca::data

COCA_ENUM_NAMES(coca::data::LongDocuments, "long_documents", {coca::data::LongDocuments::kSplit, "split"},
                {coca::data::LongDocuments::kTruncate, "truncate"}, {coca::data::LongDocuments::kDrop, "drop"})
