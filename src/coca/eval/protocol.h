// coca/eval/protocol.h - what the evaluations share: the rule for the begin-of-sequence token, the check that
// tokenizer and model belong together, and what a token weighs in bytes. See docs/evaluation.md.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "coca/base/enum_names.h"
#include "coca/model/spec.h"
#include "coca/text/tokenizer.h"

namespace coca::eval {

// Whether every window and every prompt begins with the model's bos token; it takes one place of the length.
enum class Bos : uint8_t {
  kAuto,  // when config.json names one
  kNever,
  kAlways,  // Error when config.json names none
};
std::optional<int32_t> bos_token(const model::ModelSpec&, Bos);

// The spec with its position scaling replaced, when one is given. Error for a factor below 1.
model::ModelSpec with_scaling(const model::ModelSpec&, const std::optional<model::RopeScaling>&);

// Error unless every id of the tokenizer has a row in the model's embedding.
void check_tokenizer(const text::Tokenizer&, const model::ModelSpec&);

// Bytes of text that each id stands for; control ids stand for none.
std::vector<int32_t> bytes_per_id(const text::Tokenizer&);

}  // namespace coca::eval

COCA_ENUM_NAMES(coca::eval::Bos, "bos", {coca::eval::Bos::kAuto, "auto"}, {coca::eval::Bos::kNever, "never"},
                {coca::eval::Bos::kAlways, "always"})
