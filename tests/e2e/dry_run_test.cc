// --dry-run prints an estimate of long work and changes nothing.
// SPDX-License-Identifier: Apache-2.0
#include <set>
#include <sstream>

#include "e2e/cli_fixture.h"

namespace coca::dry_run_test {
namespace {

namespace fs = std::filesystem;
using test::Args;
using test::Outcome;
using testing::AllOf;
using testing::HasSubstr;

class DryRun : public test::CliFixture {
 protected:
  // All files except the program's captured output, with their times.
  std::set<std::pair<std::string, fs::file_time_type>> files() const {
    std::set<std::pair<std::string, fs::file_time_type>> found;
    for (const fs::directory_entry& e : fs::recursive_directory_iterator(dir_.path()))
      if (e.path().filename() != "stdout.txt" && e.path().filename() != "stderr.txt" && e.path() != dir_.path())
        found.emplace(e.path().string(), e.last_write_time());
    return found;
  }
  std::string estimate(const Args& args) {
    const auto before = files();
    const Outcome o = coca(with(args, {"--dry-run"}));
    EXPECT_EQ(o.code, 0) << o.err;
    EXPECT_THAT(o.out, AllOf(HasSubstr("tokens"), HasSubstr("time: about"), HasSubstr("memory: about"),
                             HasSubstr("dry run: nothing else was computed, nothing was written\n")));
    EXPECT_EQ(files(), before);
    return o.out;
  }
  std::string text() { return fs::exists(at("text.txt")) ? at("text.txt") : put("text.txt", cats_and_dogs(100)); }
  Args train(const std::string& out) {
    return {"train", "--text",   text(), "--out",   at(out), "--layers", "1",  "--width",        "32", "--heads",
            "2",     "--length", "32",   "--batch", "4",     "--steps",  "10", "--warmup-steps", "1"};
  }
};

TEST_F(DryRun, Training) {
  EXPECT_THAT(estimate(train("run")), AllOf(HasSubstr("training"), HasSubstr("1,280"),
                                            HasSubstr("10 steps of 128 tokens"), HasSubstr("disk: about")));
  EXPECT_THAT(estimate(with(train("run"), {"--validation-text", text(), "--validation-windows", "8",
                                           "--validation-interval", "5", "--accumulation", "2"})),
              AllOf(HasSubstr("2,560"), HasSubstr("validation"), HasSubstr("512")));
  // The speed is measured on the windows that run together, which are those of one slice.
  EXPECT_THAT(estimate(train("run")),
              HasSubstr("measured just now on a model of this shape and 4 windows of 32 tokens\n"));
  EXPECT_THAT(estimate(with(train("run"), {"--slices", "2"})), HasSubstr("and 2 windows of 32 tokens\n"));
  // Recomputed activations count for one layer only.
  const auto mib = [&](const std::string& recompute) {
    const std::string out = estimate(with(train("run"), {"--layers", "8", "--width", "64", "--length", "128", "--batch",
                                                         "64", "--recompute", recompute}));
    std::istringstream amount(out.substr(out.find("memory: about ") + 14));
    double value = 0;
    std::string unit;
    amount >> value >> unit;
    return unit == "GiB" ? 1024 * value : value;
  };
  const double all = mib("none"), some = mib("attention"), layer = mib("layer");
  EXPECT_GT(all, 1.2 * some);
  EXPECT_GT(some, 1.2 * layer);
  EXPECT_EQ(coca(with(train("run"), {"--dry-run", "--width", "33"})).code, 2) << "wrong options are still refused";
  EXPECT_FALSE(fs::exists(at("run")));
}

TEST_F(DryRun, FineTuningAndEvaluations) {
  ASSERT_EQ(coca(train("base")).code, 0);
  const std::string model = at("base/model");
  const Args tune = {"finetune", "--model", model, "--text", text(),     "--length",
                     "32",       "--batch", "4",   "--out",  at("tuned")};
  EXPECT_THAT(estimate(with(tune, {"--steps", "7"})), HasSubstr("parameters, 7 steps of 128 tokens"));
  const auto tokens = static_cast<int64_t>(fs::file_size(text()));  // one byte is one token
  EXPECT_THAT(estimate(with(tune, {"--epochs", "2"})),
              HasSubstr(fmt::format("parameters, {} steps", (2 * ((tokens - 31) / 32) + 3) / 4)));
  const Args of_model = {"--model", model, "--lengths", "32,64"}, far = {"--model", model, "--lengths", "1100,2200"};
  EXPECT_THAT(
      estimate(with(with({"eval", "ppl"}, of_model), {"--text", text(), "--stride", "32", "--max-tokens", "64"})),
      AllOf(HasSubstr("length 32"), HasSubstr("length 64"), HasSubstr("all")));
  EXPECT_THAT(estimate(with(with({"eval", "passkey"}, far), {"--trials", "2"})),
              AllOf(HasSubstr("length 1100"), HasSubstr("11,000"), HasSubstr("22,000")));
  EXPECT_THAT(estimate(with(with({"eval", "ruler"}, far), {"--tasks", "vt", "--samples", "3"})),
              AllOf(HasSubstr("3,300"), HasSubstr("6,600")));
}

// A dry run refuses what the real run would refuse, with the same message, and neither leaves any files.
TEST_F(DryRun, RefusesLikeTheRun) {
  ASSERT_EQ(coca(train("base")).code, 0);
  fs::create_directories(at("other"));
  fs::copy(at("base/model"), at("other/model"), fs::copy_options::recursive);
  const std::string model = at("base/model"), none = at("none"), far = put("far.txt", "short");
  const Args tune = {"finetune", "--model", model, "--text", text(), "--steps", "3", "--out", none};
  const Args passkey = {"eval", "passkey", "--model", model},
             ruler = {"eval", "ruler", "--model", model, "--tasks", "vt"};
  const Args ppl = {"eval", "ppl", "--model", model, "--text", text()},
             study = {"study", "--text", text(), "--test-text", text(), "--steps", "20", "--out", none};
  const std::vector<std::pair<Args, std::string>> cases = {
      {{"train", "--out", none}, "--text: no training text"},
      {train("base"), "already holds a training run"},
      {with(train("none"), {"--text", at("nowhere")}), "nowhere"},
      {with(train("none"), {"--split", "test"}), "is not a folder"},
      {with(train("none"), {"--text", far}), "shorter than one window"},
      {with(train("none"), {"--validation-text", far}), "validation text has"},
      {with(train("none"), {"--validation-text", at("nowhere")}), "nowhere"},
      {with(train("none"), {"--passkey-share", "0.5"}), "--passkey-share 0"},
      {with(train("none"), {"--out", put("file", "x") + "/below"}), "file"},
      {with(tune, {"--out", at("base"), "--model", at("other/model")}), "already holds a training run"},
      {with(train("none"), {"--out", put("a_file", "x")}), "--out " + at("a_file") + ": is a file, not a folder"},
      {with(tune, {"--out", at("a_file")}), "--out " + at("a_file") + ": is a file, not a folder"},
      {with(study, {"--out", at("a_file")}), "--out " + at("a_file") + ": is a file, not a folder"},
      {with(tune, {"--text", far}), "shorter than one window"},
      {with(tune, {"--validation-text", far}), "validation text has"},
      {with(tune, {"--train", "*.nothing"}), "*.nothing"},
      {with(tune, {"--adapter", at("nowhere")}), "nowhere"},
      {with(passkey, {"--lengths", "16"}), "no room for its question"},
      {with(passkey, {"--lengths", "60", "--length-control", "units"}), "at least 69"},
      {with(passkey, {"--lengths", "512", "--batch-tokens", "0"}), "batch"},
      {with(passkey, {"--lengths", "512", "--window", "8"}), "--window 8"},
      {with(passkey, {"--lengths", "512", "--rope-scaling", "linear"}), "--rope-scaling linear"},
      {with(ruler, {"--lengths", "32"}), ""},
      {with(ruler, {"--tasks", "niah_single_2", "--lengths", "2048"}), "--tasks holds niah_single_2"},
      {with(ppl, {"--text", at("nowhere")}), "nowhere"},
      {with(ppl, {"--min-tokens", "1000000"}), "none has as many"},
      {with(ppl, {"--adapter", at("nowhere")}), "nowhere"},
      {with(ppl, {"--factor", "2"}), "--factor 2"},
      {with(ppl, {"--split", "train"}), "is not a folder"},
      {with(study, {"--length", "32"}), "--passkey-share 0"},
      {with(study, {"--text", at("nowhere")}), "nowhere"},
      {with(study, {"--split", "test"}), "is not a folder"},
      {with(study, {"--test-text", far, "--length", "4096"}), "window"},
  };
  for (const auto& [args, message] : cases) {
    const Outcome dry = coca(with(args, {"--dry-run"})), real = coca(args);
    const std::string name = testing::PrintToString(args);
    EXPECT_NE(real.code, 0) << name;
    EXPECT_EQ(dry.code, real.code) << name;
    const auto error = [](const Outcome& o) { return o.err.substr(std::min(o.err.size(), o.err.find("coca: "))); };
    EXPECT_EQ(error(dry), error(real)) << name;
    EXPECT_THAT(real.err, HasSubstr(message)) << name;
    EXPECT_THAT(dry.out, testing::Not(HasSubstr("time: about"))) << name;
    EXPECT_FALSE(fs::exists(none)) << name;
  }
}

// A dry run prints the same warnings as the real run prints before its first step.
TEST_F(DryRun, PrintsTheWarningsOfTheRun) {
  ASSERT_EQ(coca(train("base")).code, 0);
  put("bad.txt", "not UTF-8: \xff " + cats_and_dogs(20));
  const std::string examples = put("examples.jsonl", R"({"prompt": "say", "answer": ")" + cats_and_dogs(5) + "\"}\n");
  const Args tune = {"finetune", "--model", at("base/model"), "--length", "32", "--out", at("tuned"), "--epochs", "1"};
  const Args study = with(train("study"), {"--warmup-steps", "99", "--test-text", text(), "--passkey-share", "0",
                                           "--methods", "rope,alibi", "--eval-tokens", "64", "--seeds", "0"});
  Args study_of_two = study;
  study_of_two[0] = "study";
  for (const auto& [args, warnings] : std::vector<std::pair<Args, std::vector<std::string>>>{
           {with(train("new"), {"--warmup-steps", "99", "--validation-text", text()}),
            {"warmup_steps is 99, but the training has only 10 steps", "are the same document"}},
           {with(train("second"), {"--text", at("bad.txt")}), {"bad.txt"}},
           {with(tune, {"--data", examples, "--validation-data", examples}),
            {"longer than the window", "warmup_steps is 10", "are the same document"}},
           {with(tune, {"--text", text(), "--validation-text", text(), "--out", at("other")}),
            {"are the same document"}},
           {study_of_two, {"warmup_steps is 99", "are the same document"}},
           {{"train", "--out", at("base"), "--resume", "--steps", "12", "--warmup-steps", "99"},
            {"resuming with steps = 12", "resuming with warmup_steps = 99"}}}) {
    const auto lines = [](const std::string& err) {
      std::istringstream text(err);
      std::multiset<std::string> found;
      for (std::string line; std::getline(text, line);)
        if (line.starts_with("warning: ")) found.insert(line);
      return found;
    };
    const Outcome dry = coca(with(args, {"--dry-run"})), real = coca(args);
    EXPECT_EQ(dry.code, 0) << dry.err;
    EXPECT_EQ(real.code, 0) << real.err;
    EXPECT_EQ(lines(dry.err), lines(real.err)) << testing::PrintToString(args);
    for (const std::string& warning : warnings) EXPECT_THAT(real.err, HasSubstr(warning));
  }
}

TEST_F(DryRun, ReportsADefaultFolder) {
  Args args = train("run");
  args.erase(args.begin() + 3, args.begin() + 5);
  args.emplace_back("--dry-run");
  EXPECT_THAT(coca(args).err, HasSubstr("note: results go into out/train, the default of --out\n"));
  EXPECT_THAT(
      coca({"study", "--text", text(), "--test-text", text(), "--passkey-share", "0", "--preset", "tiny", "--dry-run"})
          .err,
      HasSubstr("note: results go into out/study, the default of --out\n"));
  ASSERT_EQ(coca(train("base")).code, 0);
  EXPECT_THAT(coca({"finetune", "--model", at("base/model"), "--text", text(), "--steps", "1", "--dry-run"}).err,
              HasSubstr("note: results go into out/finetune, the default of --out\n"));
  EXPECT_THAT(coca(with(args, {"--config", put("c.json", R"({"out": "elsewhere"})")})).err,
              testing::Not(HasSubstr("the default of --out")));
}

// The newest checkpoint that is intact counts, as in the run itself.
TEST_F(DryRun, AStudyCountsFromTheCheckpointItWouldResume) {
  const auto args = [&](const Args& more) {
    return with({"study", "--text",   text(), "--test-text", text(),     "--methods",      "rope", "--passkey-share",
                 "0",     "--layers", "1",    "--width",     "32",       "--heads",        "2",    "--length",
                 "32",    "--batch",  "4",    "--steps",     "120",      "--warmup-steps", "1",    "--eval-tokens",
                 "64",    "--seeds",  "0",    "--out",       at("study")},
                more);
  };
  ASSERT_EQ(coca(with(train("run"), {"--attention", "rope", "--steps", "100", "--checkpoint-interval", "50"})).code, 0);
  fs::create_directories(at("study/runs/rope-s0"));
  fs::rename(at("run/checkpoints"), at("study/runs/rope-s0/checkpoints"));
  EXPECT_THAT(estimate(args({})), HasSubstr("2,560")) << "20 steps of 4 x 32";
  fs::resize_file(at("study/runs/rope-s0/checkpoints/step-00000100/model.safetensors"), 100);
  EXPECT_THAT(estimate(args({})), HasSubstr("8,960")) << "70 steps";
  fs::resize_file(at("study/runs/rope-s0/checkpoints/step-00000050/model.safetensors"), 100);
  EXPECT_THAT(coca(args({"--dry-run"})).err, HasSubstr("no checkpoint is intact"));
}

TEST_F(DryRun, CountsWhatIsLeft) {
  ASSERT_EQ(coca(train("run")).code, 0);
  EXPECT_THAT(estimate({"train", "--resume", "--out", at("run"), "--steps", "25"}),
              AllOf(HasSubstr("15 steps of 128 tokens left of 25, after step 10"), HasSubstr("1,920")));
  EXPECT_THAT(estimate(with(train("other"),
                            {"--validation-text", text(), "--validation-windows", "8", "--validation-interval", "3"})),
              HasSubstr("1,024"))
      << "after 3, 6, 9 and 10";
  // The same number of parameters as in the real run, which rounds up the vocabulary.
  const std::string all = coca(train("second")).out;
  EXPECT_THAT(estimate(train("third")),
              HasSubstr(all.substr(all.find(": ") + 2, all.find(" parameters") - all.find(": ") - 2) + " parameters"));
  const Args two = {"eval", "ppl", "--text", text(), "--lengths", "32", "--model", at("run/model")};
  Args both = two;
  both.insert(both.end(), {"--model", at("second/model"), "--dry-run"});
  EXPECT_THAT(coca(both).out, HasSubstr("all 2 models: about "));
  EXPECT_THAT(estimate(two), testing::Not(HasSubstr("models")));
}

}  // namespace
}  // namespace coca::dry_run_test
