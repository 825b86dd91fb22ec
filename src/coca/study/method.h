// coca/study/method.h - the methods of a study, by name: an attention kind, alone ("coca-slack") or with modifiers of
// attention ("coca-slack+kv-shift") and with a way of training that covers more than its window or attends to less of
// it
// ("coca-slack+pose").
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "coca/train/config.h"

namespace coca::study {

//   kRandom, kPose: positions are drawn (train/positions.h) from a range of the longest evaluated length
//   kClex:          trained plainly for two thirds of the steps, then with a CLEX network for factors up to the longest
//                   evaluated multiple (model/clex.h), as published: CLEX trains a trained model further
//   kWindow:        every layer attends to a quarter of the trained length
//   kLongformer:    as Longformer's causal models: an eighth of it in the lower half of the layers, a quarter in the
//                   upper half, where half the heads skip every other key; one global token (model/windows.h)
enum class Training : uint8_t { kPlain, kRandom, kPose, kClex, kWindow, kLongformer };

struct Method {
  model::AttentionKind attention = model::AttentionKind::kRope;
  std::vector<const model::Modifier*> modifiers;
  Training training = Training::kPlain;
};

// KIND[+MODIFIER...][+TRAINING]; throws Error naming the part that is unknown, and what there is.
Method method_from_name(std::string_view);
std::string_view methods_help();  // the help text of an option that takes methods: which kind goes with which training
std::string method_name(const Method&);

// All kinds trained plainly, then rope, coca-slack and coca-strict in each of the other ways, and alibi in those that
// go without rotary positions.
std::vector<std::string> survey_methods();

// Writes the kind, the modifiers and the way of training into the config, whose sizes are already set. longest: the
// largest evaluated length; a multiple of config.length.
void apply_method(const Method&, int64_t longest, train::TrainConfig&);

}  // namespace coca::study

COCA_ENUM_NAMES(coca::study::Training, "training", {coca::study::Training::kPlain, "plain"},
                {coca::study::Training::kRandom, "random"}, {coca::study::Training::kPose, "pose"},
                {coca::study::Training::kClex, "clex"}, {coca::study::Training::kWindow, "window"},
                {coca::study::Training::kLongformer, "longformer"})
