// Positions of training windows: the random draws, batches made from them, and runs.
// SPDX-License-Identifier: Apache-2.0
#include "coca/train/positions.h"

#include <cmath>
#include <set>

#include "coca/base/stop.h"
#include "coca/formats/model_folder.h"
#include "coca/train/batches.h"
#include "train/tiny_finetune.h"

namespace coca::train::positions_test {
namespace {

namespace fs = std::filesystem;
using model::AttentionKind;
using model::Scaling;
using test::expect_error;

TEST(Positions, RandomDrawsAreSortedDistinctAndEven) {
  constexpr int64_t kTarget = 40;
  constexpr size_t kLength = 16;
  constexpr int64_t kDraws = 4000;
  std::vector<int64_t> seen(kTarget);
  std::vector<double> at(kLength);
  for (int64_t k = 0; k < kDraws; ++k) {
    Rng rng = position_rng(3, k);
    draw_random(rng, kTarget, at);
    EXPECT_GE(at.front(), 0);
    EXPECT_LT(at.back(), kTarget);
    for (size_t i = 0; i < kLength; ++i) {
      if (i > 0) {
        ASSERT_LT(at[i - 1], at[i]);
      }
      ++seen[static_cast<size_t>(at[i])];
    }
  }
  // Each position is in a draw with p = 16 / 40. Five standard deviations for the count in 4000 draws.
  const double p = 0.4, sigma = std::sqrt(kDraws * p * (1 - p));
  for (const int64_t count : seen) EXPECT_NEAR(static_cast<double>(count), kDraws * p, 5 * sigma);
  Rng rng(1);
  draw_random(rng, kLength, at);  // all positions that exist
  for (size_t i = 0; i < kLength; ++i) EXPECT_EQ(at[i], static_cast<double>(i));
}

TEST(Positions, PoseCutsReachTheirBorders) {
  constexpr int64_t kN = 9, kTarget = 12;
  std::set<int64_t> firsts, tokens, positions;
  for (int64_t k = 0; k < 2000; ++k) {
    Rng rng = position_rng(3, k);
    const PoseCut cut = draw_pose(rng, kN, kTarget, 1000);
    firsts.insert(cut.first);
    tokens.insert(cut.skipped_tokens);
    positions.insert(cut.skipped_positions);
    std::vector<double> at(kN);
    pose_positions(cut, at);
    for (int64_t i = 0; i < kN; ++i)
      ASSERT_EQ(at[static_cast<size_t>(i)], static_cast<double>(i < cut.first ? i : i + cut.skipped_positions));
    ASSERT_LT(at.back(), kTarget);
  }
  EXPECT_THAT(firsts, testing::ElementsAre(1, 2, 3, 4, 5));  // randint(1, (9 + 1)  // randint(1, (9 + 1) // 2)
  EXPECT_THAT(positions, testing::ElementsAre(0, 1, 2, 3));  // up to 12 - 9
  EXPECT_EQ(*tokens.begin(), 0);
  EXPECT_EQ(*tokens.rbegin(), 4 * kN);  // reads five windows
  Rng rng(1);
  for (int i = 0; i < 50; ++i) EXPECT_EQ(draw_pose(rng, kN, kTarget, kN + 1).skipped_tokens, 0);
}

struct Made {
  Tensor ids, targets;
  std::vector<double> positions;
};

Made batch_of(const TrainConfig& c, const data::TokenFile& tokens, int64_t step, int64_t part = 0) {
  static const auto tokenizer = text::make_byte_tokenizer();
  Made b{Tensor({c.batch, c.length}, DType::kI32), Tensor({c.batch, c.length}, DType::kI32),
         std::vector<double>(static_cast<size_t>(c.batch * c.length))};
  Batches(c, tokens, *tokenizer).fill(step, part, {b.ids, b.targets, {}, b.positions});
  return b;
}

TrainConfig drawn_config(PositionDraw draw) {
  TrainConfig c = test::tiny_config("unused");
  c.positions = {.draw = draw, .target_length = 64};
  return c;
}

// The text counts upwards, so that each token shows where it came from.
TEST(Positions, PoseSkipsContentAndPositions) {
  std::vector<int32_t> counting(200);
  for (size_t i = 0; i < counting.size(); ++i) counting[i] = static_cast<int32_t>(i);
  const auto tokens = data::TokenFile::from_tokens(counting, {0, 200}, 257);
  TrainConfig c = drawn_config(PositionDraw::kPose);
  int64_t skipping = 0;
  for (int64_t step = 0; step < 60; ++step) {
    const Made b = batch_of(c, tokens, step);
    for (int64_t row = 0; row < c.batch; ++row) {
      const int32_t* ids = b.ids.values<int32_t>().data() + row * c.length;
      const int32_t* targets = b.targets.values<int32_t>().data() + row * c.length;
      const double* at = b.positions.data() + row * c.length;
      EXPECT_TRUE(std::equal(ids + 1, ids + c.length, targets));
      EXPECT_EQ(targets[c.length - 1], ids[c.length - 1] + 1);
      int64_t joints = 0;
      for (int64_t i = 1; i < c.length; ++i) {
        const bool content = ids[i] != ids[i - 1] + 1, position = at[i] != at[i - 1] + 1;
        EXPECT_TRUE(!position || i <= (c.length + 1) / 2);
        joints += content || position;
        skipping += content && position;
      }
      EXPECT_LE(joints, 1);  // content and positions skip at the same place
    }
  }
  EXPECT_GT(skipping, 80);  // of 120 windows: all except those that end with the text or drew a 0
}

TEST(Positions, AreAPureFunctionOfSeedAndWindow) {
  const test::TinyData data;
  for (const PositionDraw draw : {PositionDraw::kRandom, PositionDraw::kPose}) {
    TrainConfig c = drawn_config(draw), split = c, other = c;
    c.batch = 4;
    other.batch = 4;
    other.seed = 1;
    split.accumulation = 2;
    const auto rows = [&](const Made& b) {
      return std::pair(std::vector(b.ids.values<int32_t>().begin(), b.ids.values<int32_t>().end()), b.positions);
    };
    EXPECT_EQ(rows(batch_of(c, data.tokens, 5)), rows(batch_of(c, data.tokens, 5)));
    EXPECT_NE(batch_of(c, data.tokens, 5).positions, batch_of(c, data.tokens, 6).positions);
    EXPECT_NE(batch_of(c, data.tokens, 5).positions, batch_of(other, data.tokens, 5).positions);
    std::vector<double> parts = batch_of(split, data.tokens, 5, 0).positions;
    const std::vector<double> second = batch_of(split, data.tokens, 5, 1).positions;
    parts.insert(parts.end(), second.begin(), second.end());
    EXPECT_EQ(parts, batch_of(c, data.tokens, 5).positions);
  }
}

// The first steps equal those of a plain run. Later steps draw the same as a run without plain steps.
TEST(Positions, PlainStepsComeFirst) {
  const test::TinyData data;
  const auto tokenizer = text::make_byte_tokenizer();
  for (const PositionDraw draw : {PositionDraw::kRandom, PositionDraw::kPose}) {
    const TrainConfig always = drawn_config(draw);
    TrainConfig c = always, plain = always;
    c.positions.plain_steps = 3;
    plain.positions = {};
    const Batches batches(c, data.tokens, *tokenizer);
    const Made before = batch_of(c, data.tokens, 2), behind = batch_of(c, data.tokens, 3);
    for (int64_t i = 0; i < c.batch * c.length; ++i)
      EXPECT_EQ(before.positions[static_cast<size_t>(i)], static_cast<double>(i % c.length));
    Made same{Tensor({c.batch, c.length}, DType::kI32), Tensor({c.batch, c.length}, DType::kI32), {}};
    Batches(plain, data.tokens, *tokenizer).fill(2, 0, {same.ids, same.targets, {}, {}});
    EXPECT_TRUE(std::ranges::equal(before.ids.values<int32_t>(), same.ids.values<int32_t>()));
    EXPECT_EQ(behind.positions, batch_of(always, data.tokens, 3).positions);
    EXPECT_EQ(batches.drawn_length(2), c.length);
    EXPECT_EQ(batches.drawn_length(3), c.positions.target_length);
  }
  TrainConfig clex = test::tiny_config("unused");
  clex.positions = {.plain_steps = 40, .rope_scaling = model::Scaling::kClex, .factor = 4};
  const Batches batches(clex, data.tokens, *tokenizer);
  int64_t longest = 0;
  for (int64_t step = 0; step < 40; ++step) EXPECT_EQ(batches.drawn_length(step), clex.length);
  for (int64_t step = 40; step < 80; ++step) longest = std::max(longest, batches.drawn_length(step));
  EXPECT_EQ(longest, 4 * clex.length);
}

TEST(Positions, InvalidPlainStepsAreRefused) {
  const auto refused = [](const PositionOptions& positions, const char* message) {
    TrainConfig c = test::tiny_config("unused");
    c.steps = 20;
    c.positions = positions;
    test::expect_error([&] { check_config(c); }, ErrorKind::kInvalidArgument, message);
  };
  refused({.plain_steps = 3}, "plain_steps is 3; without positions random or pose, or rope scaling clex");
  refused({.draw = PositionDraw::kPose, .target_length = 64, .plain_steps = 20},
          "plain_steps is 20; expected 0 or more, and less than the 20 steps");
  refused({.draw = PositionDraw::kPose, .target_length = 64, .plain_steps = -1}, "plain_steps is -1");
}

// Passkey prompts are complete and the same as with plain positions.
TEST(Positions, PasskeyPromptsStayWhole) {
  const test::TinyData data;
  TrainConfig c = drawn_config(PositionDraw::kPose);
  c.length = 96;
  c.positions.target_length = 400;
  c.passkey_share = 1;
  TrainConfig plain = c;
  plain.positions = {};
  const Made skipped = batch_of(c, data.tokens, 3), whole = batch_of(plain, data.tokens, 3);
  EXPECT_TRUE(std::ranges::equal(skipped.ids.values<int32_t>(), whole.ids.values<int32_t>()));
  EXPECT_NE(skipped.positions[95], 95);
}

// Stopped after step 5 and resumed. The rope scaling is part of the model.
TEST(Positions, RunsResumeBitwise) {
  const test::TinyData data;
  for (const PositionDraw draw : {PositionDraw::kRandom, PositionDraw::kPose}) {
    const test::TempDir dir;
    const auto run = [&](const char* name, Start start, const std::function<void(const StepReport&)>& on_step = {}) {
      TrainConfig c = drawn_config(draw);
      c.out = (dir.path() / name).string();
      c.accumulation = 2;
      c.validation_interval = 6;
      c.validation_windows = 5;
      c.positions.rope_scaling = Scaling::kYarn;
      c.positions.factor = 4;
      return Trainer(c, data.with_validation(), start).run(on_step);
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
    run("stopped", Start::kResume, [](const StepReport& r) { EXPECT_GT(r.step, 5); });
    EXPECT_TRUE(test::newest_bytes(dir.path() / "stopped") == test::newest_bytes(dir.path() / "straight"));
    EXPECT_EQ(test::metrics_without_times(dir.path() / "stopped"),
              test::metrics_without_times(dir.path() / "straight"));
    const model::RopeScaling saved = formats::load_spec(dir.path() / "straight" / "model").rope_scaling;
    EXPECT_EQ(saved.type, Scaling::kYarn);
    EXPECT_EQ(saved.factor, 4.0);
  }
}

// Runs with plain and drawn positions differ. Validation uses plain positions, so before the first update it is the
// same.
TEST(Positions, OnlyTrainingDraws) {
  const test::TinyData data;
  const auto run = [&](PositionDraw draw) {
    const test::TempDir dir;
    TrainConfig c = draw == PositionDraw::kPlain ? test::tiny_config("") : drawn_config(draw);
    c.out = dir.path().string();
    c.steps = 1;
    c.warmup_steps = 0;
    c.learning_rate = 1e-30;
    c.min_learning_rate = 0;
    c.weight_decay = 0;
    return Trainer(c, data.with_validation(), Start::kFresh).run();
  };
  const TrainSummary plain = run(PositionDraw::kPlain), random = run(PositionDraw::kRandom);
  EXPECT_EQ(plain.validation_loss, random.validation_loss);
  EXPECT_NE(plain.final_loss, random.final_loss);
}

TEST(Positions, FinetuningDrawsAndReplacesTheScaling) {
  const test::TempDir dir;
  const test::TinyData data;
  model::ModelSpec spec = test::byte_spec(test::tiny_llama(AttentionKind::kCocaSlack));
  spec.rope_scaling = {.type = Scaling::kLinear, .factor = 2};
  test::put_model(dir.path() / "model", spec);
  FinetuneConfig c = test::tiny_finetune(dir.path() / "model", dir.path() / "run");
  c.data = {};
  c.text = {"given"};
  c.positions = {.draw = PositionDraw::kPose, .target_length = 96, .rope_scaling = Scaling::kNtk, .factor = 4};
  const auto run = [&](const char* out) {
    c.out = (dir.path() / out).string();
    Finetuner(c, {.tokenizer = *data.tokenizer, .text = &data.tokens}, Start::kFresh).run();
    return formats::load_model(fs::path(c.out) / "model");
  };
  const model::Model tuned = run("pose");
  EXPECT_EQ(tuned.spec.rope_scaling.type, Scaling::kNtk);
  EXPECT_EQ(tuned.spec.rope_scaling.factor, 4.0);
  EXPECT_EQ(tuned.spec.max_position, spec.max_position);
  c.positions.draw = PositionDraw::kPlain;
  c.positions.target_length = 0;
  EXPECT_NE(test::values_of(*run("plain").params), test::values_of(*tuned.params));
}

TEST(Positions, InvalidCombinationsAreNamed) {
  const auto refused = [](const std::function<void(TrainConfig&)>& change, const std::string& text) {
    TrainConfig c = drawn_config(PositionDraw::kPose);
    change(c);
    expect_error([&] { check_config(c), make_spec(c, 272, {}, {}); }, ErrorKind::kInvalidArgument, text);
  };
  refused([](TrainConfig& c) { c.attention = AttentionKind::kAlibi; },
          "ALiBi's bias depends on the distance in tokens");
  refused(
      [](TrainConfig& c) {
        c.attention = AttentionKind{model::Score::kSlack, model::Encoding::kNone};
      },
      "does not use positions");
  refused([](TrainConfig& c) { c.positions.target_length = 16; },
          "target_length is 16; positions \"pose\" needs more than the length 16");
  refused([](TrainConfig& c) { c.positions.draw = PositionDraw::kPlain; }, "positions \"plain\" does not use it");
  refused([](TrainConfig& c) { c.positions.factor = 2; }, "belongs to a rope_scaling");
  refused([](TrainConfig& c) { c.positions.rope_scaling = Scaling::kLinear; }, "rope scaling linear needs a factor");
  refused([](TrainConfig& c) { c.positions.rope_scaling = Scaling::kLongRope, c.positions.factor = 2; },
          "come from config.json");
  FinetuneConfig c = test::tiny_finetune("model", "run");
  c.positions = {.draw = PositionDraw::kRandom, .target_length = 100};
  expect_error([&] { check_config(c); }, ErrorKind::kInvalidArgument, "needs text; examples are packed");
  c.positions = {.rope_scaling = Scaling::kNone};
  c.lora_rank = 2;
  expect_error([&] { check_config(c); }, ErrorKind::kInvalidArgument, "with an adapter the model stays");
}

}  // namespace
}  // namespace coca::train::positions_test
