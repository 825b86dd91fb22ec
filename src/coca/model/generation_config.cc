// SPDX-License-Identifier: Apache-2.0
#include "coca/model/generation_config.h"

#include <utility>

#include "coca/io/json_file.h"
#include "coca/model/config_fields.h"
#include "coca/io/fs.h"

namespace coca::model {

namespace {

// Settings of transformers that generate() does not have, each with the value that means none.
std::vector<std::string> lacking_settings(const nlohmann::json& config) {
  static const std::pair<const char*, double> kNumbers[] = {
      {"num_beams", 1}, {"num_beam_groups", 1}, {"diversity_penalty", 0}, {"length_penalty", 1}, {"penalty_alpha", 0},
      {"typical_p", 1}, {"epsilon_cutoff", 0}, {"eta_cutoff", 0}, {"top_h", 0}, {"no_repeat_ngram_size", 0},
      {"encoder_no_repeat_ngram_size", 0}, {"encoder_repetition_penalty", 1}, {"min_length", 0}, {"min_new_tokens", 0},
      {"num_return_sequences", 1}, {"guidance_scale", 1}};
  static const char* const kOthers[] = {
      "bad_words_ids", "force_words_ids", "constraints", "forced_bos_token_id", "forced_eos_token_id", "forced_decoder_ids",
      "suppress_tokens", "begin_suppress_tokens", "sequence_bias", "exponential_decay_length_penalty", "stop_strings",
      "watermarking_config", "max_time", "token_healing", "dola_layers"};
  std::vector<std::string> lacking;
  const auto name = [&](const char* key) { lacking.push_back(std::string(key) + " (" + config.at(key).dump().substr(0, 40) + ")"); };
  for (const auto& [key, none] : kNumbers)
    if (config.contains(key) && !config.at(key).is_null() && config.at(key) != none) name(key);
  for (const char* key : kOthers)
    if (config.contains(key) && !config.at(key).is_null() && config.at(key) != false && !config.at(key).empty()) name(key);
  return lacking;
}

}  // namespace

GenerationConfig generation_config_from_json(const nlohmann::json& json, std::string_view origin) {
  const ConfigFields f(json, origin);
  const auto number = [&](const char* key) { return f.has(key) ? std::optional<double>(f.number(key)) : std::nullopt; };
  GenerationConfig c;
  c.bos_id = f.optional_id("bos_token_id");
  c.eos_ids = f.ids("eos_token_id");
  c.do_sample = f.boolean("do_sample", false);
  c.temperature = number("temperature");
  c.top_p = number("top_p");
  c.min_p = number("min_p");
  c.repetition_penalty = number("repetition_penalty");
  c.top_k = f.optional_id("top_k");
  c.max_new_tokens = f.optional_id("max_new_tokens");
  c.lacking = lacking_settings(json);
  return c;
}

GenerationConfig load_generation_config(const std::filesystem::path& dir) {
  const std::filesystem::path file = dir / "generation_config.json";
  return io::exists(file) ? generation_config_from_json(io::read_json(file), file.string()) : GenerationConfig{};
}

}  // namespace coca::model
