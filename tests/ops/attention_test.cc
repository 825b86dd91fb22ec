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
  int64_t window = 0;
};
std::ostream& operator<<(std::ostream& out, const Case& c) {
  return out << fmt::format("B{} N{} S{} H{} G{} D{}{}{} window {}", c.B, c.N, c.S, c.H, c.G, c.D,
                            c.causal ? " causal" : "", c.alibi ? " alibi" : "", c.window);
}

const Case kCases[] = {
    {1, 1, 1, 1, 1, 2, true, false},
    {2, 5, 5, 2, 1, 6, true, false},
    {1, 17, 17, 4, 2, 16, true, true},
    {1, 64, 64, 2, 2, 32, true, false},
    {2, 65, 65, 3, 1, 48, true, true},
    {1, 130, 130, 2, 1, 80, true, false},
    {1, 9, 77, 2, 2, 64, true, false},
    {1, 3, 150, 4, 2, 34, true, true},
    {1, 33, 70, 2, 1, 20, false, false},
    {1, 1, 100, 2, 1, 64, true, false},
    {1, 129, 129, 1, 1, 160, true, false},
    {1, 8, 64, 1, 1, 96, false, true},
    {1, 70, 70, 1, 1, 192, true, false},
    {1, 67, 67, 1, 1, 256, true, false},
    {1, 40, 40, 2, 1, 7, true, false},
    // windows: inside a tile, across tiles, of one key, decoding, wider than the text, with ALiBi
    {1, 200, 200, 2, 1, 16, true, false, 5},
    {2, 150, 150, 2, 2, 32, true, false, 64},
    {1, 130, 130, 1, 1, 8, true, false, 1},
    {1, 3, 150, 2, 1, 24, true, false, 70},
    {1, 90, 200, 2, 1, 20, true, true, 97},
    {1, 70, 70, 1, 1, 16, true, false, 1000},
};

AttentionOptions options_of(const Case& c) {
  const Mask mask = c.window > 0 ? Mask::kSlidingWindow : c.causal ? Mask::kCausal : Mask::kNone;
  return {.mask = mask, .window = c.window, .query_start = c.S - c.N};
}
ref::AttentionSpec spec_of(const Case& c, const std::vector<float>& slopes) {
  return {.scale = 1.0 / std::sqrt(static_cast<float>(c.D)),
          .causal = c.causal,
          .window = c.window,
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
    ref::attention_backward<double>(spec_of(c, slopes), as_view<const double, 4>(q, qd),
                                    as_view<const double, 4>(k, kd), as_view<const double, 4>(v, kd),
                                    as_view<const double, 4>(weight, qd), as_view<double, 4>(dq, qd),
                                    as_view<double, 4>(dk, kd), as_view<double, 4>(dv, kd));
    test::expect_gradient(actual, test::complex_step_gradient(x, loss), "attention");
  }
}

// The naive form in bf16, as a framework computes it: each product's result is rounded to bf16. Only the roundings that
// the tiles have too count here: probabilities, ds and the outputs.
Results<float> naive_bf16(const Case& c, const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& d_o,
                          const std::vector<float>& slopes) {
  const Dims qd = q.shape(), kd = k.shape();
  const auto qx = test::convert<float>(q), kx = test::convert<float>(k), vx = test::convert<float>(v),
             gx = test::convert<float>(d_o);
  const auto Q = as_view<const float, 4>(qx, qd), K = as_view<const float, 4>(kx, kd),
             V = as_view<const float, 4>(vx, kd), dO = as_view<const float, 4>(gx, qd);
  Results<float> r{std::vector<float>(qx.size()), std::vector<float>(static_cast<size_t>(c.B * c.H * c.N)),
                   std::vector<float>(qx.size()), std::vector<float>(kx.size()), std::vector<float>(kx.size())};
  const auto o = as_view<float, 4>(r.o, qd), dq = as_view<float, 4>(r.dq, qd), dk = as_view<float, 4>(r.dk, kd),
             dv = as_view<float, 4>(r.dv, kd);
  const auto lse = as_view<float, 3>(r.lse, {c.B, c.H, c.N});
  const auto round = [](float x) { return static_cast<float>(BF16(x)); };
  const auto spec = spec_of(c, slopes);
  std::vector<float> p;
  for (int64_t b = 0; b < c.B; ++b)
    for (int64_t h = 0; h < c.H; ++h)
      for (int64_t n = 0; n < c.N; ++n) {
        const int64_t g = h / (c.H / c.G), begin = ref::attention_scores(spec, Q.ptr(b, n, h), K, b, n, h, g, p);
        lse(b, h, n) = ref::softmax_row(p);
        float delta = 0;
        std::vector<float> dp(p.size());
        for (size_t i = 0; i < p.size(); ++i) {
          const int64_t s = begin + static_cast<int64_t>(i);
          for (int64_t d = 0; d < c.D; ++d) {
            o(b, n, h, d) += round(p[i]) * V(b, s, g, d);
            dp[i] += dO(b, n, h, d) * V(b, s, g, d);
          }
        }
        for (int64_t d = 0; d < c.D; ++d) delta += (o(b, n, h, d) = round(o(b, n, h, d))) * dO(b, n, h, d);
        for (size_t i = 0; i < p.size(); ++i) {
          const int64_t s = begin + static_cast<int64_t>(i);
          const float ds = round(p[i] * (dp[i] - delta)) * static_cast<float>(spec.scale);
          for (int64_t d = 0; d < c.D; ++d) {
            dv(b, s, g, d) += round(p[i]) * dO(b, n, h, d);
            dq(b, n, h, d) += ds * K(b, s, g, d);
            dk(b, s, g, d) += ds * Q(b, n, h, d);
          }
        }
      }
  for (auto* out : {&r.dq, &r.dk, &r.dv})
    for (float& x : *out) x = round(x);
  return r;
}

template <typename T>
void expect_matches_reference(const Case& c, const std::vector<const char*>& impls) {
  SCOPED_TRACE(fmt::format("{} {}", testing::PrintToString(c), dtype_name(DTypeOf<T>::value)));
  const std::vector<float> slope_values = alibi_slopes(c.H);
  Tensor slopes({c.H});
  std::copy(slope_values.begin(), slope_values.end(), slopes.values<float>().begin());
  const Dims qd{c.B, c.N, c.H, c.D}, kd{c.B, c.S, c.G, c.D};
  // Scores of several units, so that the softmax is far from uniform.
  const Tensor q = test::tensor_of<T>(qd, test::random_values(qd.product(), 1, -3, 3)),
               k = test::tensor_of<T>(kd, test::random_values(kd.product(), 2, -2, 2)),
               v = test::tensor_of<T>(kd, test::random_values(kd.product(), 3)),
               d_o = test::tensor_of<T>(qd, test::random_values(qd.product(), 4));
  const Results<double> expected = reference<double>(c, q, k, v, d_o, slope_values);
  const Results<float> naive = std::is_same_v<T, BF16> ? naive_bf16(c, q, k, v, d_o, slope_values)
                                                       : reference<float>(c, q, k, v, d_o, slope_values);
  const TensorRef slope_ref = c.alibi ? TensorRef(slopes) : TensorRef();
  const auto S = static_cast<double>(c.S), rows = static_cast<double>(c.N * c.H / c.G);
  // Scores carry the rounding of D products into the exponent, and exp(s - lse) turns an absolute error of
  // eps |s| into a relative one of the probability: with terms = a^2 the rule's last term is a eps.
  double score = 0;
  for (const double l : expected.lse) score = std::max(score, std::abs(l));
  const double D = static_cast<double>(c.D) + 4 * score * score;
  const DType stored = DTypeOf<T>::value;
  // Keys before every window have no gradient; of the others the rule's half.
  const double unseen = c.window > 0 ? static_cast<double>(std::max<int64_t>(0, c.S - c.N + 1 - c.window)) / S : 0.0;
  const double zeros = unseen + 0.5 * (1 - unseen);
  test::for_each_target([&] {
    for (const char* impl : impls) {
      SCOPED_TRACE(impl);
      Context context;
      context.force_impl("attention", impl);
      Tensor o(qd, stored), lse({c.B, c.H, c.N}), dq(qd, stored), dk(kd, stored), dv(kd, stored);
      attention_forward(context, options_of(c), {.q = q, .k = k, .v = v, .slopes = slope_ref, .o = o, .lse = lse});
      attention_backward(
          context, options_of(c),
          {.q = q, .k = k, .v = v, .slopes = slope_ref, .o = o, .lse = lse, .d_o = d_o, .dq = dq, .dk = dk, .dv = dv});
      test::expect_close(test::float_values(o), expected.o, naive.o, {.terms = S + D, .stored = stored}, "o");
      test::expect_close(lse.values<float>(), expected.lse, naive.lse, {.terms = S + D}, "lse");
      test::expect_close(test::float_values(dv), expected.dv, naive.dv,
                         {.terms = rows + D, .zero_share = zeros, .stored = stored}, "dv");
      if (c.S == 1 || c.window == 1) continue;  // one key: the softmax is constant, dq and dk are zero by nature
      test::expect_close(test::float_values(dq), expected.dq, naive.dq, {.terms = S + D, .stored = stored}, "dq");
      test::expect_close(test::float_values(dk), expected.dk, naive.dk,
                         {.terms = rows + D, .zero_share = zeros, .stored = stored}, "dk");
    }
  });
}

TEST(Attention, ValuesAndGradientsMatchTheReferenceOnEveryTarget) {
  for (const Case& c : kCases) expect_matches_reference<float>(c, {"cpu"});
}

TEST(Attention, Bf16MatchesTheReferenceOnEveryTargetAndByBothImplementations) {
  for (const Case& c : kCases) expect_matches_reference<BF16>(c, {"cpu", "avx512_bf16", "ref"});
}

// Few groups and many keys: the backward pass cuts the keys into parts whose dq are added in order.
TEST(Attention, BackwardInPartsMatchesTheReference) {
  for (const Case& c : {Case{1, 1100, 1100, 2, 1, 8, true, false}, Case{1, 1100, 1100, 2, 1, 8, true, false, 300},
                        Case{1, 70, 1100, 1, 1, 8, true, false}, Case{1, 90, 1030, 3, 1, 8, false, false}}) {
    expect_matches_reference<float>(c, {"cpu"});
    expect_matches_reference<BF16>(c, {"avx512_bf16"});
  }
}

TEST(Attention, RowsThatSeeNoKeyAreZero) {
  const Case c{1, 40, 20, 1, 1, 16, true, false, 8};  // keys end at 20; queries stand at 0 .. 39
  const Dims qd{1, c.N, 1, c.D}, kd{1, c.S, 1, c.D};
  for (const DType type : {DType::kF32, DType::kBF16}) {
    const auto make = [&](const Dims& dims, uint64_t seed) {
      const auto values = test::random_values(dims.product(), seed);
      return type == DType::kF32 ? test::tensor_of<float>(dims, values) : test::tensor_of<BF16>(dims, values);
    };
    const Tensor q = make(qd, 1), k = make(kd, 2), v = make(kd, 3), d_o = make(qd, 4);
    Tensor o(qd, type), lse({1, 1, c.N}), dq(qd, type), dk(kd, type), dv(kd, type);
    Context context;
    const AttentionOptions options{.mask = Mask::kSlidingWindow, .window = c.window};
    attention_forward(context, options, {.q = q, .k = k, .v = v, .o = o, .lse = lse});
    attention_backward(context, options,
                       {.q = q, .k = k, .v = v, .o = o, .lse = lse, .d_o = d_o, .dq = dq, .dk = dk, .dv = dv});
    const auto values = test::float_values(o), gradient = test::float_values(dq);
    for (int64_t n = 0; n < c.N; ++n) {
      const bool blind = n >= c.S + c.window - 1;
      ASSERT_EQ(std::isinf(lse.values<float>()[static_cast<size_t>(n)]), blind) << n;
      ASSERT_EQ(values[static_cast<size_t>(n * c.D)] == 0.0f, blind) << n;
      if (blind) {
        ASSERT_EQ(gradient[static_cast<size_t>(n * c.D)], 0.0f) << n;
      }
    }
    for (const Tensor* t : {&dq, &dk, &dv})
      for (const float x : test::float_values(*t)) ASSERT_TRUE(std::isfinite(x));
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
      std::memcpy(parts[part].values<float>().data() + row * D, fused.values<float>().data() + (row * 3 + part) * D,
                  D * sizeof(float));
  Context context;
  const auto slot = [](Tensor& t, int64_t i) { return t.ref().select(3, i); };
  attention_forward(context, {}, {.q = slot(fused, 0), .k = slot(fused, 1), .v = slot(fused, 2), .o = o, .lse = lse});
  attention_backward(context, {},
                     {.q = slot(fused, 0),
                      .k = slot(fused, 1),
                      .v = slot(fused, 2),
                      .o = o,
                      .lse = lse,
                      .d_o = d_o,
                      .dq = slot(d_fused, 0),
                      .dk = slot(d_fused, 1),
                      .dv = slot(d_fused, 2)});
  Tensor o2({B, N, H, D}), lse2({B, H, N}),
      grads[3] = {Tensor({B, N, H, D}), Tensor({B, N, H, D}), Tensor({B, N, H, D})};
  attention_forward(context, {}, {.q = parts[0], .k = parts[1], .v = parts[2], .o = o2, .lse = lse2});
  attention_backward(context, {},
                     {.q = parts[0],
                      .k = parts[1],
                      .v = parts[2],
                      .o = o2,
                      .lse = lse2,
                      .d_o = d_o,
                      .dq = grads[0],
                      .dk = grads[1],
                      .dv = grads[2]});
  EXPECT_EQ(std::memcmp(o.values<float>().data(), o2.values<float>().data(), static_cast<size_t>(o.numel()) * 4), 0);
  for (int part = 0; part < 3; ++part)
    for (int64_t row = 0; row < B * N * H; ++row)
      ASSERT_EQ(std::memcmp(grads[part].values<float>().data() + row * D,
                            d_fused.values<float>().data() + (row * 3 + part) * D, D * sizeof(float)),
                0);
}

TEST(Attention, SameBitsForAnyNumberOfThreads) {
  struct Shape {
    int64_t B, N, H, G;
  };
  for (const auto& [B, N, H, G] : {Shape{2, 200, 4, 2}, Shape{1, 1100, 2, 1}, Shape{5, 70, 2, 2}})
    for (const DType type : {DType::kF32, DType::kBF16}) {
      const Dims qd{B, N, H, 32}, kd{B, N, G, 32};
      const auto make = [&](const Dims& dims, uint64_t seed, double size) {
        const auto values = test::random_values(dims.product(), seed, -size, size);
        return type == DType::kF32 ? test::tensor_of<float>(dims, values) : test::tensor_of<BF16>(dims, values);
      };
      const Tensor q = make(qd, 1, 2), k = make(kd, 2, 2), v = make(kd, 3, 1), d_o = make(qd, 4, 1);
      std::vector<float> first;
      const int before = max_threads();
      for (const int threads : {1, 2, 3}) {
        set_max_threads(threads);
        Context context;
        Tensor o(qd, type), lse({B, H, N}), dq(qd, type), dk(kd, type), dv(kd, type);
        attention_forward(context, {}, {.q = q, .k = k, .v = v, .o = o, .lse = lse});
        attention_backward(context, {},
                           {.q = q, .k = k, .v = v, .o = o, .lse = lse, .d_o = d_o, .dq = dq, .dk = dk, .dv = dv});
        std::vector<float> all;
        for (const Tensor* t : {&o, &lse, &dq, &dk, &dv}) {
          const std::vector<float> values = test::float_values(*t);
          all.insert(all.end(), values.begin(), values.end());
        }
        if (first.empty()) first = all;
        EXPECT_EQ(std::memcmp(first.data(), all.data(), all.size() * sizeof(float)), 0)
            << threads << " threads, B " << B;
      }
      set_max_threads(before);
    }
}

TEST(Attention, LargeScoresStayFiniteAndNaNsShow) {
  const Dims d{1, 70, 1, 16};
  Tensor q = test::random_tensor(d, 1, -300, 300), k = test::random_tensor(d, 2, -300, 300),
         v = test::random_tensor(d, 3), o(d);
  Context context;
  attention_forward(context, {}, {.q = q, .k = k, .v = v, .o = o});
  for (const float x : o.values<float>()) ASSERT_TRUE(std::isfinite(x));
  k.values<float>()[40 * 16] = std::numeric_limits<float>::quiet_NaN();
  attention_forward(context, {}, {.q = q, .k = k, .v = v, .o = o});
  for (int64_t n = 0; n < 70; ++n)  // exactly the rows that see key 40 are lost, none is silently wrong
    ASSERT_EQ(std::isnan(o.values<float>()[static_cast<size_t>(n * 16)]), n >= 40) << n;
}

TEST(Attention, AlibiSlopesAreTheOfficialOnes) {
  EXPECT_THAT(alibi_slopes(8),
              testing::ElementsAre(0.5f, 0.25f, 0.125f, 1 / 16.f, 1 / 32.f, 1 / 64.f, 1 / 128.f, 1 / 256.f));
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
              testing::ThrowsMessage<Error>(testing::HasSubstr("expected avx512_bf16, cpu or ref")));
  Context plain;
  Tensor half({1, 4, 3, 8}, DType::kBF16);
  EXPECT_THAT([&] { attention_forward(plain, {}, {.q = q, .k = half, .v = k3, .o = o}); },
              testing::ThrowsMessage<Error>(testing::HasSubstr("[attention] k has type BF16; expected F32")));
  EXPECT_THAT([&] { attention_forward(plain, {.mask = Mask::kSlidingWindow}, {.q = q, .k = k3, .v = k3, .o = o}); },
              testing::ThrowsMessage<Error>(testing::HasSubstr("window=0: expected at least 1 with a sliding window")));
  EXPECT_THAT([&] { attention_forward(plain, {.scale = -1}, {.q = q, .k = k3, .v = k3, .o = o}); },
              testing::ThrowsMessage<Error>(testing::HasSubstr("scale=-1 must be positive")));
}

}  // namespace
}  // namespace coca::ops
