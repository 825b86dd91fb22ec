// SPDX-License-Identifier: Apache-2.0
#include <cmath>
#include <cstring>

#include "coca/base/stop.h"
#include "coca/formats/adapter_file.h"
#include "coca/train/finetune.h"
#include "train/tiny_finetune.h"

namespace coca::train::finetune_lora_test {
namespace {

namespace fs = std::filesystem;
using model::AttentionKind;
using test::expect_error;

std::string newest_bytes(const fs::path& out) {
  const auto newest = latest_checkpoint(out);
  if (!newest) return "no checkpoint";
  return newest->filename().string() + io::read_file(*newest / "adapter_model.safetensors") +
         io::read_file(*newest / "optimizer.safetensors");
}

FinetuneConfig tiny_lora(const fs::path& model, const fs::path& out) {
  FinetuneConfig c = test::tiny_finetune(model, out);
  c.steps = 6;
  c.lora_rank = 4;
  c.lora_alpha = 8;
  c.lora_dropout = 0.2;
  c.learning_rate = 1e-2;
  return c;
}

// Stopped after every step and resumed. Dropout masks depend only on the step.
TEST(FinetuneLora, ResumesBitwise) {
  const test::TinyExamples made;
  for (const auto& [spec, precision] :
       {std::pair{test::byte_spec(test::tiny_neox(AttentionKind::kCocaSlack)), model::Precision::kF32},
        {test::byte_spec(test::tiny_llama(AttentionKind::kCocaSlack)), model::Precision::kBF16}}) {
    const test::TempDir dir;
    test::put_model(dir.path() / "model", spec);
    const auto run = [&](const std::string& name, Start start,
                         const std::function<void(const StepReport&)>& on_step = {}) {
      FinetuneConfig c = tiny_lora(dir.path() / "model", dir.path() / name);
      c.precision = precision;
      c.recompute = name == "straight" ? model::Recompute::kNone : model::Recompute::kLayer;
      return Finetuner(c, made.data(), start).run(on_step);
    };
    const TrainSummary whole = run("straight", Start::kFresh);
    for (int64_t at = 1; at < 6; ++at) {
      const std::string name = fmt::format("stopped-{}", at);
      expect_error(
          [&] {
            run(name, Start::kFresh, [&](const StepReport& r) {
              if (r.step == at) request_stop();
            });
          },
          ErrorKind::kInterrupted, "stopped");
      clear_stop();
      EXPECT_EQ(run(name, Start::kResume).validation_loss, whole.validation_loss) << at;
      EXPECT_TRUE(newest_bytes(dir.path() / name) == newest_bytes(dir.path() / "straight")) << at;
    }
  }
}

TEST(FinetuneLora, LearnsWithoutChangingTheModel) {
  const test::TempDir dir;
  const test::TinyExamples made;
  const model::ModelSpec spec = test::byte_spec(test::tiny_llama(AttentionKind::kCocaSlack));
  test::put_model(dir.path() / "model", spec);
  FinetuneConfig c = tiny_lora(dir.path() / "model", dir.path() / "run");
  c.steps = 60;
  c.log_interval = 10;
  c.validation_interval = 0;
  c.validation_windows = 64;
  Finetuner run(c, made.data(), Start::kFresh);
  EXPECT_LT(run.loop().trained_parameters(), model::parameter_count(spec));
  double first = 0;
  const TrainSummary summary = run.run([&](const StepReport& r) { first = r.step == 1 ? r.loss : first; });
  EXPECT_LT(*summary.validation_loss, 0.7 * first);
  const model::Model base = formats::load_model(c.model);
  EXPECT_EQ(test::values_of(*base.params), test::values_of(run.loop().params()));
  EXPECT_FALSE(fs::exists(fs::path(c.out) / "model"));
  // The merged model has the loss of the model with its adapter, shown by the validation of another run with a
  // negligible first step.
  const auto adapter = formats::load_adapter(fs::path(c.out) / "adapter", spec);
  EXPECT_EQ(adapter->settings().base, c.model);
  model::Model merged = formats::load_model(c.model);
  model::merge_adapter(*adapter, *merged.params);
  io::make_dirs(dir.path() / "merged");
  formats::save_model(dir.path() / "merged", spec, *merged.params);
  FinetuneConfig again = c;
  again.model = (dir.path() / "merged").string();
  again.out = (dir.path() / "again").string();
  again.lora_rank = 0;
  again.steps = 1;
  again.warmup_steps = 0;
  again.learning_rate = 1e-30;
  EXPECT_NEAR(*Finetuner(again, made.data(), Start::kFresh).run().validation_loss, *summary.validation_loss, 1e-5);
  // Training of an adapter continues with the adapter's own settings.
  again.model = c.model;
  again.adapter = (fs::path(c.out) / "adapter").string();
  again.out = (dir.path() / "further").string();
  EXPECT_NEAR(*Finetuner(again, made.data(), Start::kFresh).run().validation_loss, *summary.validation_loss, 1e-5);
}

TEST(FinetuneLora, AnotherBaseOnResumeIsRefused) {
  const test::TempDir dir;
  const test::TinyExamples made;
  const model::ModelSpec spec = test::byte_spec(test::tiny_neox(AttentionKind::kRope));
  test::put_model(dir.path() / "model", spec, 1);
  test::put_model(dir.path() / "other", spec, 2);
  FinetuneConfig c = tiny_lora(dir.path() / "model", dir.path() / "run");
  c.steps = 1;
  Finetuner(c, made.data(), Start::kFresh).run();
  c.model = (dir.path() / "other").string();
  expect_error([&] { Finetuner(c, made.data(), Start::kResume); }, ErrorKind::kInvalidArgument,
               "is an adapter of a model with fingerprint");
}

TEST(FinetuneLora, ContradictionsWithAnAdapterAreNamed) {
  const auto bad = [](auto change, const std::string& text) {
    FinetuneConfig c = tiny_lora("m", "o");
    change(c);
    expect_error([&] { check_config(c); }, ErrorKind::kInvalidArgument, text);
  };
  bad([](auto& c) { c.train = {"*"}; }, "with an adapter all of these stay as they are");
  bad([](auto& c) { c.stages.preset = "coca-paper"; }, "with an adapter all of these stay as they are");
  bad([](auto& c) { c.adapter = "a"; }, "has its own rank");
  bad([](auto& c) { c.lora_rank = -1; }, "lora_rank is -1");
  bad([](auto& c) { c.lora_alpha = 0; }, "lora_alpha is 0; expected more than 0");
  bad([](auto& c) { c.lora_dropout = 1; }, "lora_dropout is 1; expected less than 1");
}

TEST(FinetuneLora, WithoutOneGoodStepNoAdapterIsWritten) {
  const test::TempDir dir;
  const test::TinyExamples made;
  test::put_model(dir.path() / "model", test::byte_spec(test::tiny_llama(AttentionKind::kCocaSlack)));
  FinetuneConfig c = tiny_lora(dir.path() / "model", dir.path() / "run");
  c.lora_alpha = 1e39;
  expect_error([&] { Finetuner(c, made.data(), Start::kFresh).run(); }, ErrorKind::kNumeric,
               "so no adapter is written");
  EXPECT_FALSE(fs::exists(dir.path() / "run/adapter"));
  EXPECT_FALSE(latest_checkpoint(dir.path() / "run"));
}

TEST(FinetuneLora, ALossThatIsNotFiniteAfterTheLastUpdateWritesNoAdapter) {
  const test::TempDir dir;
  const test::TinyExamples made;
  test::put_model(dir.path() / "model", test::byte_spec(test::tiny_llama(AttentionKind::kCocaSlack)));
  FinetuneConfig c = tiny_lora(dir.path() / "model", dir.path() / "run");
  c.steps = 1;
  c.learning_rate = 1e30;
  c.warmup_steps = 0;
  expect_error([&] { Finetuner(c, made.data(), Start::kFresh).run(); }, ErrorKind::kNumeric,
               "step 1 of 1, the loss is not finite, so this step is not saved and no adapter");
  EXPECT_FALSE(fs::exists(dir.path() / "run/adapter"));
}

}  // namespace
}  // namespace coca::train::finetune_lora_test
