// coca/study/config.h - what a study trains and measures. Numbers that are 0 (and empty lists) come from the preset.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <vector>

#include "coca/base/sizes.h"
#include "coca/data/pg19.h"
#include "coca/data/task.h"
#include "coca/study/method.h"

namespace coca::study {

// Sizes; ablation and survey are tiny ones with methods, factors and seeds of their own: the paper's table 3 (slack,
// strict and tied under dynamic NTK 2, 4, 8), and every method that trains (method.h). gpu (25M parameters) and
// gpu-large (60M) compare six kinds of attention, trained on 30 and 60 million tokens each.
enum class Preset : uint8_t { kTiny, kSmall, kBase, kAblation, kSurvey, kGpu, kGpuLarge };

struct StudyConfig {
  Preset preset = Preset::kTiny;
  std::vector<std::string> methods;
  std::vector<std::string> ntk_methods = {"rope", "xpos", "coca-slack", "coca-strict", "coca-tied"};
  std::vector<double> factors;
  std::vector<int64_t> seeds;
  std::vector<std::string> text, test_text;
  std::optional<data::Split> split;
  std::string tokenizer = "byte";
  model::Architecture architecture = model::Architecture::kGptNeoX;
  int64_t layers = 0, width = 0, heads = 0, length = 0, batch = 0, steps = 0, warmup_steps = 0;
  double learning_rate = 0;
  double passkey_share = 0.2;
  int64_t passkey_first_steps = 1000;
  data::TaskOptions tasks;
  model::Precision precision = model::Precision::kF32;
  std::vector<int64_t> multiples = {1, 2, 4, 8, 16, 32};
  int64_t eval_documents = 0, eval_tokens = 0, stride = 0, passkey_trials = 0;
  data::PasskeyWording passkey_wording = data::PasskeyWording::kCompact;
  int64_t passkey_digits = 5;
  std::string out = "out/study", tensorboard;

  template <class V>
  void visit(V&& v) {
    v.group("Study");
    v("preset", "size of models and training, or what to compare; options below override it", preset);
    v("methods", methods_help(), methods);
    v("ntk_methods", "methods that are also evaluated with dynamic NTK scaling", ntk_methods);
    v("factors", "factors of that scaling; default: the preset's", factors);
    v("seeds", "one model per method and seed; default: the preset's", seeds);
    v("out", "output folder; an unfinished study in it is continued", out);
    v("tensorboard",
      "folder for TensorBoard's event files of the trainings, one folder per method and seed in it; default: no "
      "such files",
      tensorboard);
    v.group("Text");
    v("text",
      "training text (files, folders, globs, jsonl), of which a twentieth is held out for validation; default: the "
      "compiler's C++ standard library headers",
      text);
    v("split", "split of training text in PG-19's layout; default for such text: train", split);
    v("test_text",
      "text to evaluate on; default: about a tenth of the text is held out: whole documents, or the end of each if "
      "there "
      "are few",
      test_text);
    v("tokenizer", "byte, a sentencepiece .model, or a folder with one", tokenizer);
    v.group("Model and training");
    v("architecture", "block form and weight names", architecture);
    v("layers", "decoder layers; default: the preset's", layers);
    v("width", "hidden size; default: the preset's", width);
    v("heads", "heads; default: the preset's", heads);
    v("length", "trained length; default: the preset's", length);
    v("batch", "windows per step; default: the preset's", batch);
    v("steps", "training steps; default: the preset's", steps);
    v("warmup_steps", "warm-up steps; default: the preset's, at most a tenth of all steps", warmup_steps);
    v("learning_rate", "peak learning rate, which decays to a tenth of it along a cosine; default: the preset's",
      learning_rate);
    v("passkey_share",
      "share of training windows that teach the passkey task; 0: the task is neither taught nor measured",
      passkey_share);
    v("passkey_first_steps", "first steps, in which all windows teach it; at most a third of all steps",
      passkey_first_steps);
    v("precision", "of training; evaluation is in fp32", precision);
    tasks.visit(v);
    v.group("Evaluation");
    v("multiples", "evaluated lengths, as multiples of the trained one", multiples, Least{1});
    v("eval_documents", "test documents used; default: the preset's", eval_documents);
    v("eval_tokens", "tokens of each, from its middle; default: the preset's", eval_tokens);
    v("stride", "stride of the sliding window; default: the trained length", stride);
    v("passkey_trials", "passkey prompts per length and depth; default: the preset's", passkey_trials);
    v("passkey_wording", "wording of the passkey prompts", passkey_wording);
    v("passkey_digits", "digits of the key", passkey_digits, Least{1});
  }
};

// Fills in the preset's numbers and checks everything; throws Error naming the first invalid option.
StudyConfig resolve(StudyConfig);
std::vector<int64_t> eval_lengths(const StudyConfig&);  // trained length times multiples
std::vector<int64_t> task_lengths(const StudyConfig&);  // at which tasks are measured, kExams times in a training
inline constexpr int64_t kExams = 20;
train::TrainConfig train_config(const StudyConfig&, const std::string& method, int64_t seed, const std::string& out);

}  // namespace coca::study

COCA_ENUM_NAMES(coca::study::Preset, "preset", {coca::study::Preset::kTiny, "tiny"},
                {coca::study::Preset::kSmall, "small"}, {coca::study::Preset::kBase, "base"},
                {coca::study::Preset::kAblation, "ablation"}, {coca::study::Preset::kSurvey, "survey"},
                {coca::study::Preset::kGpu, "gpu"}, {coca::study::Preset::kGpuLarge, "gpu-large"})
