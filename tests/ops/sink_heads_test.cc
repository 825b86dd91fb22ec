// Learned sinks with attention's own backward pass, against attention with a sink written out, and rows without keys.
// SPDX-License-Identifier: Apache-2.0
#include <limits>

#include "coca/ops/attention.h"
#include "coca/ops/head_modifiers.h"
#include "ops/head_modifiers_case.h"

namespace coca::ops::sink_heads_test {
namespace {

using test::Complex;
using test::Packed;

// Attention with a sink, written out: softmax over the scores and the sink, whose value is 0. q, k, v [N, D] of one
// causal head.
std::vector<Complex> attention_with_sink(std::span<const Complex> q, std::span<const Complex> k,
                                         std::span<const Complex> v, Complex sink, size_t N, size_t D) {
  std::vector<Complex> o(N * D);
  for (size_t m = 0; m < N; ++m) {
    Complex sum = std::exp(sink);
    for (size_t n = 0; n <= m; ++n) {
      Complex score = 0;
      for (size_t d = 0; d < D; ++d) score += q[m * D + d] * k[n * D + d];
      const Complex weight = std::exp(score);
      sum += weight;
      for (size_t d = 0; d < D; ++d) o[m * D + d] += weight * v[n * D + d];
    }
    for (size_t d = 0; d < D; ++d) o[m * D + d] /= sum;
  }
  return o;
}

// attention_backward takes the new o and lse, and its gradients are then those of attention with the sink.
TEST(SinkHeads, ASinkIsOneMoreKeyForAttentionsBackwardPass) {
  constexpr int64_t N = 6, D = 4;
  constexpr size_t kNumbers = N * D;
  const Dims heads{1, N, 1, D};
  const Tensor q = test::random_tensor(heads, 1), k = test::random_tensor(heads, 2), v = test::random_tensor(heads, 3),
               d_o = test::random_tensor(heads, 4), sink = test::random_tensor({1}, 5);
  const auto weights = test::convert<double>(d_o);
  const auto loss = [&](std::span<const Complex> at) {
    return test::weighted_sum(attention_with_sink(at.subspan(0, kNumbers), at.subspan(kNumbers, kNumbers),
                                                  at.subspan(2 * kNumbers, kNumbers), at[3 * kNumbers], N, D),
                              weights);
  };
  const std::vector<double> inputs = test::joined(
      {test::convert<double>(q), test::convert<double>(k), test::convert<double>(v), test::convert<double>(sink)});
  const std::vector<double> wanted = test::complex_step_gradient(inputs, loss);
  test::for_each_way({"attention", "head_modifiers"}, [&](Context& cx) {
    const AttentionOptions options{.scale = 1.0f};
    const Tensor q_ = to_device(cx, q), k_ = to_device(cx, k), v_ = to_device(cx, v), d_ = to_device(cx, d_o),
                 sink_ = to_device(cx, sink);
    Tensor o(heads, DType::kF32, cx.memory()), lse({1, 1, N}, DType::kF32, cx.memory()),
        dq(heads, DType::kF32, cx.memory()), dk(heads, DType::kF32, cx.memory()), dv(heads, DType::kF32, cx.memory()),
        dsink({1}, DType::kF32, cx.memory());
    attention_forward(cx, options, {.q = q_, .k = k_, .v = v_, .o = o, .lse = lse});
    sink_heads_forward(cx, {.sink = sink_, .o = o, .lse = lse});
    attention_backward(cx, options,
                       {.q = q_, .k = k_, .v = v_, .o = o, .lse = lse, .d_o = d_, .dq = dq, .dk = dk, .dv = dv});
    sink_heads_backward(cx, {.sink = sink_, .o = o, .lse = lse, .d_o = d_, .dsink = dsink});
    std::vector<float> got;
    for (const Tensor* t : {&dq, &dk, &dv, &dsink})
      for (const float g : test::float_values(to_host(cx, *t))) got.push_back(g);
    // Sums of at most N D = 24 terms below 4, each with a handful of roundings: 24 * 4 * 8 * 2^-24 = 5e-5.
    ASSERT_EQ(got.size(), wanted.size());
    for (size_t i = 0; i < wanted.size(); ++i) EXPECT_NEAR(got[i], wanted[i], 5e-5) << i;
  });
}

// A query that sees no key has the sink alone, and nothing of it reaches the sink's gradient. lse has any strides.
TEST(SinkHeads, RowsWithoutKeysHaveTheSinkAlone) {
  constexpr float kInf = std::numeric_limits<float>::infinity();
  const Dims heads{1, 2, 2, 4};
  test::for_each_way({"head_modifiers"}, [&](Context& cx) {
    Packed o(cx, heads, {0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9, 9, 9}), d_o(cx, heads);
    Packed all(cx, {1, 2, 2, 2}, {-kInf, 77, 1, 77, 1, 77, 300, 77});  // [B, H, N] and sentinels
    Packed sink(cx, {2}, {2, -300}), dsink(cx, {2}, {0, 0});
    const MutTensorRef lse = MutTensorRef(all).select(3, 0);
    sink_heads_forward(cx, {.sink = sink, .o = o, .lse = lse});
    sink_heads_backward(cx, {.sink = sink, .o = o, .lse = lse, .d_o = d_o, .dsink = dsink});
    const std::vector<float> sums = all.values(), out = o.values();
    EXPECT_EQ(sums[0], 2.0f);                // head 0, token 0: no keys
    EXPECT_NEAR(sums[2], 2.3132617f, 1e-6);  // head 0, token 1: log(e + e^2)
    EXPECT_EQ(sums[4], 1.0f);                // head 1: the sink is too low to count
    EXPECT_EQ(sums[6], 300.0f);
    for (const size_t i : {1u, 3u, 5u, 7u}) EXPECT_EQ(sums[i], 77.0f);
    for (size_t i = 0; i < 4; ++i) EXPECT_EQ(out[i], 0.0f);
    EXPECT_NEAR(out[8], 5 * 0.26894142, 1e-6);
    EXPECT_EQ(out[4], 1.0f);
    EXPECT_EQ(out[12], 9.0f);
    // Of head 0 only token 1: -0.731 * 0.5 * (5 + 6 + 7 + 8) * 0.269.
    EXPECT_NEAR(dsink.values()[0], -0.73105858 * 0.5 * 26 * 0.26894142, 1e-5);
    EXPECT_EQ(dsink.values()[1], 0.0f);
  });
}

}  // namespace
}  // namespace coca::ops::sink_heads_test
