// coca/formats/harmless_fields.h - fields of published config.json files that do not affect the logits of our
// architectures.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string_view>

#include "coca/model/spec.h"

namespace coca::formats {

// Whether a top-level field of config.json with this value does not affect the logits: bookkeeping of the Hub and
// libraries, settings for training only (dropout, noise, initial weights), how a computation runs but not its result,
// settings of generation, other tasks' heads, and multipliers and kinds that agree with the spec.
bool is_harmless_field(std::string_view key, const nlohmann::json& value, const model::ModelSpec&);

// Whether a field that is false or 0 turns off what this model computes, as "is_causal": false does. Others that are
// off are taken for parts that the model does not have.
bool is_wrong_when_off(std::string_view key, const nlohmann::json& value, const model::ModelSpec&);

}  // namespace coca::formats
