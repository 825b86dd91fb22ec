// Training with windows, dilation and global tokens, causal and masked: the loss falls, resumed runs end in the same
// bits, and the result can be evaluated.
// SPDX-License-Identifier: Apache-2.0
#include <cmath>

#include "coca/base/stop.h"
#include "coca/formats/model_folder.h"
#include "train/tiny_run.h"

namespace coca::train::windows_test {
namespace {

namespace fs = std::filesystem;
using test::expect_error;

TrainConfig longformer(const fs::path& out, model::AttentionKind kind) {
  TrainConfig c = test::tiny_config(out);
  c.attention = kind;
  c.windows = {.layer_window = {4, 6}, .dilation = {1, 2}, .global_tokens = 2};
  return c;
}

TEST(TrainWindows, TheConfigReachesTheModel) {
  TrainConfig c = longformer("unused", model::AttentionKind::kRope);
  const model::ModelSpec s = make_spec(c, 272, std::nullopt, std::nullopt);
  EXPECT_THAT(s.layer_window, testing::ElementsAre(4, 6));
  EXPECT_THAT(s.dilation, testing::ElementsAre(1, 2, 1, 2));
  EXPECT_EQ(s.global_tokens, 2);
  c.windows.layer_window = {1, 2, 3};
  expect_error([&] { make_spec(c, 272, std::nullopt, std::nullopt); }, ErrorKind::kInvalidArgument,
               "layer_window has 3 numbers; expected 1 or 2");
  c = longformer("unused", model::AttentionKind::kRope);
  c.direction = model::Direction::kBidirectional;
  c.passkey_share = 0.5;
  expect_error([&] { check_config(c); }, ErrorKind::kInvalidArgument, "predicts no next token");
}

// Runs without interruption, and stopped after step 5 and resumed.
void expect_resumes_bitwise(TrainConfig c, const fs::path& dir) {
  const test::TinyData data;
  c.validation_interval = 6;
  c.validation_windows = 5;
  const auto run = [&](const char* name, Start start, int64_t stop_at) {
    c.out = (dir / name).string();
    Trainer trainer(c, data.with_validation(), start);
    return trainer.run([&](const StepReport& r) {
      if (r.step == stop_at) request_stop();
    });
  };
  const TrainSummary straight = run("straight", Start::kFresh, -1);
  expect_error([&] { run("stopped", Start::kFresh, 5); }, ErrorKind::kInterrupted, "stopped at step 5 of 12");
  clear_stop();
  const TrainSummary resumed = run("stopped", Start::kResume, -1);
  EXPECT_TRUE(test::newest_bytes(dir / "straight") == test::newest_bytes(dir / "stopped"));
  EXPECT_EQ(test::metrics_without_times(dir / "straight"), test::metrics_without_times(dir / "stopped"));
  EXPECT_EQ(straight.validation_loss, resumed.validation_loss);
}

TEST(TrainWindows, ResumesBitwiseWithEveryAttentionAndInBothDirections) {
  for (const auto& kind : EnumTraits<model::AttentionKind>::names())
    for (const model::Direction direction : {model::Direction::kCausal, model::Direction::kBidirectional}) {
      if (direction == model::Direction::kBidirectional && model::uses_xpos(kind.value)) continue;
      SCOPED_TRACE(fmt::format("{} {}", kind.name, enum_name(direction)));
      const test::TempDir dir;
      TrainConfig c = longformer("", kind.value);
      c.direction = direction;
      if (kind.value == model::AttentionKind::kCocaStrict) c.recompute = model::Recompute::kAttention;
      if (kind.value == model::AttentionKind::kRope) {
        c.architecture = model::Architecture::kLlama;
        c.accumulation = 2;
      }
      expect_resumes_bitwise(c, dir.path());
    }
}

// The text repeats ten letters in order, so either neighbour determines a masked letter.
TEST(TrainWindows, MaskedLossFallsAndTheModelNamesItsMask) {
  const test::TempDir dir;
  TrainConfig c = longformer(dir.path() / "run", model::AttentionKind::kRope);
  c.direction = model::Direction::kBidirectional;
  c.steps = 150;
  c.batch = 8;
  c.learning_rate = 1e-2;
  c.log_interval = 10;
  c.validation_windows = 20;
  std::vector<int32_t> ids(600);
  for (size_t i = 0; i < ids.size(); ++i) ids[i] = "collinear "[i % 10];
  const auto tokens = data::TokenFile::from_tokens(ids, {0, 600}, 257);
  const auto tokenizer = text::make_byte_tokenizer();
  Trainer trainer(c, {.tokens = tokens, .validation = &tokens, .tokenizer = *tokenizer}, Start::kFresh);
  const TrainSummary summary = trainer.run();
  EXPECT_LT(*summary.validation_loss,
            0.5);  // log 272 = 5.6 for an untrained model, log 10 = 2.3 if it knows only the letters
  const model::ModelSpec spec = formats::load_spec(fs::path(c.out) / "model");
  EXPECT_EQ(spec.mask_id, 257);
  EXPECT_EQ(spec.direction, model::Direction::kBidirectional);
  EXPECT_EQ(spec.global_tokens, 2);
}

// The masked batches of a step do not depend on earlier steps and differ from window to window.
TEST(TrainWindows, MasksAreAFunctionOfTheWindow) {
  const test::TinyData data;
  TrainConfig c = test::tiny_config("unused");
  const BatchShape shape{.batch = c.batch, .accumulation = 1, .length = c.length};
  const Batches plain(c, data.tokens, *data.tokenizer);
  const MaskedBatches masked(plain, shape, data::masked_tokens(*data.tokenizer), 7);
  const auto fill = [&](int64_t step) {
    Tensor ids({c.batch, c.length}, DType::kI32), targets({c.batch, c.length}, DType::kI32);
    masked.fill(step, 0, {ids, targets, {}});
    std::vector<int32_t> all(ids.values<int32_t>().begin(), ids.values<int32_t>().end());
    all.insert(all.end(), targets.values<int32_t>().begin(), targets.values<int32_t>().end());
    return all;
  };
  const auto third = fill(3);
  fill(9);
  EXPECT_EQ(fill(3), third);
  EXPECT_NE(fill(4), third);
  const int64_t counted = std::ranges::count_if(std::span(third).subspan(static_cast<size_t>(c.batch * c.length)),
                                                [](int32_t id) { return id >= 0; });
  EXPECT_EQ(counted, masked.counted(3));
}

}  // namespace
}  // namespace coca::train::windows_test
