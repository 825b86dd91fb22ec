// coca/model/config.h - config.json to ModelSpec and back, in Hugging Face's field names. The attention kind is an
// explicit field, "attention_type": rope (the default), coca-slack, coca-strict, coca-tied, alibi, none; "coca" is
// the official code's (slack, and its fold over the whole head when rotary_pct < 1).
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

// {"type" or "rope_type": "linear" | "dynamic" | "default", "factor": f >= 1}, or null.
RopeScaling rope_scaling_from_json(const nlohmann::json& value, std::string_view origin);

}  // namespace coca::model
