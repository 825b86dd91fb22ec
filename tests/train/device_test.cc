// Training on a device: the run of the CPU to rounding, the same files, and the same bits when
// it is resumed there.
// SPDX-License-Identifier: Apache-2.0
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "coca/base/stop.h"
#include "coca/formats/model_folder.h"
#include "coca/train/finetune.h"
#include "coca/train/metrics.h"
#include "coca/train/trainer.h"
#include "support/faults.h"
#include "support/first_gpu.h"
#include "support/temp_dir.h"
#include "train/tiny_finetune.h"
#include "train/tiny_run.h"

namespace coca::train::device_test {
namespace {

namespace fs = std::filesystem;
using test::expect_error;
using test::gpu;
using test::OnTheGpu;
using testing::AllOf;
using testing::HasSubstr;

TrainConfig config_in(const fs::path& out) {
  TrainConfig c = test::tiny_config(out);
  c.width = 16;
  c.length = 8;
  c.steps = 4;
  c.log_interval = 1;
  c.checkpoint_interval = 2;
  c.validation_interval = 2;
  c.validation_windows = 2;
  return c;
}

struct Killed {};

void run(const TrainConfig& c, Start start, int64_t until = 0) {
  const test::TinyData data;
  Trainer trainer(c, data.with_validation(), start);
  const auto train = [&] {
    trainer.run([&](const StepReport& r) {
      if (r.step == until) throw Killed();
    });
  };
  if (until > 0)
    EXPECT_THROW(train(), Killed);
  else
    train();
}

std::vector<double> losses(const fs::path& out) {
  std::vector<double> all;
  for (const MetricsRow& row : read_metrics(out / "metrics.csv")) all.push_back(row.loss);
  return all;
}

double first_norm(const fs::path& out) {
  const auto rows = test::metrics_without_times(out);
  const auto column = std::ranges::find(rows.at(0), "grad_norm") - rows.at(0).begin();
  return std::stod(rows.at(1).at(static_cast<size_t>(column)));
}

std::vector<float> weights(const fs::path& folder) { return test::values_of(*formats::load_model(folder).params); }

double distance(const std::vector<float>& a, const std::vector<float>& b) {
  double squares = 0;
  for (size_t i = 0; i < a.size(); ++i) squares += std::pow(static_cast<double>(a[i]) - b[i], 2);
  return std::sqrt(squares);
}

// A gradient differs by up to 1e-4 of the largest of its tensor (tests/model/device_test.cc). AdamW's first updates are
// the signs of the gradients: those of the few that are smaller than that differ by two whole updates, which moves the
// weights by a twentieth of the way at most, and the loss by as much of its change.
void expect_as_on_the_cpu(const fs::path& ours, const fs::path& cpu, const fs::path& start) {
  const std::vector<double> mine = losses(ours), theirs = losses(cpu);
  ASSERT_EQ(mine.size(), theirs.size());
  double change = 0;
  for (const double loss : theirs) change = std::max(change, std::abs(loss - theirs[0]));
  EXPECT_NEAR(mine[0], theirs[0], 1.4e-4);
  for (size_t i = 0; i < mine.size(); ++i) EXPECT_NEAR(mine[i], theirs[i], 1.4e-4 + 0.05 * change) << "step " << i + 1;
  // Gradients that differ by 1e-4 of the largest, which is at most 20 times their root mean square.
  const double norm = first_norm(cpu);
  EXPECT_NEAR(first_norm(ours), norm, 2e-3 * norm);
  const std::vector<float> end = weights(cpu / "model");
  EXPECT_LE(distance(weights(ours / "model"), end), 0.05 * distance(end, weights(start)));
}

TEST(TrainerOnADevice, TrainsAsTheCpuAndResumesBitwise) {
  const test::TempDir dir;
  const test::TinyData data;
  for (const model::Precision precision : {model::Precision::kF32, model::Precision::kBF16}) {
    SCOPED_TRACE(enum_name(precision));
    const fs::path at = dir.path() / enum_name(precision);
    const auto config = [&](const char* name) {
      TrainConfig c = config_in(at / name);
      c.precision = precision;
      c.accumulation = 2;
      c.batch = 1;
      return c;
    };
    TrainConfig first = config("start");
    first.learning_rate = first.min_learning_rate = 1e-12;
    first.steps = 1;
    {
      const OnTheGpu there;
      run(config("straight"), Start::kFresh);
      run(config("killed"), Start::kFresh, 3);
      run(config("killed"), Start::kResume);
    }
    EXPECT_TRUE(test::newest_bytes(at / "killed") == test::newest_bytes(at / "straight"));
    EXPECT_EQ(test::metrics_without_times(at / "killed"), test::metrics_without_times(at / "straight"));
    if (precision != model::Precision::kF32) continue;
    run(first, Start::kFresh);
    run(config("cpu"), Start::kFresh);
    expect_as_on_the_cpu(at / "straight", at / "cpu", at / "start" / "model");
    // From the CPU to the device and back, by the checkpoints of steps 1 and 3.
    TrainConfig back = config("back");
    back.checkpoint_interval = 1;
    run(back, Start::kFresh, 2);
    {
      const OnTheGpu there;
      run(back, Start::kResume, 4);
    }
    run(back, Start::kResume);
    expect_as_on_the_cpu(at / "back", at / "cpu", at / "start" / "model");
  }
}

// One wait for the losses of a step's micro-batches and one for the norm of the gradients; nothing is allocated.
TEST(TrainerOnADevice, AStepWaitsTwiceAndAllocatesNothing) {
  COCA_SKIP_ON_A_CARD();
  const test::TempDir dir;
  const test::TinyData data;
  TrainConfig c = config_in(dir.path());
  c.accumulation = 3;
  c.checkpoint_interval = c.validation_interval = 0;
  const OnTheGpu there;
  Trainer trainer(c, data.without_validation(), Start::kFresh);
  std::vector<size_t> waits, blocks, pinned;
  trainer.run([&](const StepReport&) {
    waits.push_back(test::simulated_gpu()->waits());
    blocks.push_back(test::simulated_gpu()->allocations());
    pinned.push_back(test::simulated_gpu()->pinned());
  });
  for (size_t i = 2; i < waits.size(); ++i) {
    EXPECT_EQ(waits[i] - waits[i - 1], 2u) << "step " << i + 1;
    EXPECT_EQ(blocks[i], blocks[1]) << "step " << i + 1;
    EXPECT_EQ(pinned[i], pinned[1]) << "step " << i + 1;
  }
}

// The warning of step 2 if a parameter is spoiled after step 1.
std::string warning_after(const std::string& name, float value) {
  const test::TempDir dir;
  const test::TinyData data;
  TrainConfig c = config_in(dir.path());
  c.steps = 2;
  c.checkpoint_interval = c.validation_interval = 0;
  const test::Warnings warnings;
  const OnTheGpu there;
  Trainer trainer(c, data.without_validation(), Start::kFresh);
  const auto spoil = [&](const StepReport& r) {
    for (const model::ParamInfo& info : trainer.params().infos()) {
      if (r.step != 1 || info.name != name) continue;
      const TensorRef t = trainer.params().at(info);
      const std::vector<float> values(static_cast<size_t>(t.numel()), value);
      gpu().upload_copy(const_cast<void*>(t.data), values.data(), t.bytes());
    }
  };
  expect_error([&] { trainer.run(spoil); }, ErrorKind::kNumeric, "step");
  return warnings.texts().empty() ? "no warning" : warnings.texts().back();
}

TEST(TrainerOnADevice, NumbersThatAreNotFiniteAreLocated) {
  EXPECT_THAT(warning_after("gpt_neox.layers.1.attention.dense.weight", std::numeric_limits<float>::quiet_NaN()),
              HasSubstr("parameter gpt_neox.layers.1.attention.dense.weight [0, 0] is nan (256 of 256"));
  EXPECT_THAT(warning_after("gpt_neox.layers.1.attention.query_key_value.weight", 1e30f),
              HasSubstr("first in layer.1.q_eff ["));
}

// A card that is lost ends the run with one error; what has been saved stays, and another device continues.
TEST(TrainerOnADevice, ALostCardLeavesTheLastCheckpoint) {
  COCA_SKIP_ON_A_CARD();
  const test::TempDir dir;
  const test::TinyData data;
  const TrainConfig c = config_in(dir.path());
  {
    const OnTheGpu there;
    Trainer trainer(c, data.without_validation(), Start::kFresh);
    expect_error([&] { trainer.run([](const StepReport& r) { test::simulated_gpu()->set_lost(r.step == 3); }); },
                 ErrorKind::kIo, "the device is lost");
    test::simulated_gpu()->set_lost(false);
  }
  EXPECT_EQ(latest_checkpoint(dir.path())->filename(), "step-00000002");
  EXPECT_EQ(Trainer(c, data.without_validation(), Start::kResume).run().steps, 4);
}

// What does not fit is named, with its size, what is free, and what to lower; the folder can be used again.
TEST(TrainerOnADevice, WhatDoesNotFitIsNamed) {
  COCA_SKIP_ON_A_CARD();
  const test::TempDir dir;
  const test::TinyData data;
  const TrainConfig c = config_in(dir.path());
  const OnTheGpu there;
  test::FakeDevice& device = *test::simulated_gpu();
  const auto with = [&](size_t bytes) {
    device.set_size(device.used() + bytes);
    std::string text = "nothing was thrown";
    try {
      Trainer(c, data.without_validation(), Start::kFresh);
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), ErrorKind::kIo);
      text = error.what();
    }
    device.set_size(size_t{1} << 32);
    return text;
  };
  const size_t activations = Trainer(c, data.without_validation(), Start::kFresh).activation_bytes();
  EXPECT_THAT(with(1000),
              AllOf(HasSubstr("out of memory on cuda:0 (a fake): no "), HasSubstr(" activations, the largest"),
                    HasSubstr("(a smaller batch or shorter sequences need less); 0.0 MiB of ")));
  EXPECT_THAT(with(activations + 1000),
              AllOf(HasSubstr("parameters in f32, or their gradients (a smaller model needs"), HasSubstr("are free")));
  const size_t weights =
      4 * static_cast<size_t>(test::values_of(model::ParamStore(trained_spec(c, *data.tokenizer))).size());
  EXPECT_THAT(with(activations + weights + 1000),
              HasSubstr("the optimizer's first moments (training fewer parameters needs less)"));
  EXPECT_EQ(with(size_t{1} << 30), "nothing was thrown");
}

TEST(FinetunerOnADevice, AnAdapterIsTrainedAndResumedBitwise) {
  const test::TempDir dir;
  const test::TinyExamples made;
  test::put_model(dir.path() / "model", test::byte_spec(test::tiny_llama(test::AttentionKind::kCocaSlack)));
  const auto config = [&](const char* name) {
    FinetuneConfig c = test::tiny_finetune(dir.path() / "model", dir.path() / name);
    c.lora_rank = 2;
    c.lora_alpha = 4;
    c.lora_dropout = 0.2;
    c.precision = model::Precision::kBF16;
    c.recompute = model::Recompute::kLayer;
    c.batch = 1;
    return c;
  };
  const auto bytes = [&](const char* name) {
    const fs::path newest = *latest_checkpoint(dir.path() / name);
    return io::read_file(newest / "adapter_model.safetensors") + io::read_file(newest / "optimizer.safetensors");
  };
  const TrainSummary cpu = Finetuner(config("cpu"), made.data(), Start::kFresh).run();
  const OnTheGpu there;
  const TrainSummary ours = Finetuner(config("straight"), made.data(), Start::kFresh).run();
  // In bf16 a nll of about 6 is rounded in each of 20 operations by up to 2^-9 of a logit: 0.05.
  EXPECT_NEAR(ours.final_loss, cpu.final_loss, 0.05);
  EXPECT_NEAR(*ours.validation_loss, *cpu.validation_loss, 0.05);
  expect_error(
      [&] {
        Finetuner(config("stopped"), made.data(), Start::kFresh).run([](const StepReport& r) {
          if (r.step == 2) request_stop();
        });
      },
      ErrorKind::kInterrupted, "stopped at step 2");
  clear_stop();
  Finetuner(config("stopped"), made.data(), Start::kResume).run();
  EXPECT_TRUE(bytes("stopped") == bytes("straight"));
}

TEST(TrainerOnADevice, SlicesAreRefused) {
  const test::TempDir dir;
  const test::TinyData data;
  TrainConfig c = config_in(dir.path());
  c.slices = 2;
  const OnTheGpu there;
  expect_error([&] { Trainer(c, data.without_validation(), Start::kFresh); }, ErrorKind::kInvalidArgument,
               "training on cuda:0 is for one rank and one slice; found 1 rank and 2 slices");
}

}  // namespace
}  // namespace coca::train::device_test
