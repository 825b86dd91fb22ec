// coca/model/generation_config.h - generation_config.json of a model folder: how its authors mean it to be sampled.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace coca::model {

// Absent fields say nothing, but for do_sample: a file without it means greedy, as in transformers.
struct GenerationConfig {
  std::optional<int64_t> bos_id;
  std::vector<int64_t> eos_ids;
  std::optional<bool> do_sample;  // false: greedy, whatever the temperature
  std::optional<double> temperature, top_p, min_p, repetition_penalty;
  std::optional<int64_t> top_k, max_new_tokens;
  std::vector<std::string> lacking;  // settings that would change the text and that generate() does not have: "num_beams (4)"
};

// Error naming file and field for values of the wrong type.
GenerationConfig generation_config_from_json(const nlohmann::json&, std::string_view origin);
// Of dir/generation_config.json; nothing is set when there is none.
GenerationConfig load_generation_config(const std::filesystem::path& dir);

}  // namespace coca::model
