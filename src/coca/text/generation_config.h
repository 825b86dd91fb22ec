// coca/text/generation_config.h - generation_config.json of a model folder: its authors' settings for sampling.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <filesystem>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace coca::text {

class JsonField;

// The tokens that it names, which tokenizers read too.
struct GenerationIds {
  std::optional<int32_t> bos;
  std::vector<int32_t> eos;
};

// Absent fields set nothing, except do_sample: a file without it means greedy decoding, as in transformers.
struct GenerationConfig {
  GenerationIds ids;
  std::optional<bool> do_sample;  // false: greedy, whatever the temperature
  std::optional<double> temperature, top_p, min_p, repetition_penalty;
  std::optional<int64_t> top_k, max_new_tokens, max_length;  // max_length counts the prompt too
  std::vector<std::string> stop_strings;
  // Settings that may change the text and that generate() does not have, with their values: "num_beams (4)".
  std::vector<std::string> lacking;
};

// Error naming file and field for values of the wrong type or out of range.
GenerationIds generation_ids(const JsonField& config);
GenerationConfig generation_config_from_json(const nlohmann::json&, std::string_view origin);
// Of dir/generation_config.json; nothing is set when there is none.
GenerationConfig load_generation_config(const std::filesystem::path& dir);
// Error naming the first id that a model of that vocabulary does not have.
void check_ids(const GenerationIds&, int64_t vocabulary, std::string_view origin);
// The number of tokens it allows after a prompt of that length; nothing if it gives no limit. max_new_tokens overrides
// max_length, as in transformers. Error if the prompt alone reaches max_length.
std::optional<int64_t> new_tokens_after(int64_t prompt, const GenerationConfig&, std::string_view origin);

}  // namespace coca::text
