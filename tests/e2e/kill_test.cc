// A training run that is killed many times at random moments and resumed each time gives the same bits as an
// undisturbed run. COCA_KILLS sets the number of kills (default 200).
// SPDX-License-Identifier: Apache-2.0
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <cmath>
#include <fstream>
#include <thread>

#include "coca/base/rng.h"
#include "coca/train/checkpoint.h"
#include "e2e/program.h"
#include "support/paths.h"
#include "train/tiny_run.h"

namespace coca::kill_test {
namespace {

namespace fs = std::filesystem;
using Args = std::vector<std::string>;
using Clock = std::chrono::steady_clock;

int64_t wanted_kills() {
  const char* set = std::getenv("COCA_KILLS");
  return set ? std::atoll(set) : 200;
}

// The weights, optimizer state and configuration of the newest checkpoint and of the model.
std::string bytes_of_run(const fs::path& out) {
  std::string all;
  for (const fs::path& folder : {*train::latest_checkpoint(out), out / "model"}) {
    all += folder.filename().string();
    for (const char* file : {"model.safetensors", "optimizer.safetensors", "config.json"})
      if (fs::exists(folder / file)) all += io::read_file(folder / file);
  }
  return all;
}

// The step of the newest checkpoint.
int64_t step_of(const fs::path& out) {
  const auto newest = train::latest_checkpoint(out);
  return newest ? std::stoll(newest->filename().string().substr(5)) : 0;
}

TEST(Kill, ARunKilledAgainAndAgainEndsInTheSameBits) {
  const test::TempDir dir;
  std::ofstream(dir / "text.txt") << [] {
    std::string text;
    for (int i = 0; i < 400; ++i)
      text += fmt::format("line {} of the text that a small model learns by heart.\n", i * i);
    return text;
  }();
  const auto train = [&](const std::string& out, int64_t steps) {
    return Args{"train",
                "--text",
                (dir / "text.txt").string(),
                "--validation-text",
                (dir / "text.txt").string(),
                "--out",
                (dir / out).string(),
                "--layers",
                "1",
                "--width",
                "32",
                "--heads",
                "2",
                "--length",
                "24",
                "--batch",
                "2",
                "--steps",
                std::to_string(steps),
                "--warmup-steps",
                "2",
                "--checkpoint-interval",
                "25",
                "--log-interval",
                "10",
                "--validation-interval",
                "40",
                "--validation-windows",
                "4",
                "--positions",
                "random",
                "--target-length",
                "64",
                "--seed",
                "3",
                "--resume"};
  };
  // The run must not finish before the last kill. All kills lie in the first nine tenths of the steps, at about 40
  // steps per kill, which is what a fast machine trains in the time allowed for one.
  const int64_t kills = wanted_kills(), steps = 44 * kills, last_kill = 40 * kills;
  const auto started = Clock::now();
  const test::Outcome alone = test::run_program(dir.path(), train("undisturbed", steps));
  ASSERT_EQ(alone.code, 0) << alone.err;
  const double whole = std::chrono::duration<double>(Clock::now() - started).count();
  Rng rng(11);
  int64_t killed = 0, cut_short = 0, while_training = 0;
  for (; killed < kills; ++killed) {
    test::Program program(dir.path(), train("killed", steps));
    // Kills the run at a random time after its start, or soon after it has trained its share of the steps up to the
    // last kill.
    const auto in = [&](double seconds) { return Clock::now() + std::chrono::duration<double>(seconds); };
    auto deadline = in(rng.uniform() * (0.1 + 3 * whole / static_cast<double>(kills)));
    bool ahead = false;
    while (!program.ended() && Clock::now() < deadline) {
      if (!ahead && step_of(dir / "killed") > last_kill * (killed + 1) / (kills + 1)) {
        ahead = true;
        deadline = in(rng.uniform() * 0.02);
      }
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    ASSERT_FALSE(program.ended()) << killed << " kills: " << program.wait().err;
    program.kill_now();
    const test::Outcome outcome = program.wait();
    ASSERT_EQ(outcome.code, 1000 + SIGKILL) << outcome.err;
    while_training += outcome.err.find("steps") != std::string::npos;
    for (const char* folder : {"killed", "killed/checkpoints"})
      if (fs::exists(dir / folder))
        for (const auto& entry : fs::directory_iterator(dir / folder))
          cut_short += entry.path().filename().string().starts_with(".tmp-");
  }
  EXPECT_LT(step_of(dir / "killed"), steps);
  const test::Outcome last = test::run_program(dir.path(), train("killed", steps));
  ASSERT_EQ(last.code, 0) << last.err;
  RecordProperty("kills", std::to_string(killed));
  RecordProperty("killed_after_its_first_line", std::to_string(while_training));
  RecordProperty("killed_while_saving", std::to_string(cut_short));
  EXPECT_TRUE(bytes_of_run(dir / "killed") == bytes_of_run(dir / "undisturbed"));
  EXPECT_EQ(test::metrics_without_times(dir / "killed"), test::metrics_without_times(dir / "undisturbed"));
  for (const char* folder : {"killed", "killed/checkpoints", "killed/data"})
    for (const auto& entry : fs::directory_iterator(dir / folder))
      EXPECT_FALSE(entry.path().filename().string().starts_with(".tmp-")) << entry.path();
}

}  // namespace
}  // namespace coca::kill_test
