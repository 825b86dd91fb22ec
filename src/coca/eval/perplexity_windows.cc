// SPDX-License-Identifier: Apache-2.0
#include "coca/eval/perplexity_windows.h"

#include <algorithm>

#include "coca/base/count.h"

namespace coca::eval {

Texts make_texts(std::span<const std::vector<int32_t>> documents, const Protocol& p, std::optional<int32_t> bos) {
  Texts out;
  const int64_t least = std::max<int64_t>(2, p.min_tokens);
  const bool leads = bos && p.bos_place != BosPlace::kEveryWindow;
  for (size_t i = 0; i < documents.size(); ++i) {
    if (p.max_documents > 0 && out.documents == p.max_documents) break;
    auto N = static_cast<int64_t>(documents[i].size());
    if (N < least) {
      ++out.passed_over;
      continue;
    }
    const auto from = documents[i].begin() + cut_begin(N, p.max_tokens, p.cut);
    if (p.max_tokens > 0) N = std::min(N, p.max_tokens);
    ++out.documents;
    out.document_tokens += N;
    if (p.join == Join::kSeparate || out.texts.empty()) {
      out.texts.push_back({.ids = {}, .document = static_cast<int64_t>(i)});
      if (leads) out.texts.back().ids.push_back(*bos);
    }
    std::vector<int32_t>& ids = out.texts.back().ids;
    ids.insert(ids.end(), from, from + N);
  }
  const std::string all = counted(documents.size(), "document");
  COCA_CHECK(out.documents > 0 || p.min_tokens <= 2,
             "min_tokens is {}; of {} none has as many; give a smaller number or longer texts", p.min_tokens, all);
  COCA_CHECK(out.documents > 0, "text: of {} none has two tokens or more; give longer texts", all);
  return out;
}

WindowShape window_shape(const Protocol& p, int64_t W, std::optional<int32_t> bos) {
  WindowShape s;
  s.front = bos && p.bos_place == BosPlace::kEveryWindow ? 1 : 0;
  s.room = W - s.front;
  s.stride = p.stride == 0 ? s.room : std::min(p.stride, s.room);
  return s;
}

namespace {

int64_t first_scored(const Protocol& p, const WindowShape& s, int64_t begin, int64_t end_target, int64_t seen) {
  switch (p.scored) {
    case Scored::kNew: return std::max(seen, begin);
    case Scored::kSecondHalf: return begin - s.front + (s.front + s.room) / 2 + 1;
    case Scored::kLastStride: return end_target - s.stride;
    case Scored::kAll: break;
  }
  return begin;
}

}  // namespace

std::vector<WindowSpan> plan_windows(int64_t N, const Protocol& p, const WindowShape& s) {
  std::vector<WindowSpan> spans;
  const int64_t next = p.reach == Reach::kNext ? 1 : 0;
  int64_t seen = 0;  // targets before it have been in a window
  for (int64_t k = 0; seen < N; ++k) {
    const int64_t begin =
        p.placement == Placement::kEnds ? std::max<int64_t>(0, (k + 1) * s.stride - s.room) : k * s.stride;
    const int64_t full_end = p.placement == Placement::kEnds ? (k + 1) * s.stride : begin + s.room;
    const int64_t end = std::min(full_end, N - next);
    if (p.tail != Tail::kShort && end < full_end) break;
    if (p.tail == Tail::kFullWithNext && end == N) break;
    const int64_t end_target = end + next;
    // Without a token in front, the window's first one has nothing to predict it.
    const int64_t first = std::max(first_scored(p, s, begin, end_target, seen), begin + 1 - s.front);
    if (first < end_target) spans.push_back({begin, end, first, end_target});
    seen = end_target;
    if (p.placement == Placement::kFirst) break;
  }
  return spans;
}

}  // namespace coca::eval
