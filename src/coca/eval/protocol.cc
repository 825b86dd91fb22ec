// SPDX-License-Identifier: Apache-2.0
#include "coca/eval/protocol.h"

#include <string>

namespace coca::eval {

std::optional<int32_t> bos_token(const model::ModelSpec& spec, Bos rule) {
  if (rule == Bos::kNever) return std::nullopt;
  COCA_CHECK(rule == Bos::kAuto || spec.bos_id,
             "bos \"always\": the model's config.json names no bos_token_id");
  return spec.bos_id ? std::optional<int32_t>(static_cast<int32_t>(*spec.bos_id)) : std::nullopt;
}

model::ModelSpec with_scaling(const model::ModelSpec& spec,
                              const std::optional<model::RopeScaling>& scaling) {
  model::ModelSpec out = spec;
  if (scaling) out.rope_scaling = *scaling;
  model::validate(out);
  return out;
}

void check_tokenizer(const text::Tokenizer& tokenizer, const model::ModelSpec& spec) {
  COCA_CHECK(tokenizer.vocab_size() <= spec.V,
             "the tokenizer ({}) has {} ids, the model's vocabulary only {}: they do not belong together",
             tokenizer.kind(), tokenizer.vocab_size(), spec.V);
}

std::vector<int32_t> bytes_per_id(const text::Tokenizer& tokenizer) {
  std::vector<int32_t> bytes(static_cast<size_t>(tokenizer.vocab_size()));
  std::string text;
  for (int32_t id = 0; id < tokenizer.vocab_size(); ++id) {
    text.clear();
    text::DecodeState inside{.at_start = false};  // the space in front of a word counts
    tokenizer.append_decoded(id, inside, text);
    bytes[static_cast<size_t>(id)] = static_cast<int32_t>(text.size());
  }
  return bytes;
}

}  // namespace coca::eval
