// SPDX-License-Identifier: Apache-2.0
#include "coca/train/trainer.h"

#include <cmath>

#include "coca/base/log.h"
#include "coca/base/parallel.h"
#include "coca/base/stop.h"
#include "coca/io/json_file.h"
#include "coca/io/safetensors.h"
#include "coca/train/metrics.h"
#include "train/tiny_run.h"

namespace coca::train::trainer_test {
namespace {

namespace fs = std::filesystem;
using test::expect_error;

using model::AttentionKind;
constexpr AttentionKind kKinds[] = {AttentionKind::kRope,     AttentionKind::kCocaSlack, AttentionKind::kCocaStrict,
                                    AttentionKind::kCocaTied, AttentionKind::kAlibi,     AttentionKind::kNone};

TEST(Trainer, LossFallsOnARepetitiveText) {
  const test::TempDir dir;
  TrainConfig c = test::tiny_config(dir.path() / "run");
  c.steps = 80;
  c.batch = 4;
  c.learning_rate = 1e-2;
  c.log_interval = 10;
  std::vector<int32_t> ids(600);
  for (size_t i = 0; i < ids.size(); ++i) ids[i] = "collinear "[i % 10];
  const auto tokens = data::TokenFile::from_tokens(ids, {0, 600}, 257);
  const auto tokenizer = text::make_byte_tokenizer();
  Trainer trainer(c, {.tokens = tokens, .tokenizer = *tokenizer}, Start::kFresh);
  double first = 0;
  const TrainSummary summary = trainer.run([&](const StepReport& r) {
    if (r.step == 1) first = r.loss;
  });
  // The model is untrained. Initial logits are N(0, 0.64^2) (init_std sqrt(width)): the log sum exceeds log 272 by
  // 0.64^2 / 2. The mean over the text's ten letters varies by 0.64 / sqrt(10) = 0.2; three times that is allowed.
  EXPECT_NEAR(first, std::log(272.0) + 0.2, 0.6);
  EXPECT_LT(summary.final_loss, 0.3);
  EXPECT_EQ(summary.steps, 80);
  EXPECT_EQ(summary.tokens, 80 * 4 * 16);
  EXPECT_EQ(summary.skipped, 0);
  EXPECT_EQ(read_metrics(fs::path(c.out) / "metrics.csv").size(), 8u);
  EXPECT_TRUE(fs::exists(fs::path(c.out) / "model" / "model.safetensors"));
}

// Runs without interruption; stopped after step 5 and resumed; and killed after step 6 and resumed from the checkpoint
// of step 4.
void expect_resumes_bitwise(TrainConfig c, const fs::path& dir) {
  const test::TinyData data;
  c.validation_interval = 6;
  c.validation_windows = 5;
  const auto run = [&](const char* name, Start start, const std::function<void(const StepReport&)>& on_step = {}) {
    c.out = (dir / name).string();
    Trainer trainer(c, data.with_validation(), start);
    return trainer.run(on_step);
  };
  run("straight", Start::kFresh);
  expect_error(
      [&] {
        run("stopped", Start::kFresh, [](const StepReport& r) {
          if (r.step == 5) request_stop();
        });
      },
      ErrorKind::kInterrupted, "stopped at step 5 of 12");
  clear_stop();
  EXPECT_EQ(latest_checkpoint(dir / "stopped")->filename(), "step-00000005");
  const TrainSummary resumed = run("stopped", Start::kResume, [](const StepReport& r) { EXPECT_GT(r.step, 5); });
  EXPECT_EQ(resumed.steps, 12);
  struct Killed {};
  EXPECT_THROW(run("killed", Start::kFresh,
                   [](const StepReport& r) {
                     if (r.step == 6) throw Killed();
                   }),
               Killed);
  run("killed", Start::kResume, [](const StepReport& r) { EXPECT_GT(r.step, 4); });
  const std::string straight = test::newest_bytes(dir / "straight");
  for (const char* name : {"stopped", "killed"}) {
    EXPECT_TRUE(test::newest_bytes(dir / name) == straight) << name << ": weights or moments differ";
    EXPECT_EQ(test::metrics_without_times(dir / name), test::metrics_without_times(dir / "straight")) << name;
    EXPECT_EQ(io::read_file(dir / name / "model" / "model.safetensors"),
              io::read_file(dir / "straight" / "model" / "model.safetensors"));
  }
}

TEST(Trainer, ResumesBitwiseWithEveryAttention) {
  for (const AttentionKind kind : kKinds) {
    SCOPED_TRACE(enum_name(kind));
    const test::TempDir dir;
    TrainConfig c = test::tiny_config("");
    c.attention = kind;
    expect_resumes_bitwise(c, dir.path());
  }
}

TEST(Trainer, ResumesBitwiseWithAccumulationLlamaAndPasskeys) {
  const test::TempDir dir;
  TrainConfig c = test::tiny_config("");
  c.architecture = model::Architecture::kLlama;
  c.accumulation = 2;
  c.kv_heads = 1;
  c.tie_embeddings = true;
  c.length = 80;
  c.passkey_share = 0.3;
  c.log_interval = 5;
  expect_resumes_bitwise(c, dir.path());
}

TEST(Trainer, ResumesBitwiseInBf16) {
  for (const auto architecture : {model::Architecture::kGptNeoX, model::Architecture::kLlama}) {
    const test::TempDir dir;
    TrainConfig c = test::tiny_config("");
    c.architecture = architecture;
    c.precision = model::Precision::kBF16;
    c.recompute = model::Recompute::kAttention;
    expect_resumes_bitwise(c, dir.path());
  }
}

// Master weights, moments and the exported model are fp32; the model computes with a bf16 copy.
TEST(Trainer, Bf16TrainsAlmostAsFp32) {
  const test::TempDir dir;
  const test::TinyData data;
  const auto run = [&](const char* name, model::Precision precision) {
    TrainConfig c = test::tiny_config(dir.path() / name);
    c.precision = precision;
    c.steps = 40;
    return Trainer(c, data.with_validation(), Start::kFresh).run();
  };
  const TrainSummary exact = run("f32", model::Precision::kF32), rounded = run("bf16", model::Precision::kBF16);
  EXPECT_NE(rounded.final_loss, exact.final_loss);
  // A rounding changes a logit (below 4) by at most 2^-8 of itself, and a mean loss by less than one logit.
  EXPECT_NEAR(rounded.final_loss, exact.final_loss, 4 * 0x1p-8);
  EXPECT_NEAR(*rounded.validation_loss, *exact.validation_loss, 4 * 0x1p-8);
  EXPECT_LT(rounded.activation_bytes, exact.activation_bytes);
  for (const char* name : {"f32", "bf16"}) {
    const io::SafetensorsFile file(*latest_checkpoint(dir.path() / name) / "model.safetensors");
    for (const io::StoredTensor& t : file.tensors()) EXPECT_EQ(t.dtype, DType::kF32) << t.name;
  }
}

TEST(Trainer, ResumingAFinishedRunRepeatsItsSummary) {
  const test::TempDir dir;
  const test::TinyData data;
  const TrainConfig c = test::tiny_config(dir.path());
  const TrainSummary first = Trainer(c, data.with_validation(), Start::kFresh).run();
  const TrainSummary again = Trainer(c, data.with_validation(), Start::kResume).run();
  EXPECT_EQ(again.final_loss, first.final_loss);
  EXPECT_EQ(again.validation_loss, first.validation_loss);
  EXPECT_EQ(again.steps, 12);
  EXPECT_EQ(again.tokens, first.tokens);
}

TEST(Trainer, ResumingWithOtherOptionsWarnsOrRefuses) {
  const test::TempDir dir;
  const test::TinyData data;
  TrainConfig c = test::tiny_config(dir.path());
  Trainer(c, data.without_validation(), Start::kFresh).run();
  std::vector<std::string> warnings;
  set_log_sink([&](LogLevel level, std::string_view text) {
    if (level == LogLevel::kWarning) warnings.emplace_back(text);
  });
  c.log_interval = 1;
  Trainer(c, data.without_validation(), Start::kResume);
  EXPECT_TRUE(warnings.empty());
  c.steps = 20;
  c.batch = 4;
  Trainer(c, data.without_validation(), Start::kResume);
  set_log_sink({});
  EXPECT_THAT(warnings,
              testing::ElementsAre("resuming with steps = 20; the run so far had 12",
                                   "resuming with batch = 4; the run so far had 2",
                                   fmt::format("the learning rate follows another schedule now: at step 13 it "
                                               "changes from {:.3g} to {:.3g}",
                                               c.min_learning_rate, optim::learning_rate(make_schedule(c), 12))));
  c.steps = 11;
  expect_error([&] { Trainer(c, data.without_validation(), Start::kResume); }, ErrorKind::kInvalidArgument,
               "beyond the 11 steps");
  c.steps = 12;
  c.attention = AttentionKind::kRope;
  expect_error([&] { Trainer(c, data.without_validation(), Start::kResume); }, ErrorKind::kInvalidArgument,
               "attention_type");
}

TEST(Trainer, AFreshStartRefusesAUsedFolder) {
  const test::TempDir dir;
  const test::TinyData data;
  TrainConfig c = test::tiny_config(dir.path());
  c.steps = 1;
  Trainer(c, data.without_validation(), Start::kFresh).run();
  expect_error([&] { Trainer(c, data.without_validation(), Start::kFresh); }, ErrorKind::kInvalidArgument,
               "already holds a training run");
  EXPECT_NO_THROW(Trainer(c, data.without_validation(), Start::kResume));
  c.out = (dir.path() / "other").string();
  EXPECT_EQ(Trainer(c, data.without_validation(), Start::kResume).first_step(),
            0);  // the folder is empty: starts fresh
}

TEST(Trainer, OtherDataOnResumeIsRefused) {
  const test::TempDir dir;
  const test::TinyData data;
  TrainConfig c = test::tiny_config(dir.path());
  c.steps = 1;
  Trainer(c, data.without_validation(), Start::kFresh).run();
  const auto longer = test::random_letters(2001, 1);
  expect_error([&] { Trainer(c, {.tokens = longer, .tokenizer = *data.tokenizer}, Start::kResume); },
               ErrorKind::kInvalidArgument, "was trained on 2,000 tokens");
  const auto other =
      test::random_letters(2000, 7);  // the same number of tokens from the same tokenizer, but another text
  expect_error([&] { Trainer(c, {.tokens = other, .tokenizer = *data.tokenizer}, Start::kResume); },
               ErrorKind::kInvalidArgument, "content " + other.content_fingerprint());
}

TEST(Trainer, ACheckpointWithoutADataFingerprintResumes) {
  const test::TempDir dir;
  const test::TinyData data;
  TrainConfig c = test::tiny_config(dir.path());
  c.steps = 1;
  Trainer(c, data.without_validation(), Start::kFresh).run();
  const fs::path state = *latest_checkpoint(dir.path()) / "train_state.json";
  auto json = io::read_json(state);
  ASSERT_EQ(json.at("data_fingerprint"), data.tokens.content_fingerprint());
  json.erase("data_fingerprint");
  io::write_json(state, json);
  fs::remove(state.parent_path() / "manifest.json");  // older versions had no manifest either
  c.steps = 2;
  Trainer(c, data.without_validation(), Start::kResume).run();  // later checkpoints have the fingerprint
  EXPECT_EQ(io::read_json(*latest_checkpoint(dir.path()) / "train_state.json").at("data_fingerprint"),
            data.tokens.content_fingerprint());
}

TEST(Trainer, UnsuitableDataIsNamed) {
  const test::TempDir dir;
  const test::TinyData data;
  const TrainConfig c = test::tiny_config(dir.path());
  const auto wide = data::TokenFile::from_tokens(std::vector<int32_t>(100, 7), {0, 100}, 300);
  expect_error([&] { Trainer(c, {.tokens = wide, .tokenizer = *data.tokenizer}, Start::kFresh); },
               ErrorKind::kInvalidArgument, "300 ids");
  const auto brief = test::random_letters(16, 1);
  expect_error(
      [&] { Trainer(c, {.tokens = data.tokens, .validation = &brief, .tokenizer = *data.tokenizer}, Start::kFresh); },
      ErrorKind::kInvalidArgument, "validation text has 16 tokens; one window needs 17");
}

TEST(Trainer, NonFiniteStepsAreSkippedAndEndTheRun) {
  const test::TempDir dir;
  const test::TinyData data;
  TrainConfig c = test::tiny_config(dir.path());
  c.learning_rate = 1e30;
  c.warmup_steps = 0;
  c.max_bad_steps = 3;
  c.log_interval = 1;
  Trainer trainer(c, data.without_validation(), Start::kFresh);
  std::vector<float> after_first;
  std::vector<int64_t> skipped;
  expect_error(
      [&] {
        trainer.run([&](const StepReport& r) {
          if (r.step == 1) after_first = test::values_of(trainer.params());
          skipped.push_back(r.skipped);
        });
      },
      ErrorKind::kNumeric, "training stopped at step 4: 3 steps in a row");
  EXPECT_THAT(skipped, testing::ElementsAre(0, 1, 2));
  EXPECT_EQ(test::values_of(trainer.params()), after_first);
  EXPECT_TRUE(std::isnan(read_metrics(dir.path() / "metrics.csv").at(1).loss));  // the interval has no finite loss
}

TEST(Trainer, ARunWithSkippedStepsResumes) {
  const test::TempDir dir;
  const test::TinyData data;
  TrainConfig c = test::tiny_config(dir.path());
  c.learning_rate = 1e30;
  c.warmup_steps = 0;
  c.log_interval = 100;
  c.steps = 3;
  const auto run = [&](Start start) { Trainer(c, data.without_validation(), start).run(); };
  expect_error([&] { run(Start::kFresh); }, ErrorKind::kNumeric, "the last 2 of 3 steps");
  const std::vector<MetricsRow> rows = read_metrics(dir / "metrics.csv");
  ASSERT_EQ(rows.size(), 1u);
  EXPECT_NEAR(rows[0].loss, std::log(272.0) + 0.2, 0.4);  // of the one finite step; 26 letters: 3 x 0.64 / sqrt(26)
  c.steps = 5;
  expect_error([&] { run(Start::kResume); }, ErrorKind::kNumeric, "the last 4 of 5 steps");
  c.steps = 50;
  expect_error([&] { run(Start::kResume); }, ErrorKind::kNumeric, "step 11: 10 steps in a row");
}

TEST(Trainer, ValidationLossIsTheMeanOverWindowsSpreadOverTheText) {
  const test::TempDir dir;
  const test::TinyData data;
  for (const AttentionKind kind : {AttentionKind::kCocaSlack, AttentionKind::kRope})
    for (const int64_t windows :
         {3, 64}) {  // of 12 whole windows; with batches of 2, 3 windows leave a partial batch and 12 none
      TrainConfig c = test::tiny_config(dir.path() / fmt::format("{}-{}", enum_name(kind), windows));
      c.attention = kind;
      c.validation_windows = windows;
      c.steps = 3;
      c.init_std = 0.3;
      Trainer trainer(c, data.with_validation(), Start::kFresh);
      const TrainSummary summary = trainer.run();
      // Each window separately, with a softmax over the whole vocabulary in double.
      Context context;
      model::Decoder decoder(trainer.spec(), trainer.params().weights());
      const float* head = trainer.params().weights().head.as<float>();
      const int64_t N = c.length, C = trainer.spec().C, V = trainer.spec().V,
                    count = std::min<int64_t>(windows, 199 / N);
      double sum = 0;
      for (int64_t w = 0; w < count; ++w) {
        std::vector<int32_t> window(static_cast<size_t>(N) + 1);
        data.validation.read((windows == 3 ? 2 + 4 * w : w) * N,
                             window);  // 3 of 12: the middle window of three equal parts
        const float* hidden =
            decoder.forward(context, TensorRef(window.data(), DType::kI32, {1, N}, kHost)).as<float>();
        for (int64_t n = 0; n < N; ++n) {
          double total = 0, target = 0;
          for (int64_t v = 0; v < V; ++v) {
            double logit = 0;
            for (int64_t i = 0; i < C; ++i) logit += static_cast<double>(hidden[n * C + i]) * head[v * C + i];
            total += std::exp(logit);
            if (v == window[static_cast<size_t>(n) + 1]) target = logit;
          }
          sum += std::log(total) - target;
        }
      }
      // nll and logits are floats: a few units in the last place of numbers below 32.
      EXPECT_NEAR(*summary.validation_loss, sum / static_cast<double>(count * N), 64 * 0x1p-24);
    }
}

std::vector<float> first_moments(const fs::path& out) {
  const io::SafetensorsFile file(*latest_checkpoint(out) / "optimizer.safetensors");
  std::vector<float> all;
  for (const io::StoredTensor& t : file.tensors())
    if (t.name.starts_with("m.")) {
      const std::vector<float> values = io::to_f32(t);
      all.insert(all.end(), values.begin(), values.end());
    }
  return all;
}

TEST(Trainer, AccumulationEqualsALargerBatch) {
  const test::TempDir dir;
  const test::TinyData data;
  TrainConfig c = test::tiny_config(dir.path() / "split");
  c.steps = 1;
  c.clip_norm = 0;
  c.batch = 2;
  c.accumulation = 2;
  const TrainSummary split = Trainer(c, data.without_validation(), Start::kFresh).run();
  c.out = (dir.path() / "whole").string();
  c.batch = 4;
  c.accumulation = 1;
  const TrainSummary whole = Trainer(c, data.without_validation(), Start::kFresh).run();
  // A logit is a sum of `width` products, which matrix products may add in an order that depends on the number of rows:
  // as many roundings of numbers no larger than the loss. The remaining sums are in double.
  EXPECT_NEAR(split.final_loss, whole.final_loss, static_cast<double>(c.width) * 0x1p-24 * whole.final_loss);
  EXPECT_EQ(split.tokens, whole.tokens);
  const auto a = first_moments(dir.path() / "split"), b = first_moments(dir.path() / "whole");
  ASSERT_EQ(a.size(), b.size());
  float largest = 0;
  for (const float x : b) largest = std::max(largest, std::abs(x));
  ASSERT_GT(largest, 0.0f);
  // Sums over 64 positions in another order: at most 64 roundings of numbers no larger than the largest.
  for (size_t i = 0; i < a.size(); ++i) ASSERT_NEAR(a[i], b[i], 64 * 0x1p-24f * largest) << i;
}

// A run may also be resumed with another policy.
TEST(Trainer, RecomputationDoesNotChangeABit) {
  const test::TempDir dir;
  const test::TinyData data;
  const auto run = [&](const char* name, model::Recompute recompute, int64_t steps, Start start) {
    TrainConfig c = test::tiny_config(dir.path() / name);
    c.recompute = recompute;
    c.steps = steps;
    c.warmup_steps = 0;
    c.decay = optim::Decay::kConstant;
    Trainer(c, data.without_validation(), start).run();
  };
  run("none", model::Recompute::kNone, 8, Start::kFresh);
  run("attention", model::Recompute::kAttention, 8, Start::kFresh);
  run("layer", model::Recompute::kLayer, 4, Start::kFresh);
  run("layer", model::Recompute::kAttention, 8, Start::kResume);
  for (const char* name : {"attention", "layer"})
    EXPECT_TRUE(test::newest_bytes(dir.path() / name) == test::newest_bytes(dir.path() / "none")) << name;
}

TEST(Trainer, TheNumberOfThreadsDoesNotChangeABit) {
  const int before = max_threads();
  const test::TinyData data;
  for (const auto& [architecture, precision] : {std::pair{model::Architecture::kGptNeoX, model::Precision::kF32},
                                                std::pair{model::Architecture::kLlama, model::Precision::kF32},
                                                std::pair{model::Architecture::kGptNeoX, model::Precision::kBF16}}) {
    const test::TempDir dir;
    TrainConfig c = test::tiny_config("");
    c.architecture = architecture;
    c.precision = precision;
    c.steps = 4, c.width = 64, c.length = 100, c.batch = 3, c.checkpoint_interval = 0,
    c.validation_windows = 2;  // uneven sizes, many blocks
    for (const int threads : {1, 2, 3}) {
      set_max_threads(threads);
      c.out = (dir.path() / std::to_string(threads)).string();
      Trainer(c, data.without_validation(), Start::kFresh).run();
      EXPECT_TRUE(test::newest_bytes(c.out) == test::newest_bytes(dir.path() / "1")) << threads << " threads";
      EXPECT_EQ(test::metrics_without_times(c.out), test::metrics_without_times(dir.path() / "1"))
          << threads << " threads";
    }
  }
  set_max_threads(before);
}

}  // namespace
}  // namespace coca::train::trainer_test
