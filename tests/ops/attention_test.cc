// Tiled attention against the naive one: ragged shapes, GQA, queries that start late, ALiBi, views, every target.
// SPDX-License-Identifier: Apache-2.0
#include "coca/ops/attention.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>

#include "coca/base/parallel.h"
#include "coca/kernels/ref/attention.h"
#include "support/numerics.h"
#include "support/targets.h"
#include "support/views.h"

namespace coca::ops {
namespace {

using test::as_view;
using test::Complex;

struct Case {
  int64_t B, N, S, H, G, D;
  bool causal, alibi;
};
std::ostream& operator<<(std::ostream& out, const Case& c) {
  return out << fmt::format("B{} N{} S{} H{} G{} D{}{}{}", c.B, c.N, c.S, c.H, c.G, c.D, c.causal ? " causal" : "",
                            c.alibi ? " alibi" : "");
}

const Case kCases[] = {
    {1, 1, 1, 1, 1, 2, true, false},     {2, 5, 5, 2, 1, 6, true, false},     {1, 17, 17, 4, 2, 16, true, true},
    {1, 64, 64, 2, 2, 32, true, false},  {2, 65, 65, 3, 1, 48, true, true},   {1, 130, 130, 2, 1, 80, true, false},
    {1, 9, 77, 2, 2, 64, true, false},   {1, 3, 150, 4, 2, 34, true, true},   {1, 33, 70, 2, 1, 20, false, false},
    {1, 1, 100, 2, 1, 64, true, false},  {1, 129, 129, 1, 1, 160, true, false}, {1, 8, 64, 1, 1, 96, false, true},
};

ref::AttentionSpec spec_of(const Case& c, const std::vector<float>& slopes) {
  return {.scale = 1.0 / std::sqrt(static_cast<float>(c.D)),
          .causal = c.causal,
          .query_start = c.S - c.N,
          .slopes = c.alibi ? slopes.data() : nullptr};
}

template <typename T>
struct Results {
  std::vector<T> o, lse, dq, dk, dv;
};

template <typename T>
Results<T> reference(const Case& c, const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& d_o,
                     const std::vector<float>& slopes) {
  const Dims qd = q.shape(), kd = k.shape();
  const auto qx = test::convert<T>(q), kx = test::convert<T>(k), vx = test::convert<T>(v), gx = test::convert<T>(d_o);
  Results<T> r{std::vector<T>(qx.size()), std::vector<T>(static_cast<size_t>(c.B * c.H * c.N)),
               std::vector<T>(qx.size()), std::vector<T>(kx.size()), std::vector<T>(kx.size())};
  const auto spec = spec_of(c, slopes);
  ref::attention_forward<T>(spec, as_view<const T, 4>(qx, qd), as_view<const T, 4>(kx, kd), as_view<const T, 4>(vx, kd),
                            as_view<T, 4>(r.o, qd), as_view<T, 3>(r.lse, {c.B, c.H, c.N}));
  ref::attention_backward<T>(spec, as_view<const T, 4>(qx, qd), as_view<const T, 4>(kx, kd),
                             as_view<const T, 4>(vx, kd), as_view<const T, 4>(gx, qd), as_view<T, 4>(r.dq, qd),
                             as_view<T, 4>(r.dk, kd), as_view<T, 4>(r.dv, kd));
  return r;
}

TEST(Attention, ReferenceGradientMatchesComplexStep) {
  for (const Case& c : {Case{1, 3, 3, 2, 1, 4, true, true}, Case{1, 2, 4, 2, 2, 2, true, false}}) {
    const std::vector<float> slopes = alibi_slopes(c.H);
    const Dims qd{c.B, c.N, c.H, c.D}, kd{c.B, c.S, c.G, c.D};
    const auto nq = static_cast<size_t>(qd.product()), nk = static_cast<size_t>(kd.product());
    const auto values = test::random_values(static_cast<int64_t>(2 * nq + 2 * nk), 21, -2, 2);
    const std::vector<double> x(values.begin(), values.begin() + static_cast<long>(nq + 2 * nk));
    const std::vector<double> weight(values.begin() + static_cast<long>(nq + 2 * nk), values.end());
    const auto loss = [&](std::span<const Complex> at) {
      std::vector<Complex> o(nq);
      const std::span<const Complex> q = at.subspan(0, nq), k = at.subspan(nq, nk), v = at.subspan(nq + nk, nk);
      ref::attention_forward<Complex>(spec_of(c, slopes), as_view<const Complex, 4>(q, qd),
                                      as_view<const Complex, 4>(k, kd), as_view<const Complex, 4>(v, kd),
                                      as_view<Complex, 4>(o, qd), {});
      Complex sum(0);
      for (size_t i = 0; i < nq; ++i) sum += weight[i] * o[i];
      return sum;
    };
    std::vector<double> actual(x.size());
    const std::span<const double> all(x);
    const auto q = all.subspan(0, nq), k = all.subspan(nq, nk), v = all.subspan(nq + nk, nk);
    const std::span<double> grad(actual);
    auto dq = grad.subspan(0, nq), dk = grad.subspan(nq, nk), dv = grad.subspan(nq + nk, nk);
    ref::attention_backward<double>(spec_of(c, slopes), as_view<const double, 4>(q, qd), as_view<const double, 4>(k, kd),
                                    as_view<const double, 4>(v, kd), as_view<const double, 4>(weight, qd),
                                    as_view<double, 4>(dq, qd), as_view<double, 4>(dk, kd), as_view<double, 4>(dv, kd));
    test::expect_gradient(actual, test::complex_step_gradient(x, loss), "attention");
  }
}

TEST(Attention, ValuesAndGradientsMatchTheReferenceOnEveryTarget) {
  for (const Case& c : kCases) {
    SCOPED_TRACE(testing::PrintToString(c));
    const std::vector<float> slope_values = alibi_slopes(c.H);
    Tensor slopes({c.H});
    std::copy(slope_values.begin(), slope_values.end(), slopes.values<float>().begin());
    const Dims qd{c.B, c.N, c.H, c.D}, kd{c.B, c.S, c.G, c.D};
    // Scores of several units, so that the softmax is far from uniform.
    Tensor q = test::random_tensor(qd, 1, -3, 3), k = test::random_tensor(kd, 2, -2, 2), v = test::random_tensor(kd, 3),
           d_o = test::random_tensor(qd, 4);
    const Results<double> expected = reference<double>(c, q, k, v, d_o, slope_values);
    const Results<float> naive = reference<float>(c, q, k, v, d_o, slope_values);
    const AttentionOptions options{.mask = c.causal ? Mask::kCausal : Mask::kNone, .query_start = c.S - c.N};
    const TensorRef slope_ref = c.alibi ? TensorRef(slopes) : TensorRef();
    test::for_each_target([&] {
      Context context;
      Tensor o(qd), lse({c.B, c.H, c.N}), dq(qd), dk(kd), dv(kd);
      attention_forward(context, options, {.q = q, .k = k, .v = v, .slopes = slope_ref, .o = o, .lse = lse});
      attention_backward(context, options, {.q = q, .k = k, .v = v, .slopes = slope_ref, .o = o, .lse = lse,
                                            .d_o = d_o, .dq = dq, .dk = dk, .dv = dv});
      const auto S = static_cast<double>(c.S), rows = static_cast<double>(c.N * c.H / c.G);
      // Scores carry the rounding of D products into the exponent, and exp(s - lse) turns an absolute error of
      // eps |s| into a relative one of the probability: with terms = a^2 the rule's last term is a eps.
      double score = 0;
      for (const double l : expected.lse) score = std::max(score, std::abs(l));
      const double D = static_cast<double>(c.D) + 4 * score * score;
      test::expect_close(o.values<float>(), expected.o, naive.o, {.terms = S + D}, "o");
      test::expect_close(lse.values<float>(), expected.lse, naive.lse, {.terms = S + D}, "lse");
      test::expect_close(dv.values<float>(), expected.dv, naive.dv, {.terms = rows + D}, "dv");
      if (c.S == 1) return;  // one key: the softmax is constant, dq and dk are zero by nature
      test::expect_close(dq.values<float>(), expected.dq, naive.dq, {.terms = S + D}, "dq");
      test::expect_close(dk.values<float>(), expected.dk, naive.dk, {.terms = rows + D}, "dk");
    });
  }
}

TEST(Attention, LongSequencesTakeTheSharedPathAndAgree) {
  const Case c{1, 1100, 1100, 2, 1, 16, true, false};
  const Dims qd{c.B, c.N, c.H, c.D}, kd{c.B, c.S, c.G, c.D};
  Tensor q = test::random_tensor(qd, 1, -3, 3), k = test::random_tensor(kd, 2, -2, 2), v = test::random_tensor(kd, 3);
  Context context, reference_context;
  reference_context.force_impl("attention", "ref");
  Tensor o(qd), expected(qd);
  attention_forward(context, {}, {.q = q, .k = k, .v = v, .o = o});
  attention_forward(reference_context, {}, {.q = q, .k = k, .v = v, .o = expected});
  for (int64_t i = 0; i < o.numel(); ++i)  // two float softmaxes over 1100 keys: a few eps times sqrt(1100)
    ASSERT_NEAR(o.values<float>()[static_cast<size_t>(i)], expected.values<float>()[static_cast<size_t>(i)], 2e-5) << i;
}

TEST(Attention, ViewsOfAFusedProjectionEqualSeparateTensors) {
  constexpr int64_t B = 2, N = 37, H = 3, D = 20;
  Tensor fused = test::random_tensor({B, N, H, 3, D}, 6, -2, 2), d_fused({B, N, H, 3, D});
  Tensor o({B, N, H, D}), lse({B, H, N}), d_o = test::random_tensor({B, N, H, D}, 9);
  Tensor parts[3] = {Tensor({B, N, H, D}), Tensor({B, N, H, D}), Tensor({B, N, H, D})};
  for (int part = 0; part < 3; ++part)
    for (int64_t row = 0; row < B * N * H; ++row)
      std::memcpy(parts[part].values<float>().data() + row * D,
                  fused.values<float>().data() + (row * 3 + part) * D, D * sizeof(float));
  Context context;
  const auto slot = [](Tensor& t, int64_t i) { return t.ref().select(3, i); };
  attention_forward(context, {}, {.q = slot(fused, 0), .k = slot(fused, 1), .v = slot(fused, 2), .o = o, .lse = lse});
  attention_backward(context, {}, {.q = slot(fused, 0), .k = slot(fused, 1), .v = slot(fused, 2), .o = o, .lse = lse,
                                   .d_o = d_o, .dq = slot(d_fused, 0), .dk = slot(d_fused, 1), .dv = slot(d_fused, 2)});
  Tensor o2({B, N, H, D}), lse2({B, H, N}), grads[3] = {Tensor({B, N, H, D}), Tensor({B, N, H, D}), Tensor({B, N, H, D})};
  attention_forward(context, {}, {.q = parts[0], .k = parts[1], .v = parts[2], .o = o2, .lse = lse2});
  attention_backward(context, {}, {.q = parts[0], .k = parts[1], .v = parts[2], .o = o2, .lse = lse2, .d_o = d_o,
                                   .dq = grads[0], .dk = grads[1], .dv = grads[2]});
  EXPECT_EQ(std::memcmp(o.values<float>().data(), o2.values<float>().data(), static_cast<size_t>(o.numel()) * 4), 0);
  for (int part = 0; part < 3; ++part)
    for (int64_t row = 0; row < B * N * H; ++row)
      ASSERT_EQ(std::memcmp(grads[part].values<float>().data() + row * D,
                            d_fused.values<float>().data() + (row * 3 + part) * D, D * sizeof(float)), 0);
}

TEST(Attention, SameBitsForAnyNumberOfThreads) {
  const Dims qd{2, 200, 4, 32}, kd{2, 200, 2, 32};
  Tensor q = test::random_tensor(qd, 1, -2, 2), k = test::random_tensor(kd, 2, -2, 2), v = test::random_tensor(kd, 3),
         d_o = test::random_tensor(qd, 4);
  std::vector<float> first;
  const int before = max_threads();
  for (const int threads : {1, 2, 3}) {
    set_max_threads(threads);
    Context context;
    Tensor o(qd), lse({2, 4, 200}), dq(qd), dk(kd), dv(kd);
    attention_forward(context, {}, {.q = q, .k = k, .v = v, .o = o, .lse = lse});
    attention_backward(context, {}, {.q = q, .k = k, .v = v, .o = o, .lse = lse, .d_o = d_o, .dq = dq, .dk = dk, .dv = dv});
    std::vector<float> all;
    for (const Tensor* t : {&o, &lse, &dq, &dk, &dv})
      all.insert(all.end(), t->values<float>().begin(), t->values<float>().end());
    if (first.empty()) first = all;
    EXPECT_EQ(std::memcmp(first.data(), all.data(), all.size() * sizeof(float)), 0) << threads << " threads";
  }
  set_max_threads(before);
}

TEST(Attention, LargeScoresStayFiniteAndNaNsShow) {
  const Dims d{1, 70, 1, 16};
  Tensor q = test::random_tensor(d, 1, -300, 300), k = test::random_tensor(d, 2, -300, 300), v = test::random_tensor(d, 3),
         o(d);
  Context context;
  attention_forward(context, {}, {.q = q, .k = k, .v = v, .o = o});
  for (const float x : o.values<float>()) ASSERT_TRUE(std::isfinite(x));
  k.values<float>()[40 * 16] = std::numeric_limits<float>::quiet_NaN();
  attention_forward(context, {}, {.q = q, .k = k, .v = v, .o = o});
  for (int64_t n = 0; n < 70; ++n)  // exactly the rows that see key 40 are lost, none is silently wrong
    ASSERT_EQ(std::isnan(o.values<float>()[static_cast<size_t>(n * 16)]), n >= 40) << n;
}

TEST(Attention, AlibiSlopesAreTheOfficialOnes) {
  EXPECT_THAT(alibi_slopes(8), testing::ElementsAre(0.5f, 0.25f, 0.125f, 1 / 16.f, 1 / 32.f, 1 / 64.f, 1 / 128.f, 1 / 256.f));
  const std::vector<float> twelve = alibi_slopes(12);
  EXPECT_FLOAT_EQ(twelve[7], 0.00390625f);
  EXPECT_FLOAT_EQ(twelve[8], 0.70710678f);
  EXPECT_FLOAT_EQ(twelve[11], 0.08838835f);
}

TEST(Attention, BadShapesAreNamed) {
  Tensor q({1, 4, 3, 8}), k({1, 4, 2, 8}), o({1, 4, 3, 8});
  Context context;
  EXPECT_THAT([&] { attention_forward(context, {}, {.q = q, .k = k, .v = k, .o = o}); },
              testing::ThrowsMessage<Error>(testing::HasSubstr("H=3 must be a multiple of G=2")));
  context.force_impl("attention", "gpu");
  Tensor k3({1, 4, 3, 8});
  EXPECT_THAT([&] { attention_forward(context, {}, {.q = q, .k = k3, .v = k3, .o = o}); },
              testing::ThrowsMessage<Error>(testing::HasSubstr("expected cpu or ref")));
}

}  // namespace
}  // namespace coca::ops
