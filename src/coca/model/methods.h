// coca/model/methods.h - which attention kinds, position scalings and patterns go together, as validate() decides.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <vector>

#include "coca/model/spec.h"

namespace coca::model {

// What a combination can be used for.
enum class MethodUse : uint8_t { kNone, kEvaluation, kTraining };  // training: evaluation too

struct Method {
  AttentionKind attention = AttentionKind::kRope;
  Scaling scaling = Scaling::kNone;
  Pattern pattern = Pattern::kFull;
  MethodUse use = MethodUse::kNone;
  std::string reason;  // why it is refused; empty where it is not
};

// Every combination, in the order of the enums. `like` gives the sizes.
std::vector<Method> all_methods(const ModelSpec& like);
// `like` with a combination's choices, a factor of 4 and windows of half the trained length; not validated.
ModelSpec method_spec(const ModelSpec& like, AttentionKind, Scaling, Pattern);

}  // namespace coca::model

COCA_ENUM_NAMES(coca::model::MethodUse, "use", {coca::model::MethodUse::kNone, "refused"},
                {coca::model::MethodUse::kEvaluation, "evaluation"}, {coca::model::MethodUse::kTraining, "training"})
