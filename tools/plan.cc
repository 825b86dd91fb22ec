// SPDX-License-Identifier: Apache-2.0
#include "plan.h"

#include <algorithm>

#include "coca/base/count.h"
#include "coca/formats/config.h"
#include "coca/formats/model_folder.h"
#include "coca/io/fs.h"
#include "coca/io/json_file.h"
#include "coca/io/options.h"
#include "coca/model/select.h"
#include "coca/text/tokenizer.h"
#include "coca/train/finetune_config.h"
#include "coca/train/trainer.h"
#include "estimate.h"

namespace coca::tools {

namespace {

using nlohmann::ordered_json;

// Options that only fine-tuning has.
bool is_finetuning(const nlohmann::json& options) {
  return std::ranges::any_of(
      std::initializer_list<const char*>{"model", "stages", "data", "epochs", "lora_rank", "adapter"},
      [&](const char* key) { return options.contains(key); });
}

model::ModelSpec spec_of(const std::string& model) {
  if (io::is_folder(model)) return formats::load_spec(model);
  return formats::spec_from_json(io::read_json(model), model);
}

class Planner {
 public:
  explicit Planner(Work work) : work_(std::move(work)) {
    plan_.table.header = {"", "bytes"};
    count("parameters", "parameters", model::parameter_count(work_.spec));
    count("windows at a time", "batch", work_.batch);
    count("tokens of a window", "length", work_.length);
  }
  // A stage, or the whole training.
  void stage(const std::string& stage_name, int64_t trained, bool only) {
    const TrainingMemory m = training_memory_parts(work_, trained);
    const std::string prefix = only ? "" : stage_name + ": ";
    ordered_json stage = {{"stage", stage_name}, {"trained_parameters", trained}};
    plan_.table.rows.push_back({prefix + "trained parameters", grouped(trained)});
    for (const auto& [name, key, bytes] : {std::tuple("weights", "weights", m.weights),
                                           {"weights in bf16", "copy", m.copy},
                                           {"gradients", "gradients", m.gradients},
                                           {"moments of AdamW", "moments", m.moments},
                                           {"activations", "activations", m.activations},
                                           {"all", "all", m.all()}}) {
      stage[key] = bytes;
      if (bytes > 0) plan_.table.rows.push_back({prefix + name, report::format_bytes(bytes)});
    }
    plan_.json["stages"].push_back(std::move(stage));
    most_ = std::max(most_, m.all());
  }
  Plan finish(int64_t disk) {
    for (const model::Recompute recompute :
         {model::Recompute::kNone, model::Recompute::kAttention, model::Recompute::kLayer}) {
      Work other = work_;
      other.recompute = recompute;
      const int64_t bytes = training_memory_parts(other, 0).activations;
      plan_.json["activations"][std::string(enum_name(recompute))] = bytes;
      plan_.table.rows.push_back(
          {fmt::format("activations with --recompute {}", enum_name(recompute)), report::format_bytes(bytes)});
    }
    plan_.json["most"] = most_;
    plan_.json["disk"] = disk;
    plan_.table.rows.push_back({"most at a time", report::format_bytes(most_)});
    plan_.table.rows.push_back({"disk: result and checkpoints", report::format_bytes(disk)});
    return std::move(plan_);
  }

 private:
  void count(const char* name, const char* key, int64_t value) {
    plan_.json[key] = value;
    plan_.table.rows.push_back({name, grouped(value)});
  }

  Work work_;
  Plan plan_;
  int64_t most_ = 0;
};

template <class Config>
Work work_of(const Config& c, const model::ModelSpec& spec, int64_t length) {
  return {.parts = {},
          .spec = spec,
          .precision = c.precision,
          .recompute = c.recompute,
          .length = length,
          .batch = c.batch};
}

Plan plan_training(const std::string& file, const nlohmann::json& options, int64_t vocabulary) {
  train::TrainConfig c;
  io::options_from_json(c, options, file);
  train::check_config(c);
  if (vocabulary == 0) {
    COCA_CHECK_AS(kIo, c.tokenizer == "byte" || io::exists(c.tokenizer),
                  "{}: its tokenizer, {}, is not here; give the number of its ids with --vocab-size", file,
                  c.tokenizer);
    vocabulary = train::padded_vocabulary(*text::load_tokenizer(c.tokenizer), c.direction);
  }
  const model::ModelSpec spec = train::make_spec(c, vocabulary, std::nullopt, std::nullopt);
  Planner planner(work_of(c, spec, c.length));
  const int64_t parameters = model::parameter_count(spec);
  planner.stage("training", parameters, true);
  return planner.finish(training_disk(parameters, c.keep_checkpoints));
}

Plan plan_finetuning(const std::string& file, const nlohmann::json& options, const std::string& model) {
  train::FinetuneConfig c;
  io::options_from_json(c, options, file);
  const std::string source = model.empty() ? c.model : model;
  COCA_CHECK_AS(kIo, !source.empty() && io::exists(source),
                "{}: its model, {}, is not here; name a model folder or a config.json like it before --plan", file,
                source.empty() ? "none" : source);
  COCA_CHECK(!train::trains_adapter(c), "{}: trains a LoRA adapter; its memory is that of `coca finetune --dry-run`",
             file);
  const model::ModelSpec spec = spec_of(source);
  Planner planner(work_of(c, spec, c.length > 0 ? c.length : spec.max_position));
  const std::vector<train::Stage> stages = train::make_stages(c, spec, 1);
  for (size_t i = 0; i < stages.size(); ++i)
    planner.stage(fmt::format("stage {}", i + 1), model::element_count(model::select_parameters(spec, stages[i].train)),
                  stages.size() == 1);
  return planner.finish(training_disk(model::parameter_count(spec), c.keep_checkpoints));
}

}  // namespace

Plan memory_plan(const std::string& file, const std::string& model, int64_t vocabulary) {
  const nlohmann::json options = io::read_json(file);
  COCA_CHECK_AS(kBadFile, options.is_object(),
                "{}: not the options of coca train or coca finetune: {}; expected an object", file,
                options.type_name());
  if (is_finetuning(options)) return plan_finetuning(file, options, model);
  COCA_CHECK(model.empty(), "{}: trains from scratch; leave out {}", file, model);
  return plan_training(file, options, vocabulary);
}

}  // namespace coca::tools
