// coca/data/packing.cc - see packing.h.
// SPDX-License-Identifier: Apache-2.0
#include "coca/data/packing.h"

#include <algorithm>
#include <limits>
#include <map>

#include "coca/base/count.h"
#include "coca/base/error.h"
#include "coca/base/rng.h"
#include "coca/data/sampler.h"

namespace coca::data {

void TokenDocuments::add(const TokenDocument& document) {
  COCA_CHECK(document.ids.size() == document.counts.size(), "document of {} with {} marks of what counts",
             counted(document.ids.size(), "id"), document.counts.size());
  ids_.insert(ids_.end(), document.ids.begin(), document.ids.end());
  counts_.insert(counts_.end(), document.counts.begin(), document.counts.end());
  starts_.push_back(tokens());
}

std::string TokenDocuments::fingerprint() const {
  uint64_t state = mix64(static_cast<uint64_t>(documents()));
  for (const int64_t start : starts_) state = mix64(state ^ static_cast<uint64_t>(start));
  for (size_t i = 0; i < ids_.size(); ++i)
    state = mix64(state ^ (static_cast<uint64_t>(static_cast<uint32_t>(ids_[i])) << 1 | (counts_[i] ? 1 : 0)));
  return fmt::format("{:016x}", state);
}

PackedWindows::PackedWindows(const TokenDocuments& documents, const PackingOptions& options)
    : documents_(&documents), options_(options) {
  COCA_CHECK(options.length >= 1 && options.length < std::numeric_limits<int32_t>::max(),
             "window length is {}; expected 1 or more", options.length);
  report_.documents = documents.documents();
  for (int64_t i = 0; i < documents.documents(); ++i) cut(i);
  COCA_CHECK_AS(kBadFile, !pieces_.empty(),
                "packing: of {} none has a token that counts within windows of {} ({} were longer and "
                "dropped, {} without "
                "an answer in reach)",
                counted(report_.documents, "document"), options.length, report_.dropped, report_.without_loss);
  pack();
}

// Adds the piece if one of its targets counts.
bool PackedWindows::keep(int64_t start, int64_t inputs) {
  int64_t counted = 0;
  for (int64_t i = start + 1; i <= start + inputs; ++i) counted += documents_->counts(i) ? 1 : 0;
  if (counted == 0) return false;
  pieces_.push_back({.start = start, .inputs = inputs});
  report_.inputs += inputs;
  report_.targets += counted;
  return true;
}

void PackedWindows::cut(int64_t document) {
  const int64_t N = options_.length, start = documents_->start(document);
  int64_t inputs = documents_->length(document) - 1;
  if (inputs > N) {
    switch (options_.long_documents) {
      case LongDocuments::kSplit: ++report_.split; break;
      case LongDocuments::kTruncate:
        ++report_.truncated;
        inputs = N;
        break;
      case LongDocuments::kDrop: ++report_.dropped; return;
    }
  }
  bool kept = false;
  for (int64_t at = 0; at < inputs; at += N) kept |= keep(start + at, std::min(N, inputs - at));
  if (!kept) ++report_.without_loss;
}

void PackedWindows::pack() {
  const auto pieces = static_cast<uint64_t>(pieces_.size());
  std::multimap<int64_t, int64_t> open;  // room left and window, those with equal room in the order they came to it
  for (uint64_t i = 0; i < pieces; ++i) {
    Piece& piece = pieces_[permute_index(i, pieces, mix64(options_.seed ^ 0x9ac6ed))];
    int64_t room = options_.length;
    if (const auto fit = open.lower_bound(piece.inputs); fit != open.end()) {
      room = fit->first;
      piece.window = fit->second;
      open.erase(fit);
    } else {
      piece.window = report_.windows++;
    }
    if (room > piece.inputs) open.emplace(room - piece.inputs, piece.window);
  }
  std::sort(pieces_.begin(), pieces_.end(), [](const Piece& a, const Piece& b) {
    return a.window != b.window ? a.window < b.window : a.start < b.start;
  });
  for (size_t i = 0; i < pieces_.size(); ++i)
    if (i == 0 || pieces_[i].window != pieces_[i - 1].window) first_.push_back(static_cast<int64_t>(i));
  first_.push_back(static_cast<int64_t>(pieces_.size()));
  report_.pieces = static_cast<int64_t>(pieces_.size());
}

void PackedWindows::window(int64_t i, const WindowRow& out) const {
  COCA_CHECK(i >= 0 && i < windows(), "packed window {} of {}", i, windows());
  const auto N = static_cast<size_t>(options_.length);
  COCA_CHECK(out.ids.size() == N && out.targets.size() == N && out.document_start.size() == N,
             "packed window into {}, {} and {}; expected {}", out.ids.size(), out.targets.size(),
             counted(out.document_start.size(), "place"), N);
  size_t at = 0;
  for (int64_t p = first_[static_cast<size_t>(i)]; p < first_[static_cast<size_t>(i) + 1]; ++p) {
    const Piece& piece = pieces_[static_cast<size_t>(p)];
    const auto document = static_cast<int32_t>(at);
    for (int64_t j = piece.start; j < piece.start + piece.inputs; ++j, ++at) {
      out.ids[at] = documents_->id(j);
      out.targets[at] = documents_->counts(j + 1) ? documents_->id(j + 1) : kNoTarget;
      out.document_start[at] = document;
    }
  }
  for (; at < N; ++at) {  // each a document by itself: it reads nothing and nothing reads it
    out.ids[at] = 0;
    out.targets[at] = kNoTarget;
    out.document_start[at] = static_cast<int32_t>(at);
  }
}

void PackedWindows::shuffled(int64_t k, const WindowRow& out) const {
  COCA_CHECK(k >= 0, "packed window {}; expected 0 or more", k);
  const uint64_t epoch = static_cast<uint64_t>(k / windows()), index = static_cast<uint64_t>(k % windows());
  const uint64_t key = mix64(options_.seed ^ mix64(epoch ^ 0x3c1d0e));
  window(static_cast<int64_t>(permute_index(index, static_cast<uint64_t>(windows()), key)), out);
}

}  // namespace coca::data
