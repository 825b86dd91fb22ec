// SPDX-License-Identifier: Apache-2.0
#include "coca/text/generation_config.h"

#include <map>
#include <nlohmann/json.hpp>
#include <set>

#include "coca/base/count.h"
#include "coca/base/error.h"
#include "coca/io/fs.h"
#include "coca/io/json_file.h"
#include "coca/text/json_field.h"
#include "coca/text/utf8.h"

namespace coca::text {

namespace {

using nlohmann::json;

constexpr size_t kMostShown = 40;  // bytes of a value in a note

bool says_off(const json& value) {
  return value.is_null() || value == false || value == "" || (value.is_number() && value == 0) ||
         (value.is_structured() && value.empty());
}

// Whether a setting leaves the text of one sequence as it is. What is unknown counts as changing it.
bool changes_nothing(std::string_view key, const json& value) {
  static const std::map<std::string_view, double> kNeutral = {{"num_beams", 1},
                                                              {"num_beam_groups", 1},
                                                              {"length_penalty", 1},
                                                              {"typical_p", 1},
                                                              {"encoder_repetition_penalty", 1},
                                                              {"num_return_sequences", 1},
                                                              {"guidance_scale", 1}};
  // Names, bookkeeping, outputs beside the text, and ways to the same text.
  static const std::set<std::string_view> kHarmless = {"transformers_version",
                                                       "trust_remote_code",
                                                       "pad_token_id",
                                                       "unk_token_id",
                                                       "decoder_start_token_id",
                                                       "use_cache",
                                                       "cache_config",
                                                       "max_cache_len",
                                                       "early_stopping",
                                                       "renormalize_logits",
                                                       "remove_invalid_values",
                                                       "low_memory",
                                                       "use_mtp",
                                                       "is_assistant",
                                                       "num_assistant_tokens",
                                                       "num_assistant_tokens_schedule",
                                                       "prompt_lookup_num_tokens",
                                                       "max_matching_ngram_size",
                                                       "target_lookbehind",
                                                       "speculation_type",
                                                       "compile_config",
                                                       "disable_compile",
                                                       "continuous_batching_config",
                                                       "prefill_chunk_size",
                                                       "use_model_defaults",
                                                       "return_dict_in_generate",
                                                       "return_legacy_cache"};
  const auto neutral = kNeutral.find(key);
  if (neutral != kNeutral.end()) return value.is_null() || value == neutral->second;
  if (key == "cache_implementation") return value != "quantized";
  return says_off(value) || kHarmless.contains(key) || key.starts_with("_") || key.starts_with("output_") ||
         key.starts_with("assistant_");
}

class Reader {
 public:
  explicit Reader(const JsonField& config) : config_(config) {}

  // The member, if it is there and not null.
  std::optional<JsonField> field(std::string_view key) {
    read_.emplace(key);
    return config_.has(key) ? std::optional(config_.at(key)) : std::nullopt;
  }
  std::optional<int64_t> count(std::string_view key, int64_t least) {
    const auto found = field(key);
    if (!found) return std::nullopt;
    if (found->integer() < least) found->refuse(fmt::format("an integer of at least {}", least));
    return found->integer();
  }
  template <class Fits>
  std::optional<double> number(std::string_view key, std::string_view expected, Fits fits) {
    const auto found = field(key);
    if (!found) return std::nullopt;
    const double value = found->number();
    if (!fits(value)) found->refuse(expected);
    return value;
  }
  // A string or a list of strings; an empty one would end every text.
  std::vector<std::string> strings(std::string_view key) {
    std::vector<std::string> out;
    const auto add = [&](const JsonField& one) {
      if (one.string().empty()) one.refuse("a string that is not empty");
      out.push_back(one.string());
    };
    const auto found = field(key);
    if (found && !found->value().is_array()) add(*found);
    for (size_t i = 0; found && found->value().is_array() && i < found->size(); ++i) add(found->item(i));
    return out;
  }
  std::vector<std::string> lacking() const {
    std::vector<std::string> out;
    for (const auto& [key, value] : config_.value().items()) {
      if (read_.contains(key) || changes_nothing(key, value)) continue;
      const std::string shown = value.dump(-1, ' ', false, json::error_handler_t::replace);
      const bool whole = shown.size() <= kMostShown;
      out.push_back(fmt::format("{} ({})", key, whole ? shown : replace_invalid(shown.substr(0, kMostShown)) + "..."));
    }
    return out;
  }

 private:
  const JsonField& config_;
  std::set<std::string, std::less<>> read_;
};

// "eos_token_id": a number or a list of them.
std::vector<int32_t> id_list(const JsonField& config, std::string_view key) {
  std::vector<int32_t> ids;
  if (!config.has(key)) return ids;
  const JsonField field = config.at(key);
  if (!field.value().is_array()) return {field.id()};
  for (size_t i = 0; i < field.size(); ++i) ids.push_back(field.item(i).id());
  return ids;
}

}  // namespace

GenerationIds generation_ids(const JsonField& config) {
  const std::vector<int32_t> bos = id_list(config, "bos_token_id");
  return {.bos = bos.empty() ? std::nullopt : std::optional(bos[0]), .eos = id_list(config, "eos_token_id")};
}

GenerationConfig generation_config_from_json(const json& object, std::string_view origin) {
  const JsonField field(object, std::string(origin));
  Reader f(field);
  GenerationConfig c;
  c.ids = generation_ids(field);
  c.do_sample = field.flag("do_sample", false);
  c.temperature = f.number("temperature", "a number from 0 to 1e6", [](double x) { return x >= 0 && x <= 1e6; });
  c.top_p = f.number("top_p", "a number above 0 and at most 1", [](double x) { return x > 0 && x <= 1; });
  c.min_p = f.number("min_p", "a number from 0 to 1", [](double x) { return x >= 0 && x <= 1; });
  c.repetition_penalty =
      f.number("repetition_penalty", "a number from 1e-6 to 1e6", [](double x) { return x >= 1e-6 && x <= 1e6; });
  c.top_k = f.count("top_k", 0);
  c.max_new_tokens = f.count("max_new_tokens", 0);
  c.max_length = f.count("max_length", 1);
  c.stop_strings = f.strings("stop_strings");
  for (const char* key : {"bos_token_id", "eos_token_id", "do_sample"}) f.field(key);
  c.lacking = f.lacking();
  return c;
}

GenerationConfig load_generation_config(const std::filesystem::path& dir) {
  const std::filesystem::path file = dir / "generation_config.json";
  return io::exists(file) ? generation_config_from_json(io::read_json(file), file.string()) : GenerationConfig{};
}

void check_ids(const GenerationIds& ids, int64_t vocabulary, std::string_view origin) {
  const auto check = [&](const char* field, int32_t id) {
    COCA_CHECK_AS(kBadFile, id >= 0 && id < vocabulary, "{}: {} {} is outside the vocabulary of {}", origin, field, id,
                  vocabulary);
  };
  if (ids.bos) check("bos_token_id", *ids.bos);
  for (const int32_t id : ids.eos) check("eos_token_id", id);
}

std::optional<int64_t> new_tokens_after(int64_t prompt, const GenerationConfig& c, std::string_view origin) {
  if (c.max_new_tokens || !c.max_length) return c.max_new_tokens;
  COCA_CHECK_AS(kInvalidArgument, prompt < *c.max_length,
                "{}: max_length is {}, and the prompt alone has {}; give --max-new-tokens", origin,
                counted(*c.max_length, "token"), grouped(prompt));
  return *c.max_length - prompt;
}

}  // namespace coca::text
