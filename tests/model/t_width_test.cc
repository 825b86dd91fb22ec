// T of half width is the same function as T of full width: outputs, initial weights and training.
// SPDX-License-Identifier: Apache-2.0
#include "coca/model/t_width.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <numeric>
#include <vector>

#include "coca/model/decoder.h"
#include "support/reference_decoder.h"
#include "support/t_width.h"

namespace coca::model::t_width_test {
namespace {

using test::with_width;
using testing::HasSubstr;
using testing::ThrowsMessage;

int64_t width_of(const ParamInfo& info) { return info.shape.rank == 2 ? info.shape[1] : 1; }
std::vector<float> values(TensorRef t) { return {t.as<float>(), t.as<float>() + t.numel()}; }

// Rounds values so that means of two are exact and folding rounds nothing.
void coarsen(ParamStore& params) {
  for (float& x : std::span(params.flat().as<float>(), static_cast<size_t>(params.flat().numel())))
    x = std::round(x * 1024) / 1024;
}

class HalfT : public testing::TestWithParam<test::NamedSpec> {
 protected:
  ModelSpec half = GetParam().spec, full = with_t_width(half, TWidth::kFull);
};
INSTANTIATE_TEST_SUITE_P(Specs, HalfT, testing::ValuesIn(test::half_t_and_window_specs()), test::spec_test_name);

// In double the two forms differ only in the rounding of t: 2^-53 of sums with terms of order 1, through two layers.
TEST_P(HalfT, FoldedParametersAreTheSameFunction) {
  test::TinyModel m(full);
  coarsen(m.params);
  const ParamStore folded = with_width(full, m.params, TWidth::kHalf);
  const std::vector<int32_t> ids = test::random_ids(9, full.V, 3);
  test::ReferenceDecoder<double> a(full, m.params), b(half, folded);
  const std::vector<double> x = a.run(ids, 9), y = b.run(ids, 9);
  ASSERT_EQ(x.size(), y.size());
  for (size_t i = 0; i < x.size(); ++i) EXPECT_NEAR(x[i], y[i], 1e-11) << i;
}

TEST_P(HalfT, UnfoldingAndFoldingKeepsEveryBit) {
  const test::TinyModel m(half);
  const ParamStore wide = with_width(half, m.params, TWidth::kFull), back = with_width(full, wide, TWidth::kHalf);
  EXPECT_EQ(values(back.flat()), values(m.params.flat()));
  EXPECT_LT(parameter_count(half), parameter_count(full));
}

TEST_P(HalfT, DrawsAreTheFoldOfTheFullWidthsDraws) {
  ParamStore wide(full), narrow(half);
  initialise(full, 7, wide);
  initialise(half, 7, narrow);
  EXPECT_EQ(values(narrow.flat()), values(with_width(full, wide, TWidth::kHalf).flat()));
}

TEST(TWidth, FoldsWherePossibleOnly) {
  EXPECT_EQ(folded_t(test::tiny_llama(AttentionKind::kCocaStrict)).t_width, TWidth::kHalf);
  EXPECT_EQ(folded_t(test::tiny_llama(AttentionKind::kRope)).t_width, TWidth::kFull);
  EXPECT_EQ(folded_t(test::tiny_qwen3(AttentionKind::kCocaSlack)).t_width, TWidth::kFull);
  EXPECT_THAT([] { with_t_width(test::tiny_qwen3(AttentionKind::kCocaSlack), TWidth::kHalf); },
              ThrowsMessage<Error>(HasSubstr("norms of heads")));
  EXPECT_THAT([] { with_t_width(test::tiny_neox(AttentionKind::kRope), TWidth::kHalf); },
              ThrowsMessage<Error>(HasSubstr("has no t")));
}

// Plain gradient descent from `params`. The rate of T is multiplied by rate_of_t. In a fused projection this applies to
// T's rows only.
void descend(Context& cx, const ModelSpec& spec, ParamStore& params, int steps, float rate_of_t) {
  constexpr int64_t kB = 2, kN = 8;
  constexpr float kRate = 0.1f / (kB * kN);
  TrainingDecoder decoder(spec, kB, kN);
  const std::vector<int32_t> ids = test::random_ids(kB * kN, spec.V, 4), targets = test::random_ids(kB * kN, spec.V, 5);
  const TensorRef x(ids.data(), DType::kI32, {kB, kN}, kHost), y(targets.data(), DType::kI32, {kB, kN}, kHost);
  const bool fused = spec.qkv == Qkv::kFused;
  for (int step = 0; step < steps; ++step) {
    ParamStore grads(spec);
    decoder.forward_backward(cx, params.weights(), x, y, 1.0f, grads.tensors());
    for (const ParamInfo& info : params.infos()) {
      const bool holds_t = info.name.find(fused ? "query_key_value" : "t_proj") != std::string::npos;
      const int64_t width = width_of(info);
      float* w = params.at(info).as<float>();
      const float* g = grads.at(info).as<float>();
      for (int64_t i = 0; i < info.shape.product(); ++i) {
        const int64_t row = i / width % spec.qkv_width();
        const bool t = holds_t && (!fused || (row >= spec.D && row < spec.D + spec.key_width()));
        w[i] -= kRate * (t ? rate_of_t : 1.0f) * g[i];
      }
    }
  }
}

double rms_distance(const ParamStore& a, const ParamStore& b) {
  const std::vector<float> x = values(a.flat()), y = values(b.flat());
  double sum = 0;
  for (size_t i = 0; i < x.size(); ++i) sum += std::pow(static_cast<double>(x[i]) - static_cast<double>(y[i]), 2);
  return std::sqrt(sum / static_cast<double>(x.size()));
}

// In the full form both halves move by eta g / 2, and so does their mean. The single row of half width moves by eta g.
// Plain descent therefore agrees if T has half the rate. The two forms may differ by roundings. Their size is measured
// as the distance between two runs of the full form, one of them by plain loops; a factor of 4 allows for chance.
TEST(TWidth, PlainDescentIsTheSameAtHalfTheRate) {
  for (const ModelSpec& full :
       {test::tiny_neox(AttentionKind::kCocaSlack), test::tiny_llama(AttentionKind::kCocaStrict),
        test::tiny_llama(AttentionKind::kCocaTied)}) {
    constexpr int kSteps = 5;
    const ModelSpec half = with_t_width(full, TWidth::kHalf);
    test::TinyModel start(full);
    coarsen(start.params);
    const auto run = [&](Context& cx, const ModelSpec& spec, float rate) {
      ParamStore params = with_width(full, start.params, spec.t_width);
      descend(cx, spec, params, kSteps, rate);
      return spec.t_width == TWidth::kHalf ? std::move(params) : with_width(full, params, TWidth::kHalf);
    };
    Context cx, plain;
    plain.force_impl("collinear", "ref");
    plain.force_impl("attention", "ref");
    plain.force_impl("linear", "ref");
    const ParamStore wide = run(cx, full, 1.0f), other = run(plain, full, 1.0f), narrow = run(cx, half, 0.5f),
                     wrong = run(cx, half, 1.0f);
    const double roundings = rms_distance(wide, other), distance = rms_distance(wide, narrow);
    EXPECT_GT(roundings, 0);
    EXPECT_LE(distance, 4 * roundings) << enum_name(full.attention);
    EXPECT_GE(rms_distance(wide, wrong), 100 * roundings) << enum_name(full.attention);
  }
}

}  // namespace
}  // namespace coca::model::t_width_test
