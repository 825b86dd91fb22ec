// Runs that stop and continue: signals, checkpoints, --resume, and two processes in one folder.
// SPDX-License-Identifier: Apache-2.0
#include <chrono>
#include <nlohmann/json.hpp>
#include <thread>

#include "coca/base/count.h"
#include "coca/io/json_file.h"
#include "coca/train/checkpoint.h"
#include "coca/train/metrics.h"
#include "e2e/cli_fixture.h"

namespace coca::runs_test {
namespace {

namespace fs = std::filesystem;
using test::Args;
using test::Outcome;
using testing::HasSubstr;

using Runs = test::CliFixture;

TEST_F(Runs, AUsedFolderNeedsResume) {
  ASSERT_EQ(coca(tiny_train("run")).code, 0);
  expect_refused(tiny_train("run"), 2, "already holds a training run");
  const Outcome again = coca(tiny_train("run", {"--resume"}));  // nothing left to do
  EXPECT_EQ(again.code, 0) << again.err;
  EXPECT_THAT(again.out, HasSubstr("run is already complete: all 30 steps are done"));
  expect_refused(tiny_train("run", {"--resume", "--attention", "rope"}), 2,
                 "--attention is \"rope\"; the run that is resumed has \"coca-slack\"");
}

TEST_F(Runs, ResumeAloneTakesTheSavedOptions) {
  const Outcome fresh = coca(tiny_train("run", {"--resume"}));
  ASSERT_EQ(fresh.code, 0) << fresh.err;
  EXPECT_THAT(fresh.err, HasSubstr("no run in"));
  const Args alone = {"train", "--resume", "--out", at("run")};
  const Outcome again = coca(alone);
  EXPECT_EQ(again.code, 0) << again.err;
  EXPECT_THAT(again.out, HasSubstr("run is already complete: all 30 steps are done"));
  const Outcome longer = coca(
      with(alone, {"--steps", "32", "--learning-rate", "0.001", "--log-interval", "1", "--tensorboard", at("events")}));
  EXPECT_EQ(longer.code, 0) << longer.err;
  EXPECT_EQ(train::read_metrics(at("run/metrics.csv")).back().step, 32);
  EXPECT_FALSE(fs::is_empty(at("events")));
  EXPECT_EQ(io::read_json(at("run/train_config.json"))["steps"], 32);
  expect_refused(with(alone, {"--kv-heads", "1"}), 2, "--kv-heads is 1; the run that is resumed has 0");
  expect_refused(with(alone, {"--batch", "3"}), 2, "--batch is 3; the run that is resumed has");
  expect_refused(with(alone, {"--seed", "8"}), 2, "--seed is 8");
  fs::remove_all(at("run/checkpoints"));
  expect_refused(alone, 2, "no checkpoint to resume from");
}

// No text, no tokenizer: the accuracies are in the metrics, the table and the report, and the model reads numbers.
TEST_F(Runs, TasksNeedNoText) {
  const Args train = {"train",   "--task",         "mqar,needle", "--task-digits",  "2",  "--out",
                      at("run"), "--layers",       "1",           "--width",        "16", "--heads",
                      "2",       "--length",       "32",          "--batch",        "2",  "--steps",
                      "6",       "--warmup-steps", "2",           "--task-windows", "2",  "--validation-interval",
                      "4"};
  const Outcome planned = coca(with(train, {"--dry-run"}));
  EXPECT_EQ(planned.code, 0) << planned.err;
  EXPECT_THAT(planned.out, testing::ContainsRegex("tasks +1,792"));  // 2 tasks of 2 windows of 32, 64 and 128, twice
  EXPECT_FALSE(fs::exists(at("run")));
  const Outcome run = coca(train);
  ASSERT_EQ(run.code, 0) << run.err;
  EXPECT_THAT(run.out, testing::AllOf(HasSubstr("tasks mqar, needle"), HasSubstr("90 % at step")));
  const auto rows = train::read_metrics(at("run/metrics.csv"));
  EXPECT_EQ(rows.back().step, 6);
  EXPECT_EQ(rows.back().tasks.size(), 12U);
  EXPECT_THAT(io::read_file(at("run/tasks.html")), HasSubstr("needle"));
  const Outcome again = coca({"train", "--resume", "--out", at("run")});
  EXPECT_EQ(again.code, 0) << again.err;
  EXPECT_THAT(again.out, HasSubstr("90 % at step"));
  const Outcome said = coca({"generate", "--model", at("run/model"), "--prompt", "17 203 4", "--max-new-tokens", "3"});
  EXPECT_EQ(said.code, 0) << said.err;
  EXPECT_THAT(said.out, testing::ContainsRegex("[0-9]+ [0-9]+ [0-9]+"));
  expect_refused({"generate", "--model", at("run/model"), "--prompt", "a word"}, 2, "numbers from 0 to 255");
  expect_refused(with(train, {"--out", at("other"), "--task-pairs", "9"}), 2,
                 "task mqar: a window of 32 tokens has no room");
  EXPECT_FALSE(fs::exists(at("other")));
}

// A quarter of the windows of a text.
TEST_F(Runs, TasksAreMixedWithText) {
  const Outcome run = coca(tiny_train("run", {"--task", "copying", "--steps", "4", "--validation-text", text_file(),
                                              "--task-windows", "2", "--task-multiples", "1,3"}));
  ASSERT_EQ(run.code, 0) << run.err;
  const auto rows = train::read_metrics(at("run/metrics.csv"));
  EXPECT_TRUE(rows.back().validation_loss > 0);
  EXPECT_TRUE(rows.back().tasks.contains("copying_72_whole"));
  EXPECT_EQ(rows.back().tasks.size(), 4U);
}

// Waits until the run in `folder` has written two rows of metrics or has ended.
void wait_for_training(test::Program& program, const std::string& folder) {
  const fs::path metrics = folder + "/metrics.csv";
  const auto trained = [&] {
    return fs::exists(metrics) && fs::file_size(metrics) > 0 && train::read_metrics(metrics).size() >= 2;
  };
  for (int i = 0; i < 6000 && !program.ended() && !trained(); ++i)
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  ASSERT_FALSE(program.ended()) << program.wait().err;
}

// oneDNN's products break if a signal handler runs on their stack (docs/decisions/007), so all threads but one must
// block the signals that the program handles.
TEST_F(Runs, ThreadsThatComputeBlockSignals) {
  Args endless = tiny_train("run");
  *std::ranges::find(endless, "30") = "1000000";
  test::Program program(dir_.path(), endless);
  wait_for_training(program, at("run"));
  const uint64_t handled = (1u << (SIGINT - 1)) | (1u << (SIGTERM - 1));
  int open = 0, blocked = 0;
  for (const auto& thread : fs::directory_iterator(fmt::format("/proc/{}/task", program.pid()))) {
    const std::string status = io::read_file(thread.path() / "status");
    const auto field = [&](const char* name) { return std::stoull(status.substr(status.find(name) + 8), nullptr, 16); };
    const bool catches = (field("SigCgt:") & handled) != 0 && (field("SigBlk:") & handled) != handled;
    ++(catches ? open : blocked);
  }
  EXPECT_EQ(open, 0);
  EXPECT_GE(blocked, 1);
}

TEST_F(Runs, AnInterruptedRunResumes) {
  Args endless = tiny_train("run");
  const auto steps = std::ranges::find(endless, "30");
  *steps = "1000000";
  test::Program program(dir_.path(), endless);
  const fs::path metrics = at("run") + "/metrics.csv";
  wait_for_training(program, at("run"));
  program.interrupt();
  const Outcome stopped = program.wait();
  EXPECT_EQ(stopped.code, 130) << stopped.err;
  const auto checkpoint = train::latest_checkpoint(at("run"));
  ASSERT_TRUE(checkpoint);
  const int64_t done = io::read_json(*checkpoint / "train_state.json")["step"];
  const auto saved = [&](int64_t step, const std::string& model) {
    return HasSubstr(
        fmt::format("stopped at step {} of 1,000,000, which is saved in {}; {} {}; to continue, run the command with "
                    "--resume\n",
                    grouped(step), train::latest_checkpoint(at("run"))->string(), at("run/model"), model));
  };
  EXPECT_THAT(stopped.err, saved(done, "is written at the end"));
  EXPECT_GE(done, 2);
  *steps = std::to_string(done + 3);
  endless.push_back("--resume");
  const Outcome resumed = coca(endless);
  EXPECT_EQ(resumed.code, 0) << resumed.err;
  EXPECT_THAT(resumed.out, HasSubstr("resuming at step " + std::to_string(done)));
  const auto rows = train::read_metrics(metrics);
  ASSERT_EQ(static_cast<int64_t>(rows.size()), done + 3);  // one row per step, without duplicates
  for (size_t i = 0; i < rows.size(); ++i) EXPECT_EQ(rows[i].step, static_cast<int64_t>(i) + 1);

  // Checks what an extended run leaves in its model folder.
  test::Program longer(dir_.path(), {"train", "--out", at("run"), "--resume", "--steps", "1000000"});
  while (static_cast<int64_t>(train::read_metrics(metrics).size()) < done + 4 && !longer.ended()) usleep(1000);
  longer.interrupt();
  const std::string again = longer.wait().err;
  const int64_t last = io::read_json(*train::latest_checkpoint(at("run")) / "train_state.json")["step"];
  EXPECT_THAT(again, saved(last, fmt::format("is still that of step {}", grouped(done + 3))));
  const Outcome refused = coca({"train", "--out", at("run"), "--resume", "--steps", "2"});
  EXPECT_EQ(refused.code, 2);
  EXPECT_THAT(refused.err,
              testing::AllOf(HasSubstr("beyond the 2 steps asked for"), testing::Not(HasSubstr("warning"))));
  EXPECT_EQ(coca({"train", "--out", at("run"), "--resume", "--steps", "2", "--dry-run"}).err, refused.err);
}

TEST_F(Runs, AGenerationThatIsStoppedSaysSo) {
  ASSERT_EQ(coca(tiny_train("run")).code, 0);
  test::Program program(dir_.path(),
                        {"generate", "--model", at("run/model"), "--prompt", "a", "--ignore-eos", "--max-new-tokens",
                         "100000000", "--pattern", "streaming-llm", "--sinks", "2", "--window", "8"});
  while (fs::file_size(at("stdout.txt")) < 10 && !program.ended()) usleep(1000);
  program.interrupt();
  const Outcome stopped = program.wait();
  EXPECT_EQ(stopped.code, 130) << stopped.err;
  EXPECT_THAT(stopped.err, testing::ContainsRegex("coca: stopped after [0-9,]+ tokens\n"));
}

TEST_F(Runs, ResumeTakesTheOptionsOfTheCheckpointItUses) {
  const Args twenty = tiny_train("run", {"--steps", "20", "--checkpoint-interval", "10", "--weight-decay", "0.3"});
  ASSERT_EQ(coca(twenty).code, 0);
  const std::string file = "checkpoints/step-00000020/train_config.json";
  const std::string whole = io::read_file(at("run/" + file)),
                    weights = io::read_file(at("run/model/model.safetensors"));
  nlohmann::ordered_json options = nlohmann::ordered_json::parse(whole);
  options.erase("learning_rate");
  options.erase("weight_decay");
  for (const std::string& damaged : {options.dump(), std::string("{}"), std::string(), std::string("[]"),
                                     std::string("null"), whole.substr(0, 99), whole + " ", std::string("missing")}) {
    fs::remove_all(at("copy"));
    fs::copy(at("run"), at("copy"), fs::copy_options::recursive);
    fs::remove_all(at("copy/model"));
    if (damaged == "missing")
      fs::remove(at("copy/" + file));
    else
      put("copy/" + file, damaged);
    const Outcome resumed = coca({"train", "--out", at("copy"), "--resume"});
    EXPECT_EQ(resumed.code, 0) << damaged << resumed.err;
    EXPECT_THAT(resumed.out, HasSubstr("resuming at step 10")) << damaged;
    EXPECT_THAT(resumed.err, HasSubstr("step-00000020 is damaged: ")) << damaged;
    EXPECT_THAT(resumed.err, testing::Not(HasSubstr("resuming with"))) << damaged;
    EXPECT_EQ(resumed.err.find("warning: "), resumed.err.rfind("warning: ")) << resumed.err;
    EXPECT_TRUE(io::read_file(at("copy/model/model.safetensors")) == weights) << damaged;
  }
}

// A step of so many micro-batches never ends. What is saved is the run before it.
TEST_F(Runs, AStopIsHeardWithinAStep) {
  const Args whole = tiny_train("whole", {"--steps", "12", "--accumulation", "3"});
  ASSERT_EQ(coca(whole).code, 0);
  const Args endless = {"--accumulation", "2000000000"};
  test::Program first(dir_.path(), with(tiny_train("endless"), endless));
  for (int i = 0; i < 6000 && !first.ended() && !fs::exists(at("endless/metrics.csv")); ++i) usleep(10000);
  usleep(100000);
  first.terminate();
  const Outcome stopped = first.wait();
  EXPECT_EQ(stopped.code, 130) << stopped.err;
  EXPECT_THAT(stopped.err, testing::AllOf(HasSubstr("stopped at step 0 of 30, which is saved in"),
                                          HasSubstr("each step reads the 10,201 training tokens about")));
  EXPECT_EQ(coca({"train", "--out", at("endless"), "--resume", "--dry-run"}).code, 0);

  // One window of these takes many seconds; so does each validation.
  const std::string text = put("long.txt", cats_and_dogs(3000));
  test::Program window(dir_.path(), with(tiny_train("window"), {"--text", text, "--batch", "1", "--length", "65536"}));
  for (int i = 0; i < 6000 && !window.ended() && !fs::exists(at("window/metrics.csv")); ++i) usleep(10000);
  usleep(300000);
  window.terminate();
  EXPECT_EQ(window.wait().code, 130);
  EXPECT_TRUE(train::latest_sound_checkpoint(at("window")));
  const Args validating = {
      "--steps",  "4",  "--validation-text", text, "--validation-windows", "1000000000", "--validation-interval", "2",
      "--length", "24", "--batch",           "1"};
  test::Program validated(dir_.path(), with(tiny_train("validated"), validating));
  for (int i = 0; i < 100 && !validated.ended(); ++i) usleep(10000);
  validated.terminate();
  const Outcome ended = validated.wait();
  EXPECT_TRUE(ended.code == 130 || ended.code == 0) << ended.err;
  EXPECT_EQ(coca({"train", "--out", at("validated"), "--resume", "--validation-windows", "2"}).code, 0);

  // Wherever the signal comes, the resumed run has the bits of one that was never stopped.
  for (int i = 0; i < 3; ++i) {
    const std::string name = fmt::format("cut{}", i);
    test::Program cut(dir_.path(), with(whole, {"--out", at(name)}));
    for (int n = 0; n < 60000 && !cut.ended() && !fs::exists(at(name + "/metrics.csv")); ++n) usleep(1000);
    usleep(7000 * i);
    cut.terminate();
    cut.wait();
    EXPECT_EQ(coca({"train", "--out", at(name), "--resume"}).code, 0);
    EXPECT_TRUE(io::read_file(at(name + "/model/model.safetensors")) ==
                io::read_file(at("whole/model/model.safetensors")));
  }
}

TEST_F(Runs, SigtermSavesToo) {
  Args endless = tiny_train("run");
  *std::ranges::find(endless, "30") = "1000000";
  test::Program program(dir_.path(), endless);
  wait_for_training(program, at("run"));
  program.terminate();
  const Outcome stopped = program.wait();
  EXPECT_EQ(stopped.code, 130) << stopped.err;
  EXPECT_TRUE(train::latest_checkpoint(at("run")));
}

// `timeout` signals its child and then the child's group. The steps are long, so that the run is still at work.
TEST_F(Runs, SignalsWithinASecondAreOneRequest) {
  for (const int second : {SIGTERM, SIGINT}) {
    const std::string name = fmt::format("run{}", second);
    test::Program program(dir_.path(), tiny_train(name, {"--steps", "1000000", "--accumulation", "400"}));
    wait_for_training(program, at(name));
    program.terminate();
    usleep(5000);
    ::kill(program.pid(), second);
    const Outcome stopped = program.wait();
    EXPECT_EQ(stopped.code, 130) << stopped.err;
    EXPECT_THAT(stopped.err, HasSubstr("which is saved in"));
    EXPECT_TRUE(train::latest_sound_checkpoint(at(name)));
  }
}

TEST_F(Runs, ALaterSignalEndsTheProgramAtOnce) {
  // The sentencepiece library reads such a line for many seconds, and hears no request to stop meanwhile.
  const std::string line = put("line.txt", cats_and_dogs(1'200'000));
  test::Program program(dir_.path(), {"tokenizer", "train", "--text", line, "--vocab-size", "300", "--out", at("tok")});
  usleep(1500000);
  program.terminate();
  usleep(1200000);
  ASSERT_FALSE(program.ended()) << program.wait().err;
  program.terminate();
  const Outcome stopped = program.wait();
  EXPECT_EQ(stopped.code, 128 + SIGTERM) << stopped.err;
  EXPECT_THAT(stopped.err,
              HasSubstr("coca: ended at once by a second signal (SIGTERM); work that was not saved yet is lost\n"));
  EXPECT_FALSE(fs::exists(at("tok")));
}

TEST_F(Runs, ASecondTrainerIsRefused) {
  Args endless = tiny_train("run", {"--checkpoint-interval", "5"});
  *std::ranges::find(endless, "30") = "1000000";
  test::Program program(dir_.path(), endless);
  wait_for_training(program, at("run"));
  fs::create_directory(at("second"));
  Args again = endless;
  while (!train::latest_checkpoint(at("run")) && !program.ended()) usleep(1000);
  for (const bool resume : {false, true}) {
    if (resume) again.push_back("--resume");
    const Outcome second = test::run_program(at("second"), again);
    EXPECT_EQ(second.code, 1);
    EXPECT_THAT(second.err, HasSubstr(fmt::format("run: another process ({}) writes to this folder", program.pid())));
    EXPECT_THAT(second.err, testing::Not(HasSubstr("resume it")));
  }
}

// Both find no folder. The second is refused before it writes anything, even while the first still reads its text, and
// removes nothing of the first.
TEST_F(Runs, OneOfTwoBeginsInANewFolder) {
  ASSERT_EQ(coca(tiny_train("base")).code, 0);
  const Args endless = tiny_train("new/run", {"--steps", "1000000"});
  const std::vector<std::pair<Args, std::string>> others = {
      {endless, "new/run"},
      {{"finetune", "--model", at("base/model"), "--text", text_file(), "--out", at("new/run")}, "new/run"},
      {{"study", "--text", text_file(), "--preset", "tiny", "--out", at("new/run")}, "new/run"}};
  test::Program first(dir_.path(), endless);
  for (int i = 0; i < 60000 && !first.ended() && !fs::exists(at("new/run/.lock")); ++i) usleep(1000);
  fs::create_directory(at("second"));
  for (const auto& [other, folder] : others) {
    const Outcome second = test::run_program(at("second"), other);
    EXPECT_EQ(second.code, 1) << second.err;
    EXPECT_THAT(second.err,
                HasSubstr(fmt::format("{}: another process ({}) writes to this folder", folder, first.pid())));
  }
  wait_for_training(first, at("new/run"));
  EXPECT_TRUE(fs::exists(at("new/run/data/train.tok")));
  first.terminate();
  EXPECT_EQ(first.wait().code, 130);
}

// What a refused run made is removed, its lock too; what was there before remains.
TEST_F(Runs, ARefusedRunLeavesTheFolderAsItWas) {
  const Args refused = tiny_train("deep/run", {"--length", "100000"});  // longer than the text
  EXPECT_EQ(coca(refused).code, 2);
  EXPECT_FALSE(fs::exists(at("deep")));
  fs::create_directories(at("deep/run"));
  put("deep/run/notes.txt", "mine");
  EXPECT_EQ(coca(refused).code, 2);
  std::vector<std::string> left;
  for (const auto& entry : fs::directory_iterator(at("deep/run"))) left.push_back(entry.path().filename());
  EXPECT_THAT(left, testing::ElementsAre("notes.txt"));
}

TEST_F(Runs, DataThatVanishesIsNamed) {
  Args args = tiny_train("run", {"--checkpoint-interval", "10"});
  ASSERT_EQ(coca(args).code, 0);
  *std::ranges::find(args, "30") = "40";
  args.push_back("--resume");
  fs::remove(at("text.txt"));
  expect_refused(args, 1, "text.txt");
  EXPECT_TRUE(train::latest_sound_checkpoint(at("run")));
  text_file();  // writes it again
  EXPECT_EQ(coca(args).code, 0);
}

TEST_F(Runs, ATokenFileCutShortWhileInUseIsNamed) {
  ASSERT_EQ(coca({"data", "build", "--text", text_file(), "--tokenizer", "byte", "--out", at("text.tok")}).code, 0);
  Args endless = tiny_train("run");
  *std::ranges::find(endless, "30") = "1000000";
  *std::ranges::find(endless, text_file()) = at("text.tok");
  test::Program program(dir_.path(), endless);
  wait_for_training(program, at("run"));
  fs::resize_file(at("text.tok"), 0);
  const Outcome stopped = program.wait();
  EXPECT_EQ(stopped.code, 1) << stopped.err;
  EXPECT_THAT(stopped.err, HasSubstr("coca: " + at("text.tok") + ": cannot be read any more: it was cut short"));
}

}  // namespace
}  // namespace coca::runs_test
