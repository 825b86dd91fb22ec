// A wall clock that jumps and files dated in the past or the future do not change a training run.
// SPDX-License-Identifier: Apache-2.0
#include <chrono>
#include <thread>

#include "coca/train/checkpoint.h"
#include "e2e/cli_fixture.h"
#include "train/tiny_run.h"

namespace coca::clock_test {
namespace {

namespace fs = std::filesystem;
using test::Args;

class Clock : public test::CliFixture {
 protected:
  Args train(const std::string& out, int64_t steps) const {
    return {"train",
            "--text",
            at("text.txt"),
            "--out",
            at(out),
            "--layers",
            "1",
            "--width",
            "32",
            "--heads",
            "2",
            "--length",
            "24",
            "--batch",
            "4",
            "--steps",
            std::to_string(steps),
            "--warmup-steps",
            "2",
            "--log-interval",
            "5",
            "--checkpoint-interval",
            "50",
            "--keep-checkpoints",
            "3",
            "--resume"};
  }
};

TEST_F(Clock, JumpsChangeNothing) {
  put("text.txt", cats_and_dogs(200));
  ASSERT_EQ(coca(train("still", 1000)).code, 0);
  setenv("LD_PRELOAD", COCA_JUMPING_CLOCK, 1);
  test::Program program(dir_.path(), train("jumping", 1000));
  const auto limit = std::chrono::steady_clock::now() + std::chrono::seconds(120);
  while (!program.ended() && !train::latest_checkpoint(at("jumping")) && std::chrono::steady_clock::now() < limit)
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
  program.terminate();
  const test::Outcome stopped = program.wait();
  EXPECT_EQ(stopped.code, 130) << stopped.err;
  // The newest checkpoint is the one with the most steps, whatever the dates.
  auto date = fs::file_time_type::clock::now();
  for (const auto& entry : fs::directory_iterator(train::checkpoint_root(at("jumping"))))
    fs::last_write_time(entry.path(), date -= std::chrono::hours(24 * 3650));
  fs::last_write_time(*train::latest_checkpoint(at("jumping")),
                      fs::file_time_type::clock::now() - std::chrono::hours(24 * 365 * 40));
  const test::Outcome resumed = coca(train("jumping", 1000));
  unsetenv("LD_PRELOAD");
  ASSERT_EQ(resumed.code, 0) << resumed.err;
  EXPECT_TRUE(io::read_file(dir_ / "still" / "model" / "model.safetensors") ==
              io::read_file(dir_ / "jumping" / "model" / "model.safetensors"));
  EXPECT_EQ(test::metrics_without_times(at("still")), test::metrics_without_times(at("jumping")));
  const auto rows = io::parse_csv(io::read_file(dir_ / "jumping" / "metrics.csv"));
  const auto column = std::ranges::find(rows[0], "seconds") - rows[0].begin();
  double before = 0;
  for (size_t i = 1; i < rows.size(); ++i) {
    const double seconds = std::stod(rows[i][static_cast<size_t>(column)]);
    EXPECT_TRUE(seconds >= before && seconds < 600) << seconds;
    before = seconds;
  }
}

}  // namespace
}  // namespace coca::clock_test
