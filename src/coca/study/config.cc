// SPDX-License-Identifier: Apache-2.0
#include "coca/study/config.h"

#include <fmt/ranges.h>

#include <algorithm>

namespace coca::study {

namespace {

struct PresetNumbers {
  int64_t layers, width, heads, length, batch, steps, warmup_steps, eval_documents, eval_tokens, passkey_trials;
  double learning_rate;
};

// tiny: nine minutes for the whole default study on two cores; small: an afternoon; base: days. A step of gpu and
// gpu-large is 32,768 tokens, enough to keep a card busy.
PresetNumbers numbers_of(Preset preset) {
  switch (preset) {
    case Preset::kTiny:
    case Preset::kAblation:
    case Preset::kSurvey: return {4, 128, 4, 128, 8, 2400, 70, 4, 5120, 4, 3e-3};
    case Preset::kSmall: return {6, 256, 8, 256, 16, 4000, 200, 8, 16384, 10, 1e-3};
    case Preset::kBase: return {8, 512, 8, 512, 16, 20000, 500, 8, 32768, 20, 6e-4};
    case Preset::kGpu: return {8, 512, 8, 512, 64, 900, 50, 8, 65536, 20, 1e-3};
    case Preset::kGpuLarge: return {12, 640, 10, 512, 64, 1800, 100, 8, 65536, 20, 8e-4};
  }
  return {};
}

// What the preset compares, where nothing was asked for.
void fill_comparison(StudyConfig& c) {
  const bool ablation = c.preset == Preset::kAblation, survey = c.preset == Preset::kSurvey,
             gpu = c.preset == Preset::kGpu || c.preset == Preset::kGpuLarge;
  if (c.methods.empty() && survey) {
    c.methods = survey_methods();
  } else if (c.methods.empty()) {
    c.methods = {"rope", "coca-slack", "coca-strict", "alibi"};
    if (ablation) c.methods = {"coca-slack", "coca-strict", "coca-tied"};
    if (gpu) c.methods = {"rope", "coca-slack", "coca-strict", "coca-strict-alibi", "alibi", "xpos"};
  }
  if (c.factors.empty()) c.factors = ablation ? std::vector<double>{2, 4, 8} : std::vector<double>{4};
  if (c.seeds.empty()) c.seeds = ablation || survey ? std::vector<int64_t>{0, 1, 2} : std::vector<int64_t>{0};
}

void check_names(std::string_view option, const std::vector<std::string>& methods) {
  for (const std::string& method : methods) {
    try {
      method_from_name(method);
    } catch (const Error& error) {
      fail(error.kind(), "{} holds \"{}\": {}", option, method, error.what());
    }
  }
}

// What a training would refuse, with the name of the method behind it: errors begin with their option.
void check_method(const StudyConfig& c, const std::string& method) {
  try {
    train::check_config(train_config(c, method, c.seeds[0], c.out));
  } catch (const Error& e) {
    throw Error(e.kind(), fmt::format("{} (method {})", e.what(), method));
  }
}

}  // namespace

StudyConfig resolve(StudyConfig c) {
  io::check_option_ranges(c);
  fill_comparison(c);
  const PresetNumbers p = numbers_of(c.preset);
  const auto fill = [](auto& field, auto value) {
    if (field == 0) field = value;
  };
  fill(c.layers, p.layers);
  fill(c.width, p.width);
  fill(c.heads, p.heads);
  fill(c.length, p.length);
  fill(c.batch, p.batch);
  fill(c.steps, p.steps);
  fill(c.learning_rate, p.learning_rate);
  if (c.warmup_steps == 0) c.warmup_steps = std::min(p.warmup_steps, std::max<int64_t>(1, c.steps / 10));
  c.passkey_first_steps = c.passkey_share > 0 ? std::min(c.passkey_first_steps, c.steps / 3) : 0;
  fill(c.eval_documents, p.eval_documents);
  fill(c.eval_tokens, p.eval_tokens);
  fill(c.passkey_trials, p.passkey_trials);
  fill(c.stride, c.length);
  COCA_CHECK(!c.multiples.empty(), "multiples: none given");
  COCA_CHECK(!c.split || !c.text.empty(), "split: needs text; the headers of the C++ standard library have none");
  check_names("methods", c.methods);
  check_names("ntk_methods", c.ntk_methods);
  for (const std::string& method : c.methods)
    COCA_CHECK(std::count(c.methods.begin(), c.methods.end(), method) == 1, "methods holds {} twice; give each once",
               method);
  for (const int64_t seed : c.seeds)
    COCA_CHECK(std::count(c.seeds.begin(), c.seeds.end(), seed) == 1, "seeds holds {} twice; give each once", seed);
  std::erase_if(c.ntk_methods, [&](const std::string& m) {
    return std::find(c.methods.begin(), c.methods.end(), m) == c.methods.end();
  });
  for (const std::string& method : c.ntk_methods) {
    const Method m = method_from_name(method);
    COCA_CHECK(model::uses_rotary(m.attention),
               "ntk_methods holds {}, which has no rotary embedding for dynamic NTK to scale", method);
    COCA_CHECK(m.training != Training::kClex,
               "ntk_methods holds {}, which has a scaling of its own; dynamic NTK would take its place", method);
  }
  for (const int64_t m : c.multiples) {
    COCA_CHECK(m >= 1, "multiples holds {}; expected at least 1", m);
    check_memory("the keys and values of an evaluated window",
                 {{"multiples", m}, {"length", c.length}, {"layers", c.layers}, {"width", c.width}, {"bytes", 8}},
                 "evaluate shorter ones");
  }
  COCA_CHECK(std::is_sorted(c.multiples.begin(), c.multiples.end()),
             "multiples is {}; expected them in ascending order", fmt::join(c.multiples, ","));
  for (const double factor : c.factors) COCA_CHECK(factor >= 1, "factors holds {}; expected at least 1", factor);
  COCA_CHECK(c.length >= 2, "length is {}; expected at least 2", c.length);
  COCA_CHECK(c.eval_tokens >= 2, "eval_tokens is {}; expected at least 2, or 0 (the preset's)", c.eval_tokens);
  for (const std::string& method : c.methods) check_method(c, method);
  return c;
}

std::vector<int64_t> task_lengths(const StudyConfig& c) {
  std::vector<int64_t> lengths;
  for (const int64_t m : c.tasks.multiples) lengths.push_back(m * c.length);
  return lengths;
}

std::vector<int64_t> eval_lengths(const StudyConfig& c) {
  std::vector<int64_t> lengths;
  for (const int64_t m : c.multiples) lengths.push_back(m * c.length);
  return lengths;
}

train::TrainConfig train_config(const StudyConfig& c, const std::string& method, int64_t seed, const std::string& out) {
  train::TrainConfig t;
  t.architecture = c.architecture;
  t.layers = c.layers;
  t.width = c.width;
  t.heads = c.heads;
  t.length = c.length;
  t.passkey_share = c.passkey_share;
  t.passkey_wording = c.passkey_wording;
  t.passkey_digits = c.passkey_digits;
  t.precision = c.precision;
  t.passkey_first_steps = c.passkey_first_steps;
  t.steps = c.steps;
  t.batch = c.batch;
  t.warmup_steps = c.warmup_steps;
  t.learning_rate = c.learning_rate;
  t.min_learning_rate = c.learning_rate / 10;
  t.seed = seed;
  t.out = out;
  t.tokenizer = c.tokenizer;
  t.validation_interval = std::max<int64_t>(1, c.steps / 8);
  if (!c.tasks.tasks.empty()) {
    t.tasks = c.tasks;
    t.validation_interval = std::max<int64_t>(1, c.steps / kExams);  // a curve, and so more points
  }
  t.checkpoint_interval = std::max<int64_t>(50, c.steps / 20);
  t.keep_checkpoints = 1;
  apply_method(method_from_name(method), c.multiples.back() * c.length, t);
  return t;
}

}  // namespace coca::study
