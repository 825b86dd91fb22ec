// coca/model/config.h - config.json to ModelSpec and back, in Hugging Face's field names: gpt_neox, llama, mistral, qwen2,
// qwen3; rope_scaling as transformers 4 writes it or rope_parameters as transformers 5 does. The attention kind is an
// explicit field, "attention_type": rope (the default), coca-slack, coca-strict, coca-tied, alibi, none; "coca" is
// the official code's (slack, and its fold over the whole head when rotary_pct < 1).
// A field that is neither read nor known to be harmless is refused by name.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <nlohmann/json.hpp>
#include <string_view>

#include "coca/model/params.h"

namespace coca::model {

// origin names the file in errors.
ModelSpec spec_from_json(const nlohmann::json& config, std::string_view origin);
// The precision is that of the weights beside it ("torch_dtype").
nlohmann::ordered_json spec_to_json(const ModelSpec&, Precision = Precision::kF32);

// The object named `name` of a config.json: {"type" or "rope_type": "linear" | "dynamic" | "llama3" | "default",
// "factor": f >= 1, ...}, or null. max_position is the original length where none is given.
RopeScaling rope_scaling_from_json(const nlohmann::json& value, std::string_view origin, int64_t max_position,
                                   std::string_view name = "rope_scaling");

}  // namespace coca::model
