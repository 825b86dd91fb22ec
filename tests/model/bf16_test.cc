// Models in bf16: storage, whole passes compared with fp32, and the same bits whichever way they are computed.
// SPDX-License-Identifier: Apache-2.0
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <string>

#include "coca/base/parallel.h"
#include "coca/model/decoder.h"
#include "coca/ops/table.h"
#include "support/longformer_specs.h"
#include "support/targets.h"
#include "support/tiny_model.h"

namespace coca::model::bf16_test {
namespace {

using test::TinyModel;

constexpr int64_t kB = 2, kN = 70;  // more than one tile of attention

std::vector<float> widened(TensorRef t) {
  std::vector<float> out(static_cast<size_t>(t.numel()));
  for (size_t i = 0; i < out.size(); ++i)
    out[i] = t.dtype == DType::kBF16 ? static_cast<float>(t.as<BF16>()[i]) : t.as<float>()[i];
  return out;
}

// The model rounded to bf16, and the same values as fp32. Both represent the same function.
struct Pair {
  TinyModel exact;
  ParamStore rounded;

  explicit Pair(const ModelSpec& spec) : exact(spec), rounded(spec, Precision::kBF16) {
    Context cx;
    copy_params(cx, exact.params, rounded);
    copy_params(cx, rounded, exact.params);
  }
};

// kPlain: the reference of every op, also in bf16. It shows the error that is due to the type alone.
enum class Ops : uint8_t { kBest, kPlain, kPlainProducts };
void force(Context& cx, Ops which) {
  for (const ops::OpTable& op : ops::op_tables())
    if (op.has("ref") && (which == Ops::kPlain || (which == Ops::kPlainProducts && op.op == "linear")))
      cx.force_impl(std::string(op.op), "ref");
}

class Bf16OfSpec : public testing::TestWithParam<test::NamedSpec> {
 protected:
  ModelSpec spec = GetParam().spec;
  Pair m{spec};
  std::vector<int32_t> ids = test::random_ids(kB * kN, spec.V, 5), targets = test::random_ids(kB * kN, spec.V, 6);

  TensorRef ids_ref() const { return {ids.data(), DType::kI32, {kB, kN}, kHost}; }
  TensorRef targets_ref() const { return {targets.data(), DType::kI32, {kB, kN}, kHost}; }

  std::vector<float> hidden(const ParamStore& params, Ops which = Ops::kBest, int64_t chunk_tokens = 1024) const {
    Context cx;
    force(cx, which);
    Decoder decoder(spec, params.weights(), {.chunk_tokens = chunk_tokens});
    return widened(decoder.forward(cx, ids_ref()));
  }
  ParamStore gradients(const ParamStore& params, Ops which = Ops::kBest, Recompute recompute = Recompute::kNone) const {
    Context cx;
    force(cx, which);
    ParamStore grads(spec);
    TrainingDecoder decoder(spec, kB, kN, {.recompute = recompute, .precision = params.precision()});
    decoder.forward_backward(cx, params.weights(), ids_ref(), targets_ref(), 1.0f / (kB * kN), grads.tensors());
    return grads;
  }
};
INSTANTIATE_TEST_SUITE_P(Specs, Bf16OfSpec, testing::ValuesIn(test::all_specs()), test::spec_test_name);
INSTANTIATE_TEST_SUITE_P(Windows, Bf16OfSpec, testing::ValuesIn(test::few_window_specs()), test::spec_test_name);

double distance(std::span<const float> a, std::span<const float> b) {
  double squares = 0;
  for (size_t i = 0; i < a.size(); ++i) squares += std::pow(static_cast<double>(a[i]) - static_cast<double>(b[i]), 2);
  return std::sqrt(squares);
}
double length(std::span<const float> a) { return distance(a, std::vector<float>(a.size())); }

// The error relative to fp32 may be twice that of the plain loops, plus one rounding in case those happen to be exact.
// `usual`: a relative error of the plain loops to assume if theirs happens to be smaller here.
void expect_as_near(std::span<const float> fast, std::span<const float> naive, std::span<const float> exact,
                    const std::string& what, double usual = 0) {
  ASSERT_GT(length(exact), 0.0) << what;
  const double plain = std::max(distance(naive, exact), usual * length(exact));
  EXPECT_LE(distance(fast, exact), 2 * plain + 0x1p-9 * length(exact)) << what << ", of " << length(exact);
  EXPECT_GT(distance(fast, exact), 0.0) << what << ": not computed in bf16";
}

TEST_P(Bf16OfSpec, HiddenStatesAreAsNearAsTheTypeAllows) {
  expect_as_near(hidden(m.rounded), hidden(m.rounded, Ops::kPlain), hidden(m.exact.params), "hidden states");
}

// The gradients of all norms' weights and biases as one vector. A single one may have only as many numbers as a head
// has dims, too few to compare two sets of rounding errors (tests/support/reference_decoder.h).
std::vector<float> small_gradients(const ParamStore& grads) {
  std::vector<float> all;
  for (const ParamInfo& info : grads.infos()) {
    if (info.role != ParamRole::kNormWeight && info.role != ParamRole::kBias) continue;
    const std::vector<float> one = widened(grads.at(info));
    all.insert(all.end(), one.begin(), one.end());
  }
  return all;
}

// The root mean square, over all matrices, of the relative error of the plain loops. Errors in the gradients of a model
// have common causes, such as one rounding before a large score, and a single matrix may have only a few. Comparing our
// error with that of one such matrix therefore says little. The mean over all matrices of the run shows how large the
// errors usually are.
double usual_distance(const ParamStore& naive, const ParamStore& exact) {
  double squares = 0, count = 0;
  for (const ParamInfo& info : exact.infos()) {
    if (info.role != ParamRole::kMatrix && info.role != ParamRole::kEmbedding) continue;
    squares +=
        std::pow(distance(widened(naive.at(info)), widened(exact.at(info))) / length(widened(exact.at(info))), 2);
    ++count;
  }
  return std::sqrt(squares / count);
}

// Also runs if the CPU has no instructions for bf16.
TEST_P(Bf16OfSpec, GradientsAreAsNearAsTheTypeAllows) {
  const ParamStore naive = gradients(m.rounded, Ops::kPlain), exact = gradients(m.exact.params);
  const double usual = usual_distance(naive, exact);
  test::for_each_target([&] {
    const ParamStore ours = gradients(m.rounded);
    for (const ParamInfo& info : exact.infos())
      if (info.role == ParamRole::kMatrix || info.role == ParamRole::kEmbedding)
        expect_as_near(widened(ours.at(info)), widened(naive.at(info)), widened(exact.at(info)), info.name, usual);
    expect_as_near(small_gradients(ours), small_gradients(naive), small_gradients(exact), "norms and biases");
  });
}

TEST_P(Bf16OfSpec, ChunksDoNotChangeABitOfPlainProducts) {
  EXPECT_TRUE(hidden(m.rounded, Ops::kPlainProducts, 64) == hidden(m.rounded, Ops::kPlainProducts));
}

TEST_P(Bf16OfSpec, RecomputationDoesNotChangeABit) {
  const ParamStore none = gradients(m.rounded);
  for (const Recompute recompute : {Recompute::kAttention, Recompute::kLayer})
    EXPECT_TRUE(widened(gradients(m.rounded, Ops::kBest, recompute).flat()) == widened(none.flat()))
        << enum_name(recompute);
}

TEST_P(Bf16OfSpec, TheNumberOfThreadsDoesNotChangeABit) {
  const int before = max_threads();
  set_max_threads(1);
  const std::vector<float> one = widened(gradients(m.rounded).flat()), one_hidden = hidden(m.rounded, Ops::kBest, 64);
  for (const int threads : {2, 3}) {
    set_max_threads(threads);
    EXPECT_TRUE(widened(gradients(m.rounded).flat()) == one) << threads;
    EXPECT_TRUE(hidden(m.rounded, Ops::kBest, 64) == one_hidden) << threads;
  }
  set_max_threads(before);
}

TEST(Bf16, InitialValuesAreThoseOfFp32Rounded) {
  const ModelSpec spec = test::tiny_llama(AttentionKind::kRope);
  ParamStore exact(spec), expected(spec, Precision::kBF16), ours(spec, Precision::kBF16);
  initialise(spec, 3, exact);
  initialise(spec, 3, ours);
  Context cx;
  copy_params(cx, exact, expected);
  for (const ParamInfo& info : ours.infos())
    EXPECT_TRUE(widened(ours.at(info)) == widened(expected.at(info))) << info.name;
}

TEST(Bf16, HalfTheMemory) {
  const ModelSpec spec = test::tiny_llama(AttentionKind::kCocaSlack);
  const auto bytes = [&](Precision precision) {
    return static_cast<double>(ParamStore(spec, precision).flat().bytes());
  };
  EXPECT_NEAR(bytes(Precision::kBF16) / bytes(Precision::kF32), 0.5, 0.05);  // norms stay fp32
  const auto training = [&](Precision precision) {
    return static_cast<double>(TrainingDecoder(spec, kB, kN, {.precision = precision}).activation_bytes());
  };
  EXPECT_LT(training(Precision::kBF16), 0.7 * training(Precision::kF32));  // the residual streams stay fp32
}

TEST(Bf16, WeightsOfTheOtherPrecisionAreRefused) {
  const Pair m(test::tiny_neox(AttentionKind::kRope));
  const std::vector<int32_t> ids = {1, 2, 3};
  const TensorRef ref(ids.data(), DType::kI32, {1, 3}, kHost);
  ParamStore grads(m.exact.spec);
  Context cx;
  TrainingDecoder decoder(m.exact.spec, 1, 3, {.precision = Precision::kF32});
  EXPECT_THAT([&] { decoder.forward_backward(cx, m.rounded.weights(), ref, ref, 1.0f, grads.tensors()); },
              testing::ThrowsMessage<Error>(testing::HasSubstr("the weights are BF16; planned for f32")));
}

}  // namespace
}  // namespace coca::model::bf16_test
