// SPDX-License-Identifier: Apache-2.0
#include "coca/formats/adapter_file.h"

#include <algorithm>
#include <functional>
#include <memory>
#include <set>

#include "coca/base/log.h"
#include "coca/formats/config_fields.h"
#include "coca/formats/model_folder.h"
#include "coca/formats/name_pattern.h"
#include "coca/formats/weight_files.h"
#include "coca/io/fs.h"
#include "coca/io/json_file.h"
#include "coca/io/safetensors.h"

namespace coca::formats {

namespace fs = std::filesystem;
using nlohmann::json;

namespace {

constexpr std::string_view kPrefix = "base_model.model.";
constexpr const char* kConfigName = "adapter_config.json";
constexpr const char* kAttention = "coca_attention";
constexpr const char* kFingerprint = "coca_base_fingerprint";
constexpr const char* kTensorsName = "adapter_model.safetensors";

std::string_view leaf_of(std::string_view module) { return module.substr(module.rfind('.') + 1); }

std::function<bool(const std::string&)> target_rule(const ConfigFields& f) {
  const std::string where = std::string(f.origin()) + ": target_modules";
  COCA_CHECK_AS(kBadFile, f.has("target_modules"), "{}: field \"target_modules\" is missing", f.origin());
  if (f.raw("target_modules").is_string()) {
    const std::string text = f.text("target_modules", "");
    if (text == "all-linear") return [](const std::string&) { return true; };
    return [rule = std::make_shared<const NamePattern>(text, where)](const std::string& module) {
      return rule->matches(module);
    };
  }
  return [names = f.texts("target_modules")](const std::string& module) {
    return std::ranges::any_of(names,
                               [&](const std::string& name) { return module == name || module.ends_with("." + name); });
  };
}

// rank_pattern and alpha_pattern: the value of the first key that fits a module, re.match(r"(.*\.)?(key)$", module).
template <typename T>
class ValueByPattern {
 public:
  ValueByPattern(const ConfigFields& f, const char* field, bool (json::*is)() const noexcept) {
    if (!f.has(field)) return;
    const json& patterns = f.raw(field);
    COCA_CHECK_AS(kBadFile, patterns.is_object(), "{}: field \"{}\" is {}; expected an object", f.origin(), field,
                  patterns.dump());
    for (const auto& [key, value] : patterns.items()) {
      COCA_CHECK_AS(kBadFile, (value.*is)(), "{}: {} of \"{}\" is {}; expected a number", f.origin(), field, key,
                    value.dump());
      entries_.emplace_back(
          std::make_unique<NamePattern>("(.*\\.)?(" + key + ")$", std::string(f.origin()) + ": " + field),
          value.template get<T>());
    }
  }
  T value(const std::string& module, T otherwise) const {
    for (const auto& [pattern, value] : entries_)
      if (pattern->matches(module)) return value;
    return otherwise;
  }

 private:
  std::vector<std::pair<std::unique_ptr<NamePattern>, T>> entries_;
};

model::LoraSettings read_settings(const ConfigFields& f) {
  const std::string type = f.text("peft_type", "");
  COCA_CHECK_AS(kBadFile, type == "LORA", "{}: peft_type \"{}\" is not supported; expected LORA", f.origin(), type);
  model::LoraSettings s;
  s.rank = f.integer("r");
  s.alpha = f.number("lora_alpha");
  s.dropout = f.number("lora_dropout", 0.0);
  s.scaling = f.boolean("use_rslora", false) ? model::LoraSettings::Scaling::kByRootOfRank
                                             : model::LoraSettings::Scaling::kByRank;
  s.base = f.text("base_model_name_or_path", "");
  const std::string bias = f.text("bias", "none");
  COCA_CHECK_AS(kBadFile, bias == "none", "{}: bias \"{}\" is not supported; expected none", f.origin(), bias);
  // Some initialisations take something out of the base: these adapters belong to a changed base.
  if (f.has("init_lora_weights")) {
    const json& init = f.raw("init_lora_weights");
    COCA_CHECK_AS(kBadFile, init.is_boolean() || init == "gaussian" || init == "eva" || init == "orthogonal",
                  "{}: init_lora_weights {} is not supported: it changes the base model", f.origin(), init.dump());
  }
  // What would change the adapter's meaning may only say that it is off; a version says nothing.
  for (const char* off : {"use_dora", "fan_in_fan_out", "modules_to_save", "layers_to_transform", "layers_pattern",
                          "layer_replication", "trainable_token_indices", "target_parameters",
                          "alora_invocation_tokens", "use_qalora", "lora_bias", "arrow_config", "use_bdlora"})
    f.ignore_off(off);
  f.ignore({"peft_version", "task_type", "auto_mapping", "revision", "inference_mode", "loftq_config", "eva_config",
            "corda_config", "qalora_group_size", "runtime_config", "ensure_weight_tying", "megatron_core"});
  return s;
}

std::vector<model::LoraTarget> read_targets(const ConfigFields& f, const model::ModelSpec& spec,
                                            const model::LoraSettings& settings) {
  const auto targeted = target_rule(f);
  const std::vector<std::string> excluded = f.has("exclude_modules") && f.raw("exclude_modules").is_array()
                                                ? f.texts("exclude_modules")
                                                : std::vector<std::string>{};
  const ValueByPattern<int64_t> ranks(f, "rank_pattern", &json::is_number_integer);
  const ValueByPattern<double> alphas(f, "alpha_pattern", &json::is_number);
  std::vector<model::LoraTarget> targets;
  for (model::LoraTarget& m : model::lora_modules(spec)) {
    const bool out = std::ranges::any_of(
        excluded, [&](const std::string& name) { return m.module == name || m.module.ends_with("." + name); });
    if (out || !targeted(m.module)) continue;
    m.rank = ranks.value(m.module, settings.rank);
    m.alpha = alphas.value(m.module, settings.alpha);
    targets.push_back(std::move(m));
  }
  COCA_CHECK_AS(kBadFile, !targets.empty(), "{}: target_modules {} fits no module of this {} model", f.origin(),
                f.raw("target_modules").dump(), enum_name(spec.architecture));
  return targets;
}

// Names as short as they can be: "q_proj" where every layer has it, else all in full.
json target_names(const model::Adapter& adapter, const std::vector<model::LoraTarget>& modules) {
  std::map<std::string, size_t, std::less<>> all, chosen;
  for (const model::LoraTarget& m : modules) ++all[std::string(leaf_of(m.module))];
  for (const model::LoraTarget& t : adapter.targets()) ++chosen[std::string(leaf_of(t.module))];
  std::set<std::string> names;
  for (const model::LoraTarget& t : adapter.targets()) {
    const std::string leaf(leaf_of(t.module));
    names.insert(all[leaf] == chosen[leaf] ? leaf : t.module);
  }
  return json(names);
}

void check_base(const ConfigFields& f, const model::ModelSpec& spec, const std::string& fingerprint) {
  const std::string attention = f.text(kAttention, ""), base = f.text(kFingerprint, "");
  COCA_CHECK_AS(
      kBadFile, attention.empty() || attention == enum_name(spec.attention),
      "{}: the adapter was trained on a model with attention \"{}\" (base_model_name_or_path \"{}\"); this model "
      "has attention \"{}\"",
      f.origin(), attention, f.text("base_model_name_or_path", ""), enum_name(spec.attention));
  if (base.empty() || fingerprint.empty() || base == fingerprint) return;
  log_warning(
      "{}: the adapter was trained on a model with fingerprint {} (base_model_name_or_path \"{}\"); this model has {}",
      f.origin(), base, f.text("base_model_name_or_path", ""), fingerprint);
}

// Before memory is taken for them: a rank is a number that anybody can write.
void check_shapes(const fs::path& file, const std::vector<model::LoraTarget>& targets) {
  const io::SafetensorsFile stored(file);
  const auto check = [&](const model::LoraTarget& t, const char* which, const Dims& shape) {
    const io::StoredTensor& tensor = stored.at(std::string(kPrefix) + t.module + which);
    COCA_CHECK_AS(kBadFile, tensor.shape == shape,
                  "{}: tensor \"{}\" has shape {}; expected {}: the adapter probably belongs to another model",
                  file.string(), tensor.name, tensor.shape.text(), shape.text());
  };
  for (const model::LoraTarget& t : targets) {
    COCA_CHECK_AS(kBadFile, t.rank >= 1, "{}: the rank of {} is {}; expected at least 1", file.string(), t.module,
                  t.rank);
    check(t, ".lora_A.weight", {t.rank, t.in});
    check(t, ".lora_B.weight", {t.out, t.rank});
  }
}

void read_tensors(const fs::path& file, model::TensorStore& store) {
  const io::SafetensorsFile stored(file);
  std::set<std::string> wanted;
  for (const model::ParamInfo& info : store.infos()) {
    const std::string name = std::string(kPrefix) + info.name;
    wanted.insert(name);
    const io::StoredTensor& tensor = stored.at(name);
    COCA_CHECK_AS(kBadFile, tensor.shape == info.shape, "{}: tensor \"{}\" has shape {}; expected {}", file.string(),
                  name, tensor.shape.text(), info.shape.text());
    const std::vector<float> values = io::to_f32(tensor);
    check_finite(values, file.string(), name);
    std::copy(values.begin(), values.end(), store.at(info).as<float>());
  }
  for (const io::StoredTensor& tensor : stored.tensors())
    COCA_CHECK_AS(kBadFile, wanted.contains(tensor.name),
                  "{}: tensor \"{}\" belongs to no module that {} targets in this model", file.string(), tensor.name,
                  kConfigName);
}

}  // namespace

void save_adapter(const fs::path& dir, const model::Adapter& adapter) {
  const model::LoraSettings& s = adapter.settings();
  nlohmann::ordered_json c;
  c["peft_type"] = "LORA";
  c["task_type"] = "CAUSAL_LM";
  c["base_model_name_or_path"] = s.base;
  c[kAttention] = enum_name(adapter.spec().attention);
  if (!s.base_fingerprint.empty()) c[kFingerprint] = s.base_fingerprint;
  c["inference_mode"] = true;
  c["r"] = s.rank;
  c["lora_alpha"] = s.alpha;
  c["lora_dropout"] = s.dropout;
  c["use_rslora"] = s.scaling == model::LoraSettings::Scaling::kByRootOfRank;
  c["use_dora"] = false;
  c["bias"] = "none";
  c["fan_in_fan_out"] = false;
  c["init_lora_weights"] = true;
  c["modules_to_save"] = nullptr;
  c["target_modules"] = target_names(adapter, model::lora_modules(adapter.spec()));
  c["rank_pattern"] = nlohmann::ordered_json::object();
  c["alpha_pattern"] = nlohmann::ordered_json::object();
  for (const model::LoraTarget& t : adapter.targets()) {
    if (t.rank != s.rank) c["rank_pattern"][t.module] = t.rank;
    if (t.alpha != s.alpha) c["alpha_pattern"][t.module] = t.alpha;
  }
  io::write_json(dir / kConfigName, c);
  std::vector<io::TensorToSave> tensors;
  for (const model::ParamInfo& info : adapter.tensors().infos())
    tensors.push_back({std::string(kPrefix) + info.name, adapter.tensors().at(info)});
  io::save_safetensors(dir / kTensorsName, tensors, {{"format", "pt"}});
}

std::unique_ptr<model::Adapter> load_adapter(const fs::path& dir, const model::ModelSpec& spec,
                                             const std::string& fingerprint) {
  const fs::path file = dir / kConfigName;
  COCA_CHECK_AS(kIo, io::exists(dir), "adapter folder {} does not exist{}", dir.string(), adapter_instead(dir));
  COCA_CHECK_AS(kIo, io::exists(file), "{} has no {}: not an adapter folder{}", dir.string(), kConfigName,
                adapter_instead(dir));
  COCA_CHECK_AS(kIo, io::exists(dir / kTensorsName), "{} has no {}", dir.string(), kTensorsName);
  const json config = io::read_json(file);
  const std::string origin = file.string();
  const ConfigFields f(config, origin);
  model::LoraSettings settings = read_settings(f);
  check_base(f, spec, fingerprint);
  settings.base_fingerprint = fingerprint;
  std::vector<model::LoraTarget> targets = read_targets(f, spec, settings);
  f.refuse_unread();  // use_dora, modules_to_save, layers_to_transform, fan_in_fan_out, ...
  check_shapes(dir / kTensorsName, targets);
  auto adapter = std::make_unique<model::Adapter>(spec, settings, std::move(targets));
  load_adapter_tensors(dir, *adapter);
  return adapter;
}

void load_adapter_tensors(const fs::path& dir, model::Adapter& adapter) {
  read_tensors(dir / kTensorsName, adapter.tensors());
}

}  // namespace coca::formats
