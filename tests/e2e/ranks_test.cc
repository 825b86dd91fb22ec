// The program under mpirun: training and evaluation by several processes, and what happens to the job if one of them
// dies.
// SPDX-License-Identifier: Apache-2.0
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <cmath>
#include <fstream>
#include <functional>
#include <map>
#include <thread>

#include "coca/base/count.h"
#include "coca/dist/mpi.h"
#include "coca/io/json_file.h"
#include "coca/train/checkpoint.h"
#include "coca/train/metrics.h"
#include "e2e/program.h"
#include "support/paths.h"
#include "train/tiny_run.h"

namespace coca::ranks_test {
namespace {

namespace fs = std::filesystem;
using Args = std::vector<std::string>;
using testing::HasSubstr;
using testing::Not;

class Ranks : public testing::Test {
 protected:
  void SetUp() override {
    if (!dist::mpi_built()) GTEST_SKIP() << "built without MPI";
    if (std::system("mpirun --version > /dev/null 2>&1") != 0) GTEST_SKIP() << "mpirun is not installed";
    std::ofstream file(dir_ / "text.txt");
    for (int i = 0; i < 300; ++i) file << "line " << i * i << " of the text that a small model learns by heart.\n";
  }

  static Args mpirun(int ranks) {
    return {"mpirun", "--allow-run-as-root", "--oversubscribe", "-n", std::to_string(ranks)};
  }

  Args train(const std::string& out, int64_t steps) const {
    const std::string text = (dir_ / "text.txt").string();
    return {"train",
            "--text",
            text,
            "--validation-text",
            text,
            "--out",
            (dir_ / out).string(),
            "--layers",
            "2",
            "--width",
            "32",
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
            "--validation-interval",
            "40",
            "--validation-windows",
            "7",
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
  void wait_for_step(test::Program& program, const std::string& out, int64_t step) const {
    while (!program.ended() && step_of(out) < step) std::this_thread::sleep_for(std::chrono::milliseconds(5));
    ASSERT_FALSE(program.ended()) << program.wait().err;
  }
  // The program's processes below the launcher.
  static std::vector<pid_t> ranks_below(pid_t launcher) {
    std::vector<pid_t> found;
    for (const auto& entry : fs::directory_iterator("/proc")) {
      const std::string pid = entry.path().filename().string();
      if (pid.find_first_not_of("0123456789") != std::string::npos) continue;
      std::ifstream stat(entry.path() / "stat");
      std::string id, name, state, parent;
      stat >> id >> name >> state >> parent;
      if (name == "(coca)" && parent == std::to_string(launcher)) found.push_back(std::stoi(pid));
    }
    return found;
  }

  test::TempDir dir_;
};

TEST_F(Ranks, TrainTheSameModelAsOneProcess) {
  const test::Outcome one = run(train("one", 60));
  ASSERT_EQ(one.code, 0) << one.err;
  const test::Outcome three = run(train("three", 60), mpirun(3));
  ASSERT_EQ(three.code, 0) << three.err;
  EXPECT_TRUE(model_of("one") == model_of("three"));
  EXPECT_EQ(test::metrics_without_times(dir_ / "one"), test::metrics_without_times(dir_ / "three"));
  EXPECT_THAT(three.out, HasSubstr("3 ranks"));
  const size_t once = three.out.find("final loss");
  EXPECT_EQ(three.out.find("final loss", once + 1), std::string::npos) << "said more than once: " << three.out;
}

TEST_F(Ranks, EvaluateAsOneProcess) {
  ASSERT_EQ(run(train("run", 40)).code, 0);
  const std::string text = (dir_ / "text.txt").string();
  const std::map<std::string, Args> tasks = {
      {"ppl", {"--text", text, "--lengths", "24,48,200", "--stride", "24", "--batch-tokens", "960"}},
      {"passkey",
       {"--wording", "compact", "--lengths", "100,130", "--trials", "3", "--depths", "0,0.5,1", "--batch-tokens",
        "128"}},
      {"ruler",
       {"--tasks", "vt,niah_single_1", "--lengths", "1100", "--samples", "4", "--predictions",
        (dir_ / "said.jsonl").string()}}};
  for (const auto& [task, flags] : tasks) {
    std::vector<std::string> results;
    for (const Args& launcher : {Args{}, mpirun(3)}) {
      Args args = {"eval", task, "--model", (dir_ / "run/model").string(), "--json", (dir_ / "out.json").string()};
      args.insert(args.end(), flags.begin(), flags.end());
      const test::Outcome outcome = run(args, launcher);
      ASSERT_EQ(outcome.code, 0) << task << outcome.err;
      auto json = io::read_json(dir_ / "out.json");
      std::function<void(nlohmann::json&)> drop_times = [&](nlohmann::json& j) {
        for (const char* key : {"seconds", "tokens_per_second", "peak_resident_bytes"})
          if (j.is_object()) j.erase(key);
        for (auto& item : j)
          if (item.is_structured()) drop_times(item);
      };
      drop_times(json);
      results.push_back(json.dump() + (task == "ruler" ? io::read_file(dir_ / "said.jsonl") : ""));
    }
    EXPECT_EQ(results[0], results[1]) << task;
  }
}

// Windows of 48 tokens are split, windows of 5 are run whole: four ranks need eight chunks.
TEST_F(Ranks, SplitWindowsHaveTheSamePerplexity) {
  for (const char* kind : {"rope", "coca-slack"}) {
    Args args = train(kind, 20);
    args.insert(args.end(), {"--attention", kind});
    ASSERT_EQ(run(args).code, 0);
    const auto eval = [&](const char* json) {
      return Args{"eval",
                  "ppl",
                  "--model",
                  (dir_ / kind / "model").string(),
                  "--text",
                  (dir_ / "text.txt").string(),
                  "--lengths",
                  "5,48,1000",
                  "--max-tokens",
                  "1500",
                  "--context-parallel",
                  "true",
                  "--json",
                  (dir_ / json).string()};
    };
    const test::Outcome one = run(eval("one.json")), four = run(eval("four.json"), mpirun(4));
    ASSERT_EQ(one.code, 0) << one.err;
    ASSERT_EQ(four.code, 0) << four.err;
    const auto a = io::read_json(dir_ / "one.json")["results"], b = io::read_json(dir_ / "four.json")["results"];
    ASSERT_EQ(a.size(), 3u);
    for (size_t i = 0; i < a.size(); ++i) {
      EXPECT_EQ(a[i]["scored_tokens"], b[i]["scored_tokens"]);
      EXPECT_NEAR(a[i]["nll"].get<double>(), b[i]["nll"].get<double>(), 1e-5);  // roundings, as for one token
    }
  }
}

TEST_F(Ranks, TrainWithTheTokensOfEveryWindowSplit) {
  const auto shared = [&](const std::string& out) {
    Args args = train(out, 40);
    args.insert(args.end(), {"--slices", "0", "--context-parallel", "true"});
    return args;
  };
  ASSERT_EQ(run(shared("one")).code, 0);
  const test::Outcome two = run(shared("two"), mpirun(2));
  ASSERT_EQ(two.code, 0) << two.err;
  const auto a = train::read_metrics(dir_ / "one" / "metrics.csv"),
             b = train::read_metrics(dir_ / "two" / "metrics.csv");
  ASSERT_EQ(a.size(), b.size());
  for (size_t i = 0; i < a.size(); ++i) EXPECT_NEAR(a[i].loss, b[i].loss, 1e-3);  // roundings, through 40 steps of Adam
}

TEST_F(Ranks, ARankThatDiesEndsTheJobAndTheRunResumesFromItsCheckpoint) {
  ASSERT_EQ(run(train("whole", 200)).code, 0);
  test::Program program(dir_.path(), train("killed", 200), mpirun(3));
  wait_for_step(program, "killed", 40);
  const std::vector<pid_t> ranks = ranks_below(program.pid());
  ASSERT_EQ(ranks.size(), 3u);
  kill(ranks[1], SIGKILL);
  const test::Outcome outcome = program.wait();
  EXPECT_NE(outcome.code, 0);
  EXPECT_THAT(outcome.out + outcome.err, HasSubstr("signal 9"));  // mpirun names the rank, its host and the signal
  EXPECT_GE(step_of("killed"), 40);
  EXPECT_LT(step_of("killed"), 200);
  const test::Outcome resumed = run(train("killed", 200), mpirun(2));
  ASSERT_EQ(resumed.code, 0) << resumed.err;
  EXPECT_TRUE(model_of("killed") == model_of("whole"));
  EXPECT_EQ(test::metrics_without_times(dir_ / "killed"), test::metrics_without_times(dir_ / "whole"));
}

TEST_F(Ranks, TermToOneRankSavesTheRun) {
  test::Program program(dir_.path(), train("stopped", 4000), mpirun(3));
  wait_for_step(program, "stopped", 20);
  const std::vector<pid_t> ranks = ranks_below(program.pid());
  ASSERT_EQ(ranks.size(), 3u);
  kill(ranks[2], SIGTERM);
  const test::Outcome outcome = program.wait();
  EXPECT_EQ(outcome.code, 130) << outcome.err;
  EXPECT_THAT(outcome.err, HasSubstr(fmt::format("stopped at step {} of 4,000", grouped(step_of("stopped")))));
  EXPECT_LT(step_of("stopped"), 4000);  // often a multiple of 20: a signal during a save is heard right after it
}

// One program per rank: "mpirun ... A : ... B". If `folders` are given, each rank runs in its own.
class UnequalRanks : public Ranks {
 protected:
  void SetUp() override {
    Ranks::SetUp();
    if (IsSkipped()) return;
    ASSERT_EQ(run(train("a", 4)).code, 0);
    Args other = train("b", 4);
    other.insert(other.end(), {"--seed", "5"});
    ASSERT_EQ(run(other).code, 0);
  }
  test::Outcome run_two(const Args& first, const Args& second, const std::vector<fs::path>& folders = {}) {
    const auto place = [&](size_t i) { return folders.empty() ? Args{} : Args{"--wdir", folders[i].string()}; };
    Args launcher = mpirun(1);
    const Args before = place(0), after = place(1);
    launcher.insert(launcher.end(), before.begin(), before.end());
    Args args = first;
    args.insert(args.end(), {":", "-n", "1"});
    args.insert(args.end(), after.begin(), after.end());
    args.insert(args.end(), {COCA_PROGRAM, "--threads", "1"});
    args.insert(args.end(), second.begin(), second.end());
    return run(args, launcher);
  }
  // One message that contains all of these texts, no result, and no waiting for the time limit.
  void expect_refused(const test::Outcome& o, const std::vector<std::string>& says) {
    EXPECT_NE(o.code, 0) << o.out;
    for (const std::string& text : says) EXPECT_THAT(o.err, HasSubstr(text));
    const size_t once = o.err.find("coca: ");
    EXPECT_EQ(o.err.find("coca: ", once + 1), std::string::npos) << o.err;
    EXPECT_FALSE(fs::exists(dir_ / "o.json"));
    EXPECT_EQ(o.out.find("ppl"), std::string::npos) << o.out;
  }
  Args ppl(const std::string& model, const Args& more = {}) const {
    Args args = {"eval",         "ppl",
                 "--model",      (dir_ / model / "model").string(),
                 "--text",       (dir_ / "text.txt").string(),
                 "--max-tokens", "100",
                 "--lengths",    "32",
                 "--json",       (dir_ / "o.json").string()};
    args.insert(args.end(), more.begin(), more.end());
    return args;
  }
};

TEST_F(UnequalRanks, OptionsAndCommandsAreCompared) {
  expect_refused(run_two(ppl("a"), ppl("b")), {"--model is \"" + (dir_ / "a/model").string() + "\" on rank 0 and \"" +
                                               (dir_ / "b/model").string() + "\" on rank 1"});
  expect_refused(run_two(ppl("a"), ppl("a", {"--stride", "8"})), {"--stride is not given on rank 0 and 8 on rank 1"});
  expect_refused(run_two(ppl("a"), ppl("a", {"--lengths", "48,64"})),
                 {"--lengths is 32 on rank 0 and 32,48,64 on rank 1"});
  expect_refused(run_two(train("c", 6), train("c", 5)), {"--steps is 6 on rank 0 and 5 on rank 1"});
  expect_refused(run_two(train("c", 6), ppl("a")), {"the command is train on rank 0 and eval ppl on rank 1"});
  EXPECT_FALSE(fs::exists(dir_ / "c"));
  const std::string model = (dir_ / "a/model").string(), text = (dir_ / "text.txt").string();
  const auto tune = [&](const char* batch) {
    return Args{"finetune", "--model", model,     "--text", text,    "--length",           "24",
                "--batch",  batch,     "--steps", "2",      "--out", (dir_ / "t").string()};
  };
  expect_refused(run_two(tune("2"), tune("4")), {"--batch is 2 on rank 0 and 4 on rank 1"});
  for (const Args& task :
       {Args{"eval", "passkey", "--lengths", "100"}, {"eval", "ruler", "--lengths", "1100"}, {"eval", "mlm"}}) {
    Args first = task, second = task;
    first.insert(first.end(), {"--model", model, "--seed", "1"});
    second.insert(second.end(), {"--model", model, "--seed", "2"});
    expect_refused(run_two(first, second), {"--seed is 1 on rank 0 and 2 on rank 1"});
  }
}

// The same command line in two folders whose files differ.
TEST_F(UnequalRanks, FilesAreComparedByTheirContent) {
  const std::vector<fs::path> folders = {dir_ / "first", dir_ / "second"};
  for (const fs::path& folder : folders) {
    fs::create_directories(folder);
    fs::copy(dir_ / "a/model", folder / "model", fs::copy_options::recursive);
    fs::copy(dir_ / "text.txt", folder / "text.txt");
  }
  const Args eval = {"eval", "ppl", "--model", "model", "--text", "text.txt", "--max-tokens", "100", "--lengths", "32"};
  const test::Outcome equal = run_two(eval, eval, folders);
  EXPECT_EQ(equal.code, 0) << equal.err;
  const std::string text = io::read_file(dir_ / "text.txt");
  std::ofstream(folders[1] / "text.txt") << text.substr(0, text.size() - 2) << "!\n";
  expect_refused(run_two(eval, eval, folders), {"--text: text.txt is ", "on rank 1"});
  fs::remove(folders[1] / "text.txt");
  expect_refused(run_two(eval, eval, folders), {"rank 1: ", "text.txt"});
  std::ofstream(folders[1] / "text.txt") << text;
  fs::copy(dir_ / "b/model/model.safetensors", folders[1] / "model/model.safetensors",
           fs::copy_options::overwrite_existing);
  expect_refused(run_two(eval, eval, folders), {"--model: model/model.safetensors is "});
  fs::remove(folders[1] / "model/model.safetensors");
  expect_refused(run_two(eval, eval, folders),
                 {"rank 0 has --model: model/model.safetensors", "which rank 1 does not have"});
}

// Ranks that write to separate folders: the same command line in two folders, as on two machines without a shared file
// system.
TEST_F(UnequalRanks, AnOutThatIsNotSharedIsRefusedAtOnce) {
  const std::vector<fs::path> folders = {dir_ / "first", dir_ / "second"};
  for (const fs::path& folder : folders) fs::create_directories(folder);
  const std::string model = (dir_ / "a/model").string(), text = (dir_ / "text.txt").string();
  Args fresh = {"train", "--text",  text, "--out",          "new/out", "--layers", "1", "--width",
                "32",    "--heads", "2",  "--length",       "24",      "--batch",  "2", "--slices",
                "2",     "--steps", "4",  "--warmup-steps", "2"};
  Args resumed = fresh;
  resumed.emplace_back("--resume");
  const Args tuned = {"finetune", "--model",  model, "--text",  text, "--length", "24",     "--batch",
                      "2",        "--slices", "2",   "--steps", "2",  "--out",    "new/out"};
  const auto refuse_all = [&] {
    for (const Args& args : {fresh, resumed, tuned})
      expect_refused(run_two(args, args, folders),
                     {"rank 1: its --out, " + (folders[1] / "new/out").string() + " on ",
                      "is not the folder that rank 0 writes to, " + (folders[0] / "new/out").string() + " on ",
                      "one folder that all ranks share"});
  };
  refuse_all();
  for (const fs::path& folder : folders) EXPECT_TRUE(io::list_folder(folder).empty());
  // A run that only rank 0 can see is not resumed.
  fs::create_directories(folders[0] / "new");
  fs::copy(dir_ / "a", folders[0] / "new/out", fs::copy_options::recursive);
  const std::vector<fs::path> before = io::list_folder(folders[0] / "new/out");
  refuse_all();
  EXPECT_EQ(io::list_folder(folders[0] / "new/out"), before);
  EXPECT_TRUE(io::list_folder(folders[1]).empty());
  // One folder with two names counts as shared.
  fs::create_directory_symlink(folders[0] / "new", folders[1] / "new");
  fs::remove_all(folders[0] / "new/out");
  const test::Outcome shared = run_two(fresh, fresh, folders);
  EXPECT_EQ(shared.code, 0) << shared.err;
  for (const fs::path& path : io::list_folder(folders[0] / "new/out"))
    EXPECT_FALSE(path.filename().string().starts_with(".tmp-")) << path;
}

TEST_F(Ranks, MistakesAreSaidOnce) {
  const test::Outcome info = run({"info"}, mpirun(2));
  EXPECT_NE(info.code, 0);
  EXPECT_THAT(info.err, HasSubstr("coca info runs as one process; here are 2 ranks"));
  Args args = train("wrong", 10);
  args.insert(args.end(), {"--batch", "5"});
  const test::Outcome wrong = run(args, mpirun(2));
  EXPECT_NE(wrong.code, 0);
  EXPECT_THAT(wrong.err, HasSubstr("slices is 6"));
  EXPECT_EQ(wrong.err.find("slices is 6", wrong.err.find("slices is 6") + 1), std::string::npos) << wrong.err;
}

}  // namespace
}  // namespace coca::ranks_test
