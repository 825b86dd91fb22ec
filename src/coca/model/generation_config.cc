// SPDX-License-Identifier: Apache-2.0
#include "coca/model/generation_config.h"

#include "coca/io/json_file.h"
#include "coca/model/config_fields.h"
#include "coca/io/fs.h"

namespace coca::model {

GenerationConfig generation_config_from_json(const nlohmann::json& json, std::string_view origin) {
  const ConfigFields f(json, origin);
  const auto number = [&](const char* key) { return f.has(key) ? std::optional<double>(f.number(key)) : std::nullopt; };
  GenerationConfig c;
  c.bos_id = f.optional_id("bos_token_id");
  c.eos_ids = f.ids("eos_token_id");
  if (f.has("do_sample")) c.do_sample = f.boolean("do_sample", false);
  c.temperature = number("temperature");
  c.top_p = number("top_p");
  c.min_p = number("min_p");
  c.repetition_penalty = number("repetition_penalty");
  c.top_k = f.optional_id("top_k");
  c.max_new_tokens = f.optional_id("max_new_tokens");
  return c;
}

GenerationConfig load_generation_config(const std::filesystem::path& dir) {
  const std::filesystem::path file = dir / "generation_config.json";
  return io::exists(file) ? generation_config_from_json(io::read_json(file), file.string()) : GenerationConfig{};
}

}  // namespace coca::model
