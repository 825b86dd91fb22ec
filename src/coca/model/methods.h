// coca/model/methods.h - which attention kinds, position scalings and patterns can be combined, as validate() decides.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <vector>

#include "coca/model/spec.h"

namespace coca::model {

// What a combination can be used for.
enum class MethodUse : uint8_t { kNone, kEvaluation, kTraining };  // training: evaluation too

// Visible keys: at evaluation the patterns of pattern.h, from training on those of windows.h: sliding windows, dilated
// in half of the heads, these with global tokens, and the latter in both directions (trained on masked tokens).
enum class Sight : uint8_t {
  kFull,
  kStreamingLlm,
  kLmInfinite,
  kSelfExtend,
  kReRope,
  kSlidingWindow,
  kDilatedWindow,
  kLongformer,
  kLongformerEncoder,
};

struct Method {
  AttentionKind attention = AttentionKind::kRope;
  Scaling scaling = Scaling::kNone;
  Sight sight = Sight::kFull;
  MethodUse use = MethodUse::kNone;
  std::string reason;  // why it is refused; empty if it is not
};

// Every combination, in the order of the enums. `like` gives the sizes.
std::vector<Method> all_methods(const ModelSpec& like);
// Why a kind cannot have this modifier; empty: it can.
std::string refusal(const ModelSpec& like, AttentionKind, const Modifier&);
// `like` with a combination's choices, a factor of 4, windows of half the trained length, dilation 2 and 2 global
// tokens; not validated.
ModelSpec method_spec(const ModelSpec& like, AttentionKind, Scaling, Sight);

}  // namespace coca::model

COCA_ENUM_NAMES(coca::model::Sight, "pattern", {coca::model::Sight::kFull, "full"},
                {coca::model::Sight::kStreamingLlm, "streaming-llm"}, {coca::model::Sight::kLmInfinite, "lm-infinite"},
                {coca::model::Sight::kSelfExtend, "self-extend"}, {coca::model::Sight::kReRope, "rerope"},
                {coca::model::Sight::kSlidingWindow, "sliding-window"},
                {coca::model::Sight::kDilatedWindow, "dilated-window"}, {coca::model::Sight::kLongformer, "longformer"},
                {coca::model::Sight::kLongformerEncoder, "longformer-encoder"})
COCA_ENUM_NAMES(coca::model::MethodUse, "use", {coca::model::MethodUse::kNone, "refused"},
                {coca::model::MethodUse::kEvaluation, "evaluation"}, {coca::model::MethodUse::kTraining, "training"})
