// Adapters saved by PEFT: logits, loss and gradients as computed by PyTorch (tests/parity/compare_lora.py --store).
// SPDX-License-Identifier: Apache-2.0
#include <gmock/gmock.h>

#include <cmath>

#include "coca/formats/adapter_file.h"
#include "coca/formats/model_folder.h"
#include "coca/io/safetensors.h"
#include "coca/model/decoder.h"
#include "coca/ops/cross_entropy.h"
#include "coca/ops/linear.h"
#include "support/paths.h"

namespace coca::model::lora_test {
namespace {

namespace fs = std::filesystem;

class LoraGolden : public testing::TestWithParam<const char*> {};

// Two fp32 programs that sum in a different order: 1e-4 of a tensor's largest number, as between coca and the official
// code.
void expect_near(const float* ours, const io::StoredTensor& stored) {
  const std::vector<float> expected = io::to_f32(stored);
  float largest = 0;
  for (const float x : expected) largest = std::max(largest, std::abs(x));
  ASSERT_GT(largest, 0.0f) << stored.name;
  for (size_t i = 0; i < expected.size(); ++i)
    ASSERT_NEAR(ours[i], expected[i], 1e-4f * largest) << stored.name << " " << i;
}

TEST_P(LoraGolden, LogitsLossAndGradientsArePyTorchs) {
  const fs::path data = fs::path(COCA_SOURCE_DIR) / "tests" / "stored", dir = data / "lora" / GetParam();
  const Model m = formats::load_model(data / "hf" / GetParam());
  const auto adapter = formats::load_adapter(dir, m.spec);
  const io::SafetensorsFile stored(dir / "expected.safetensors");
  const io::StoredTensor& ids = stored.at("ids");
  const int64_t B = ids.shape[0], N = ids.shape[1];
  std::vector<int32_t> targets(static_cast<size_t>(B * N), ops::kIgnoreTarget);
  for (int64_t i = 0; i < B * N; ++i)
    if (i % N != N - 1) targets[static_cast<size_t>(i)] = ids.ref().as<int32_t>()[i + 1];

  Weights bound = m.params->weights();
  adapter->bind(adapter->tensors(), bound);
  Context cx;
  Decoder decoder(m.spec, bound);
  Tensor logits({B * N, m.spec.V});
  ops::linear_forward(cx, {.x = decoder.forward(cx, ids.ref()), .w = bound.head, .y = logits});
  expect_near(logits.values<float>().data(), stored.at("logits"));

  TensorStore grads(adapter->tensors().infos());
  MutWeights tensors;
  tensors.layers.resize(static_cast<size_t>(m.spec.L));
  adapter->bind_gradients(grads, tensors);
  TrainingDecoder training(m.spec, B, N);
  const double counted = static_cast<double>(B * (N - 1));
  const TensorRef nll =
      training.forward_backward(cx, bound, ids.ref(), TensorRef(targets.data(), DType::kI32, {B, N}, kHost),
                                static_cast<float>(1.0 / counted), tensors);
  double loss = 0;
  for (int64_t i = 0; i < nll.numel(); ++i) loss += static_cast<double>(nll.as<float>()[i]) / counted;
  EXPECT_NEAR(loss, io::to_f32(stored.at("loss"))[0], 1e-5);
  EXPECT_GE(grads.infos().size(), 8u);
  for (const ParamInfo& info : grads.infos()) expect_near(grads.at(info).as<float>(), stored.at("grad." + info.name));
}

INSTANTIATE_TEST_SUITE_P(Peft, LoraGolden, testing::Values("llama", "gpt_neox"),
                         [](const auto& param_info) { return std::string(param_info.param); });

}  // namespace
}  // namespace coca::model::lora_test
