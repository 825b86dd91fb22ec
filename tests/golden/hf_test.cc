// Tiny models made by transformers (tests/parity/make_models.py): logits and greedy continuations, also after a round
// trip through our own files.
// SPDX-License-Identifier: Apache-2.0
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <filesystem>

#include "coca/formats/model_folder.h"
#include "coca/infer/generate.h"
#include "coca/io/safetensors.h"
#include "coca/model/decoder.h"
#include "coca/ops/linear.h"
#include "support/paths.h"

namespace coca::test::hf_test {
namespace {

namespace fs = std::filesystem;

fs::path models_dir() { return fs::path(COCA_SOURCE_DIR) / "tests" / "stored" / "hf"; }

std::vector<std::string> model_names() {
  std::vector<std::string> names;
  for (const fs::directory_entry& entry : fs::directory_iterator(models_dir()))
    if (entry.is_directory()) names.push_back(entry.path().filename().string());
  std::sort(names.begin(), names.end());
  return names;
}

std::vector<int32_t> ids_of(const io::StoredTensor& tensor) {
  const auto* p = reinterpret_cast<const int32_t*>(tensor.data);
  return {p, p + tensor.shape.product()};
}

// [N, V]
std::vector<float> logits_of(const model::Model& m, const std::vector<int32_t>& ids) {
  Context cx;
  model::Decoder decoder(m.spec, m.params->weights());
  const auto N = static_cast<int64_t>(ids.size());
  Tensor logits({N, m.spec.V});
  ops::linear_forward(cx, {.x = decoder.forward(cx, TensorRef(ids.data(), DType::kI32, {1, N}, kHost)),
                           .w = m.params->weights().head,
                           .y = logits});
  return {logits.values<float>().begin(), logits.values<float>().end()};
}

class HuggingFace : public testing::TestWithParam<std::string> {
 protected:
  fs::path dir = models_dir() / GetParam();
  io::SafetensorsFile expected{dir / "expected.safetensors"};
  std::vector<int32_t> prompt = ids_of(expected.at("prompt")), greedy = ids_of(expected.at("greedy"));
  std::vector<float> logits = io::to_f32(expected.at("logits"));

  void expect_logits(const model::Model& m) const {
    const std::vector<float> ours = logits_of(m, prompt);
    ASSERT_EQ(ours.size(), logits.size());
    double error = 0, largest = 0;
    for (size_t i = 0; i < ours.size(); ++i) {
      error = std::max(error, std::abs(static_cast<double>(ours[i]) - static_cast<double>(logits[i])));
      largest = std::max(largest, std::abs(static_cast<double>(logits[i])));
    }
    EXPECT_LE(error, 1e-4 * largest);  // two fp32 networks of about twenty operations: measured 1e-6 to 1e-5
  }
};
INSTANTIATE_TEST_SUITE_P(Models, HuggingFace, testing::ValuesIn(model_names()),
                         [](const auto& model) { return model.param; });

TEST_P(HuggingFace, LogitsAgree) { expect_logits(formats::load_model(dir)); }

TEST_P(HuggingFace, GreedyContinuationIsTheSame) {
  const model::Model m = formats::load_model(dir);
  std::vector<int32_t> ids = prompt;
  if (m.spec.rope_scaling.type != model::Scaling::kDynamic) {
    Context cx;
    infer::BatchDecoder decoder(m.spec, m.params->weights());
    const auto result = infer::generate(
        cx, decoder,
        {.prompt = prompt, .max_new_tokens = static_cast<int64_t>(greedy.size()), .sampling = {.temperature = 0}});
    EXPECT_EQ(result.ids, greedy);
    return;
  }
  for (size_t i = 0; i < greedy.size();
       ++i) {  // transformers recomputes the whole sequence with the base of its current length
    const std::vector<float> all = logits_of(m, ids);
    const auto last = all.end() - m.spec.V;
    ids.push_back(static_cast<int32_t>(std::max_element(last, all.end()) - last));
  }
  EXPECT_EQ(std::vector<int32_t>(ids.begin() + static_cast<std::ptrdiff_t>(prompt.size()), ids.end()), greedy);
}

TEST_P(HuggingFace, SavedModelsAreTheSame) {
  const TempDir temp;
  const model::Model m = formats::load_model(dir);
  for (const size_t shard : {size_t{1} << 30, size_t{16} << 10}) {
    const fs::path out = temp.path() / std::to_string(shard);
    fs::create_directories(out);
    formats::save_model(out, m.spec, *m.params, {.max_shard_bytes = shard});
    EXPECT_EQ(fs::exists(out / "model.safetensors.index.json"), shard < 100'000);
    expect_logits(formats::load_model(out));
  }
}

}  // namespace
}  // namespace coca::test::hf_test
