// SPDX-License-Identifier: Apache-2.0
#include "coca/train/metrics.h"

#include <cmath>
#include <fstream>

#include "support/faults.h"
#include "train/tiny_run.h"

namespace coca::train {
namespace {

void write_rows(const std::filesystem::path& file, int64_t kept, std::initializer_list<int64_t> steps) {
  MetricsFile metrics(file, kept);
  for (const int64_t step : steps) {
    StepReport report{.step = step, .learning_rate = 1e-3, .grad_norm = 0.5};
    if (step % 2 == 0) report.validation_loss = 3.0;
    metrics.row(report, 1.0 / static_cast<double>(step), {.step = step, .tokens = 10 * step});
  }
}

std::vector<int64_t> steps_of(const std::filesystem::path& file) {
  std::vector<int64_t> steps;
  for (const MetricsRow& row : read_metrics(file)) steps.push_back(row.step);
  return steps;
}

TEST(Metrics, RowsReadBack) {
  const test::TempDir dir;
  const auto file = dir.path() / "metrics.csv";
  write_rows(file, 0, {1, 2, 3});
  const auto rows = read_metrics(file);
  ASSERT_EQ(rows.size(), 3u);
  EXPECT_EQ(rows[2].loss, 1.0 / 3);  // exactly
  EXPECT_EQ(rows[1].validation_loss, 3.0);
  EXPECT_TRUE(std::isnan(rows[2].validation_loss));
}

TEST(Metrics, ResumingDropsRowsBeyondTheCheckpoint) {
  const test::TempDir dir;
  const auto file = dir.path() / "metrics.csv";
  write_rows(file, 0, {2, 4, 6, 8});
  write_rows(file, 4, {5, 6});
  EXPECT_THAT(steps_of(file), testing::ElementsAre(2, 4, 5, 6));
  write_rows(file, 0, {1});  // a fresh start
  EXPECT_THAT(steps_of(file), testing::ElementsAre(1));
}

TEST(Metrics, ARowTornByAKillIsDropped) {
  const test::TempDir dir;
  const auto file = dir.path() / "metrics.csv";
  write_rows(file, 0, {2, 4});
  std::ofstream(file, std::ios::app) << "5,50,0.";
  EXPECT_THAT(steps_of(file), testing::ElementsAre(2, 4));
  write_rows(file, 5, {6});
  EXPECT_THAT(steps_of(file), testing::ElementsAre(2, 4, 6));
}

// A disk that is full for a while: one warning, and no row is lost.
TEST(Metrics, AFullDiskCostsNoRow) {
  const test::TempDir dir;
  const auto file = dir.path() / "metrics.csv";
  MetricsFile metrics(file, 0);
  const auto row = [&](int64_t step) { metrics.row({.step = step}, 1.0, {.step = step}); };
  row(1);
  {
    const test::Warnings warnings;
    const test::FileSizeLimit full(std::filesystem::file_size(file) + 3);
    row(2);
    row(3);
    EXPECT_THAT(warnings.texts(), testing::ElementsAre(testing::AllOf(testing::HasSubstr("metrics.csv"), testing::HasSubstr("training goes on"))));
    EXPECT_THROW(metrics.flush(), Error);
  }
  row(4);
  EXPECT_THAT(steps_of(file), testing::ElementsAre(1, 2, 3, 4));
}

TEST(Metrics, MissingFileOnResumeStartsOne) {
  const test::TempDir dir;
  write_rows(dir.path() / "metrics.csv", 4, {5});
  EXPECT_THAT(steps_of(dir.path() / "metrics.csv"), testing::ElementsAre(5));
}

TEST(Metrics, WrongCellsAreNamed) {
  const test::TempDir dir;
  const auto file = dir.path() / "metrics.csv";
  write_rows(file, 0, {2});
  std::ofstream(file, std::ios::app) << "5,50\n";
  test::expect_error([&] { read_metrics(file); }, ErrorKind::kBadFile, "line 3 has 2 cells; expected 9");
}

TEST(Metrics, ARowWithoutAStepIsNamedAndLeftOutByResuming) {
  const test::TempDir dir;
  const auto file = dir.path() / "metrics.csv";
  write_rows(file, 0, {2});
  std::ofstream(file, std::ios::app) << "4x,50,1,,1,1,1,0,1\n";
  test::expect_error([&] { read_metrics(file); }, ErrorKind::kBadFile, "line 3: step \"4x\" is not a whole number");
  write_rows(file, 4, {5});
  EXPECT_THAT(steps_of(file), testing::ElementsAre(2, 5));
}

}  // namespace
}  // namespace coca::train
