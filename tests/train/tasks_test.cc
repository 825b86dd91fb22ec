// Training on synthetic tasks: which windows are tasks, the loss on answers alone, the exam's counts, metrics, and runs
// that stop and resume.
// SPDX-License-Identifier: Apache-2.0
#include "coca/train/tasks.h"

#include <cmath>
#include <set>

#include "coca/base/stop.h"
#include "coca/dist/thread_group.h"
#include "coca/train/metrics.h"
#include "train/tiny_run.h"

namespace coca::train::tasks_test {
namespace {

namespace fs = std::filesystem;
using data::Task;

constexpr int64_t kNoTarget = data::kNoTarget;

struct SymbolData {
  std::unique_ptr<text::Tokenizer> tokenizer = text::make_symbol_tokenizer(64);
  data::TokenFile none = data::TokenFile::from_tokens(std::vector<int32_t>(65), {0, 65}, 64);
  TrainData data() const { return {.tokens = none, .tokenizer = *tokenizer}; }
};

TrainConfig task_config(const fs::path& out, std::vector<Task> tasks) {
  TrainConfig c = test::tiny_config(out);
  c.length = 32;
  c.tasks.tasks = std::move(tasks);
  c.tasks.vocabulary = 64;
  c.tasks.sizes = {.needles = 1, .digits = 2};
  c.tasks.windows = 3;
  c.validation_interval = 5;
  return c;
}

struct Rows {
  Tensor ids, targets;
  std::span<const int32_t> row(const Tensor& t, int64_t i) const {
    return t.values<int32_t>().subspan(static_cast<size_t>(i * t.size(1)), static_cast<size_t>(t.size(1)));
  }
};

Rows rows_of(const BatchSource& batches, const TrainConfig& c, int64_t step) {
  Rows rows{Tensor({c.batch, c.length}, DType::kI32), Tensor({c.batch, c.length}, DType::kI32)};
  batches.fill(step, 0, {rows.ids, rows.targets, {}});
  return rows;
}

TEST(TaskBatches, ReplaceTheirShareOfTheWindowsOfText) {
  const test::TinyData data;  // letters: a window of text has a target everywhere
  TrainConfig c = task_config("unused", {Task::kMqar, Task::kCopying});
  c.tasks.share = 0.3;
  c.batch = 8;
  const Batches text(c, data.tokens, *data.tokenizer);
  const data::TaskMaker maker(c.tasks.sizes, c.length, *data.tokenizer);
  const BatchShape shape{.batch = c.batch, .accumulation = 1, .length = c.length};
  EXPECT_EQ(task_share(c.tasks, *data.tokenizer), 0.3);
  const TaskBatches batches(text, shape, c.tasks, maker, data.tokens, 0.3, 5);
  int64_t tasks = 0;
  for (int64_t step = 0; step < 100; ++step) {
    const Rows mixed = rows_of(batches, c, step), plain = rows_of(text, c, step);
    int64_t counted = 0;
    for (int64_t i = 0; i < c.batch; ++i) {
      const auto targets = mixed.row(mixed.targets, i);
      const int64_t asked = std::ranges::count_if(targets, [](int32_t id) { return id != kNoTarget; });
      counted += asked;
      tasks += asked < c.length;
      if (asked < c.length)
        EXPECT_TRUE(asked == 4 || asked == 8) << asked;  // pairs: an eighth of 32 tokens; a string: a quarter
      else
        EXPECT_TRUE(std::ranges::equal(mixed.row(mixed.ids, i), plain.row(plain.ids, i)));
    }
    EXPECT_EQ(batches.counted(step), counted);
    EXPECT_TRUE(std::ranges::equal(rows_of(batches, c, step).ids.values<int32_t>(), mixed.ids.values<int32_t>()));
  }
  // 800 draws of a share of 0.3: a standard deviation of 13, of which four are allowed.
  EXPECT_NEAR(static_cast<double>(tasks), 240, 52);
}

TEST(TaskBatches, OfSymbolsAreTasksAlone) {
  const SymbolData data;
  const TrainConfig c = task_config("unused", {Task::kCopying});
  EXPECT_EQ(task_share(c.tasks, *data.tokenizer), 1);
  EXPECT_EQ(task_share({}, *data.tokenizer), 0);
}

// Of a model with random weights: how much is asked is known, and what is right is the same for any number of ranks.
TEST(TaskExam, CountsTokensAndWholeAnswers) {
  const SymbolData data;
  TrainConfig c = task_config("unused", {Task::kMqar, Task::kCopying});
  c.tasks.sizes.string = 1;
  const model::ModelSpec spec = trained_spec(c, *data.tokenizer);
  model::ParamStore params(spec, model::Precision::kF32);
  model::initialise(spec, 1, params);
  const model::Weights weights = params.weights();
  const data::TaskMaker maker(c.tasks.sizes, c.length, *data.tokenizer);
  const TaskExam exam(c.tasks, c.length, 3, maker, data.none);
  Context cx;
  const std::vector<TaskScore> scores = exam.take(cx, spec, weights, dist::alone());
  ASSERT_EQ(scores.size(), 6U);
  const std::vector<std::string> columns = exam.columns();
  EXPECT_EQ(columns.size(), 12U);
  EXPECT_EQ(columns[0], "mqar_32");
  EXPECT_EQ(columns[1], "mqar_32_whole");
  EXPECT_EQ(columns[10], "copying_128");
  for (size_t i = 0; i < 3; ++i) {
    EXPECT_EQ(scores[i].length, 32 << i);
    EXPECT_EQ(scores[i].tokens, 3 * (4 << i));  // an eighth of each window, in 3 windows
    EXPECT_EQ(scores[i].answers, scores[i].tokens);
    EXPECT_EQ(scores[i].right_answers, scores[i].right_tokens);
    EXPECT_EQ(scores[i + 3].tokens, 3);
  }
  // The same windows at every exam, dealt out to any number of ranks.
  dist::run_ranks(2, [&](dist::Communicator& ranks) {
    Context own;
    const std::vector<TaskScore> shared = exam.take(own, spec, weights, ranks);
    ASSERT_EQ(shared.size(), scores.size());
    for (size_t i = 0; i < scores.size(); ++i) {
      EXPECT_EQ(shared[i].right_tokens, scores[i].right_tokens);
      EXPECT_EQ(shared[i].tokens, scores[i].tokens);
      EXPECT_EQ(shared[i].right_answers, scores[i].right_answers);
    }
  });
}

// One answer of one symbol, which a model can learn by heart: with string 1 and two symbols besides the mark, the
// answer is one of two.
TEST(TaskTraining, LearnsACopyAndSaysSo) {
  const test::TempDir dir;
  TrainConfig c = task_config(dir.path() / "run", {Task::kCopying});
  c.length = 8;
  c.tasks.vocabulary = 3;
  c.tasks.sizes.string = 3;
  c.tasks.multiples = {1};
  c.tasks.windows = 40;
  c.attention = model::AttentionKind::kRope;
  c.batch = 16;
  c.steps = 150;
  c.learning_rate = 1e-2;
  c.validation_interval = 150;
  const auto tokenizer = text::make_symbol_tokenizer(3);
  const data::TokenFile none = no_text(c, *tokenizer);
  const TrainSummary summary = Trainer(c, {.tokens = none, .tokenizer = *tokenizer}, Start::kFresh).run();
  EXPECT_FALSE(summary.validation_loss);
  const MetricsRow last = read_metrics(dir.path() / "run" / "metrics.csv").back();
  EXPECT_TRUE(last.measured);
  EXPECT_GT(last.tasks.at("copying_8"), 0.6);  // by chance 0.5, of 120 symbols: 0.6 is beyond two deviations
  EXPECT_LE(last.tasks.at("copying_8_whole"), last.tasks.at("copying_8"));
}

// Runs without interruption; stopped after a step, or during its exam, and resumed; killed and resumed.
TEST(TaskTraining, ResumesBitwise) {
  const test::TempDir dir;
  const SymbolData data;
  TrainConfig c = task_config("unused", {Task::kMqar, Task::kCopying, Task::kIndirectIndex, Task::kNeedle});
  const auto run = [&](const char* name, Start start, const std::function<void(const StepReport&)>& on_step = {}) {
    c.out = (dir.path() / name).string();
    Trainer trainer(c, data.data(), start);
    return trainer.run(on_step);
  };
  run("whole", Start::kFresh);
  for (const int64_t at : {4, 5, 7}) {
    const std::string name = fmt::format("stopped{}", at);
    test::expect_error(
        [&] {
          run(name.c_str(), Start::kFresh, [&](const StepReport& r) {
            if (r.step == at) request_stop();
          });
        },
        ErrorKind::kInterrupted, fmt::format("stopped at step {} of 12", at));
    clear_stop();
    run(name.c_str(), Start::kResume);
    EXPECT_EQ(test::newest_bytes(dir.path() / name), test::newest_bytes(dir.path() / "whole"));
    EXPECT_EQ(test::metrics_without_times(dir.path() / name), test::metrics_without_times(dir.path() / "whole"));
  }
  const auto rows = read_metrics(dir.path() / "whole" / "metrics.csv");
  std::set<int64_t> examined;
  for (const MetricsRow& row : rows)
    if (row.measured) examined.insert(row.step);
  EXPECT_EQ(examined, (std::set<int64_t>{5, 10, 12}));
  EXPECT_EQ(rows.back().tasks.size(), 4U * 3 * 2);
  c.tasks.sizes.pairs = 2;  // another task
  test::expect_error([&] { run("whole", Start::kFresh); }, ErrorKind::kInvalidArgument, "already holds");
}

TEST(TaskTraining, RefusesTasksWithoutRoomBeforeAnythingIsWritten) {
  const test::TempDir dir;
  const SymbolData data;
  TrainConfig c = task_config(dir.path() / "run", {Task::kNeedle});
  c.tasks.sizes.digits = 30;
  test::expect_error([&] { check_start(c, *data.tokenizer, Start::kFresh, 1); }, ErrorKind::kInvalidArgument,
                     "task needle: a window of 32 tokens has no room");
  c.tasks.sizes = {.pairs = 8};
  c.tasks.tasks = {Task::kMqar};
  c.tasks.multiples = {1, 2};
  c.tasks.sizes.pairs = 33;
  test::expect_error([&] { check_start(c, *data.tokenizer, Start::kFresh, 1); }, ErrorKind::kInvalidArgument,
                     "64 symbols are too few for 33 pairs");
  c.direction = model::Direction::kBidirectional;
  c.attention = model::AttentionKind::kRope;
  test::expect_error([&] { check_config(c); }, ErrorKind::kInvalidArgument, "predicts no next token");
  EXPECT_FALSE(fs::exists(c.out));
}

}  // namespace
}  // namespace coca::train::tasks_test
