// coca/train/config.h - everything that defines a training run. Flags, --config files and the copy saved beside each
// checkpoint are all made from visit().
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <vector>

#include "coca/data/passkey.h"
#include "coca/data/pg19.h"
#include "coca/data/task.h"
#include "coca/io/options.h"
#include "coca/model/decoder_layer.h"
#include "coca/model/windows.h"
#include "coca/optim/optimizer.h"
#include "coca/optim/schedule.h"
#include "coca/train/positions.h"

namespace coca::train {

struct TrainConfig {
  // model
  model::Architecture architecture = model::Architecture::kGptNeoX;
  model::AttentionKind attention = model::AttentionKind::kCocaSlack;
  std::vector<const model::Modifier*> modifiers;
  std::optional<ops::Magnitude> magnitude;
  int64_t content_dims = 0;
  model::TWidth t_width = model::TWidth::kHalf;
  int64_t layers = 4, width = 128, heads = 4, kv_heads = 0, mlp_width = 0, length = 128;
  double rotary_pct = 1.0, rope_theta = 10000.0, norm_eps = 1e-5, init_std = 0;
  bool tie_embeddings = false, parallel_residual = true;
  PositionOptions positions;
  model::WindowOptions windows;
  model::Direction direction = model::Direction::kCausal;
  // data
  std::vector<std::string> text, validation_text;
  std::optional<data::Split> split;
  std::string tokenizer = "byte";
  double passkey_share = 0.0;
  data::PasskeyWording passkey_wording = data::PasskeyWording::kCompact;
  int64_t passkey_digits = 5, passkey_first_steps = 0;
  data::TaskOptions tasks;
  // optimization
  int64_t steps = 1000, batch = 32, accumulation = 1, slices = 0, warmup_steps = 50;
  double learning_rate = 1e-3, min_learning_rate = 1e-4;
  optim::Decay decay = optim::Decay::kCosine;
  double beta1 = 0.9, beta2 = 0.95, adam_eps = 1e-8, weight_decay = 0.1, clip_norm = 1.0, clex_rate = 0.03;
  int64_t seed = 0, max_bad_steps = 10;
  bool context_parallel = false;
  model::Recompute recompute = model::Recompute::kNone;
  model::Precision precision = model::Precision::kF32;
  // output
  std::string tensorboard;
  std::string out = "out/train";
  int64_t log_interval = 10, validation_interval = 200, validation_windows = 64, checkpoint_interval = 500,
          keep_checkpoints = 2;

  template <class V>
  void visit(V&& v) {
    v.group("Model");
    v("architecture", "weight names and block form", architecture);
    v("attention", "attention kind", attention);
    v("modifiers", "changes to attention that go with any kind (coca methods says what each does); default: none",
      modifiers);
    v("content_dims",
      "last dims of each head that do not rotate and are an ordinary signed q.k, whatever the attention kind; 0: none",
      content_dims);
    v("magnitude",
      "how a collinear key's length is made from t: relu or softplus; default: relu for CoCA's forms, softplus for "
      "pope",
      magnitude);
    v("t_width",
      "width of CoCA's T projection: one number for each rotary pair (half), or one for each dim, folded afterwards "
      "(full, as the official "
      "code): the same function; with norms of heads always full",
      t_width);
    v("layers", "decoder layers", layers, Least{1});
    v("width", "hidden size", width, Least{1});
    v("heads", "query heads", heads, Least{1});
    v("kv_heads", "key/value heads; default: as many as heads", kv_heads);
    v("mlp_width", "mlp hidden size; default: 4 x width, or 8/3 x width with SwiGLU, rounded up to 32", mlp_width);
    v("length", "tokens per training window, and max_position_embeddings", length, Least{1});
    v("rotary_pct", "share of the head dim that rotates", rotary_pct, kAboveZero);
    v("rope_theta", "base of the rotary frequencies", rope_theta);
    v("norm_eps", "eps of the norms", norm_eps);
    v("init_std", "standard deviation of the initial weights; default: 0.64 / sqrt(width), which is 0.02 at width 1024",
      init_std);
    v("tie_embeddings", "share input and output embeddings", tie_embeddings);
    v("parallel_residual", "GPT-NeoX: attention and mlp in parallel", parallel_residual);
    positions.visit(v);
    windows.visit(v);
    v("direction",
      "direction of attention: causal (trained on the next token) or bidirectional (trained on masked tokens)",
      direction);
    v.group("Data");
    v("text", "training text: files, folders, globs, jsonl, or one .tok file; with --task it may be left out", text);
    v("split", "split of training text in PG-19's layout; default for such text: train", split);
    v("validation_text",
      "validation text, in the same forms; default: the split validation of text in PG-19's layout, else no validation",
      validation_text);
    v("tokenizer", "byte, a sentencepiece .model, or a folder with one", tokenizer);
    v("passkey_share",
      "share of training windows that teach the passkey task; coca eval passkey asks in the same wording",
      passkey_share);
    v("passkey_wording", "wording of those prompts", passkey_wording);
    v("passkey_digits", "digits of the key", passkey_digits, Least{1});
    v("passkey_first_steps", "first steps, in which all windows teach it", passkey_first_steps);
    tasks.visit(v);
    v.group("Optimization");
    v("steps", "optimizer steps", steps, Least{1});
    v("batch", "windows per micro-batch", batch, Least{1});
    v("accumulation", "micro-batches per step", accumulation, Least{1});
    v("slices",
      "equal parts of a step whose gradients are added in order; any number of ranks that divides it gives the same "
      "bits; default: one per rank",
      slices);
    v("context_parallel",
      "split the tokens of every window over the ranks, instead of the windows of a step (docs/parallel.md)",
      context_parallel);
    v("learning_rate", "peak learning rate", learning_rate, kAboveZero);
    v("min_learning_rate", "floor of the decay", min_learning_rate);
    v("warmup_steps", "steps of linear warm-up", warmup_steps);
    v("decay", "decay after the warm-up", decay);
    v("beta1", "AdamW beta1", beta1);
    v("beta2", "AdamW beta2", beta2);
    v("adam_eps", "AdamW eps", adam_eps);
    v("weight_decay", "decoupled weight decay of matrices and embeddings", weight_decay);
    v("clip_norm", "largest global gradient norm; 0: no clipping", clip_norm);
    v("clex_rate", "learning rate of CLEX's network, as a share of the learning rate", clex_rate);
    v("seed", "seed of weights, window order, passkeys, tasks and positions", seed);
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

// Throws Error naming the first invalid option.
void check_config(const TrainConfig&);
model::ModelSpec make_spec(const TrainConfig&, int64_t vocabulary, std::optional<int64_t> bos,
                           std::optional<int64_t> eos);
optim::Schedule make_schedule(const TrainConfig&);
optim::AdamWOptions make_adamw(const TrainConfig&);

}  // namespace coca::train
