// SPDX-License-Identifier: Apache-2.0
#include "coca/model/pattern.h"

#include <algorithm>
#include <cmath>

#include "coca/base/count.h"

namespace coca::model {

int64_t AttentionPattern::far_tokens(int64_t S) const {
  if (type == Pattern::kFull) return 0;
  return keeps_first() ? std::min(S, sinks) : S;
}

int64_t AttentionPattern::far_query(int64_t m) const {
  switch (type) {
    case Pattern::kStreamingLlm: return framed_query(m);
    case Pattern::kLmInfinite: return std::min(m, distance);
    case Pattern::kSelfExtend: return m / group + window - window / group;
    case Pattern::kReRope: return window;
    case Pattern::kFull: return m;
  }
  return m;
}

int64_t AttentionPattern::far_key(int64_t n) const {
  switch (type) {
    case Pattern::kSelfExtend: return n / group;
    case Pattern::kLmInfinite:
    case Pattern::kReRope: return 0;
    case Pattern::kStreamingLlm:
    case Pattern::kFull: return n;
  }
  return n;
}

int64_t AttentionPattern::framed_query(int64_t m) const {
  if (type == Pattern::kFull) return m;
  return std::min(m, window - 1 + (type == Pattern::kStreamingLlm ? sinks : 0));
}

double AttentionPattern::score_factor(int64_t m, int64_t trained) const {
  if (type != Pattern::kReRope || trained < 2) return 1.0;
  return std::max(1.0, std::log(static_cast<double>(m + 1)) / std::log(static_cast<double>(trained)));
}

int64_t AttentionPattern::used_length(int64_t n) const {
  switch (type) {
    case Pattern::kFull: return n;
    case Pattern::kStreamingLlm: return std::min(n, window + sinks);
    case Pattern::kLmInfinite: return std::min(n, std::max(window, distance + 1));
    case Pattern::kSelfExtend: return std::min(n, std::max(window, far_query(n - 1) + 1));
    case Pattern::kReRope: return std::min(n, window + 1);
  }
  return n;
}

void validate(const AttentionPattern& p) {
  if (p.type == Pattern::kFull) return;
  COCA_CHECK(p.window >= 1, "pattern {}: window {} must be at least 1", enum_name(p.type), p.window);
  COCA_CHECK(p.sinks >= 0 && (p.sinks > 0) <= p.keeps_first(), "pattern {}: sinks {}; expected {}", enum_name(p.type),
             p.sinks, p.keeps_first() ? "0 or more" : "none");
  COCA_CHECK(p.type != Pattern::kLmInfinite || p.distance >= 1, "pattern lm-infinite: distance {} must be at least 1",
             p.distance);
  COCA_CHECK(p.middle_top_k >= 0 && (p.middle_top_k == 0 || p.type == Pattern::kLmInfinite) && p.middle_from_layer >= 0,
             "pattern {}: the {} of the middle from layer {} on; expected 0 or more, and none but with lm-infinite",
             enum_name(p.type), counted(p.middle_top_k, "best key"), p.middle_from_layer);
  // Decoding steps through keys in tiles of 64 tokens, which groups must not straddle.
  COCA_CHECK(p.type != Pattern::kSelfExtend || (p.group >= 1 && 64 % p.group == 0),
             "pattern self-extend: group {} must divide 64", p.group);
}

AttentionPattern default_pattern(Pattern type, int64_t trained) {
  AttentionPattern p{.type = type};
  const int64_t half = std::max<int64_t>(1, trained / 2);
  switch (type) {
    case Pattern::kFull: break;
    case Pattern::kStreamingLlm:
      p.sinks = 4;
      p.window = std::max<int64_t>(1, trained - p.sinks);
      break;
    case Pattern::kLmInfinite:
      p.sinks = std::clamp<int64_t>(trained / 10, 1, 100);
      p.window = p.distance = std::max<int64_t>(1, trained);
      break;
    case Pattern::kSelfExtend:
      p.group = 8;
      p.window = half;
      break;
    case Pattern::kReRope: p.window = half; break;
  }
  return p;
}

}  // namespace coca::model
