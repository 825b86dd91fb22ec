// SPDX-License-Identifier: Apache-2.0
#include "coca/train/config.h"

#include <cmath>
#include <limits>

#include "coca/train/finetune_config.h"

#include "train/tiny_run.h"

namespace coca::train::config_test {
namespace {

using test::expect_error;

TEST(TrainConfig, JsonRoundTrip) {
  TrainConfig c;
  c.architecture = model::Architecture::kLlama;
  c.attention = model::AttentionKind::kCocaStrict;
  c.width = 96;
  c.kv_heads = 2;
  c.rotary_pct = 0.5;
  c.tie_embeddings = true;
  c.parallel_residual = false;
  c.text = {"a.txt", "b"};
  c.tokenizer = "x.model";
  c.passkey_share = 0.1;
  c.passkey_wording = data::PasskeyWording::kCoca;
  c.learning_rate = 1.0 / 3;
  c.decay = optim::Decay::kLinear;
  c.seed = 7;
  c.out = "o";
  c.keep_checkpoints = 5;
  const auto json = io::options_to_json(c);
  TrainConfig back;
  io::options_from_json(back, nlohmann::json::parse(json.dump()), "saved");
  EXPECT_EQ(io::options_to_json(back).dump(), json.dump());
  EXPECT_EQ(back.learning_rate, 1.0 / 3);
  EXPECT_EQ(back.attention, model::AttentionKind::kCocaStrict);
  EXPECT_EQ(back.text, c.text);
}

TEST(TrainConfig, WrongJsonIsNamedAndChangesNothing) {
  TrainConfig c;
  const auto read = [&](const char* text) { io::options_from_json(c, nlohmann::json::parse(text), "run.json"); };
  EXPECT_THAT(
      [&] { read(R"({"steps": 5, "stepz": 5})"); },
      testing::ThrowsMessage<Error>(testing::AllOf(testing::HasSubstr("run.json"), testing::HasSubstr("stepz"))));
  EXPECT_THAT([&] { read(R"({"steps": 5, "decay": "square"})"); },
              testing::ThrowsMessage<Error>(testing::AllOf(testing::HasSubstr("decay"), testing::HasSubstr("square"),
                                                           testing::HasSubstr("cosine"))));
  EXPECT_THAT([&] { read(R"({"steps": "many"})"); }, testing::ThrowsMessage<Error>(testing::HasSubstr("steps")));
  EXPECT_EQ(c.steps, TrainConfig{}.steps);
}

TEST(TrainConfig, BadValuesAreNamed) {
  const auto bad = [](auto change, const std::string& text) {
    TrainConfig c;
    change(c);
    expect_error([&] { check_config(c); }, ErrorKind::kInvalidArgument, text);
  };
  EXPECT_NO_THROW(check_config(TrainConfig{}));
  bad([](auto& c) { c.layers = 0; }, "layers is 0");
  bad([](auto& c) { c.batch = -2; }, "batch is -2");
  bad([](auto& c) { c.accumulation = 0; }, "accumulation is 0");
  bad([](auto& c) { c.heads = 5; }, "width 128 is not a multiple of heads 5");
  bad([](auto& c) { c.kv_heads = -1; }, "kv_heads is -1");
  bad([](auto& c) { c.mlp_width = -4; }, "mlp_width is -4");
  bad([](auto& c) { c.passkey_share = 1.5; }, "passkey_share is 1.5");
  bad([](auto& c) { c.passkey_first_steps = -1; }, "passkey_first_steps is -1");
  bad([](auto& c) { c.rotary_pct = 0; }, "rotary_pct is 0");
  bad([](auto& c) { c.rotary_pct = 1e-320; },
      "which rotates 0 of the 32 dims of a head; expected at least 2, and an even");
  bad([](auto& c) { c.init_std = 1e39; }, "init_std is 1e+39; expected at most 1000000");
  bad([](auto& c) { c.init_std = -0.1; }, "init_std is -0.1");
  bad([](auto& c) { c.validation_windows = -1; }, "validation_windows is -1");
  bad([](auto& c) { c.keep_checkpoints = 0; }, "keep_checkpoints is 0");
  bad([](auto& c) { c.learning_rate = -1; }, "learning_rate is -1");
  bad([](auto& c) { c.min_learning_rate = 1; }, "min_learning_rate is 1; expected 0 to learning_rate, 0.001");
  bad([](auto& c) { c.beta2 = 1; }, "beta2 is 1; expected at least 0 and less than 1");
  bad([](auto& c) { c.clip_norm = -1; }, "clip_norm is -1");
}

// Tries every integer option of a config at values whose products overflow or exceed any machine. Seeds accept any
// number; all other options must fail with an error that names the option and the value.
template <typename Config, typename Check>
void expect_counts_are_bounded(const Config& good, const Check& check) {
  const auto json = io::options_to_json(const_cast<Config&>(good));
  int options = 0;
  for (const auto& [key, value] : json.items()) {
    if (!value.is_number_integer() && !(value.is_array() && !value.empty() && value[0].is_number_integer())) continue;
    ++options;
    for (const int64_t huge : {int64_t{1} << 31, (int64_t{1} << 32) + 1, int64_t{1} << 62,
                               std::numeric_limits<int64_t>::max(), std::numeric_limits<int64_t>::min()}) {
      SCOPED_TRACE(fmt::format("{} {}", key, huge));
      Config c = good;
      const nlohmann::json change = {{key, value.is_array() ? nlohmann::json{huge} : nlohmann::json(huge)}};
      io::options_from_json(c, change, "test");
      if (key == "seed" || key == "seeds") {
        EXPECT_NO_THROW(check(c));
        continue;
      }
      expect_error([&] { check(c); }, ErrorKind::kInvalidArgument, std::to_string(huge));
      expect_error([&] { check(c); }, ErrorKind::kInvalidArgument, key);
    }
  }
  EXPECT_GT(options, 10);
}

TEST(TrainConfig, CountsAreBounded) {
  TrainConfig c;
  c.windows.layer_window = {8};
  c.windows.dilation = {2};
  c.windows.global_tokens = 1;
  expect_counts_are_bounded(c, [](TrainConfig given) {
    if (given.windows.dilation == std::vector<int64_t>{2}) given.windows.dilation = {};
    check_config(given);
  });
  TrainConfig most;
  most.steps = most.batch = most.accumulation = most.length = kMostCount;
  expect_error([&] { check_config(most); }, ErrorKind::kInvalidArgument,
               "steps 2147483647 x batch 2147483647 x accumulation 2147483647 x length 2147483647");
}

TEST(FinetuneConfig, CountsAreBounded) {
  FinetuneConfig c;
  c.model = "m";
  c.text = {"t"};
  c.lora_rank = 4;
  expect_counts_are_bounded(c, [](const FinetuneConfig& given) { check_config(given); });
  c.stages.list.emplace_back().steps = kMostCount + 1;
  c.lora_rank = 0;
  expect_error([&] { check_config(c); }, ErrorKind::kInvalidArgument, "steps is 2147483648");
  c.stages = {};
  c.epochs = -1;
  c.steps = 5;
  expect_error([&] { check_config(c); }, ErrorKind::kInvalidArgument, "epochs is -1");
}

TEST(TrainConfig, AMicroBatchBeyondTheMemoryIsNamedBeforeAnythingIsMade) {
  const test::TempDir dir;
  const test::TinyData data;
  TrainConfig c = test::tiny_config(dir.path() / "run");
  c.batch = kMostCount;
  expect_error([&] { Trainer(c, data.without_validation(), Start::kFresh); }, ErrorKind::kInvalidArgument,
               "a micro-batch: batch 2147483647 x length 16");
  EXPECT_FALSE(std::filesystem::exists(dir.path() / "run"));
}

TEST(TrainConfig, SpecsFollowTheArchitecture) {
  TrainConfig c;
  c.width = 96;
  c.heads = 4;
  c.length = 64;
  c.rotary_pct = 0.5;
  const model::ModelSpec neox = make_spec(c, 272, 1, 2);
  EXPECT_EQ(neox.F, 4 * 96);
  EXPECT_EQ(neox.D, 24);
  EXPECT_EQ(neox.R, 12);
  EXPECT_EQ(neox.G, 4);
  EXPECT_EQ(neox.max_position, 64);
  EXPECT_EQ(neox.residual, model::ResidualKind::kParallel);
  EXPECT_EQ(neox.eos_id(), 2);
  EXPECT_DOUBLE_EQ(neox.init_std, 0.64 / std::sqrt(96.0));  // 0.02 at width 1024
  c.architecture = model::Architecture::kLlama;
  c.kv_heads = 2;
  c.tie_embeddings = true;
  const model::ModelSpec llama = make_spec(c, 272, std::nullopt, std::nullopt);
  EXPECT_EQ(llama.F, 256);  // 8 / 3 x 96
  EXPECT_EQ(llama.G, 2);
  EXPECT_EQ(llama.qkv, model::Qkv::kSeparate);
  EXPECT_EQ(llama.attention_bias, model::Bias::kNone);
  EXPECT_EQ(llama.embeddings, model::Embeddings::kTied);
  c.init_std = 0.02;
  EXPECT_EQ(make_spec(c, 272, std::nullopt, std::nullopt).init_std, 0.02);
  c.rotary_pct = 0.05;  // one dim of 24: not an even number
  expect_error([&] { make_spec(c, 272, std::nullopt, std::nullopt); }, ErrorKind::kInvalidArgument,
               "rotary_pct is 0.05, which rotates 1 of the 24 dims");
}

}  // namespace
}  // namespace coca::train::config_test
