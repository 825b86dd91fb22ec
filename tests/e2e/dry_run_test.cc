// --dry-run: what long work would take, and that nothing is done.
// SPDX-License-Identifier: Apache-2.0
#include <set>

#include "e2e/cli_fixture.h"

namespace coca {
namespace {

namespace fs = std::filesystem;
using test::Args;
using test::Outcome;
using testing::AllOf;
using testing::HasSubstr;

class DryRun : public test::CliFixture {
 protected:
  // All files but what the program printed, with their times.
  std::set<std::pair<std::string, fs::file_time_type>> files() const {
    std::set<std::pair<std::string, fs::file_time_type>> found;
    for (const fs::directory_entry& e : fs::recursive_directory_iterator(dir_.path()))
      if (e.path().filename() != "stdout.txt" && e.path().filename() != "stderr.txt" && e.path() != dir_.path()) found.emplace(e.path().string(), e.last_write_time());
    return found;
  }
  std::string estimate(const Args& args) {
    const auto before = files();
    const Outcome o = coca(with(args, {"--dry-run"}));
    EXPECT_EQ(o.code, 0) << o.err;
    EXPECT_THAT(o.out, AllOf(HasSubstr("tokens"), HasSubstr("time: about"), HasSubstr("memory: about"), HasSubstr("dry run: nothing else was computed, nothing was written\n")));
    EXPECT_EQ(files(), before);
    return o.out;
  }
  std::string text() { return fs::exists(at("text.txt")) ? at("text.txt") : put("text.txt", cats_and_dogs(100)); }
  Args train(const std::string& out) {
    return {"train", "--text", text(), "--out", at(out), "--layers", "1", "--width", "32", "--heads", "2", "--length", "32", "--batch", "4", "--steps", "10", "--warmup-steps", "1"};
  }
};

TEST_F(DryRun, Training) {
  EXPECT_THAT(estimate(train("run")), AllOf(HasSubstr("training"), HasSubstr("1,280"), HasSubstr("10 steps of 128 tokens"), HasSubstr("disk: about")));
  EXPECT_THAT(estimate(with(train("run"), {"--validation-text", text(), "--validation-windows", "8", "--validation-interval", "5", "--accumulation", "2"})),
              AllOf(HasSubstr("2,560"), HasSubstr("validation"), HasSubstr("512")));
  EXPECT_EQ(coca(with(train("run"), {"--dry-run", "--width", "33"})).code, 2) << "wrong options are still refused";
  EXPECT_FALSE(fs::exists(at("run")));
}

TEST_F(DryRun, FineTuningAndEvaluations) {
  ASSERT_EQ(coca(train("base")).code, 0);
  const std::string model = at("base/model");
  const Args tune = {"finetune", "--model", model, "--text", text(), "--length", "32", "--batch", "4", "--out", at("tuned")};
  EXPECT_THAT(estimate(with(tune, {"--steps", "7"})), HasSubstr("about 7 steps of 128 tokens"));
  const auto tokens = static_cast<int64_t>(fs::file_size(text()));  // bytes
  EXPECT_THAT(estimate(with(tune, {"--epochs", "2"})), HasSubstr(fmt::format("about {} steps", (2 * ((tokens + 31) / 32) + 3) / 4)));
  const Args of_model = {"--model", model, "--lengths", "32,64"};
  EXPECT_THAT(estimate(with(with({"eval", "ppl"}, of_model), {"--text", text(), "--stride", "32", "--max-tokens", "64"})),
              AllOf(HasSubstr("length 32"), HasSubstr("length 64"), HasSubstr("all")));
  EXPECT_THAT(estimate(with(with({"eval", "passkey"}, of_model), {"--trials", "2"})), AllOf(HasSubstr("length 32"), HasSubstr("320"), HasSubstr("640")));
  EXPECT_THAT(estimate(with(with({"eval", "ruler"}, of_model), {"--tasks", "vt", "--samples", "3"})), AllOf(HasSubstr("96"), HasSubstr("192")));
}

}  // namespace
}  // namespace coca
