// coca/model/pattern.h - which keys a query sees at evaluation, and at which positions: patterns that carry a trained
// model past its length. Math and what they mean for CoCA: docs/math/patterns.md.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "coca/base/enum_names.h"

namespace coca::model {

// Each keeps the last `window` keys (the query's own included) at their own positions. Of the others a query attends to
//   kStreamingLlm: the first `sinks`, as if directly followed by the window (Xiao et al. 2024)
//   kLmInfinite:   the first `sinks`, all at `distance` (Han et al. 2024)
//   kSelfExtend:   all, at positions divided by `group` (Jin et al. 2024)
//   kReRope:       all, at the distance `window`; scores grow with the logarithm of the position (Su 2023)
enum class Pattern : uint8_t { kFull, kStreamingLlm, kLmInfinite, kSelfExtend, kReRope };

// Slack CoCA's scores depend on absolute positions. kWindow: queries have positions inside the window, so that scores
// are those the model was trained with; kAbsolute: queries have their own positions. There is no other difference.
enum class SlackFrame : uint8_t { kWindow, kAbsolute };

struct AttentionPattern {
  Pattern type = Pattern::kFull;
  int64_t window = 0, sinks = 0, distance = 0, group = 1;
  SlackFrame frame = SlackFrame::kWindow;
  // LM-Infinite's option: from this layer on (the first is 0) each query and head also attends, at `distance`, to those
  // of the other keys that score highest there. 0: none.
  int64_t middle_top_k = 0, middle_from_layer = 4;

  bool far() const { return type != Pattern::kFull; }  // keys are visible beyond the window
  bool keeps_first() const { return type == Pattern::kStreamingLlm || type == Pattern::kLmInfinite; }
  bool looks_back() const { return type == Pattern::kLmInfinite && middle_top_k > 0; }
  bool forgets() const { return keeps_first() && !looks_back(); }  // keys before the window need not be kept
  int64_t top_keys_of(int64_t layer) const { return looks_back() && layer >= middle_from_layer ? middle_top_k : 0; }
  int64_t far_tokens(int64_t S) const;  // first tokens that are far keys of every query
  int64_t far_keys(int64_t S) const { return looks_back() ? S : far_tokens(S); }  // the same, of any query
  // The position of query m for far keys, and the position of far key n.
  int64_t far_query(int64_t m) const;
  int64_t far_key(int64_t n) const;
  // The position of query m inside the window (SlackFrame::kWindow).
  int64_t framed_query(int64_t m) const;
  // The factor of scores (ReRoPE), for a model trained on `trained` tokens.
  double score_factor(int64_t m, int64_t trained) const;
  // The range of positions in use when a sequence has n tokens; scalings that depend on the length use it.
  int64_t used_length(int64_t n) const;

  friend bool operator==(const AttentionPattern&, const AttentionPattern&) = default;
};

// Throws Error naming the first invalid number.
void validate(const AttentionPattern&);
// Whether models can be trained with it; the others change the visible keys of a trained model.
inline bool trains(const AttentionPattern& p) { return !p.far(); }
// The published settings for a model trained on `trained` tokens: StreamingLLM 4 sinks and a window that fills the
// trained length, LM-Infinite 100 first tokens (a tenth of short windows at most) and window and distance of the
// trained length, Self-Extend group 8 and half of it, ReRoPE half of it.
AttentionPattern default_pattern(Pattern, int64_t trained);

}  // namespace coca::model

COCA_ENUM_NAMES(coca::model::Pattern, "pattern", {coca::model::Pattern::kFull, "full"},
                {coca::model::Pattern::kStreamingLlm, "streaming-llm"},
                {coca::model::Pattern::kLmInfinite, "lm-infinite"}, {coca::model::Pattern::kSelfExtend, "self-extend"},
                {coca::model::Pattern::kReRope, "rerope"})
COCA_ENUM_NAMES(coca::model::SlackFrame, "slack frame", {coca::model::SlackFrame::kWindow, "window"},
                {coca::model::SlackFrame::kAbsolute, "absolute"})
