// SPDX-License-Identifier: Apache-2.0
#include "coca/train/finetune_config.h"

#include <algorithm>
#include <cmath>

#include "coca/io/json_file.h"
#include "coca/model/architecture.h"
#include "coca/model/select.h"
#include "coca/text/chat_choice.h"
#include "coca/train/slices.h"

namespace coca::train {

namespace {

constexpr std::string_view kPaper = "coca-paper";

// The three stages in which the paper turns a trained RoPE model into a CoCA model: first T alone, which is new; then
// all of attention's inputs; then everything.
std::vector<StageConfig> paper_stages(const model::ModelSpec& spec) {
  COCA_CHECK(model::is_coca(spec.attention),
             "stages {}: a model with attention \"{}\" has no T to train; expected a CoCA model", kPaper,
             enum_name(spec.attention));
  const model::TensorNames n = model::tensor_names(spec);
  const bool fused = spec.qkv == model::Qkv::kFused;
  const auto one = [&](const std::string& part, const std::string& separate) {
    return fused ? "*." + n.qkv + "." + part + ".*" : "*." + separate + ".*";
  };
  std::vector<std::string> t = {one("t", n.k)}, qtv = {one("q", n.q), one("t", n.k), one("v", n.v)};
  if (spec.head_norm != model::HeadNorm::kNone) {
    t.push_back("*." + n.k_norm + ".*");
    qtv.insert(qtv.end(), {"*." + n.q_norm + ".*", "*." + n.k_norm + ".*"});
  }
  if (spec.global_tokens > 0) {  // a fused projection of theirs is one parameter
    if (!fused) t.push_back("*." + n.k_global + ".*");
    for (const std::string& name : fused ? std::vector{n.qkv_global} : std::vector{n.q_global, n.k_global, n.v_global})
      qtv.push_back("*." + name + ".*");
  }
  std::vector<StageConfig> stages(3);
  stages[0].train = t;
  stages[1].train = qtv;
  stages[2].train = {"*"};
  return stages;
}

}  // namespace

nlohmann::ordered_json StageList::to_option_json() const {
  if (!preset.empty()) return preset;
  nlohmann::ordered_json all = nlohmann::ordered_json::array();
  for (StageConfig stage : list) all.push_back(io::options_to_json(stage));
  return all;
}

void StageList::from_option_json(const nlohmann::json& value, const std::string& where) {
  StageList read;
  if (value.is_string()) {
    read.preset = value.get<std::string>();
    COCA_CHECK(read.preset == kPaper, "{} is \"{}\"; expected {} or a list of stages", where, read.preset, kPaper);
  } else {
    COCA_CHECK(value.is_array(), "{} is {}; expected {} or a list of stages", where, value.type_name(), kPaper);
    for (size_t i = 0; i < value.size(); ++i)
      io::options_from_json(read.list.emplace_back(), value[i], fmt::format("{}[{}]", where, i));
  }
  *this = std::move(read);
}

void StageList::from_option_text(std::string_view flag, const std::string& text) {
  if (!text.ends_with(".json")) return from_option_json(text, std::string(flag));
  nlohmann::json value = io::read_json(text);
  if (value.is_object() && value.size() == 1 && value.contains("stages")) value = nlohmann::json(value["stages"]);
  from_option_json(value, text);
}

bool trains_adapter(const FinetuneConfig& c) { return c.lora_rank > 0 || !c.adapter.empty(); }

text::ChatTemplate chosen_chat_template(const FinetuneConfig& c) {
  std::optional<text::ChatTemplate> chosen = text::choose_chat_template(c.chat_template, c.model, c.adapter);
  return chosen ? std::move(*chosen) : text::ChatTemplate::named("plain");
}

data::ChatTemplate chat_template_for(const FinetuneConfig& c) {
  text::ChatTemplate chosen = chosen_chat_template(c);
  return chosen.is_plain() ? data::plain_chat : data::chat_by(std::move(chosen), chat_variables_for(c));
}

nlohmann::ordered_json chat_variables_for(const FinetuneConfig& c) {
  nlohmann::ordered_json values = text::saved_chat_variables(c.chat_template, c.model, c.adapter);
  values.update(c.chat_var.values);
  return values;
}

void check_config(const FinetuneConfig& c) {
  io::check_option_ranges(c);
  for (size_t i = 0; i < c.stages.list.size(); ++i) try {
      io::check_option_ranges(c.stages.list[i]);
    } catch (const Error& error) {
      fail(error.kind(), "stage {}: {}", i, error.what());
    }
  COCA_CHECK(!c.model.empty(), "model: none given; expected a model folder");
  COCA_CHECK(!c.data.empty() || !c.text.empty(), "data: none given; expected examples, or plain text (--text)");
  COCA_CHECK(c.data.empty() || c.text.empty(),
             "text: given beside --data; expected examples or plain text, one of them");
  COCA_CHECK(c.validation_data.empty() || !c.data.empty(),
             "validation_data: needs --data; a run on text validates on validation_text");
  COCA_CHECK(!c.split || !c.text.empty(), "split: needs --text; examples have none");
  COCA_CHECK(c.validation_text.empty() || !c.text.empty(),
             "validation_text: needs --text; a run on examples validates on validation_data");
  check_slices(c);
  const bool staged = !c.stages.preset.empty() || !c.stages.list.empty();
  COCA_CHECK(!staged || c.train.empty(), "train: the stages say what each trains; freeze applies to all of them");
  COCA_CHECK(c.lora_rank == 0 || c.adapter.empty(),
             "lora_rank is {}; an adapter that is trained further has its own rank", c.lora_rank);
  COCA_CHECK(c.lora_alpha > 0, "lora_alpha is {}; expected more than 0", c.lora_alpha);
  COCA_CHECK(c.lora_dropout < 1, "lora_dropout is {}; expected less than 1", c.lora_dropout);
  for (const auto& [name, given] :
       {std::pair{"train", !c.train.empty()}, std::pair{"freeze", !c.freeze.empty()}, std::pair{"stages", staged}})
    COCA_CHECK(!given || !trains_adapter(c),
               "{}: chooses parameters of the model; with an adapter all of these stay as they are", name);
  COCA_CHECK(!c.positions.draws() || c.data.empty(),
             "positions \"{}\": needs text; examples are packed, and the positions of each begin at 0",
             enum_name(c.positions.draw));
  COCA_CHECK(
      c.positions.rope_scaling != model::Scaling::kClex || c.data.empty(),
      "rope_scaling clex: needs text; examples are packed at plain positions, from which its network learns nothing");
  COCA_CHECK(!trains_adapter(c) || !c.positions.rope_scaling,
             "rope_scaling: is written into the model's config.json; with an adapter the model stays as it is");
}

std::vector<Stage> make_stages(const FinetuneConfig& c, const model::ModelSpec& spec, int64_t steps_of_epochs) {
  std::vector<StageConfig> list = c.stages.preset.empty() ? c.stages.list : paper_stages(spec);
  if (list.empty()) list.emplace_back().train = c.train;
  for (const std::string& pattern : c.freeze) model::select_parameters(spec, {pattern}, "freeze");
  std::vector<Stage> stages;
  for (StageConfig& s : list) {
    Stage stage;
    stage.train = s.train;
    if (stage.train.empty() && !c.freeze.empty()) stage.train = {"*"};
    for (const std::string& pattern : c.freeze) stage.train.push_back("!" + pattern);
    stage.steps = s.steps.value_or(c.steps > 0 ? c.steps : steps_of_epochs);
    stage.schedule = {.decay = s.decay.value_or(c.decay),
                      .peak = s.learning_rate.value_or(c.learning_rate != 0 ? c.learning_rate
                                                       : trains_adapter(c)  ? 2e-4
                                                                            : 2e-5),
                      .floor = s.min_learning_rate.value_or(c.min_learning_rate),
                      .warmup_steps = s.warmup_steps.value_or(c.warmup_steps),
                      .total_steps = stage.steps};
    stage.adamw = {.beta1 = c.beta1,
                   .beta2 = c.beta2,
                   .eps = c.adam_eps,
                   .weight_decay = s.weight_decay.value_or(c.weight_decay),
                   .clip_norm = c.clip_norm,
                   .clex_rate = c.clex_rate};
    COCA_CHECK(stage.steps >= 1, "stage {}: steps is {}; expected at least 1", stages.size(), stage.steps);
    optim::check_schedule(stage.schedule);
    optim::check_adamw(stage.adamw);
    model::select_parameters(spec, stage.train);  // finds mistakes of later stages now
    stages.push_back(std::move(stage));
  }
  return stages;
}

CheckpointPlan checkpoint_plan(const FinetuneConfig& config) {
  FinetuneConfig saved = config;
  return {.out = config.out,
          .keep = config.keep_checkpoints,
          .config_name = "finetune_config.json",
          .config = io::options_to_json(saved),
          .harmless = {"model", "adapter", "tokenizer", "data", "validation_data", "text", "validation_text", "split",
                       "max_bad_steps", "out", "log_interval", "validation_interval", "validation_windows",
                       "checkpoint_interval", "keep_checkpoints", "recompute", "tensorboard"},
          .adjustable = kAdjustable};
}

}  // namespace coca::train
