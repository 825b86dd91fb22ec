// Training when its environment fails: damaged checkpoints, a full or read-only disk, a second trainer, numbers that
// become non-finite. Nothing is lost in any case, and one message names the cause.
// SPDX-License-Identifier: Apache-2.0
#include <cmath>
#include <limits>
#include <optional>

#include "coca/io/fs.h"
#include "coca/io/lock.h"
#include "coca/train/metrics.h"
#include "coca/train/nonfinite.h"
#include "support/faults.h"
#include "train/tiny_run.h"

namespace coca::train::faults_test {
namespace {

namespace fs = std::filesystem;
using model::AttentionKind;
using test::expect_error;
using test::SmallDisk;
using test::Warnings;
using testing::AllOf;
using testing::HasSubstr;
using testing::Not;

TrainConfig config_in(const fs::path& out) {
  TrainConfig c = test::tiny_config(out);
  c.log_interval = 1;
  return c;
}

// The final bits after 12 undisturbed steps.
std::string undisturbed(const test::TinyData& data) {
  const test::TempDir dir;
  Trainer(config_in(dir.path()), data.without_validation(), Start::kFresh).run();
  return test::newest_bytes(dir.path());
}

void flip_bit(const fs::path& file, size_t at) {
  std::string content = io::read_file(file);
  content.at(at) = static_cast<char>(content[at] ^ 4);
  io::write_file_atomic(file, content);
}

TEST(Faults, ADamagedCheckpointIsNamedAndTheOneBeforeItTaken) {
  const test::TinyData data;
  const std::string wanted = undisturbed(data);
  const auto cut = [](const fs::path& file) { fs::resize_file(file, fs::file_size(file) - 1); };
  const auto flip_last = [](const fs::path& file) { flip_bit(file, fs::file_size(file) - 1); };
  const auto flip_middle = [](const fs::path& file) { flip_bit(file, fs::file_size(file) / 2); };
  const auto flip_first = [](const fs::path& file) { flip_bit(file, 0); };
  const auto remove = [](const fs::path& file) { fs::remove(file); };
  struct Damage {
    const char* file;
    std::function<void(const fs::path&)> apply;
    const char* message;
  };
  for (const Damage& damage :
       {Damage{"model.safetensors", flip_middle, "CRC-32C"}, Damage{"optimizer.safetensors", flip_last, "CRC-32C"},
        Damage{"optimizer.safetensors", cut, "were written"}, Damage{"train_state.json", flip_middle, "CRC-32C"},
        Damage{"config.json", remove, "config.json"}, Damage{"manifest.json", flip_first, "manifest.json"}}) {
    SCOPED_TRACE(fmt::format("{} {}", damage.file, damage.message));
    const test::TempDir dir;
    TrainConfig c = config_in(dir.path());
    c.steps = 8;
    Trainer(c, data.without_validation(), Start::kFresh).run();  // checkpoints at 4 and 8
    damage.apply(*latest_checkpoint(dir.path()) / damage.file);
    c = config_in(dir.path());
    const Warnings warnings;
    Trainer trainer(c, data.without_validation(), Start::kResume);
    EXPECT_EQ(trainer.first_step(), 4);
    ASSERT_FALSE(warnings.texts().empty());
    EXPECT_THAT(warnings.texts().front(),
                AllOf(HasSubstr("step-00000008"), HasSubstr(damage.file), HasSubstr(damage.message)));
    trainer.run();
    EXPECT_TRUE(test::newest_bytes(dir.path()) == wanted);
  }
}

TEST(Faults, WithoutASoundCheckpointNothingIsTrained) {
  const test::TempDir dir;
  const test::TinyData data;
  TrainConfig c = config_in(dir.path());
  c.steps = 4;
  Trainer(c, data.without_validation(), Start::kFresh).run();
  const fs::path weights = *latest_checkpoint(dir.path()) / "model.safetensors";
  flip_bit(weights, fs::file_size(weights) / 2);
  const std::string before = test::newest_bytes(dir.path());
  expect_error([&] { Trainer(config_in(dir.path()), data.without_validation(), Start::kResume); }, ErrorKind::kBadFile,
               weights.string() + ": its CRC-32C is");
  EXPECT_TRUE(test::newest_bytes(dir.path()) == before);
}

TEST(Faults, MissingCheckpointsAreNotAFreshStart) {
  const test::TempDir dir;
  const test::TinyData data;
  const TrainConfig c = config_in(dir.path());
  const auto resume = [&] { return Trainer(c, data.without_validation(), Start::kResume).first_step(); };
  EXPECT_EQ(resume(), 0);  // a new folder
  Trainer(c, data.without_validation(), Start::kFresh).run();
  fs::remove_all(checkpoint_root(dir.path()));
  fs::create_directories(checkpoint_root(dir.path()));
  const std::string metrics = io::read_file(dir / "metrics.csv");
  expect_error(resume, ErrorKind::kInvalidArgument, "holds the model of an earlier run, but no checkpoint");
  fs::remove_all(dir / "model");
  expect_error(resume, ErrorKind::kInvalidArgument, "metrics up to step 12 of a run with a checkpoint every 4 steps");
  EXPECT_EQ(io::read_file(dir / "metrics.csv"), metrics);
  test::put_file(dir / "metrics.csv",
                 metrics.substr(0, metrics.find("\n4,") + 1));  // as if killed before its first checkpoint
  EXPECT_EQ(resume(), 0);
}

TEST(Faults, AWarmUpLongerThanTheRunIsReported) {
  const test::TempDir dir;
  const test::TinyData data;
  TrainConfig c = config_in(dir.path());
  c.warmup_steps = c.steps;
  const Warnings warnings;
  Trainer(c, data.without_validation(), Start::kFresh);
  EXPECT_THAT(warnings.texts(), testing::IsEmpty());
  c.warmup_steps = 100;
  Trainer(c, data.without_validation(), Start::kFresh);
  EXPECT_THAT(warnings.texts(),
              testing::ElementsAre(HasSubstr("warmup_steps is 100, but the training has only 12 steps")));
}

TEST(Faults, TwoTrainersDoNotShareAFolder) {
  const test::TempDir dir;
  const test::TinyData data;
  {
    Trainer first(config_in(dir.path()), data.without_validation(), Start::kFresh);
    for (const Start start : {Start::kFresh, Start::kResume})
      expect_error([&] { Trainer(config_in(dir.path()), data.without_validation(), start); }, ErrorKind::kIo,
                   fmt::format("another process ({}) writes to this folder", ::getpid()));
    first.run();
  }
  EXPECT_NO_THROW(Trainer(config_in(dir.path()), data.without_validation(), Start::kResume));
}

TEST(Faults, TemporaryFilesOfAKillAreRemoved) {
  const test::TempDir dir;
  const test::TinyData data;
  TrainConfig c = config_in(dir.path());
  c.steps = 4;
  Trainer(c, data.without_validation(), Start::kFresh).run();
  test::put_file(dir / "checkpoints/.tmp-step-00000008-17-0/model.safetensors", "half");
  test::put_file(dir / ".tmp-metrics.csv-17-3", "half");
  const std::string wanted = undisturbed(data);
  Trainer(config_in(dir.path()), data.without_validation(), Start::kResume).run();
  EXPECT_FALSE(fs::exists(dir / "checkpoints/.tmp-step-00000008-17-0"));
  EXPECT_FALSE(fs::exists(dir / ".tmp-metrics.csv-17-3"));
  EXPECT_TRUE(test::newest_bytes(dir.path()) == wanted);
}

TEST(Faults, AFullDiskLosesNoCheckpointAndTrainingContinues) {
  const test::TinyData data;
  const test::TempDir dir;
  const SmallDisk disk(dir / "disk", "4m");
  if (!disk.mounted()) GTEST_SKIP() << "no right to mount a file system";
  const std::string wanted = undisturbed(data);
  const TrainConfig c = config_in(dir / "disk/run");
  const fs::path ballast = dir / "disk/ballast";
  const auto fill_disk = [&] {
    std::ofstream out(ballast, std::ios::binary);
    const std::string block(4096, 'x');
    while (out.write(block.data(), static_cast<std::streamsize>(block.size())).flush()) {
    }
  };
  const Warnings warnings;
  Trainer(c, data.without_validation(), Start::kFresh).run([&](const StepReport& r) {
    if (r.step == 5) fill_disk();  // no space for the checkpoint of step 8
    if (r.step == 9) {
      EXPECT_EQ(latest_checkpoint(c.out)->filename(), "step-00000004");
      fs::remove(ballast);
    }
  });
  EXPECT_TRUE(test::newest_bytes(c.out) == wanted);
  EXPECT_EQ(read_metrics(dir / "disk/run/metrics.csv").size(), 12u);  // rows that did not fit were written later
  EXPECT_THAT(warnings.texts(),
              testing::Contains(AllOf(HasSubstr("step 8 could not be saved"), HasSubstr("No space left"),
                                      HasSubstr("step-00000004"), HasSubstr("training continues"))));
  for (const auto& entry : fs::directory_iterator(checkpoint_root(c.out)))
    EXPECT_THAT(entry.path().filename().string(), Not(HasSubstr(".tmp")));
}

TEST(Faults, AnOldCheckpointThatCannotBeRemovedDoesNotEndTheRun) {
  const test::TinyData data;
  const test::TempDir dir;
  TrainConfig c = config_in(dir.path());
  c.keep_checkpoints = 1;
  std::optional<SmallDisk> held;
  const Warnings warnings;
  Trainer(c, data.without_validation(), Start::kFresh).run([&](const StepReport& r) {
    if (r.step == 5) held.emplace(checkpoint_root(c.out) / "step-00000004/held", "64k");
  });
  if (!held->mounted()) GTEST_SKIP() << "no right to mount a file system";
  EXPECT_THAT(warnings.texts(), testing::Contains(AllOf(HasSubstr("step-00000004"), HasSubstr("cannot be removed"))));
  EXPECT_TRUE(test::newest_bytes(dir.path()) == undisturbed(data));
}

TEST(Faults, AFullDiskAtTheEndIsAnErrorAndResumesFromTheLastCheckpoint) {
  const test::TinyData data;
  const test::TempDir dir;
  const SmallDisk disk(dir / "disk", "1m");  // space for one checkpoint of half a megabyte, but not for two
  if (!disk.mounted()) GTEST_SKIP() << "no right to mount a file system";
  const TrainConfig c = config_in(dir / "disk/run");
  {
    const Warnings warnings;
    expect_error([&] { Trainer(c, data.without_validation(), Start::kFresh).run(); }, ErrorKind::kIo,
                 "step 12 could not be saved");
  }
  EXPECT_EQ(latest_checkpoint(c.out)->filename(), "step-00000004");
  TrainConfig moved = c;  // to a disk with enough space
  moved.out = (dir / "run").string();
  fs::copy(c.out, moved.out, fs::copy_options::recursive);
  Trainer(moved, data.without_validation(), Start::kResume).run();
  EXPECT_TRUE(test::newest_bytes(moved.out) == undisturbed(data));
}

TEST(Faults, AReadOnlyFolderIsNamed) {
  const test::TinyData data;
  const test::TempDir dir;
  const SmallDisk disk(dir / "disk", "4m");
  if (!disk.mounted()) GTEST_SKIP() << "no right to mount a file system";
  TrainConfig c = config_in(dir / "disk/run");
  c.steps = 4;
  Trainer(c, data.without_validation(), Start::kFresh).run();
  const std::string before = test::newest_bytes(c.out);
  disk.make_read_only();
  expect_error([&] { Trainer(config_in(c.out), data.without_validation(), Start::kResume); }, ErrorKind::kIo,
               c.out + ": cannot lock the folder: Read-only file system");
  expect_error([&] { Trainer(config_in(dir / "disk/new"), data.without_validation(), Start::kFresh); }, ErrorKind::kIo,
               "disk/new");
  EXPECT_TRUE(test::newest_bytes(c.out) == before);
}

TEST(NonFinite, TheFirstElementIsDescribed) {
  Tensor t({2, 3, 4});
  EXPECT_EQ(describe_nonfinite(t), "");
  t.values<float>()[2 * 4 + 1] = -std::numeric_limits<float>::infinity();
  t.values<float>()[12] = std::copysign(std::numeric_limits<float>::quiet_NaN(), -1.0f);
  EXPECT_EQ(describe_nonfinite(t), "[0, 2, 1] is -inf (2 of 24 are not finite)");
  EXPECT_EQ(describe_nonfinite(TensorRef(t).narrow(0, 1, 1)), "[0, 0, 0] is nan (1 of 12 are not finite)");
  EXPECT_EQ(describe_nonfinite(TensorRef(t).select(2, 1)), "[0, 2] is -inf (1 of 6 are not finite)");
  EXPECT_EQ(describe_nonfinite(TensorRef(t).select(2, 2)), "");
  Tensor half({3}, DType::kBF16);
  half.values<BF16>()[2] = BF16(std::numeric_limits<float>::infinity());
  EXPECT_EQ(describe_nonfinite(half), "[2] is inf (1 of 3 are not finite)");
}

// The warning of step 3 if `spoil` is applied to the parameters after step 2.
std::string warning_after(AttentionKind kind, const std::function<void(model::ParamStore&)>& spoil,
                          model::Architecture architecture = model::Architecture::kGptNeoX) {
  const test::TempDir dir;
  const test::TinyData data;
  TrainConfig c = config_in(dir.path());
  c.attention = kind;
  c.architecture = architecture;
  c.steps = 3;
  const Warnings warnings;
  Trainer trainer(c, data.without_validation(), Start::kFresh);
  expect_error(
      [&] {
        trainer.run([&](const StepReport& r) {
          if (r.step == 2) spoil(const_cast<model::ParamStore&>(trainer.params()));
        });
      },
      ErrorKind::kNumeric, "step");
  return warnings.texts().empty() ? "no warning" : warnings.texts().front();
}

void fill_parameter(model::ParamStore& params, const std::string& name, float value) {
  for (const model::ParamInfo& info : params.infos())
    if (info.name == name) std::fill_n(params.at(info).as<float>(), params.at(info).numel(), value);
}

TEST(NonFinite, TheTensorAndLayerAreNamed) {
  const auto poison = [](const char* name, float value) {
    return [=](model::ParamStore& params) { fill_parameter(params, name, value); };
  };
  const float nan = std::numeric_limits<float>::quiet_NaN();
  EXPECT_THAT(warning_after(AttentionKind::kRope, poison("gpt_neox.layers.1.attention.dense.weight", nan)),
              AllOf(HasSubstr("step 3: "),
                    HasSubstr("parameter gpt_neox.layers.1.attention.dense.weight [0, 0] is nan (1024 of 1024")));
  // Finite weights whose products overflow: q of the second layer is 1e30 times a normalised row, so its square is
  // 1e60.
  EXPECT_THAT(
      warning_after(AttentionKind::kCocaSlack, poison("gpt_neox.layers.1.attention.query_key_value.weight", 1e30f)),
      HasSubstr("first in layer.1.q_eff ["));
  EXPECT_THAT(warning_after(AttentionKind::kRope, poison("gpt_neox.layers.0.mlp.dense_4h_to_h.weight", 3e38f)),
              HasSubstr("first in hidden.1 ["));
  EXPECT_THAT(warning_after(AttentionKind::kRope, poison("gpt_neox.final_layer_norm.weight", 3e38f)),
              HasSubstr("hidden.2 ["));
  EXPECT_THAT(warning_after(AttentionKind::kRope, poison("embed_out.weight", 3e38f)),
              HasSubstr("first in the loss, although the hidden states are finite"));
  // In the forward pass the sizes cancel: 1e4 times 1e-44 times 1e38. In the backward pass the gradient of v's weights
  // is 1e38 times 1e4.
  const auto opposed = [](model::ParamStore& params) {
    fill_parameter(params, "model.layers.1.input_layernorm.weight", 1e4f);
    fill_parameter(params, "model.layers.1.self_attn.v_proj.weight", 1e-44f);
    fill_parameter(params, "model.layers.1.self_attn.o_proj.weight", 1e38f);
  };
  EXPECT_THAT(warning_after(AttentionKind::kRope, opposed, model::Architecture::kLlama),
              HasSubstr("first in the gradient of model.layers.1.self_attn.v_proj.weight ["));
}

// Runs c from the start and applies `spoil` after step `at`. The run must fail with this text, write no model, and keep
// these checkpoints.
void expect_no_model(TrainConfig c, const std::string& text, const std::vector<std::string>& checkpoints,
                     int64_t at = 0, const std::function<void(model::ParamStore&)>& spoil = {}) {
  SCOPED_TRACE(text);
  const test::TinyData data;
  const Warnings warnings;
  const auto run = [&](Start start) {
    Trainer trainer(c, data.without_validation(), start);
    trainer.run([&](const StepReport& r) {
      if (r.step == at) spoil(const_cast<model::ParamStore&>(trainer.params()));
    });
  };
  expect_error([&] { run(Start::kFresh); }, ErrorKind::kNumeric, text);
  EXPECT_FALSE(fs::exists(fs::path(c.out) / "model"));
  std::vector<std::string> kept;
  if (fs::exists(checkpoint_root(c.out)))
    for (const auto& entry : fs::directory_iterator(checkpoint_root(c.out))) kept.push_back(entry.path().filename());
  EXPECT_THAT(kept, testing::UnorderedElementsAreArray(checkpoints));
}

TEST(NonFinite, ARunWithoutOneGoodStepWritesNoModel) {
  const auto with = [](const fs::path& out, const auto& change) {
    TrainConfig c = config_in(out);
    c.steps = 3;
    c.checkpoint_interval = 1;
    change(c);
    return c;
  };
  const test::TempDir b, d;
  expect_no_model(with(b.path(), [](TrainConfig& c) { c.learning_rate = 1e39; }), "step 1 of 3: parameter", {});
  expect_no_model(with(d.path(), [](TrainConfig& c) { c.weight_decay = 1e39; }), "step 1 of 3: parameter", {});
}

TEST(NonFinite, WeightsThatAreNotFiniteDoNotReplaceACheckpoint) {
  const test::TempDir dir;
  TrainConfig c = config_in(dir.path());
  c.steps = 9;
  const auto spoil = [](model::ParamStore& params) {
    fill_parameter(params, "embed_out.weight", std::numeric_limits<float>::quiet_NaN());
  };
  expect_no_model(c, "step 8 of 9: parameter embed_out.weight", {"step-00000004"}, 5, spoil);
}

TEST(NonFinite, ARunThatEndsInABadStepKeepsItsWeightsButWritesNoModel) {
  const test::TempDir dir;
  TrainConfig c = config_in(dir.path());
  c.steps = 6;
  const auto overflow = [](model::ParamStore& params) { fill_parameter(params, "embed_out.weight", 3e38f); };
  expect_no_model(c, "the last 1 of 6 steps had a non-finite loss", {"step-00000004", "step-00000006"}, 5, overflow);
  const test::TinyData data;
  const Warnings warnings;
  expect_error([&] { Trainer(c, data.without_validation(), Start::kResume).run(); }, ErrorKind::kNumeric,
               "step-00000006 and holds the weights");
  EXPECT_FALSE(fs::exists(dir / "model"));
}

// The message blames the validation text only if the model is sound.
TEST(NonFinite, AValidationLossIsBlamedOnTheTextOnlyIfTheModelIsSound) {
  test::TinyData data;
  data.validation = data::TokenFile::from_tokens(std::vector<int32_t>(100, 'A'), {0, 100},
                                                 257);  // this token does not occur in the training text
  const test::TempDir sound, broken;
  TrainConfig c = config_in(sound.path());
  c.steps = 3;
  c.validation_interval = 1;
  c.warmup_steps = 0;
  {
    const Warnings warnings;
    Trainer trainer(c, data.with_validation(), Start::kFresh);
    trainer.run([&](const StepReport& r) {
      if (r.step != 1) return;
      auto& params = const_cast<model::ParamStore&>(trainer.params());
      for (const model::ParamInfo& info : params.infos())
        if (info.name == "gpt_neox.embed_in.weight")
          std::fill_n(params.at(info).as<float>() + 'A' * c.width, c.width, 3e38f);
    });
    EXPECT_THAT(warnings.texts(), testing::ElementsAre(HasSubstr("step 2: the validation loss is nan"),
                                                       HasSubstr("look at the validation text")));
  }
  // The loss is not finite after the first update.
  c.out = broken.path().string();
  c.learning_rate = 1e30;
  c.min_learning_rate = 0;
  for (const int64_t steps : {1, 3}) {
    c.steps = steps;
    const Warnings warnings;
    expect_error([&] { Trainer(c, data.with_validation(), Start::kFresh).run(); }, ErrorKind::kNumeric,
                 steps == 1 ? "after the last update, step 1 of 1" : "steps had a non-finite loss");
    EXPECT_THAT(warnings.texts(),
                testing::Each(testing::Not(testing::AnyOf(HasSubstr("validation"), HasSubstr("-nan")))));
  }
}

// No later step would detect the effect of the last update.
TEST(NonFinite, ALossThatIsNotFiniteAfterTheLastUpdateWritesNoModel) {
  const test::TempDir dir, other, whole;
  TrainConfig c = config_in(dir.path());
  c.steps = 1;
  c.learning_rate = 1e30;
  c.min_learning_rate = 0;
  c.warmup_steps = 0;
  expect_no_model(c,
                  "after the last update, step 1 of 1, the loss is not finite, so this step is not saved and no model "
                  "is written; there is no checkpoint",
                  {});
  c = config_in(other.path());
  c.steps = 8;
  const auto overflow = [](model::ParamStore& params) { fill_parameter(params, "embed_out.weight", 3e38f); };
  expect_no_model(c, "after the last update, step 8 of 8", {"step-00000004"}, 8, overflow);
  // Resuming from the remaining checkpoint gives the same result as an undisturbed run.
  const test::TinyData data;
  Trainer(c, data.without_validation(), Start::kResume).run();
  c.out = whole.path().string();
  Trainer(c, data.without_validation(), Start::kFresh).run();
  EXPECT_TRUE(test::newest_bytes(other.path()) == test::newest_bytes(whole.path()));
}

}  // namespace
}  // namespace coca::train::faults_test
