// Decoding with bf16 weights is as close to fp32 as running the whole sequence in bf16, for any split into pieces.
// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <cmath>

#include "coca/infer/cached_decoder.h"
#include "support/tiny_model.h"

namespace coca::infer::bf16_test {
namespace {

constexpr int64_t kB = 2, kN = 70;

std::vector<float> widened(TensorRef t) {
  std::vector<float> out(static_cast<size_t>(t.numel()));
  for (size_t i = 0; i < out.size(); ++i)
    out[i] = t.dtype == DType::kBF16 ? static_cast<float>(t.as<BF16>()[i]) : t.as<float>()[i];
  return out;
}

double distance(std::span<const float> a, std::span<const float> b) {
  double squares = 0;
  for (size_t i = 0; i < a.size(); ++i) squares += std::pow(static_cast<double>(a[i]) - static_cast<double>(b[i]), 2);
  return std::sqrt(squares);
}

class Bf16Decoding : public testing::TestWithParam<test::NamedSpec> {
 protected:
  model::ModelSpec spec = GetParam().spec;
  std::vector<int32_t> ids = test::random_ids(kB * kN, spec.V, 5);
  Context cx;

  std::vector<float> whole(const model::ParamStore& params) {
    model::Decoder decoder(spec, params.weights());
    return widened(decoder.forward(cx, {ids.data(), DType::kI32, {kB, kN}, kHost}, kN));
  }
  std::vector<float> in_pieces(const model::ParamStore& params, const std::vector<int64_t>& pieces, KvType cache) {
    CachedDecoder decoder(spec, params.weights(), kB, DynamicBase::kRequest, kN, cache);
    std::vector<float> all(static_cast<size_t>(kB * kN * spec.C));
    int64_t begin = 0;
    for (const int64_t n : pieces) {
      std::vector<int32_t> part;
      for (int64_t b = 0; b < kB; ++b)
        part.insert(part.end(), ids.begin() + b * kN + begin, ids.begin() + b * kN + begin + n);
      const std::vector<float> hidden = widened(decoder.append(cx, {part.data(), DType::kI32, {kB, n}, kHost}));
      for (int64_t b = 0; b < kB; ++b)
        std::copy_n(hidden.begin() + b * n * spec.C, n * spec.C, all.begin() + (b * kN + begin) * spec.C);
      EXPECT_EQ(decoder.last_logits(cx).shape, Dims({kB, spec.V}));
      begin += n;
    }
    return all;
  }
};
INSTANTIATE_TEST_SUITE_P(Specs, Bf16Decoding, testing::ValuesIn(test::all_specs()), test::spec_test_name);

TEST_P(Bf16Decoding, IsAsNearAsTheWholeSequence) {
  test::TinyModel m(spec);
  model::ParamStore rounded(spec, model::Precision::kBF16);
  model::copy_params(cx, m.params, rounded);
  model::copy_params(cx, rounded, m.params);  // the same function in fp32
  const std::vector<float> exact = whole(m.params), at_once = whole(rounded);
  ASSERT_GT(distance(at_once, exact), 0.0);
  std::vector<int64_t> token_by_token(30, 1);
  token_by_token.insert(token_by_token.begin(), kN - 30);
  for (const auto& pieces : {std::vector<int64_t>{kN}, {64, 1, 5}, token_by_token})
    for (const KvType cache : {KvType::kF32, KvType::kBF16})
      EXPECT_LE(distance(in_pieces(rounded, pieces, cache), exact), 2 * distance(at_once, exact)) << pieces.size();
}

}  // namespace
}  // namespace coca::infer::bf16_test
