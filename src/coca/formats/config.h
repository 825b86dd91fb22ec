// coca/formats/config.h - config.json to ModelSpec and back, in Hugging Face's field names: gpt_neox, llama, mistral,
// qwen2, qwen3; rope_scaling as transformers 4 writes it or rope_parameters as transformers 5 does. The attention kind
// is an explicit field, "attention_type", a name of AttentionKind (rope is the default); "coca" is the official code's
// (slack, and its fold over the whole head when rotary_pct < 1). Windows that these fields cannot say are lists,
// "layer_window" [L] and "layer_dilation" [L][H] (windows.h); beside them "global_tokens" and "direction".
// "coca_magnitude" and "coca_content_dims" are ModelSpec's magnitude and content; "attention_modifiers" lists names of
// modifiers (modifier.h). A field that is neither read nor known to be harmless is refused by name.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string_view>

#include "coca/model/params.h"

namespace coca::formats {

// origin names the file in errors.
model::ModelSpec spec_from_json(const nlohmann::json& config, std::string_view origin);
// The precision is that of the weights beside it ("torch_dtype").
nlohmann::ordered_json spec_to_json(const model::ModelSpec&, model::Precision = model::Precision::kF32);

// The lengths that a config.json names outside its scaling.
struct LengthsOfConfig {
  int64_t max_position = 0;
  std::optional<int64_t> original;  // a top-level original_max_position_embeddings: it wins over the scaling's own
};
// The object named `name` of a config.json, or null: {"type" or "rope_type": a name of Scaling, "su" or "default",
// "factor": at least 1, ...}. The original length is max_position where none is given.
model::RopeScaling rope_scaling_from_json(const nlohmann::json& value, std::string_view origin, const LengthsOfConfig&,
                                          std::string_view name = "rope_scaling");
nlohmann::json rope_scaling_to_json(const model::RopeScaling&);

}  // namespace coca::formats
