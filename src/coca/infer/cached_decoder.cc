// SPDX-License-Identifier: Apache-2.0
#include "coca/infer/cached_decoder.h"

#include <algorithm>
#include <numeric>

namespace coca::infer {

CachedDecoder::CachedDecoder(const model::ModelSpec& spec, const model::Weights& weights, int64_t B, DynamicBase policy,
                             int64_t planned_length, KvType cache)
    : decoder_(spec, weights, {.cache = cache}) {
  COCA_CHECK(B >= 1, "[generate] a batch of {} sequences; expected at least 1", B);
  sequences_.reserve(static_cast<size_t>(B));
  for (int64_t b = 0; b < B; ++b)
    sequences_.push_back(decoder_.sequence({.dynamic_base = policy, .planned_length = planned_length}));
}

TensorRef CachedDecoder::append(Context& cx, TensorRef ids, int64_t end) {
  check_ids(ids);
  return append(cx, ids, 0, ids.size(1), end);
}

TensorRef CachedDecoder::append(Context& cx, TensorRef ids, int64_t first, int64_t count, int64_t end) {
  std::vector<Piece> pieces;
  for (int64_t b = 0; b < batch(); ++b)
    pieces.push_back({.sequence = &sequences_[static_cast<size_t>(b)],
                      .ids = {ids.as<int32_t>() + b * ids.size(1) + first, static_cast<size_t>(count)},
                      .end = end});
  const TensorRef hidden = decoder_.append(cx, pieces);
  all_.resize(pieces.size());
  std::iota(all_.begin(), all_.end(), 0);
  return hidden.reshape({batch(), count, hidden.size(1)});
}

void CachedDecoder::truncate(int64_t length) {
  for (Sequence& s : sequences_) s.truncate(length);
}

void CachedDecoder::check_ids(TensorRef ids) const {
  COCA_CHECK(ids.rank() == 2 && ids.size(0) == batch() && ids.size(1) >= 1,
             "[generate] ids {} must be [{}, N] with N >= 1", ids.shape.text(), batch());
}

void CachedDecoder::prefill(Context& cx, TensorRef ids, int64_t piece) {
  COCA_CHECK(piece >= 1, "[generate] pieces of {} tokens; expected at least 1", piece);
  check_ids(ids);
  const int64_t N = ids.size(1), end = length() + N;
  for (int64_t n = 0; n < N; n += piece) append(cx, ids, n, std::min(piece, N - n), end);
}

TensorRef CachedDecoder::last_logits(Context& cx) {
  COCA_CHECK(!all_.empty(), "[generate] no token has been appended yet");
  return decoder_.last_logits(cx, all_);
}

}  // namespace coca::infer
