// Ranks on separate hosts, simulated by network namespaces that are joined by a switch with low bandwidth and some
// delay (tests/net), and what happens if a host is cut off or a rank on it dies.
// SPDX-License-Identifier: Apache-2.0
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <chrono>
#include <fstream>
#include <thread>

#include "coca/dist/mpi.h"
#include "coca/train/checkpoint.h"
#include "e2e/program.h"
#include "support/paths.h"
#include "train/tiny_run.h"

namespace coca::hosts_test {
namespace {

namespace fs = std::filesystem;
using Args = std::vector<std::string>;
using testing::HasSubstr;

constexpr const char* kTimeout = "15";  // seconds; longer than any delay of a rank on a busy machine

struct Network {
  int hosts = 2;
  double mbit = 1000, delay_ms = 0;
};

class Hosts : public testing::Test {
 protected:
  void SetUp() override {
    if (!dist::mpi_built()) GTEST_SKIP() << "built without MPI";
    if (std::system("mpirun --version > /dev/null 2>&1") != 0) GTEST_SKIP() << "mpirun is not installed";
    setenv("COCA_DIST_TIMEOUT", kTimeout, 1);
    ASSERT_EQ(mkfifo((dir_ / "control").c_str(), 0600), 0);
    std::ofstream file(dir_ / "text.txt");
    for (int i = 0; i < 300; ++i) file << "line " << i * i << " of the text that a small model learns by heart.\n";
    const test::Outcome probe = test::Program(dir_.path(), {"--version"}, hosts({.hosts = 1})).wait();
    if (probe.code == 77) GTEST_SKIP() << "this machine allows no network namespaces: " << probe.err;
    ASSERT_EQ(probe.code, 0) << probe.err;
  }

  Args hosts(const Network& n) const {
    return {COCA_HOSTS,
            "--wire",
            COCA_WIRE,
            "--hosts",
            std::to_string(n.hosts),
            "--mbit",
            std::to_string(n.mbit),
            "--delay-ms",
            std::to_string(n.delay_ms),
            "--control",
            (dir_ / "control").string(),
            "--"};
  }
  Args train(const std::string& out, int64_t steps) const {
    return {"train",
            "--text",
            (dir_ / "text.txt").string(),
            "--out",
            (dir_ / out).string(),
            "--layers",
            "2",
            "--width",
            "64",
            "--heads",
            "2",
            "--length",
            "24",
            "--batch",
            "6",
            "--slices",
            "6",
            "--steps",
            std::to_string(steps),
            "--warmup-steps",
            "2",
            "--checkpoint-interval",
            "20",
            "--log-interval",
            "10",
            "--resume"};
  }
  test::Outcome run(const Args& args, const Args& launcher = {}) const {
    return test::Program(dir_.path(), args, launcher).wait();
  }
  std::string model_of(const std::string& out) const {
    return io::read_file(dir_ / out / "model" / "model.safetensors");
  }
  int64_t step_of(const std::string& out) const {
    const auto newest = train::latest_checkpoint(dir_ / out);
    return newest ? std::stoll(newest->filename().string().substr(5)) : 0;
  }

  // Trains until step 40, sends the order and checks how the job ends, then resumes as one process.
  test::Outcome broken_by(const std::string& order) {
    EXPECT_EQ(run(train("whole", 120)).code, 0);
    test::Program program(dir_.path(), train("broken", 120), hosts({.hosts = 2, .mbit = 50}));
    while (!program.ended() && step_of("broken") < 40) std::this_thread::sleep_for(std::chrono::milliseconds(5));
    if (program.ended()) {
      ADD_FAILURE() << "over before it was broken: " << program.wait().err;
      return {};
    }
    std::fstream(dir_ / "control", std::ios::in | std::ios::out)
        << order << std::endl;  // opened for reading too, so that opening does not block
    const auto start = std::chrono::steady_clock::now(), limit = start + std::chrono::seconds(120);
    while (!program.ended() && std::chrono::steady_clock::now() < limit)
      std::this_thread::sleep_for(std::chrono::milliseconds(20));
    EXPECT_TRUE(program.ended()) << "the job hangs";
    if (!program.ended()) program.kill_now();
    const test::Outcome outcome = program.wait();
    EXPECT_NE(outcome.code, 0);
    EXPECT_LT(step_of("broken"), 120);
    const test::Outcome resumed = run(train("broken", 120));
    EXPECT_EQ(resumed.code, 0) << resumed.err;
    EXPECT_TRUE(model_of("broken") == model_of("whole"));
    return outcome;
  }

  test::TempDir dir_;
};

TEST_F(Hosts, TrainTheSameModelOverASlowNetwork) {
  ASSERT_EQ(run(train("one", 30)).code, 0);
  const Network slow{.hosts = 3, .mbit = 40, .delay_ms = 2};
  const auto start = std::chrono::steady_clock::now();
  const test::Outcome three = run(train("three", 30), hosts(slow));
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  ASSERT_EQ(three.code, 0) << three.err;
  EXPECT_TRUE(model_of("one") == model_of("three"));
  EXPECT_EQ(test::metrics_without_times(dir_ / "one"), test::metrics_without_times(dir_ / "three"));
  // Each of the two slices of a rank sends 2/3 of the gradients, and 2/3 of the parameters are received. The time shows
  // that the network is as slow as requested.
  const auto bytes = static_cast<double>(fs::file_size(dir_ / "one" / "model" / "model.safetensors"));
  EXPECT_GT(seconds, 30 * (2 * 2.0 / 3 + 2.0 / 3) * bytes * 8 / (slow.mbit * 1e6));
}

TEST_F(Hosts, AHostThatIsCutOffEndsTheJob) {
  const test::Outcome outcome = broken_by("cut");
  EXPECT_THAT(outcome.err,
              HasSubstr(fmt::format(
                  "[dist] rank 0 has waited {} s for rank 1: it has died, hangs, or cannot be reached", kTimeout)));
}

TEST_F(Hosts, ARankThatDiesOnAnotherHostEndsTheJob) {
  const test::Outcome outcome = broken_by("kill");
  EXPECT_THAT(outcome.out + outcome.err, HasSubstr("10.77.0.2"));
  EXPECT_THAT(outcome.out + outcome.err, HasSubstr("signal 9"));
}

}  // namespace
}  // namespace coca::hosts_test
