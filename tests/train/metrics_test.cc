// SPDX-License-Identifier: Apache-2.0
#include "coca/train/metrics.h"

#include <bit>
#include <chrono>
#include <cmath>
#include <cstring>
#include <fstream>
#include <set>
#include <thread>

#include "coca/io/hash.h"

#include "support/faults.h"
#include "train/tiny_run.h"

namespace coca::train::metrics_test {
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

// A disk that is full for a while causes one warning and loses no rows.
TEST(Metrics, AFullDiskLosesNoRow) {
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
    EXPECT_THAT(warnings.texts(), testing::ElementsAre(testing::AllOf(testing::HasSubstr("metrics.csv"),
                                                                      testing::HasSubstr("training continues"))));
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

// Parses event files like TensorBoard: frames with checksums, then the fields of the messages.
struct Event {
  int64_t step = 0;
  bool starts_session = false;
  std::string version;
  std::vector<std::pair<std::string, float>> scalars;
};

uint32_t masked(std::string_view bytes) {
  const uint32_t crc = io::crc32c(bytes.data(), bytes.size());
  return ((crc >> 15) | (crc << 17)) + 0xa282ead8u;
}

template <typename T>
T take(std::string_view& from) {
  T value{};
  EXPECT_GE(from.size(), sizeof value);
  std::memcpy(&value, from.data(), sizeof value);
  from.remove_prefix(sizeof value);
  return value;
}

uint64_t take_varint(std::string_view& from) {
  uint64_t value = 0;
  for (int shift = 0; !from.empty(); shift += 7) {
    const auto byte = static_cast<uint8_t>(from.front());
    from.remove_prefix(1);
    value |= static_cast<uint64_t>(byte & 0x7f) << shift;
    if (byte < 0x80) break;
  }
  return value;
}

// Calls visit(field, varint or fixed bits, bytes).
template <typename Visit>
void fields_of(std::string_view message, const Visit& visit) {
  while (!message.empty()) {
    const uint64_t key = take_varint(message);
    uint64_t number = 0;
    std::string_view bytes;
    switch (key & 7) {
      case 0: number = take_varint(message); break;
      case 1: number = take<uint64_t>(message); break;
      case 5: number = take<uint32_t>(message); break;
      case 2: {
        const size_t size = take_varint(message);
        bytes = message.substr(0, size);
        message.remove_prefix(size);
        break;
      }
      default: FAIL() << "wire type " << (key & 7);
    }
    visit(key >> 3, number, bytes);
  }
}

Event event_of(std::string_view message) {
  Event e;
  fields_of(message, [&](uint64_t field, uint64_t number, std::string_view bytes) {
    if (field == 2) e.step = static_cast<int64_t>(number);
    if (field == 3) e.version = bytes;
    if (field == 7)
      fields_of(bytes, [&](uint64_t, uint64_t status, std::string_view) { e.starts_session = status == 1; });
    if (field != 5) return;
    fields_of(bytes, [&](uint64_t, uint64_t, std::string_view value) {
      auto& [tag, x] = e.scalars.emplace_back();
      fields_of(value, [&tag = tag, &x = x](uint64_t part, uint64_t bits, std::string_view text) {
        if (part == 1) tag = text;
        if (part == 2) x = std::bit_cast<float>(static_cast<uint32_t>(bits));
      });
    });
  });
  return e;
}

// Events of all files in a folder in the order of their names. A session that starts at a step replaces earlier events
// from that step on.
std::vector<Event> events_of(const std::filesystem::path& folder) {
  std::set<std::filesystem::path> files;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) files.insert(entry.path());
  std::vector<Event> events;
  for (const auto& file : files) {
    EXPECT_THAT(file.filename().string(), testing::HasSubstr("tfevents"));
    const std::string content = io::read_file(file);
    std::string_view left = content;
    for (bool first = true; !left.empty(); first = false) {
      const std::string_view length_bytes = left.substr(0, 8);
      const auto size = take<uint64_t>(left);
      EXPECT_EQ(take<uint32_t>(left), masked(length_bytes));
      const std::string_view message = left.substr(0, size);
      left.remove_prefix(size);
      EXPECT_EQ(take<uint32_t>(left), masked(message));
      const Event e = event_of(message);
      EXPECT_EQ(e.version, first ? "brain.Event:2" : "");
      if (e.starts_session) std::erase_if(events, [&](const Event& old) { return old.step >= e.step; });
      if (!e.scalars.empty()) events.push_back(e);
    }
  }
  return events;
}

TEST(Metrics, EventFilesHoldTheRowsAndContinueFromACheckpoint) {
  const test::TempDir dir;
  const auto write = [&](int64_t kept, std::initializer_list<int64_t> steps) {
    MetricsFile metrics(dir / "metrics.csv", kept, dir / "events");
    for (const int64_t step : steps) {
      StepReport report{.step = step, .learning_rate = 1e-3, .grad_norm = 0.5, .tokens_per_second = 300};
      if (step % 4 == 0) report.validation_loss = 3.0;
      metrics.row(report, 1.0 / static_cast<double>(step), {.step = step, .tokens = 10 * step});
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(2));  // file names contain the time
  };
  const auto steps = [&] {
    std::vector<int64_t> all;
    for (const Event& e : events_of(dir / "events")) all.push_back(e.step);
    return all;
  };
  write(0, {2, 300, 7000});
  const std::vector<Event> events = events_of(dir / "events");
  ASSERT_EQ(events.size(), 3u);
  EXPECT_THAT(events[0].scalars,
              testing::ElementsAre(testing::Pair("loss", 0.5f), testing::Pair("learning_rate", 1e-3f),
                                   testing::Pair("grad_norm", 0.5f), testing::Pair("tokens_per_second", 300.0f)));
  EXPECT_THAT(events[1].scalars, testing::Contains(testing::Pair("validation_loss", 3.0f)));
  write(300, {301, 302});  // step 7000 was not saved
  EXPECT_THAT(steps(), testing::ElementsAre(2, 300, 301, 302));
  write(0, {1});  // starts again
  EXPECT_THAT(steps(), testing::ElementsAre(1));
}

}  // namespace
}  // namespace coca::train::metrics_test
