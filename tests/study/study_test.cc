// A whole study at toy size: the files it writes, resuming after a stop, and the refusal to mix two studies.
// SPDX-License-Identifier: Apache-2.0
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <fstream>
#include <set>

#include "coca/base/rng.h"
#include "coca/base/stop.h"
#include "coca/eval/interval.h"
#include "coca/formats/model_folder.h"
#include "coca/io/fs.h"
#include "coca/io/json_file.h"
#include "coca/report/chart.h"
#include "coca/report/markdown.h"
#include "coca/study/report.h"
#include "coca/study/run.h"
#include "coca/train/trainer.h"
#include "support/paths.h"

namespace coca::study::study_test {
namespace {

namespace fs = std::filesystem;

// Twelve documents of random words from a small vocabulary: learnable, and four times as long as the trained length.
void write_documents(const fs::path& dir) {
  const char* words[] = {"the ", "cat ", "sat ", "on ", "a ", "mat ", "and ", "ran ", "off. "};
  Rng rng(5);
  for (int d = 0; d < 12; ++d) {
    std::ofstream file(dir / fmt::format("doc{:02d}.txt", d));
    for (int w = 0; w < 300; ++w) file << words[rng.below(9)];
  }
}

StudyConfig toy(const fs::path& dir) {
  StudyConfig c;
  c.methods = {"rope", "coca-slack", "alibi"};
  c.ntk_methods = {"rope"};
  c.text = {(dir / "text").string()};
  c.out = (dir / "out").string();
  c.layers = 1;
  c.width = 16;
  c.heads = 2;
  c.length = 64;
  c.batch = 2;
  c.steps = 12;
  c.warmup_steps = 2;
  c.multiples = {1, 2, 4};
  c.eval_documents = 1;
  c.eval_tokens = 300;
  c.passkey_trials = 1;
  return c;
}

class Study : public testing::Test {
 protected:
  void SetUp() override {
    fs::create_directories(dir_.path() / "text");
    write_documents(dir_.path() / "text");
  }
  test::TempDir dir_;
};

TEST_F(Study, TheTimeLeftCountsEveryPartOfTheWhole) {
  StudyConfig config = toy(dir_);
  config.methods = {"rope", "coca-slack"};
  config = resolve(config);
  const Corpus corpus = load_corpus(config);
  std::vector<double> left;
  const auto listen = [&](const StudyProgress& p) {
    if (p.seconds_left) left.push_back(*p.seconds_left);
  };
  run_study(config, corpus, listen);
  ASSERT_GT(left.size(), 24u);
  for (const double seconds : left) EXPECT_GE(seconds, 0);
  EXPECT_GT(left.front(), 0);
  EXPECT_LT(left.back(), 1e-6) << "all that was planned was done: a rounding of sums is left";
  const size_t before = left.size();
  run_study(config, corpus, listen);
  EXPECT_EQ(left.size(), before) << "nothing is computed twice";
}

TEST_F(Study, TrainsEvaluatesAndReportsEveryMethod) {
  const StudyConfig config = resolve(toy(dir_));
  const Corpus corpus = load_corpus(config);
  EXPECT_EQ(corpus.test.size(), 1u);
  EXPECT_EQ(corpus.test[0].size(), 300u);
  StudyResults results = run_study(config, corpus);
  ASSERT_EQ(results.runs.size(), 3u);
  for (const RunResult& r : results.runs) {
    EXPECT_EQ(r.steps, 12);
    EXPECT_EQ(r.tokens, 12 * 2 * 64);
    EXPECT_EQ(r.evaluations.size(), r.method == "rope" ? 2u : 1u);
    for (const Evaluation& e : r.evaluations) {
      ASSERT_EQ(e.perplexity.size(), 3u);
      ASSERT_EQ(e.passkey.size(), 3u);
      for (const PerplexityPoint& p : e.perplexity) {
        // All tokens but the first of the document. At length 64 windows do not overlap, so the first token of each of
        // the five is left out.
        EXPECT_EQ(p.scored_tokens, p.length == 64 ? 295 : 299);
        EXPECT_GT(p.perplexity, 1.0);
        EXPECT_LT(p.perplexity, 300.0);
      }
    }
  }
  // Dynamic NTK changes nothing at the trained length, but does beyond it.
  const RunResult& rope = results.runs[0];
  EXPECT_EQ(rope.evaluations[0].perplexity[0].nll, rope.evaluations[1].perplexity[0].nll);
  EXPECT_NE(rope.evaluations[0].perplexity[2].nll, rope.evaluations[1].perplexity[2].nll);

  const StudyFiles files = write_study(results);
  const std::string html = io::read_file(files.html), csv = io::read_file(files.csv);
  for (const char* text : {"rope + dynamic NTK 4", "coca-slack", "alibi", "How to read this",
                           "All windows of the first 4 steps and 20 % of the later ones",
                           "not solved with this budget by: rope, coca-slack, alibi"})
    EXPECT_THAT(html, testing::HasSubstr(text));
  if (report::gnuplot_available()) {
    EXPECT_THAT(html, testing::HasSubstr("<svg"));
  }
  EXPECT_EQ(std::count(csv.begin(), csv.end(), '\n'), 1 + 4 * 3);
  EXPECT_EQ(io::read_json(files.json).at("runs").size(), 3u);
  EXPECT_EQ(perplexity_table(results).rows.size(), 4u);
}

TEST_F(Study, AStoppedStudyResumesWithTheSameResults) {
  StudyConfig asked = toy(dir_);
  asked.methods = {"rope", "coca-strict"};
  asked.ntk_methods = {};
  const StudyConfig config = resolve(asked);
  const Corpus corpus = load_corpus(config);
  int calls = 0;
  EXPECT_THROW(run_study(config, corpus,
                         [&](const StudyProgress& p) {
                           if (p.stage == "coca-strict seed 0: training" && ++calls == 5) request_stop();
                         }),
               Error);
  clear_stop();
  EXPECT_TRUE(fs::exists(fs::path(config.out) / "runs/rope-s0/result.json"));
  EXPECT_FALSE(fs::exists(fs::path(config.out) / "runs/coca-strict-s0/result.json"));
  // As if killed between writing the result and removing its checkpoints.
  const fs::path left = fs::path(config.out) / "runs/rope-s0/checkpoints";
  EXPECT_FALSE(fs::exists(left));
  fs::create_directories(left / "step-00000002");
  bool rope_again = false;
  StudyResults resumed = run_study(
      config, corpus, [&](const StudyProgress& p) { rope_again = rope_again || p.stage.starts_with("rope"); });
  EXPECT_FALSE(rope_again);
  EXPECT_FALSE(fs::exists(left));

  StudyConfig straight = config;
  straight.out = (dir_.path() / "straight").string();
  StudyResults whole = run_study(straight, load_corpus(straight));
  ASSERT_EQ(resumed.runs.size(), whole.runs.size());
  for (size_t r = 0; r < whole.runs.size(); ++r)
    for (size_t i = 0; i < 3; ++i)
      EXPECT_EQ(resumed.runs[r].evaluations[0].perplexity[i].nll, whole.runs[r].evaluations[0].perplexity[i].nll);
}

TEST(StudyConfigs, PresetsForACardCompareSixKinds) {
  const auto tokenizer = text::load_tokenizer("byte");
  for (const auto& [preset, parameters] : {std::pair(Preset::kGpu, 25e6), std::pair(Preset::kGpuLarge, 60e6)}) {
    StudyConfig c;
    c.preset = preset;
    c = resolve(c);
    EXPECT_EQ(c.methods.size(), 6u);
    EXPECT_EQ(c.batch * c.length, 32768);
    const int64_t count = model::parameter_count(train::trained_spec(train_config(c, "rope", 0, "out"), *tokenizer));
    EXPECT_NEAR(static_cast<double>(count), parameters, 0.05 * parameters);
  }
}

TEST_F(Study, PresetsOfComparisons) {
  StudyConfig c = toy(dir_);
  c.methods = {};
  c.ntk_methods = StudyConfig{}.ntk_methods;
  c.preset = Preset::kAblation;
  StudyConfig ablation = resolve(c);
  EXPECT_EQ(ablation.methods, (std::vector<std::string>{"coca-slack", "coca-strict", "coca-tied"}));
  EXPECT_EQ(ablation.ntk_methods, ablation.methods);
  EXPECT_EQ(ablation.factors, (std::vector<double>{2, 4, 8}));
  EXPECT_EQ(ablation.seeds, (std::vector<int64_t>{0, 1, 2}));
  c.preset = Preset::kSurvey;
  const std::vector<std::string> surveyed = resolve(c).methods;  // resolve() checks that each can be trained
  for (const auto& kind : EnumTraits<model::AttentionKind>::names())
    EXPECT_THAT(surveyed, testing::Contains(std::string(kind.name)));
  for (const char* name :
       {"rope+random", "coca-slack+pose", "coca-strict+clex", "coca-slack+window", "alibi+longformer"})
    EXPECT_THAT(surveyed, testing::Contains(name));
  // One model, evaluated with each factor.
  ablation.methods = ablation.ntk_methods = {"coca-strict"};
  ablation.seeds = {0};
  ablation.steps = 2;
  const StudyResults results = run_study(ablation, load_corpus(ablation));
  std::vector<std::string> variants;
  for (const Evaluation& e : results.runs.at(0).evaluations) variants.push_back(e.variant);
  EXPECT_EQ(variants, (std::vector<std::string>{"", "ntk2", "ntk4", "ntk8"}));
  EXPECT_NE(results.runs[0].evaluations[1].perplexity.back().nll, results.runs[0].evaluations[3].perplexity.back().nll);
  EXPECT_EQ(perplexity_table(results).rows.size(), 4u);
}

TEST(StudyMethods, NamesAreReadAsWritten) {
  for (const std::string& name : survey_methods()) EXPECT_EQ(method_name(method_from_name(name)), name);
  const Method changed = method_from_name("rope+sinks+kv-shift+pose");
  EXPECT_EQ(method_name(changed), "rope+kv-shift+sinks+pose");
  EXPECT_EQ(changed.modifiers.size(), 2u);
  EXPECT_THROW(method_from_name("rope+pose+sinks"), Error);
  EXPECT_THROW(method_from_name("rope+sinks+sinks"), Error);
  const Method m = method_from_name("coca-strict+pose");
  EXPECT_EQ(m.attention, model::AttentionKind::kCocaStrict);
  EXPECT_EQ(m.training, Training::kPose);
}

// The help says which kind goes with which way of training, and errors say what there is.
TEST(StudyMethods, HelpAndErrorsNameThem) {
  for (const auto& kind : EnumTraits<model::AttentionKind>::names()) {
    EXPECT_THAT(methods_help(), testing::HasSubstr(std::string(kind.name)));
    for (const auto& training : EnumTraits<Training>::names()) {
      if (training.value == Training::kPlain) continue;
      EXPECT_THAT(methods_help(), testing::HasSubstr("+" + std::string(training.name)));
      const bool windows = training.value == Training::kWindow || training.value == Training::kLongformer,
                 drawn = training.value == Training::kRandom || training.value == Training::kPose;
      const bool goes = windows || (model::uses_rotary(kind.value) && (drawn || !model::uses_xpos(kind.value)));
      StudyConfig c;
      c.methods = {method_name({.attention = kind.value, .modifiers = {}, .training = training.value})};
      if (goes)
        EXPECT_NO_THROW(resolve(c)) << c.methods[0];
      else
        EXPECT_THROW(resolve(c), Error) << c.methods[0];
    }
  }
  const auto error_of = [](const char* name) -> std::string {
    try {
      method_from_name(name);
    } catch (const Error& error) {
      return error.what();
    }
    return "";
  };
  for (const char* name : {"rpe", "rpe+pose"})
    EXPECT_THAT(error_of(name),
                testing::AllOf(testing::HasSubstr("\"rpe\" is no attention kind; expected one of rope, "),
                               testing::HasSubstr("+longformer"), testing::HasSubstr("mean rope")));
  for (const char* name : {"rope+foo", "rope+plain", "rope+"})
    EXPECT_THAT(error_of(name),
                testing::HasSubstr(
                    "is no modifier and no way of training; expected rope alone, or with modifiers (+forget-gate, "));
}

TEST(StudyMethods, WriteTheirTrainingIntoTheConfig) {
  train::TrainConfig sizes;
  sizes.layers = 4;
  sizes.heads = 4;
  sizes.length = 64;
  sizes.steps = 900;
  const auto applied = [&](const char* name) {
    train::TrainConfig c = sizes;
    apply_method(method_from_name(name), 512, c);
    return c;
  };
  EXPECT_FALSE(applied("rope").positions.draws());
  EXPECT_EQ(applied("rope+random").positions.draw, train::PositionDraw::kRandom);
  EXPECT_EQ(applied("rope+pose").positions.draw, train::PositionDraw::kPose);
  EXPECT_EQ(applied("rope+pose").positions.target_length, 512);
  EXPECT_EQ(applied("coca-slack+clex").positions.rope_scaling, model::Scaling::kClex);
  EXPECT_EQ(applied("coca-slack+clex").positions.factor, 8.0);
  EXPECT_EQ(applied("coca-slack+clex").positions.plain_steps, 600);
  EXPECT_EQ(applied("alibi+window").windows.layer_window, (std::vector<int64_t>{16}));
  const model::WindowOptions longformer = applied("rope+longformer").windows;
  EXPECT_EQ(longformer.layer_window, (std::vector<int64_t>{8, 8, 16, 16}));
  EXPECT_EQ(longformer.dilation, (std::vector<int64_t>{1, 1, 1, 1, 1, 1, 1, 1, 2, 2, 1, 1, 2, 2, 1, 1}));
  EXPECT_EQ(longformer.global_tokens, 1);
}

// Each way of training gives a different model, in its weights or in its saved config.
TEST_F(Study, TrainsInEveryWay) {
  StudyConfig asked = toy(dir_);
  asked.methods = {"coca-slack"};
  for (const auto& training : EnumTraits<Training>::names())
    if (training.value != Training::kPlain)
      asked.methods.push_back(
          method_name({.attention = model::AttentionKind::kCocaSlack, .modifiers = {}, .training = training.value}));
  asked.ntk_methods = {"coca-slack+window"};
  asked.passkey_share = 0;
  const StudyConfig config = resolve(asked);
  StudyResults results = run_study(config, load_corpus(config));
  std::set<double> losses;
  for (const RunResult& r : results.runs) losses.insert(r.evaluations.at(0).perplexity.back().nll);
  EXPECT_EQ(losses.size(), asked.methods.size());
  const auto spec_of = [&](const char* method) {
    return formats::load_model(fs::path(config.out) / "runs" / (std::string(method) + "-s0") / "model").spec;
  };
  EXPECT_EQ(spec_of("coca-slack+clex").rope_scaling.type, model::Scaling::kClex);
  EXPECT_EQ(spec_of("coca-slack+clex").rope_scaling.max_factor, 4);
  EXPECT_EQ(spec_of("coca-slack+longformer").global_tokens, 1);
  EXPECT_THAT(to_csv(results), testing::HasSubstr("\ncoca-slack+window,ntk4,"));
}

TEST_F(Study, MeasuresTasksInEachTraining) {
  StudyConfig asked = toy(dir_);
  asked.methods = {"rope", "coca-strict"};
  asked.ntk_methods = {};
  asked.passkey_share = 0;
  asked.tasks.tasks = {data::Task::kCopying, data::Task::kMqar};
  asked.tasks.windows = 2;
  asked.tasks.multiples = {1, 2};
  const StudyConfig config = resolve(asked);
  EXPECT_THAT(task_lengths(config), testing::ElementsAre(64, 128));
  const StudyResults results = run_study(config, load_corpus(config));
  const std::vector<TaskRuns> runs = task_runs(results);
  ASSERT_EQ(runs.size(), 2u);
  EXPECT_EQ(runs[1].name, "coca-strict");
  EXPECT_EQ(runs[1].seeds.at(0).back().tasks.size(), 2u * 2 * 2);
  EXPECT_EQ(task_table(runs, config.tasks.tasks, task_lengths(config)).rows.size(), 2u * 2 * 2);
  const report::Chart chart = task_chart(runs, data::Task::kCopying, 128);
  ASSERT_EQ(chart.series.size(), 2u);
  EXPECT_EQ(chart.series[0].x.size(), 12u);  // a twentieth of twelve steps: each of them
  EXPECT_THAT(report::to_markdown(make_document(results)), testing::HasSubstr("whole answers"));
}

// Two seeds: the mean, of steps that both have; the first step from which on enough is right.
TEST(TaskResults, AreMeansOverSeeds) {
  const auto rows = [](std::vector<std::pair<int64_t, double>> points) {
    std::vector<train::MetricsRow> out;
    for (const auto& [step, share] : points)
      out.push_back({.step = step, .tasks = {{"mqar_32", share}, {"mqar_32_whole", share / 2}}, .measured = true});
    return out;
  };
  const TaskRuns runs{
      .name = "rope",
      .seeds = {rows({{10, 0.2}, {20, 0.6}, {30, 0.96}}), rows({{10, 0.4}, {20, 0.5}, {30, 0.9}, {40, 1}})}};
  const report::Series curve = task_chart(runs, data::Task::kMqar, {32}).series.at(0);
  EXPECT_THAT(curve.x, testing::ElementsAre(10, 20, 30));
  EXPECT_THAT(curve.y, testing::ElementsAre(testing::DoubleEq(0.3), testing::DoubleEq(0.55), testing::DoubleEq(0.93)));
  EXPECT_THAT(task_table({runs}, {data::Task::kMqar}, {32, 64}).rows,
              testing::ElementsAre(testing::ElementsAre("mqar", "32", "93.0 %", "46.5 %", "20", "30")));
}

// If one method of a survey breaks down, the results of the others must be kept.
TEST_F(Study, ATrainingThatBreaksDownIsGivenUpAndTheStudyContinues) {
  StudyConfig asked = toy(dir_);
  asked.methods = {"rope", "alibi"};
  asked.ntk_methods = {};
  asked.learning_rate = 1e30;
  asked.steps = 40;
  asked.seeds = {0, 1};
  const StudyConfig config = resolve(asked);
  const Corpus corpus = load_corpus(config);
  StudyResults results = run_study(config, corpus);
  ASSERT_EQ(results.runs.size(), 4u);
  for (const RunResult& r : results.runs) {
    EXPECT_THAT(r.failure, testing::HasSubstr("non-finite")) << r.method;
    EXPECT_TRUE(r.evaluations.empty());
  }
  EXPECT_TRUE(summarise(results).empty());
  EXPECT_THAT(io::read_file(write_study(results).html), testing::HasSubstr("was given up"));
  const StudyResults again = run_study(config, corpus);  // the failure is read from its file
  EXPECT_EQ(again.runs[1].failure, results.runs[1].failure);
  // One of two seeds has a result.
  results.runs[2].failure = "";
  results.runs[2].evaluations = {{.variant = "",
                                  .perplexity = {{.length = 64, .perplexity = 5},
                                                 {.length = 128, .perplexity = 5},
                                                 {.length = 256, .perplexity = 5}},
                                  .passkey = {}}};
  const std::vector<SummaryLine> lines = summarise(results);
  ASSERT_EQ(lines.size(), 1u);
  EXPECT_EQ(lines[0].method, results.runs[2].method);
  EXPECT_EQ(lines[0].points[0].perplexity.n, 1);
  EXPECT_EQ(training_table(results).rows.size(), 4u);
  EXPECT_THAT(findings(results), testing::Contains(testing::HasSubstr("**alibi seed 1** was given up")));
}

TEST_F(Study, RefusesInvalidOptions) {
  const StudyConfig config = resolve([&] {
    StudyConfig c = toy(dir_);
    c.methods = {"rope"};
    c.ntk_methods = {};
    c.steps = 2;
    return c;
  }());
  run_study(config, load_corpus(config));
  StudyConfig other = config;
  other.steps = 3;
  EXPECT_THAT([&] { run_study(other, load_corpus(other)); },
              testing::ThrowsMessage<Error>(testing::HasSubstr("holds a study with steps = 2")));
  EXPECT_THAT([&] { train::check_folder(config.out, train::Start::kFresh); },
              testing::ThrowsMessage<Error>(testing::HasSubstr("holds a study")));
  StudyConfig over_run = config;
  over_run.out = (fs::path(config.out) / "runs" / "rope-s0").string();
  EXPECT_THAT([&] { run_study(over_run, load_corpus(over_run)); },
              testing::ThrowsMessage<Error>(testing::HasSubstr("rope-s0 holds a training run")));
  StudyConfig more = config;  // what is done stays
  more.methods = {"alibi", "rope"};
  more.seeds = {0, 1};
  const auto trained = fs::last_write_time(run_folder(config, "rope", 0) / "result.json");
  EXPECT_EQ(run_study(more, load_corpus(more)).runs.size(), 4u);
  EXPECT_EQ(fs::last_write_time(run_folder(config, "rope", 0) / "result.json"), trained);
  more.ntk_methods = {"rope"};
  more.factors = config.factors;
  EXPECT_THAT(
      [&] { run_study(more, load_corpus(more)); },
      testing::ThrowsMessage<Error>(testing::HasSubstr("was evaluated as rope; asked for rope, rope + dynamic NTK")));
  nlohmann::json saved = io::read_json(fs::path(config.out) / "study.json");
  saved.erase("split");  // as written by a version without this option
  io::write_json(fs::path(config.out) / "study.json", saved);
  EXPECT_EQ(run_study(config, load_corpus(config)).runs.size(), 1u);
  const auto refused = [&](auto change, const char* message) {
    StudyConfig c = toy(dir_);
    c.ntk_methods = {};
    change(c);
    EXPECT_THAT([&] { resolve(c); }, testing::ThrowsMessage<Error>(testing::HasSubstr(message)));
  };
  refused([](StudyConfig& c) { c.ntk_methods = {"alibi"}; }, "ntk_methods holds alibi, which has no rotary embedding");
  refused([](StudyConfig& c) { c.methods = {"rope", "rope"}; }, "methods holds rope twice");
  refused([](StudyConfig& c) { c.methods = {"cola"}; }, "methods holds \"cola\": \"cola\" is no attention kind");
  refused([](StudyConfig& c) { c.methods = {"rope+cola"}; }, "\"+cola\" is no modifier and no way of training");
  refused([](StudyConfig& c) { c.methods = {"rope+plain"}; }, "\"+plain\" is no modifier and no way of training");
  refused([](StudyConfig& c) { c.methods = {"rope", "alibi+pose"}; }, "(method alibi+pose)");
  refused([](StudyConfig& c) { c.methods = c.ntk_methods = {"rope+clex"}; }, "which has a scaling of its own");
  refused([](StudyConfig& c) { c.methods = {"rope+random"}, c.multiples = {1}; }, "needs more than the length 64");
  refused([](StudyConfig& c) { c.multiples = {4, 2}; }, "expected them in ascending order");
  refused([](StudyConfig& c) { c.text.clear(), c.split = data::Split::kTrain; }, "split: needs text");
}

TEST_F(Study, PasskeysAreTaughtFirstForAtMostAThirdOfTheSteps) {
  StudyConfig c = toy(dir_);
  EXPECT_EQ(resolve(c).passkey_first_steps, 4);
  c.steps = 9000;
  EXPECT_EQ(resolve(c).passkey_first_steps, 1000);
  EXPECT_EQ(train_config(resolve(c), "rope", 0, "out").passkey_first_steps, 1000);
  c.passkey_share = 0;
  EXPECT_EQ(resolve(c).passkey_first_steps, 0);
}

// Quantiles of Student's t as in published tables, and an interval computed by hand: 1, 2, 6 have mean 3, deviation
// sqrt(7), and half width 4.302653 sqrt(7 / 3).
TEST(SeedMeans, StudentsInterval) {
  EXPECT_NEAR(eval::student_t(1), 12.7062, 5e-5);
  EXPECT_NEAR(eval::student_t(11), 2.200985, 2e-5);
  EXPECT_NEAR(eval::student_t(30), 2.0423, 5e-5);
  EXPECT_NEAR(eval::student_t(1000000), 1.9600, 5e-5);
  const SeedMean m = mean_over_seeds({1, 2, 6});
  EXPECT_EQ(m.n, 3);
  EXPECT_DOUBLE_EQ(m.mean, 3);
  EXPECT_DOUBLE_EQ(m.deviation, std::sqrt(7.0));
  EXPECT_NEAR(m.high - 3, 4.302653 * std::sqrt(7.0 / 3), 1e-12);
  EXPECT_NEAR(3 - m.low, m.half_width(), 1e-12);
  const SeedMean one = mean_over_seeds({5});
  EXPECT_EQ(one.low, 5);
  EXPECT_EQ(one.high, 5);
}

TEST(SeedMeans, AreInTableJsonAndCsv) {
  StudyResults s;
  s.config.methods = {"rope"};
  s.config.seeds = {0, 1, 2};
  s.config.multiples = {1};
  s.config.length = 64;
  for (const double perplexity : {1.0, 2.0, 6.0})
    s.runs.push_back({.method = "rope",
                      .evaluations = {{.variant = "",
                                       .perplexity = {{.length = 64, .perplexity = perplexity}},
                                       .passkey = {{.length = 64, .accuracy = perplexity / 10}}}}});
  EXPECT_EQ(perplexity_table(s).rows[0][1], "3.000 ± 6.6");
  EXPECT_EQ(passkey_table(s).rows[0][1], "0.30 (0.00 to 0.96)");
  const auto j = to_json(s)["summary"][0]["points"][0];
  EXPECT_EQ(j["perplexity"]["n"], 3);
  EXPECT_NEAR(j["passkey_accuracy"]["high"].get<double>(), 0.3 + 0.1 * 4.302653 * std::sqrt(7.0 / 3), 1e-12);
  EXPECT_THAT(summary_csv(s), testing::HasSubstr("\nrope,,64,3,3,"));
  s.config.seeds = {0};
  s.runs.resize(1);
  EXPECT_THAT(summary_csv(s), testing::HasSubstr("\nrope,,64,1,1,,,,0.1,,,,"));
  EXPECT_TRUE(to_json(s)["summary"][0]["points"][0]["perplexity"]["low"].is_null());
}

// A study of two lengths without training: perplexities by method and variant, indexed [length][seed].
StudyResults made_up(std::vector<std::pair<std::string, std::vector<std::vector<double>>>> lines) {
  StudyResults s;
  s.config.length = 64;
  s.config.multiples.clear();
  for (size_t i = 0; i < lines[0].second.size(); ++i) s.config.multiples.push_back(int64_t{1} << i);
  for (size_t seed = 0; seed < lines[0].second[0].size(); ++seed) {
    s.config.seeds.push_back(static_cast<int64_t>(seed));
    for (const auto& [name, perplexity] : lines) {
      const size_t plus = name.find(" ntk");
      Evaluation e{.variant = plus == name.npos ? "" : name.substr(plus + 1), .perplexity = {}, .passkey = {}};
      for (size_t i = 0; i < perplexity.size(); ++i)
        e.perplexity.push_back({.length = 64 << i, .perplexity = perplexity[i][seed]});
      if (e.variant.empty())
        s.runs.push_back({.method = name, .seed = static_cast<int64_t>(seed), .evaluations = {e}});
      else
        s.runs.back().evaluations.push_back(e);
      if (seed == 0 && e.variant.empty()) s.config.methods.push_back(name);
    }
  }
  return s;
}

using testing::AllOf;
using testing::Contains;
using testing::Each;
using testing::HasSubstr;
using testing::Not;

TEST(StudyFindings, OneSeedGivesNumbersWithoutAVerdict) {
  const std::vector<std::string> f =
      findings(made_up({{"rope", {{4}, {16}}}, {"rope ntk4", {{4}, {8}}}, {"alibi", {{5}, {5}}}}));
  EXPECT_THAT(f[0], HasSubstr("One seed"));
  // At the trained length dynamic NTK gives the same model, so it is not listed.
  EXPECT_THAT(f, Contains("Perplexity at 1x the trained length: **rope** 4.000 and **alibi** 5.000."));
  EXPECT_THAT(
      f,
      Contains(
          "Perplexity at 2x the trained length: **alibi** 5.000, **rope + dynamic NTK 4** 8.000 and **rope** 16.00."));
  EXPECT_THAT(f, Contains("**rope**: from 4.000 at 1x to 16.00 at 2x, a factor of 4.00."));
  EXPECT_THAT(
      f,
      Contains("Dynamic NTK with factor 4 on **rope** changes perplexity by -50 % at 2x; it changes nothing at 1x."));
  EXPECT_THAT(f, Each(Not(testing::ContainsRegex("lowest|agree|lowers|raises"))));
}

// The half width for three seeds is 4.302653 / sqrt(3) = 2.48 deviations. The log ratios of `below` are within 0.007 of
// -0.197; those of `near` (0.05, -0.04, 0.02) scatter by more than their mean.
TEST(StudyFindings, SeedsDecideOrDoNot) {
  const std::vector<double> base = {10, 12, 11}, below = {8.2, 9.8, 9.1}, near = {10.5, 11.5, 11.2};
  const auto lowest = [&](std::vector<double> second, std::vector<double> third) {
    return findings(made_up({{"coca-slack", {below}}, {"rope", {std::move(second)}}, {"alibi", {std::move(third)}}}))
        .at(1);
  };
  EXPECT_EQ(lowest(base, near),
            "At 1x the trained length **coca-slack** has the lowest mean perplexity (9.033). The seeds agree that it "
            "is below every other.");
  EXPECT_THAT(lowest(base, {8.3, 9.7, 9.2}),
              HasSubstr("The seeds agree that it is below **rope**; they do not decide between it and **alibi**."));
  EXPECT_THAT(lowest({8.4, 9.6, 9.2}, {8.3, 9.7, 9.2}), HasSubstr("The seeds do not decide between it and any other."));
  // A wide spread over seeds does not matter if all pairs agree.
  EXPECT_THAT(lowest({16.4, 19.6, 18.2}, {820, 980, 910}), HasSubstr("below every other"));

  const auto rise = findings(made_up({{"rope", {base, near}}, {"alibi", {below, base}}}));
  EXPECT_THAT(rise, Contains(AllOf(HasSubstr("**rope**: from 11.00 at 1x"),
                                   HasSubstr("the seeds do not decide whether it rises or falls"))));
  EXPECT_THAT(rise,
              Contains(AllOf(HasSubstr("**alibi**: from 9.033 at 1x to 11.00 at 2x, a factor of 1.22 (95 % interval"),
                             Not(HasSubstr("decide")))));
}

TEST(StudyFindings, DynamicNtkAtAllSomeAndNoLengths) {
  const std::vector<double> base = {10, 12, 11}, below = {8.2, 9.8, 9.1}, above = {12.1, 14.5, 13.4},
                            near = {10.5, 11.5, 11.2};
  const auto sentence = [&](const std::vector<std::vector<double>>& scaled) {
    return findings(made_up({{"rope", std::vector(scaled.size(), base)}, {"rope ntk4", scaled}})).back();
  };
  const std::string what = "Dynamic NTK with factor 4 on **rope**";
  EXPECT_EQ(sentence({below, below}), what + " lowers perplexity at every length.");
  EXPECT_EQ(sentence({above, above}), what + " raises perplexity at every length.");
  EXPECT_EQ(sentence({base, base}), what + " changes perplexity at no evaluated length.");
  EXPECT_EQ(sentence({near, near}),
            what + ": the seeds do not decide whether it lowers or raises perplexity at every length.");
  EXPECT_EQ(sentence({base, below, below, above}),
            what + " lowers perplexity at 2x and 4x and raises it at 8x; it changes nothing at 1x.");
  EXPECT_EQ(sentence({base, near, below}),
            what + " lowers perplexity at 4x; the seeds do not decide at 2x; it changes nothing at 1x.");
  EXPECT_EQ(sentence({base, near}),
            what + ": the seeds do not decide whether it lowers or raises perplexity at 2x; it changes nothing at 1x.");
}

TEST(StudyFindings, WindowsNoDocumentFillsAreNamed) {
  StudyResults s = made_up({{"rope", {{4}, {16}}}});
  s.runs[0].evaluations[0].perplexity[1].reached = false;
  EXPECT_THAT(findings(s),
              Contains("No test document is as long as the window at 2x: these perplexities are of shorter windows."));
}

TEST_F(Study, WhatIsHeldOutIsAShareOfTheTokens) {
  StudyConfig c = resolve(toy(dir_));
  const auto share = [](const data::TokenFile& part, int64_t all) {
    return static_cast<double>(part.size()) / static_cast<double>(all);
  };
  // The first text is 5/8 of all, or the last: whole documents would be far from a twentieth and a tenth.
  for (const std::vector<int>& sizes : {std::vector{5000, 3000}, {3000, 5000}, {4000, 300, 300, 300, 3100}, {8000}}) {
    c.text.clear();
    c.out = (dir_ / fmt::format("out{}", sizes[0] + static_cast<int>(sizes.size()))).string();
    int64_t all = 0;
    for (const int size : sizes) {
      c.text.push_back((dir_ / fmt::format("book{}of{}.txt", c.text.size(), size)).string());
      std::ofstream(c.text.back()) << std::string(static_cast<size_t>(size), static_cast<char>('a' + c.text.size()));
      all += size + 1;  // eos
    }
    c.test_text = {(dir_ / "text").string()};
    const Corpus given = load_corpus(c);
    EXPECT_NEAR(share(*given.validation, all), 0.05, 0.005) << given.description;
    EXPECT_NEAR(share(*given.train, all), 0.95, 0.005) << given.description;
    EXPECT_THAT(given.description, testing::HasSubstr("the end of each document"));
    c.test_text.clear();
    if (sizes.size() < 3) continue;  // refused: a test text is needed
    const Corpus own = load_corpus(c);
    EXPECT_NEAR(share(*own.validation, all), 0.05, 0.005) << own.description;
    EXPECT_NEAR(share(*own.train, all), 0.85, 0.005) << own.description;
    EXPECT_THAT(own.test_names.at(0), testing::StartsWith("end of document 0"));
  }
  c.text = {(dir_ / "text").string()};  // ten documents of about the same size stay whole
  c.out = (dir_ / "whole").string();
  const Corpus whole = load_corpus(c);
  EXPECT_THAT(whole.description, testing::HasSubstr("1 whole document"));
  EXPECT_EQ(whole.validation->documents(), 1);
}

TEST_F(Study, TestDocumentsThatWereTrainedOnAreNamed) {
  StudyConfig c = resolve(toy(dir_));
  EXPECT_EQ(load_corpus(c).shared.documents, 0);
  fs::copy_file(dir_ / "text/doc00.txt", dir_ / "text/doc09.txt",
                fs::copy_options::overwrite_existing);  // overwrites the document that is held out
  c.out = (dir_ / "within").string();
  const Corpus within = load_corpus(c);
  ASSERT_EQ(within.shared.pairs.size(), 1u);
  EXPECT_THAT(within.shared.pairs[0].training, testing::EndsWith("text/doc00.txt"));
  EXPECT_THAT(within.shared.pairs[0].evaluation, testing::EndsWith("text/doc09.txt"));
  fs::create_directories(dir_ / "test");
  fs::copy_file(dir_ / "text/doc03.txt", dir_ / "test/other.txt");
  c.test_text = {(dir_ / "test").string()};
  const Corpus between = load_corpus(c);
  ASSERT_EQ(between.shared.pairs.size(), 1u);
  EXPECT_THAT(between.shared.pairs[0].training, testing::EndsWith("text/doc03.txt"));

  StudyResults s = made_up({{"rope", {{4}, {16}}}});
  s.config.out = (dir_ / "report").string();
  fs::create_directories(s.config.out);
  s.shared = between.shared;
  const StudyFiles files = write_study(s);
  for (const fs::path& file : {files.html, files.markdown})
    EXPECT_THAT(io::read_file(file), AllOf(HasSubstr("some test documents are in the training text"),
                                           HasSubstr("text/doc03.txt (training) and "),
                                           HasSubstr("test/other.txt (test) are the same document")));
  const auto json = io::read_json(files.json)["shared_documents"];
  EXPECT_EQ(json["count"], 1);
  EXPECT_EQ(json["names"][0]["test"], (dir_ / "test/other.txt").string());
}

TEST(StudyFindings, ZerosOfUntaughtModelsAreExplained) {
  StudyResults s = made_up({{"rope", {{4}, {16}}}, {"alibi", {{5}, {5}}}});
  EXPECT_EQ(passkey_note(s), "");
  for (RunResult& r : s.runs)
    r.evaluations[0].passkey = {{.length = 64, .trials = 5, .accuracy = 0},
                                {.length = 128, .trials = 5, .accuracy = 0}};
  EXPECT_THAT(passkey_note(s), AllOf(HasSubstr("No model found a whole key at any length, the trained one included"),
                                     HasSubstr("by: rope, alibi;")));
  s.runs[1].evaluations[0].passkey[0].accuracy = 0.8;
  EXPECT_THAT(passkey_note(s), AllOf(Not(HasSubstr("No model")), HasSubstr("by: rope;")));
  s.runs[0].evaluations[0].passkey[0].accuracy = 0.5;
  EXPECT_EQ(passkey_note(s), "");
}

TEST(StudyText, TheCompilerKnowsItsHeaders) {
  const std::vector<std::string> headers = standard_library_headers();
  EXPECT_GT(headers.size(), 50u);
  for (const std::string& file : headers) ASSERT_TRUE(fs::is_regular_file(file)) << file;
}

}  // namespace
}  // namespace coca::study::study_test
