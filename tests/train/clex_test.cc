// CLEX in training: its random draws, and runs that add, train, keep and drop its network.
// SPDX-License-Identifier: Apache-2.0
#include "coca/model/clex.h"

#include <cmath>
#include <cstring>
#include <set>

#include "coca/base/stop.h"
#include "coca/train/positions.h"
#include "support/tiny_clex.h"
#include "train/tiny_finetune.h"

namespace coca::train::clex_test {
namespace {

namespace fs = std::filesystem;
using model::AttentionKind;
using model::Scaling;
using test::expect_error;

TEST(ClexDraws, FactorsAreEven) {
  constexpr int64_t kSteps = 4000, kMax = 4;
  std::vector<int64_t> seen(kMax + 1);
  for (int64_t step = 0; step < kSteps; ++step) ++seen.at(static_cast<size_t>(draw_clex_factor(3, step, kMax)));
  EXPECT_EQ(seen[0], 0);
  const double sigma = std::sqrt(kSteps * 0.25 * 0.75);
  for (int64_t t = 1; t <= kMax; ++t)
    EXPECT_NEAR(static_cast<double>(seen[static_cast<size_t>(t)]), kSteps / 4.0, 5 * sigma);
}

std::vector<double> drawn(int64_t N, int64_t factor, int64_t trained_length) {
  std::vector<double> at(static_cast<size_t>(N));
  Rng rng = position_rng(1, 2);
  draw_clex(rng, factor, trained_length, at);
  return at;
}

TEST(ClexDraws, PositionsSpanTheRequestedLength) {
  const std::vector<double> once = drawn(16, 1, 16);
  for (size_t i = 0; i < once.size(); ++i) EXPECT_EQ(once[i], static_cast<double>(i));
  const std::vector<double> twice_as_long = drawn(32, 1, 16);  // positions in [0, 32) divided by 2
  for (size_t i = 0; i + 1 < twice_as_long.size(); ++i) EXPECT_EQ(twice_as_long[i], static_cast<double>(i) / 2);
  EXPECT_EQ(twice_as_long.back(), 15);
  std::vector<double> far = drawn(16, 5, 16);
  EXPECT_EQ(far.front(), 0);
  EXPECT_EQ(far.back(), 79);
  EXPECT_TRUE(std::ranges::is_sorted(far));
  EXPECT_EQ(std::set<double>(far.begin(), far.end()).size(), far.size());
  EXPECT_EQ(drawn(1, 5, 16), std::vector<double>{0});
  EXPECT_EQ(drawn(2, 5, 16), (std::vector<double>{0, 9}));
}

class ClexRuns : public testing::Test {
 protected:
  model::ModelSpec source(AttentionKind kind = AttentionKind::kCocaSlack) {
    return test::byte_spec(test::tiny_llama(kind));
  }
  FinetuneConfig config(const char* model, const char* out) {
    FinetuneConfig c = test::tiny_finetune(dir_.path() / model, dir_.path() / out);
    c.data = {};
    c.text = {"given"};
    c.validation_interval = 0;
    c.steps = 6;
    return c;
  }
  model::Model run(const FinetuneConfig& c, Start start = Start::kFresh,
                   const std::function<void(const StepReport&)>& on_step = {}) {
    Finetuner(c, {.tokenizer = *data_.tokenizer, .text = &data_.tokens, .validation_text = &data_.validation}, start)
        .run(on_step);
    return formats::load_model(fs::path(c.out) / "model");
  }

  test::TempDir dir_;
  test::TinyData data_;
};

std::vector<float> floats(TensorRef t) { return {t.as<float>(), t.as<float>() + t.numel()}; }

TEST_F(ClexRuns, FinetuningAddsANetworkThatIsNtkAtFirst) {
  test::put_model(dir_.path() / "base", source());
  FinetuneConfig c = config("base", "start");
  c.positions = {.rope_scaling = Scaling::kClex, .factor = 4};
  c.steps = 1;
  c.warmup_steps = 0;
  c.learning_rate = 1e-30;  // changes nothing
  const model::Model start = run(c);
  const model::Model base = formats::load_model(dir_.path() / "base", model::Precision::kF32, formats::LoadT::kFolded);
  EXPECT_EQ(start.spec.rope_scaling.max_factor, 4);
  const std::vector<float> before = test::values_of(*base.params), after = test::values_of(*start.params);
  EXPECT_TRUE(std::equal(before.begin(), before.end(), after.begin()));
  const auto tables =
      model::ClexOde(start.spec, start.params->weights().clex_up, start.params->weights().clex_down).tables(4);
  const model::ModelSpec ntk = model::with_scaling(base.spec, Scaling::kNtk, 5.0);  // 2 * 3 - 1
  const std::vector<double> wanted = model::rope_rotation(ntk, 1).frequencies;
  for (size_t j = 0; j < wanted.size(); ++j)
    EXPECT_NEAR(tables[2][j], wanted[j], 1e-9 * wanted[j]);  // tolerance of the solver: clex_test.cc

  c = config("base", "trained");
  c.positions = {.rope_scaling = Scaling::kClex, .factor = 4};
  const model::Model trained = run(c);
  for (const auto& [was, is] : {std::pair(start.params->weights().clex_up, trained.params->weights().clex_up),
                                std::pair(start.params->weights().clex_down, trained.params->weights().clex_down)})
    EXPECT_NE(floats(was), floats(is));
}

TEST_F(ClexRuns, ResumeBitwise) {
  for (const model::Precision precision : {model::Precision::kF32, model::Precision::kBF16}) {
    const std::string name(enum_name(precision));
    test::put_model(dir_.path() / "base", source());
    FinetuneConfig c = config("base", "run");
    c.positions = {.rope_scaling = Scaling::kClex, .factor = 3};
    c.precision = precision;
    c.out = (dir_.path() / (name + "-straight")).string();
    run(c);
    const std::string straight = test::newest_bytes(c.out);
    c.out = (dir_.path() / (name + "-stopped")).string();
    expect_error(
        [&] {
          run(c, Start::kFresh, [](const StepReport& r) {
            if (r.step == 3) request_stop();
          });
        },
        ErrorKind::kInterrupted, "stopped at step 3 of 6");
    clear_stop();
    run(c, Start::kResume);
    EXPECT_TRUE(test::newest_bytes(c.out) == straight) << name;
  }
}

TEST_F(ClexRuns, AnotherScalingDropsTheNetwork) {
  test::put_model(dir_.path() / "clex", test::byte_spec(test::clex_spec(test::tiny_llama(AttentionKind::kRope))));
  FinetuneConfig c = config("clex", "ntk");
  c.positions = {.rope_scaling = Scaling::kNtk, .factor = 2};
  const model::Model ntk = run(c);
  EXPECT_EQ(ntk.spec.rope_scaling.type, Scaling::kNtk);
  EXPECT_TRUE(ntk.params->weights().clex_up.empty());
}

// At plain positions and the trained length the ODE is not solved: no gradient, no decay, the same bits.
TEST_F(ClexRuns, PlainPositionsLeaveTheNetworkAlone) {
  const model::ModelSpec spec = test::byte_spec(test::clex_spec(test::tiny_llama(AttentionKind::kRope)));
  test::put_model(dir_.path() / "clex", spec);
  const test::TinyExamples made;
  FinetuneConfig c = test::tiny_finetune(dir_.path() / "clex", dir_.path() / "run");
  c.weight_decay = 0.1;
  Finetuner(c, made.data(), Start::kFresh).run();
  const model::Model before = formats::load_model(c.model), after = formats::load_model(fs::path(c.out) / "model");
  EXPECT_EQ(floats(before.params->weights().clex_up), floats(after.params->weights().clex_up));
  EXPECT_EQ(floats(before.params->weights().clex_down), floats(after.params->weights().clex_down));
  EXPECT_NE(floats(before.params->weights().embed), floats(after.params->weights().embed));
}

// Pretraining also works; the model has the scaling and the network.
TEST_F(ClexRuns, PretrainingTrainsTheNetwork) {
  TrainConfig c = test::tiny_config(dir_.path() / "run");
  c.positions = {.rope_scaling = Scaling::kClex, .factor = 4};
  Trainer(c, data_.with_validation(), Start::kFresh).run();
  const model::Model m = formats::load_model(dir_.path() / "run" / "model");
  EXPECT_EQ(m.spec.rope_scaling.type, Scaling::kClex);
  EXPECT_NE(floats(m.params->weights().clex_down),
            std::vector<float>(static_cast<size_t>(m.params->weights().clex_down.numel())));
}

// Plain steps do not change the network. Later steps train it with its own learning rate.
TEST_F(ClexRuns, TheNetworkTrainsAfterPlainStepsAtItsOwnRate) {
  int64_t seed = 0;
  while (draw_clex_factor(static_cast<uint64_t>(seed), 5, 4) != 1 ||
         draw_clex_factor(static_cast<uint64_t>(seed), 6, 4) == 1)
    ++seed;
  const auto weights_after = [&](const char* out, int64_t steps, int64_t plain_steps, double rate) {
    TrainConfig c = test::tiny_config(dir_.path() / out);
    c.steps = steps;
    c.weight_decay = 0;
    c.clex_rate = rate;
    c.seed = seed;
    c.positions = {.plain_steps = plain_steps, .rope_scaling = Scaling::kClex, .factor = 4};
    Trainer(c, data_.without_validation(), Start::kFresh).run();
    return floats(formats::load_model(dir_.path() / out / "model").params->weights().clex_down);
  };
  const auto largest = [](const std::vector<float>& x) {
    float most = 0;
    for (const float value : x) most = std::max(most, std::abs(value));
    return most;
  };
  EXPECT_EQ(largest(weights_after("plain", 6, 5, 1)),
            0);  // the down projection starts at zero, and step 5 draws a factor of 1
  const float full = largest(weights_after("full", 12, 5, 1)), slow = largest(weights_after("slow", 12, 5, 0.01));
  EXPECT_GT(slow, 0);
  EXPECT_LT(slow, 0.1f * full);
}

TEST_F(ClexRuns, InvalidCombinationsAreNamed) {
  test::put_model(dir_.path() / "base", source());
  FinetuneConfig c = config("base", "run");
  c.positions = {.draw = PositionDraw::kPose, .target_length = 100, .rope_scaling = Scaling::kClex};
  expect_error([&] { finetune_target(c, *data_.tokenizer); }, ErrorKind::kInvalidArgument,
               "rope scaling clex draws its own");
  c = test::tiny_finetune(dir_.path() / "base", dir_.path() / "run");
  c.positions = {.rope_scaling = Scaling::kClex};
  expect_error([&] { finetune_target(c, *data_.tokenizer); }, ErrorKind::kInvalidArgument,
               "needs text; examples are packed");
}

}  // namespace
}  // namespace coca::train::clex_test
