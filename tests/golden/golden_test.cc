// Every stored case of the official code is reproduced: logits, attention, hidden states, all gradients, loss, greedy
// ids.
// SPDX-License-Identifier: Apache-2.0
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <fstream>

#include "coca/eval/verify.h"
#include "coca/formats/model_folder.h"
#include "coca/io/json_file.h"
#include "coca/io/safetensors.h"
#include "support/first_gpu.h"
#include "support/paths.h"
#include "support/targets.h"

namespace coca::eval::golden_test {
namespace {

namespace fs = std::filesystem;

class Golden : public testing::TestWithParam<const char*> {};

TEST_P(Golden, EveryTensorOfEveryCaseHolds) {
  const fs::path dir = test::golden_dir() / GetParam();
  COCA_SKIP_WITHOUT(dir);
  const std::vector<CaseCheck> cases = verify_folder(dir, {});
  ASSERT_FALSE(cases.empty());
  for (const CaseCheck& c : cases) {
    bool logits = false, gradients = false;
    for (const TensorCheck& t : c.tensors) {
      EXPECT_EQ(t.verdict, Verdict::kPass)
          << c.file << " " << t.name << " error " << t.error << " at " << t.worst_index;
      logits = logits || t.name == "logits";
      gradients = gradients || t.name.starts_with("grad.");
    }
    EXPECT_TRUE(logits && gradients) << c.file;  // a case without checks would prove nothing
  }
}

INSTANTIATE_TEST_SUITE_P(Official, Golden,
                         testing::Values("gpt_neox_coca", "gpt_neox_coca_sequential", "llama_coca_gqa"),
                         [](const auto& param_info) { return std::string(param_info.param); });

TEST(Golden, HoldsOnEverySimdTarget) {
  const fs::path dir = test::golden_dir() / "llama_coca_gqa";
  COCA_SKIP_WITHOUT(dir);
  test::for_each_target([&] {
    for (const CaseCheck& c : verify_folder(dir, {})) EXPECT_EQ(c.verdict, Verdict::kPass) << c.file;
  });
}

// Also the hidden states, the gradients and the tokens chosen from a cache.
TEST(Golden, HoldsOnADevice) {
  const fs::path dir = test::golden_dir() / "llama_coca_gqa";
  COCA_SKIP_WITHOUT(dir);
  const test::OnTheGpu there;
  for (const CaseCheck& c : verify_folder(dir, {})) EXPECT_EQ(c.verdict, Verdict::kPass) << c.file;
}

// Changing one weight must make the check fail for the tensors that depend on it.
TEST(Golden, AChangedWeightIsFound) {
  const fs::path dir = test::golden_dir() / "gpt_neox_coca_sequential";
  COCA_SKIP_WITHOUT(dir);
  const test::TempDir temp;
  fs::copy(dir, temp.path(), fs::copy_options::recursive);
  model::Model m = formats::load_model(dir);
  model::MutWeights& w = m.params->tensors();
  for (int64_t i = 0; i < 64; ++i) w.layers[1].qkv_w.as<float>()[i] += 0.05f;
  fs::remove(temp.path() / "model.safetensors");
  formats::save_params(temp.path() / "model.safetensors", *m.params, {});
  const std::vector<CaseCheck> cases = verify_folder(temp.path(), {});
  ASSERT_EQ(cases.size(), 1u);
  EXPECT_EQ(cases[0].verdict, Verdict::kFail);
  for (const TensorCheck& t : cases[0].tensors) {
    if (t.name == "hidden.0" || t.name == "hidden.1") {
      EXPECT_EQ(t.verdict, Verdict::kPass) << t.name;
    } else if (t.name == "logits" || t.name == "hidden.2") {
      EXPECT_EQ(t.verdict, Verdict::kFail) << t.name;
    }
  }
}

TEST(Golden, WrongFoldersAreNamed) {
  const fs::path dir = test::golden_dir() / "gpt_neox_coca_sequential";
  COCA_SKIP_WITHOUT(dir);
  const test::TempDir temp;
  EXPECT_THAT([&] { verify_folder(temp.path(), {}); },
              testing::ThrowsMessage<Error>(testing::HasSubstr("config.json")));
  fs::copy(dir, temp.path(), fs::copy_options::recursive);
  fs::permissions(temp.path() / "manifest.json", fs::perms::owner_all);
  std::ofstream(temp.path() / "manifest.json") << R"({"cases": [{"file": "../len29.safetensors"}]})";
  EXPECT_THAT([&] { verify_folder(temp.path(), {}); }, testing::ThrowsMessage<Error>(testing::HasSubstr("plain name")));
  std::ofstream(temp.path() / "manifest.json") << R"({"cases": []})";
  EXPECT_THAT([&] { verify_folder(temp.path(), {}); },
              testing::ThrowsMessage<Error>(testing::HasSubstr("non-empty list")));
}

}  // namespace
}  // namespace coca::eval::golden_test
