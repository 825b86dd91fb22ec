// coca/train/finetune_config.h - everything that defines a fine-tuning run. Flags, --config files and the copy saved
// beside each checkpoint are all made from visit().
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "coca/data/instruct.h"
#include "coca/data/packing.h"
#include "coca/data/pg19.h"
#include "coca/io/options.h"
#include "coca/model/decoder_layer.h"
#include "coca/optim/schedule.h"
#include "coca/text/chat_choice.h"
#include "coca/train/loop.h"
#include "coca/train/positions.h"

namespace coca::train {

// One stage; settings that it does not give are those of the whole run.
struct StageConfig {
  std::vector<std::string> train;
  std::optional<int64_t> steps, warmup_steps;
  std::optional<double> learning_rate, min_learning_rate, weight_decay;
  std::optional<optim::Decay> decay;

  template <class V>
  void visit(V&& v) {
    v("train", "patterns over the names of the parameters to train; default: all", train);
    v("steps", "optimizer steps", steps, Least{1});
    v("learning_rate", "peak learning rate", learning_rate, kAboveZero);
    v("min_learning_rate", "floor of the decay", min_learning_rate);
    v("warmup_steps", "steps of linear warm-up", warmup_steps);
    v("decay", "decay after the warm-up", decay);
    v("weight_decay", "decoupled weight decay of matrices and embeddings", weight_decay);
  }
};

// In JSON, a list of stages or the name of a preset; as a flag, the name of a preset or of a JSON file with a list.
struct StageList {
  std::string preset;  // "": the list
  std::vector<StageConfig> list;

  nlohmann::ordered_json to_option_json() const;
  void from_option_json(const nlohmann::json& value, const std::string& where);
  void from_option_text(std::string_view flag, const std::string& text);
};

enum class LeadingBos : uint8_t { kAuto, kNever };  // kAuto: when config.json names a bos token

struct FinetuneConfig {
  // model
  std::string model, tokenizer;
  bool keep_t_width = false;
  PositionOptions positions;
  std::vector<std::string> train, freeze;
  StageList stages;
  // LoRA
  int64_t lora_rank = 0;
  double lora_alpha = 16, lora_dropout = 0;
  std::vector<std::string> lora_targets;
  model::LoraSettings::Scaling lora_scaling = model::LoraSettings::Scaling::kByRank;
  std::string adapter;
  // data
  std::vector<std::string> data, validation_data, text, validation_text;
  std::optional<data::Split> split;
  int64_t length = 0;
  data::LongDocuments long_documents = data::LongDocuments::kSplit;
  LeadingBos bos = LeadingBos::kAuto;
  std::string chat_template = "auto";
  text::ChatVariables chat_var;
  data::ExampleForm format = data::ExampleForm::kAuto;
  // optimization
  int64_t steps = 0, batch = 8, accumulation = 1, slices = 0, warmup_steps = 10;
  bool context_parallel = false;
  double epochs = 1, learning_rate = 0, min_learning_rate = 0;
  optim::Decay decay = optim::Decay::kCosine;
  double beta1 = 0.9, beta2 = 0.999, adam_eps = 1e-8, weight_decay = 0.0, clip_norm = 1.0, clex_rate = 1.0;
  int64_t seed = 0, max_bad_steps = 10;
  model::Precision precision = model::Precision::kF32;
  model::Recompute recompute = model::Recompute::kNone;
  // output
  std::string tensorboard;
  std::string out = "out/finetune";
  int64_t log_interval = 1, validation_interval = 0, validation_windows = 64, checkpoint_interval = 100,
          keep_checkpoints = 2;

  template <class V>
  void visit(V&& v) {
    v.group("Model");
    v("model", "model folder to start from", model);
    v("tokenizer", "\"byte\", a tokenizer file or a folder; default: the model folder", tokenizer);
    positions.visit(v);
    v("keep_t_width",
      "leave a T projection of full width as it is, instead of folding it to half, which is the same function; "
      "a LoRA adapter leaves it in any case",
      keep_t_width);
    v.group("What is trained");
    v("train", "patterns over parameter names: * any characters, ? one, a leading ! excludes; default: all", train);
    v("freeze", "patterns of parameters not to train, among those of --train", freeze);
    v("stages",
      "coca-paper (T; Q, T and V; all), or a JSON file with a list of stages; in --config the name or the list",
      stages);
    v.group("LoRA");
    v("lora_rank", "train a LoRA adapter of this rank and leave the model as it is; 0: none", lora_rank);
    v("lora_alpha", "its output is multiplied by alpha / rank", lora_alpha, kAboveZero);
    v("lora_dropout", "share of its input that is dropped in training", lora_dropout);
    v("lora_targets", "patterns over the matrices (modules) to adapt; default: all in the layers", lora_targets);
    v("lora_scaling", "whether alpha is divided by the rank or by its square root (rslora)", lora_scaling);
    v("adapter", "adapter folder to continue from, with its own rank, alpha, dropout and targets", adapter);
    v.group("Data");
    v("data", "examples: .jsonl or .json files, folders or globs; the forms are in docs/data.md", data);
    v("format", "form of the examples; auto: by the fields of each", format);
    v("validation_data", "examples to validate on; default: no validation", validation_data);
    v("text", "plain text instead of examples: files, folders, globs, or one .tok file", text);
    v("split", "split of text in PG-19's layout; default for such text: train", split);
    v("validation_text", "validation text, in the same forms; default: the split validation of text in PG-19's layout",
      validation_text);
    v("length", "tokens per window; default: the trained length of the model (max_position_embeddings)", length);
    v("long_documents", "what to do with examples longer than a window", long_documents);
    v("chat_template",
      "for messages: plain, a name or .jinja file, or auto: the adapter's or the model folder's, else plain",
      chat_template);
    v("chat_var",
      "NAME=VALUE for the chat template (enable_thinking=false), saved with the result; may be given several times",
      chat_var);
    v("bos", "whether each example begins with a bos token; auto: if config.json names one", bos);
    v.group("Optimization");
    v("steps", "optimizer steps, of each stage without a number of its own; default: as given by --epochs", steps);
    v("epochs", "passes over all windows, unless --steps is given", epochs, kAboveZero);
    v("batch", "windows per micro-batch", batch, Least{1});
    v("accumulation", "micro-batches per step", accumulation, Least{1});
    v("slices",
      "equal parts of a step whose gradients are added in order; any number of ranks that divides it gives the same "
      "bits; default: one per rank",
      slices);
    v("context_parallel",
      "split the tokens of every window over the ranks, instead of the windows of a step (docs/parallel.md)",
      context_parallel);
    v("learning_rate", "peak learning rate; default: 2e-5, for an adapter 2e-4", learning_rate);
    v("min_learning_rate", "floor of the decay", min_learning_rate);
    v("warmup_steps", "steps of linear warm-up", warmup_steps);
    v("decay", "decay after the warm-up", decay);
    v("beta1", "AdamW beta1", beta1);
    v("beta2", "AdamW beta2", beta2);
    v("adam_eps", "AdamW eps", adam_eps);
    v("weight_decay", "decoupled weight decay of matrices and embeddings", weight_decay);
    v("clip_norm", "largest global gradient norm; 0: no clipping", clip_norm);
    v("clex_rate", "learning rate of CLEX's network, as a share of the learning rate", clex_rate);
    v("seed", "seed of the order of documents and windows, of positions, of the adapter and its dropout", seed);
    v("max_bad_steps", "stop after this many non-finite steps in a row", max_bad_steps, Least{1});
    v("precision", "type of matrices and activations; bf16 keeps fp32 master weights and optimizer state", precision);
    v("recompute", "activations to recompute instead of keeping: less memory, the same results", recompute);
    v.group("Output");
    v("out", "output folder", out);
    v("log_interval", "steps between rows of metrics.csv", log_interval, Least{1});
    v("tensorboard", "folder for TensorBoard event files with the same figures; default: no such files", tensorboard);
    v("validation_interval", "steps between validations; 0: only at the end", validation_interval);
    v("validation_windows", "windows of each validation, spread evenly over the validation text", validation_windows);
    v("checkpoint_interval", "steps between checkpoints; 0: only at the end", checkpoint_interval);
    v("keep_checkpoints", "newest checkpoints to keep", keep_checkpoints, Least{1});
  }
};

bool trains_adapter(const FinetuneConfig&);
// The chat template of the run, and how it makes text of messages.
text::ChatTemplate chosen_chat_template(const FinetuneConfig&);
data::ChatTemplate chat_template_for(const FinetuneConfig&);
// The variables for it: those saved beside the template, and chat_var, which overrides them.
nlohmann::ordered_json chat_variables_for(const FinetuneConfig&);
// Throws Error naming the first invalid option.
void check_config(const FinetuneConfig&);
// The stages of a run on a model of this spec; steps_of_epochs: the number of steps if neither stage nor run gives one.
std::vector<Stage> make_stages(const FinetuneConfig&, const model::ModelSpec&, int64_t steps_of_epochs);
CheckpointPlan checkpoint_plan(const FinetuneConfig&);

}  // namespace coca::train

COCA_ENUM_NAMES(coca::train::LeadingBos, "bos", {coca::train::LeadingBos::kAuto, "auto"},
                {coca::train::LeadingBos::kNever, "never"})
