// SPDX-License-Identifier: Apache-2.0
#include <gmock/gmock.h>

#include <cmath>

#include "coca/model/decoder.h"
#include "coca/ops/cross_entropy.h"
#include "support/tiny_model.h"

namespace coca::model::packed_test {
namespace {

constexpr int64_t kN = 12;

// One window with three documents of 5, 1 and 4 tokens and two tokens of padding.
struct Packed {
  std::vector<int32_t> ids, targets, starts;

  explicit Packed(int64_t V)
      : ids(test::random_ids(kN, V, 1)), targets(test::random_ids(kN, V, 2)), starts{0, 0, 0, 0, 0,  5,
                                                                                     6, 6, 6, 6, 10, 11} {
    for (const size_t i : {0u, 5u, 10u, 11u}) targets[i] = ops::kIgnoreTarget;
  }
};

TensorRef row_of(const std::vector<int32_t>& values) {
  return {values.data(), DType::kI32, {1, static_cast<int64_t>(values.size())}, kHost};
}

class PackedInSpec : public testing::TestWithParam<test::NamedSpec> {};

// The loss and gradients of a window are the sums of those of its documents, each run alone from position 0.
TEST_P(PackedInSpec, AWindowEqualsItsSeparateDocuments) {
  const test::TinyModel m(GetParam().spec);
  const Packed p(m.spec.V);
  Context cx;
  TrainingDecoder decoder(m.spec, 1, kN);
  ParamStore grads(m.spec), sum(m.spec);
  const TensorRef nll = decoder.forward_backward(cx, m.params.weights(), row_of(p.ids), row_of(p.targets), 1.0f,
                                                 grads.tensors(), row_of(p.starts));
  const std::vector<float> ours(nll.as<float>(), nll.as<float>() + kN);
  for (const auto& [first, length] : {std::pair<size_t, size_t>{0, 5}, {5, 1}, {6, 4}}) {
    const std::vector<int32_t> ids(p.ids.begin() + static_cast<std::ptrdiff_t>(first),
                                   p.ids.begin() + static_cast<std::ptrdiff_t>(first + length)),
        targets(p.targets.begin() + static_cast<std::ptrdiff_t>(first),
                p.targets.begin() + static_cast<std::ptrdiff_t>(first + length));
    TrainingDecoder alone(m.spec, 1, static_cast<int64_t>(length));
    const TensorRef own =
        alone.forward_backward(cx, m.params.weights(), row_of(ids), row_of(targets), 1.0f, sum.tensors());
    for (size_t i = 0; i < length;
         ++i)  // products of other shapes round differently: a few roundings of values up to about 20
      EXPECT_NEAR(ours[first + i], own.as<float>()[i], 1e-5) << first + i;
  }
  EXPECT_EQ(ours[10], 0.0f);
  EXPECT_EQ(ours[11], 0.0f);
  for (const ParamInfo& info : grads.infos()) {
    const float *a = grads.at(info).as<float>(), *b = sum.at(info).as<float>();
    double largest = 0;
    for (int64_t i = 0; i < info.shape.product(); ++i) largest = std::max(largest, std::abs(static_cast<double>(b[i])));
    for (int64_t i = 0; i < info.shape.product(); ++i)  // 2000 roundings, as derived in decoder_test.cc
      ASSERT_NEAR(a[i], b[i], 2000 * 0x1p-24 * (largest + 1e-3)) << info.name << " " << i;
  }
  const TensorRef again = decoder.loss(cx, m.params.weights(), row_of(p.ids), row_of(p.targets), row_of(p.starts));
  for (int64_t i = 0; i < kN; ++i) EXPECT_NEAR(again.as<float>()[i], ours[static_cast<size_t>(i)], 1e-5) << i;
}

// The contents of neighbouring documents and padding do not change a single bit of a document.
TEST_P(PackedInSpec, NeighboursChangeNothing) {
  const test::TinyModel m(GetParam().spec);
  Packed p(m.spec.V);
  Context cx;
  for (const Recompute recompute : {Recompute::kNone, Recompute::kLayer}) {
    TrainingDecoder decoder(m.spec, 1, kN, {.recompute = recompute});
    const auto run = [&] {
      const TensorRef nll = decoder.loss(cx, m.params.weights(), row_of(p.ids), row_of(p.targets), row_of(p.starts));
      return std::vector<float>(nll.as<float>(), nll.as<float>() + kN);
    };
    const std::vector<float> before = run();
    for (const size_t other : {0u, 4u, 5u, 10u, 11u})
      p.ids[other] = (p.ids[other] + 1) % static_cast<int32_t>(m.spec.V);
    const std::vector<float> after = run();
    // The sums of forget gates run on through documents, and their differences keep the roundings of what is in front:
    // 2^-24 of sums up to 12 log 20 = 36, in scores; through two layers and the loss at most ten times as much.
    const float bound = has_stage(m.spec, Stage::kDecay) ? 36 * 0x1p-24f * 10 : 0.0f;
    for (size_t i = 6; i < 10; ++i) EXPECT_NEAR(before[i], after[i], bound) << i;
  }
}

TEST(Packed, WrongStartsAreNamed) {
  const test::TinyModel m(test::tiny_neox(AttentionKind::kCocaSlack));
  Packed p(m.spec.V);
  Context cx;
  TrainingDecoder decoder(m.spec, 1, kN);
  p.starts[3] = 4;
  EXPECT_THAT([&] { decoder.loss(cx, m.params.weights(), row_of(p.ids), row_of(p.targets), row_of(p.starts)); },
              testing::ThrowsMessage<Error>(testing::HasSubstr("document_start[0, 3] is 4; expected 0 to 3")));
}

INSTANTIATE_TEST_SUITE_P(Specs, PackedInSpec, testing::ValuesIn(test::all_specs()), test::spec_test_name);

}  // namespace
}  // namespace coca::model::packed_test
