// SPDX-License-Identifier: Apache-2.0
#include "coca/train/finetune.h"

#include <cmath>
#include <cstring>

#include "coca/base/log.h"
#include "coca/base/stop.h"
#include "coca/io/json_file.h"
#include "coca/model/select.h"
#include "coca/model/t_width.h"
#include "coca/train/checkpoint.h"
#include "coca/train/metrics.h"
#include "train/tiny_finetune.h"

namespace coca::train::finetune_test {
namespace {

namespace fs = std::filesystem;
using model::AttentionKind;
using test::expect_error;

const std::vector<model::ModelSpec>& specs() {
  static const std::vector<model::ModelSpec> all = {
      folded_t(test::byte_spec(test::tiny_neox(AttentionKind::kCocaSlack))),
      folded_t(test::byte_spec(test::tiny_llama(AttentionKind::kCocaSlack)))};
  return all;
}

TEST(Finetune, LearnsTheAnswers) {
  const test::TempDir dir;
  const test::TinyExamples made;
  for (const model::ModelSpec& spec : specs()) {
    const std::string name(enum_name(spec.architecture));
    test::put_model(dir.path() / name, spec);
    FinetuneConfig c = test::tiny_finetune(dir.path() / name, dir.path() / (name + "-run"));
    c.steps = 50;
    c.learning_rate = 1e-2;
    c.validation_windows = 64;
    c.log_interval = 10;
    c.validation_interval = 0;
    Finetuner run(c, made.data(), Start::kFresh);
    EXPECT_EQ(run.loop().trained_parameters(), model::parameter_count(spec));
    double first = 0;
    const TrainSummary summary = run.run([&](const StepReport& r) { first = r.step == 1 ? r.loss : first; });
    // The answers count up from 0 and end after 1 to 5 digits. Only the end is unpredictable: five equally likely
    // lengths over 4 tokens on average, log(5) / 4 = 0.40 nats per token.
    EXPECT_GT(first, 2.0);
    EXPECT_LT(*summary.validation_loss, 0.8) << name;
    EXPECT_EQ(summary.steps, 50);
    const model::Model tuned = formats::load_model(dir.path() / (name + "-run") / "model");
    EXPECT_EQ(test::values_of(*tuned.params), test::values_of(run.loop().params()));
  }
}

// Both models are the same function; only the width of T differs.
TEST(Finetune, AFullTIsFoldedUnlessItIsKept) {
  const test::TempDir dir;
  const test::TinyExamples made;
  const model::ModelSpec spec = test::byte_spec(test::tiny_neox(AttentionKind::kCocaStrict));
  test::put_model(dir.path() / "full", spec);
  for (const bool keep : {false, true}) {
    FinetuneConfig c = test::tiny_finetune(dir.path() / "full", dir.path() / (keep ? "kept" : "folded"));
    c.keep_t_width = keep;
    c.steps = 1;
    c.warmup_steps = 0;
    c.learning_rate = 1e-30;  // changes nothing
    Finetuner(c, made.data(), Start::kFresh).run();
    const model::Model out = formats::load_model(fs::path(c.out) / "model"),
                       wanted = formats::load_model(dir.path() / "full", model::Precision::kF32,
                                                    keep ? formats::LoadT::kAsStored : formats::LoadT::kFolded);
    EXPECT_EQ(out.spec.t_width, keep ? model::TWidth::kFull : model::TWidth::kHalf);
    EXPECT_EQ(test::values_of(*out.params), test::values_of(*wanted.params));
  }
  FinetuneConfig lora = test::tiny_finetune(dir.path() / "full", dir.path() / "lora");
  lora.lora_rank = 2;
  EXPECT_EQ(finetune_target(lora, *made.tokenizer).spec.t_width, model::TWidth::kFull) << "the adapter is the folder's";
}

// A folder that is already open is not read again; here it has been deleted.
TEST(Finetune, AnOpenModelIsNotReadAgain) {
  const test::TempDir dir;
  const test::TinyExamples made;
  const FinetuneConfig c = test::tiny_finetune(dir.path() / "model", dir.path() / "run");
  test::put_model(c.model, test::byte_spec(test::tiny_llama(test::AttentionKind::kRope)));
  const model::Model source = formats::load_model(c.model);
  FinetuneData data = made.data();
  data.model = std::make_shared<formats::ModelFolder>(c.model);
  data.model->weights();
  fs::remove_all(c.model);
  EXPECT_EQ(test::values_of(Finetuner(c, data, Start::kFresh).loop().params()), test::values_of(*source.params));
}

// Options saved by versions without this choice mean full width, and such runs continue with it.
TEST(Finetune, OptionsWithoutATWidthAreThoseOfFullWidth) {
  const test::TempDir dir;
  for (const auto& [file, key] :
       {std::pair{"train_config.json", "t_width"}, {"finetune_config.json", "keep_t_width"}}) {
    io::write_json(dir.path() / file, nlohmann::json{{"steps", 3}});
    EXPECT_EQ(saved_options(dir.path(), file)->second.at(key),
              file == std::string_view("train_config.json") ? nlohmann::json("full") : nlohmann::json(true));
  }
  EXPECT_EQ(load_train_config(dir.path()).t_width, model::TWidth::kFull);
  for (const char* broken : {"[1, 2]", "null"}) {
    test::put_file(dir.path() / "train_config.json", broken);
    expect_error([&] { load_train_config(dir.path()); }, ErrorKind::kInvalidArgument,
                 "train_config.json: expected a JSON object of options");
  }
  EXPECT_EQ(TrainConfig{}.t_width, model::TWidth::kHalf);
}

// Names of the tensors whose bits differ between two model folders.
std::vector<std::string> changed(const fs::path& before, const fs::path& after) {
  const model::Model a = formats::load_model(before), b = formats::load_model(after);
  std::vector<std::string> names;
  const std::vector<model::ParamInfo> parts = model::part_list(a.spec);
  const auto differs = [&](const model::ParamInfo& info) {
    const auto x = a.params->blocks(info), y = b.params->blocks(info);
    for (size_t i = 0; i < x.size(); ++i)
      if (std::memcmp(x[i].data, y[i].data, x[i].bytes()) != 0) return true;
    return false;
  };
  for (const model::ParamInfo& info : a.params->infos())
    if (differs(info)) names.push_back(info.name);
  for (const model::ParamInfo& info : parts)
    if (differs(info)) names.push_back(info.name);
  std::ranges::sort(names);
  return names;
}

TEST(Finetune, UntrainedParametersKeepTheirBits) {
  const test::TempDir dir;
  const test::TinyExamples made;
  test::put_model(dir.path() / "neox", specs()[0]);
  test::put_model(dir.path() / "llama", specs()[1]);
  const auto run = [&](const char* name, const std::vector<std::string>& train, const std::vector<std::string>& freeze,
                       model::Precision precision) {
    FinetuneConfig c = test::tiny_finetune(dir.path() / name, dir.path() / "run");
    c.train = train;
    c.freeze = freeze;
    c.precision = precision;
    c.weight_decay = 0.1;
    fs::remove_all(c.out);
    Finetuner(c, made.data(), Start::kFresh).run();
    return changed(c.model, fs::path(c.out) / "model");
  };
  const std::string fused = "gpt_neox.layers.1.attention.query_key_value.";
  for (const model::Precision precision : {model::Precision::kF32, model::Precision::kBF16}) {
    EXPECT_THAT(run("neox", {"*.1.*.t.*"}, {}, precision),
                testing::ElementsAre(fused + "bias", fused + "t.bias", fused + "t.weight", fused + "weight"));
    EXPECT_THAT(
        run("llama", {"*t_proj*", "*q_proj*"}, {"*.1.*"}, precision),
        testing::ElementsAre("model.layers.0.self_attn.q_proj.weight", "model.layers.0.self_attn.t_proj.weight"));
    EXPECT_THAT(run("llama", {}, {"model.layers.*"}, precision),
                testing::ElementsAre("lm_head.weight", "model.embed_tokens.weight", "model.norm.weight"));
    EXPECT_THAT(run("neox", {"gpt_neox.final_layer_norm.*"}, {}, precision),
                testing::ElementsAre("gpt_neox.final_layer_norm.bias", "gpt_neox.final_layer_norm.weight"));
  }
}

// Stages of 3, 2 and 3 steps: stopped after every step and resumed, and killed after the last checkpoint.
void expect_resumes_bitwise(const model::ModelSpec& spec, const std::function<void(FinetuneConfig&)>& change) {
  const test::TempDir dir;
  const test::TinyExamples made;
  test::put_model(dir.path() / "model", spec);
  const auto run = [&](const std::string& name, Start start,
                       const std::function<void(const StepReport&)>& on_step = {}) {
    FinetuneConfig c = test::tiny_finetune(dir.path() / "model", dir.path() / name);
    c.stages.list.resize(3);
    const bool fused = spec.qkv == model::Qkv::kFused;
    c.stages.list[0].train = {fused ? "*.t.*" : "*t_proj*"};
    c.stages.list[1].train = {fused ? "*query_key_value*" : "*_proj*"};
    c.stages.list[1].steps = 2;
    c.stages.list[1].learning_rate = 1e-3;
    change(c);
    Finetuner tuner(c, made.data(), start);
    return tuner.run(on_step);
  };
  const TrainSummary whole = run("straight", Start::kFresh);
  EXPECT_EQ(whole.steps, 8);
  const std::string straight = test::newest_bytes(dir.path() / "straight");
  for (int64_t at = 1; at < 8; ++at) {
    const std::string name = fmt::format("stopped-{}", at);
    expect_error(
        [&] {
          run(name, Start::kFresh, [&](const StepReport& r) {
            if (r.step == at) request_stop();
          });
        },
        ErrorKind::kInterrupted, fmt::format("stopped at step {} of 8", at));
    clear_stop();
    const TrainSummary resumed = run(name, Start::kResume, [&](const StepReport& r) { EXPECT_GT(r.step, at); });
    EXPECT_EQ(resumed.validation_loss, whole.validation_loss) << at;
    EXPECT_TRUE(test::newest_bytes(dir.path() / name) == straight) << at << ": weights or moments differ";
    EXPECT_EQ(test::metrics_without_times(dir.path() / name), test::metrics_without_times(dir.path() / "straight"))
        << at;
    EXPECT_EQ(io::read_file(dir.path() / name / "model" / "model.safetensors"),
              io::read_file(dir.path() / "straight" / "model" / "model.safetensors"));
  }
}

TEST(Finetune, ResumesBitwiseInEveryStage) {
  for (const model::ModelSpec& spec : specs()) {
    SCOPED_TRACE(enum_name(spec.architecture));
    expect_resumes_bitwise(spec, [](FinetuneConfig&) {});
  }
}

TEST(Finetune, ResumesBitwiseInBf16WithRecomputation) {
  expect_resumes_bitwise(specs()[0], [](FinetuneConfig& c) {
    c.precision = model::Precision::kBF16;
    c.recompute = model::Recompute::kLayer;
  });
}

TEST(Finetune, AnyRecomputationEndsInTheSameBits) {
  const test::TempDir dir;
  const test::TinyExamples made;
  test::put_model(dir.path() / "model", specs()[1]);
  for (const auto recompute : {model::Recompute::kNone, model::Recompute::kAttention, model::Recompute::kLayer}) {
    FinetuneConfig c = test::tiny_finetune(dir.path() / "model", dir.path() / enum_name(recompute));
    c.recompute = recompute;
    Finetuner(c, made.data(), Start::kFresh).run();
    EXPECT_TRUE(test::newest_bytes(c.out) == test::newest_bytes(dir.path() / "none")) << enum_name(recompute);
  }
}

TEST(Finetune, ThePapersStages) {
  FinetuneConfig c = test::tiny_finetune("m", "o");
  c.stages.preset = "coca-paper";
  c.freeze = {"*.0.mlp.*"};
  const std::vector<Stage> neox = make_stages(c, specs()[0], 1), llama = make_stages(c, specs()[1], 1);
  ASSERT_EQ(neox.size(), 3u);
  EXPECT_THAT(neox[0].train, testing::ElementsAre("*.attention.query_key_value.t.*", "!*.0.mlp.*"));
  EXPECT_THAT(llama[0].train, testing::ElementsAre("*.self_attn.t_proj.*", "!*.0.mlp.*"));
  EXPECT_THAT(llama[1].train, testing::ElementsAre("*.self_attn.q_proj.*", "*.self_attn.t_proj.*",
                                                   "*.self_attn.v_proj.*", "!*.0.mlp.*"));
  EXPECT_THAT(llama[2].train, testing::ElementsAre("*", "!*.0.mlp.*"));
  EXPECT_EQ(neox[2].steps, 3);
  const auto fused = model::select_parameters(specs()[0], {neox[1].train[0], neox[1].train[1], neox[1].train[2]});
  EXPECT_EQ(fused.size(), 4u);  // whole weights and biases of two layers

  // Head norms train with their projection, and global tokens' projections with the ordinary ones.
  model::ModelSpec qwen = specs()[1], global = specs()[1], global_neox = specs()[0];
  qwen.head_norm = model::HeadNorm::kRms;
  global.global_tokens = global_neox.global_tokens = 2;
  c.freeze = {};
  const std::vector<Stage> normed = make_stages(c, qwen, 1), seen = make_stages(c, global, 1),
                           seen_neox = make_stages(c, global_neox, 1);
  EXPECT_THAT(normed[0].train, testing::ElementsAre("*.self_attn.t_proj.*", "*.self_attn.t_norm.*"));
  EXPECT_THAT(normed[1].train,
              testing::ElementsAre("*.self_attn.q_proj.*", "*.self_attn.t_proj.*", "*.self_attn.v_proj.*",
                                   "*.self_attn.q_norm.*", "*.self_attn.t_norm.*"));
  EXPECT_THAT(seen[0].train, testing::ElementsAre("*.self_attn.t_proj.*", "*.self_attn.t_global_proj.*"));
  EXPECT_THAT(seen[1].train, testing::Contains("*.self_attn.q_global_proj.*"));
  EXPECT_THAT(seen_neox[0].train, testing::ElementsAre("*.attention.query_key_value.t.*"));
  EXPECT_THAT(seen_neox[1].train, testing::Contains("*.attention.query_key_value_global.*"));
  for (const auto& [spec, stages] : {std::pair{&qwen, &normed}, {&global, &seen}, {&global_neox, &seen_neox}})
    for (const Stage& stage : *stages)
      EXPECT_FALSE(model::select_parameters(*spec, stage.train).empty());  // throws if a name does not exist
  c.stages.preset = "coca-paper";
  expect_error([&] { make_stages(c, test::byte_spec(test::tiny_llama(AttentionKind::kRope)), 1); },
               ErrorKind::kInvalidArgument, "has no T to train");
}

TEST(Finetune, TheLossCountsOnlyAnswers) {
  const test::TempDir dir;
  test::put_model(dir.path() / "model", specs()[0]);
  const test::TinyExamples made;
  FinetuneConfig c = test::tiny_finetune(dir.path() / "model", dir.path() / "run");
  c.steps = 1;
  c.batch = 2;
  c.accumulation = 1;
  c.validation_windows = 0;
  Finetuner run(c, made.data(), Start::kFresh);
  // The loss by hand: each document alone, with the mean over the answers of both windows.
  const model::Model m = formats::load_model(c.model);
  Context cx;
  double sum = 0;
  int64_t counted = 0;
  for (int64_t k = 0; k < 2; ++k) {
    std::vector<int32_t> ids(24), targets(24), starts(24);
    run.windows()->shuffled(k, {ids, targets, starts});
    for (size_t first = 0, end = 0; first < 24; first = end) {
      for (end = first; end < 24 && starts[end] == static_cast<int32_t>(first);) ++end;
      const auto n = static_cast<int64_t>(end - first);
      model::TrainingDecoder decoder(m.spec, 1, n);
      const TensorRef nll =
          decoder.loss(cx, m.params->weights(), TensorRef(ids.data() + first, DType::kI32, {1, n}, kHost),
                       TensorRef(targets.data() + first, DType::kI32, {1, n}, kHost));
      for (int64_t i = 0; i < n; ++i) {
        sum += nll.as<float>()[i];
        counted += targets[first + static_cast<size_t>(i)] != data::kNoTarget;
      }
    }
  }
  double loss = 0;
  run.run([&](const StepReport& r) { loss = r.loss; });
  EXPECT_NEAR(loss, sum / static_cast<double>(counted), 1e-5);  // as in packed_test.cc
  EXPECT_GT(counted, 5);
  EXPECT_LT(counted, 40);
}

TEST(Finetune, TextTrainsOnWindowsAsPretrainingDoes) {
  const test::TempDir dir;
  test::put_model(dir.path() / "model", specs()[1]);
  const test::TinyData made;
  FinetuneConfig c = test::tiny_finetune(dir.path() / "model", dir.path() / "run");
  c.data = {};
  c.text = {"given"};
  c.steps = 0;
  c.epochs = 0.2;
  c.length = 16;
  Finetuner run(c, {.tokenizer = *made.tokenizer, .text = &made.tokens, .validation_text = &made.validation},
                Start::kFresh);
  EXPECT_EQ(run.loop().steps(), 7);  // (1999 - 15) / 16 = 124 windows; a fifth of them, four per step
  const TrainSummary summary = run.run();
  EXPECT_TRUE(summary.validation_loss.has_value());
  EXPECT_EQ(summary.tokens, 7 * 4 * 16);
}

// A bidirectional model is trained to predict masked tokens, and validated with separate masks.
TEST(Finetune, BidirectionalModelsTrainOnMaskedTokens) {
  const test::TempDir dir;
  model::ModelSpec spec = test::byte_spec(test::tiny_llama(AttentionKind::kRope));
  spec.direction = model::Direction::kBidirectional;
  spec.mask_id = 271;
  spec.init_std = 0.02;  // logits near 0, so that the loss starts at log(vocabulary) for any masks
  test::put_model(dir.path() / "model", spec);
  const test::TinyData made;
  FinetuneConfig c = test::tiny_finetune(dir.path() / "model", dir.path() / "run");
  c.data = {};
  c.text = {"given"};
  c.length = 16;
  Finetuner run(c, {.tokenizer = *made.tokenizer, .text = &made.tokens, .validation_text = &made.validation},
                Start::kFresh);
  const TrainSummary summary = run.run();
  ASSERT_TRUE(summary.validation_loss.has_value());
  EXPECT_NEAR(*summary.validation_loss, std::log(272.0),
              1.0);  // over the many ids of the masked tokens, after three steps
  EXPECT_EQ(formats::load_model(dir.path() / "run/model").spec.direction, model::Direction::kBidirectional);
}

TEST(Finetune, StagesFromAFile) {
  const test::TempDir dir;
  const std::string list = R"([{"train": ["*t_proj*"], "steps": 5}, {"train": ["*"]}])";
  for (const std::string& text : {list, R"({"stages": )" + list + "}"}) {
    io::write_file_atomic(dir.path() / "s.json", text);
    StageList stages;
    stages.from_option_text("--stages", (dir.path() / "s.json").string());
    ASSERT_EQ(stages.list.size(), 2u);
    EXPECT_EQ(stages.list[0].steps, 5);
  }
  StageList stages;
  expect_error([&] { stages.from_option_text("--stages", (dir.path() / "none.json").string()); }, ErrorKind::kIo,
               "none.json");
  expect_error([&] { stages.from_option_text("--stages", "coca"); }, ErrorKind::kInvalidArgument,
               "--stages is \"coca\"; expected coca-paper");
}

TEST(Finetune, ConfigRoundTripsWithStages) {
  FinetuneConfig c;
  io::options_from_json(
      c,
      nlohmann::json::parse(
          R"({"model": "m", "data": ["d"], "stages": [{"train": ["*t_proj*"], "steps": 5, "learning_rate": 0.5},
      {"train": ["*"], "decay": "linear"}]})"),
      "run.json");
  ASSERT_EQ(c.stages.list.size(), 2u);
  EXPECT_EQ(c.stages.list[0].steps, 5);
  EXPECT_EQ(c.stages.list[1].decay, optim::Decay::kLinear);
  FinetuneConfig back;
  io::options_from_json(back, nlohmann::json::parse(io::options_to_json(c).dump()), "saved");
  EXPECT_EQ(io::options_to_json(back).dump(), io::options_to_json(c).dump());
  const auto refused = [&](const char* text, const std::string& message) {
    expect_error([&] { io::options_from_json(c, nlohmann::json::parse(text), "run.json"); },
                 ErrorKind::kInvalidArgument, message);
  };
  refused(R"({"stages": "paper"})", "\"stages\" is \"paper\"; expected coca-paper");
  refused(R"({"stages": 3})", "\"stages\" is number");
  refused(R"({"stages": [{"trian": ["*"]}]})", "\"stages\"[0]: unknown option \"trian\"");
  refused(R"({"stages": [{}, {"steps": "many"}]})", "\"stages\"[1]: \"steps\"");
}

TEST(Finetune, BadValuesAreNamed) {
  const auto bad = [](auto change, const std::string& text) {
    FinetuneConfig c = test::tiny_finetune("m", "o");
    change(c);
    expect_error(
        [&] {
          check_config(c);
          make_stages(c, specs()[1], 1);
        },
        ErrorKind::kInvalidArgument, text);
  };
  bad([](auto& c) { c.model = ""; }, "model: none given");
  bad([](auto& c) { c.text = {"t"}; }, "one of them");
  bad([](auto& c) { c.data = {}; }, "data: none given; expected examples, or plain text");
  bad([](auto& c) { c.freeze = {"*", "*nowhere*"}; }, "freeze: \"*nowhere*\" matches none of ");
  bad([](auto& c) { c.validation_text = {"t"}; }, "validation_text: needs --text");
  bad([](auto& c) { c.steps = 0, c.epochs = 0; }, "epochs is 0");
  bad([](auto& c) { c.batch = 0; }, "batch is 0");
  bad([](auto& c) { c.train = {"*"}, c.stages.preset = "coca-paper"; }, "the stages say what each trains");
  bad([](auto& c) { c.train = {"*k_prj*"}; }, "\"*k_prj*\" matches none");
  bad([](auto& c) { c.stages.list.resize(2), c.stages.list[1].train = {"*nowhere*"}; }, "\"*nowhere*\"");
  bad([](auto& c) { c.stages.list.resize(2), c.stages.list[1].learning_rate = -1; }, "learning_rate is -1");
  bad([](auto& c) { c.stages.list.resize(1), c.stages.list[0].steps = 0; }, "stage 0: steps is 0");
}

TEST(Finetune, OtherDataOrOptionsOnResume) {
  const test::TempDir dir;
  test::put_model(dir.path() / "model", specs()[0]);
  const test::TinyExamples made;
  FinetuneConfig c = test::tiny_finetune(dir.path() / "model", dir.path() / "run");
  Finetuner(c, made.data(), Start::kFresh).run();
  expect_error([&] { Finetuner(c, made.data(), Start::kFresh); }, ErrorKind::kInvalidArgument,
               "already holds a training run");
  const data::TokenDocuments other = test::tiny_examples(60, 9);
  expect_error([&] { Finetuner(c, {.tokenizer = *made.tokenizer, .examples = &other}, Start::kResume); },
               ErrorKind::kInvalidArgument, "was trained on");
  std::vector<std::string> warnings;
  set_log_sink([&](LogLevel level, std::string_view text) {
    if (level == LogLevel::kWarning) warnings.emplace_back(text);
  });
  c.long_documents = data::LongDocuments::kDrop;
  Finetuner(c, made.data(), Start::kResume);
  set_log_sink({});
  EXPECT_THAT(warnings, testing::ElementsAre("resuming with long_documents = \"drop\"; the run so far had \"split\""));
}

}  // namespace
}  // namespace coca::train::finetune_test
