// Tiled attention compared with the naive form: uneven shapes, GQA, queries that start late, ALiBi, views, packed
// documents, far keys, every target.
// SPDX-License-Identifier: Apache-2.0
#include "coca/ops/attention.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <numeric>
#include <utility>

#include "coca/base/parallel.h"
#include "ops/attention_match.h"
#include "ops/op_test.h"
#include "support/numerics.h"
#include "support/targets.h"
#include "support/views.h"

namespace coca::ops::attention_test {
namespace {

using test::as_view;
using test::Complex;

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
    // windows: within a tile, across tiles, of one key, while decoding, wider than the text, with ALiBi
    {1, 200, 200, 2, 1, 16, true, false, 5},
    {2, 150, 150, 2, 2, 32, true, false, 64},
    {1, 130, 130, 1, 1, 8, true, false, 1},
    {1, 3, 150, 2, 1, 24, true, false, 70},
    {1, 90, 200, 2, 1, 20, true, true, 97},
    {1, 70, 70, 1, 1, 16, true, false, 1000},
    // documents: ending within tiles and strips, at tiles, of one token, many of one token, while decoding, with a
    // window and ALiBi
    {2, 200, 200, 2, 1, 16, true, false, 0, {37, 1, 90, 64, 1, 1, 6}},
    {1, 192, 192, 2, 2, 32, true, false, 0, {64, 128}},
    {1, 150, 150, 2, 1, 20, true, true, 0, {15, 16, 17, 18, 19, 65}},
    {2, 90, 200, 2, 1, 24, true, false, 0, {70, 60, 70}},
    {1, 5, 150, 4, 2, 34, true, true, 0, {146, 2, 2}},
    {2, 180, 180, 2, 2, 18, true, true, 33, {100, 75, 5}},
    // far keys: a few first tokens, many, all outside the window; few queries, decoding, ALiBi with a maximum,
    // documents, and all far keys visible to each query
    {2, 150, 150, 2, 1, 16, true, false, 40, {}, 4},
    {1, 200, 200, 2, 2, 32, true, false, 64, {}, 100},
    {1, 170, 170, 3, 1, 20, true, false, 33, {}, 170},
    {1, 5, 150, 4, 2, 34, true, true, 20, {}, 70, FarRange::kBehindWindow, 25},
    {1, 1, 90, 2, 1, 16, true, false, 10, {}, 90},
    {2, 150, 150, 2, 1, 16, true, true, 40, {}, 4, FarRange::kBehindWindow, 0, 43},
    {1, 130, 130, 2, 1, 24, true, true, 17, {}, 130, FarRange::kBehindWindow, 30},
    {2, 180, 180, 2, 2, 18, true, false, 33, {100, 75, 5}, 180},
    {1, 140, 140, 2, 1, 16, true, false, 30, {}, 9, FarRange::kAll},
    {1, 3, 140, 2, 1, 16, true, true, 30, {}, 9, FarRange::kAll},
    // symmetric windows: within a tile, across tiles, wider than the text, one key
    {1, 150, 150, 2, 1, 16, true, false, 9, {}, 0, FarRange::kBehindWindow, 0, 0, Mask::kSymmetricWindow},
    {2, 200, 200, 2, 2, 32, true, false, 70, {}, 0, FarRange::kBehindWindow, 0, 0, Mask::kSymmetricWindow},
    {1, 40, 40, 2, 1, 16, true, false, 90, {}, 0, FarRange::kBehindWindow, 0, 0, Mask::kSymmetricWindow},
    {1, 5, 90, 2, 1, 16, true, false, 12, {}, 0, FarRange::kBehindWindow, 0, 0, Mask::kSymmetricWindow},
    {1,
     90,
     90,
     4,
     2,
     16,
     true,
     true,
     20,
     {},
     0,
     FarRange::kBehindWindow,
     0,
     0,
     Mask::kSymmetricWindow},  // ALiBi by the distance in either direction
    // q and k wider than v, and narrower: full, a window with ALiBi, decoding, documents, far keys
    {.B = 2, .N = 70, .S = 70, .H = 2, .G = 1, .D = 16, .causal = true, .alibi = false, .E = 32},
    {.B = 1, .N = 130, .S = 130, .H = 4, .G = 2, .D = 24, .causal = true, .alibi = true, .window = 40, .E = 7},
    {.B = 1, .N = 3, .S = 90, .H = 2, .G = 2, .D = 20, .causal = true, .alibi = true, .E = 50},
    {.B = 1, .N = 65, .S = 65, .H = 1, .G = 1, .D = 128, .causal = true, .alibi = false, .E = 256},
    {.B = 1, .N = 33, .S = 40, .H = 2, .G = 1, .D = 160, .causal = false, .alibi = false, .E = 8},
    {.B = 1,
     .N = 150,
     .S = 150,
     .H = 2,
     .G = 1,
     .D = 9,
     .causal = true,
     .alibi = true,
     .documents = {60, 1, 89},
     .E = 18},
    {.B = 1,
     .N = 120,
     .S = 120,
     .H = 2,
     .G = 1,
     .D = 32,
     .causal = true,
     .alibi = true,
     .window = 30,
     .far = 50,
     .E = 48},
    {.B = 1,
     .N = 4,
     .S = 140,
     .H = 2,
     .G = 1,
     .D = 16,
     .causal = true,
     .alibi = false,
     .window = 30,
     .far = 9,
     .far_range = FarRange::kAll,
     .E = 34},
    // far keys with values of their own, more of them than tokens, and of the same width
    {.B = 1,
     .N = 70,
     .S = 70,
     .H = 2,
     .G = 1,
     .D = 12,
     .causal = true,
     .alibi = false,
     .window = 20,
     .far = 90,
     .far_range = FarRange::kAll,
     .E = 24,
     .far_values = true},
    {.B = 2,
     .N = 50,
     .S = 50,
     .H = 2,
     .G = 2,
     .D = 16,
     .causal = true,
     .alibi = false,
     .window = 9,
     .far = 20,
     .far_range = FarRange::kAll,
     .far_values = true,
     .sink = true},
    // forget gates: full, across tiles, decoding, with ALiBi, windows, documents, another width, all keys; and sinks
    {.B = 2, .N = 37, .S = 37, .H = 4, .G = 2, .D = 16, .causal = true, .alibi = false, .decay = true},
    {.B = 1, .N = 150, .S = 150, .H = 2, .G = 1, .D = 20, .causal = true, .alibi = true, .decay = true, .sink = true},
    {.B = 1, .N = 3, .S = 90, .H = 2, .G = 1, .D = 34, .causal = true, .alibi = false, .decay = true},
    {.B = 2, .N = 90, .S = 131, .H = 2, .G = 2, .D = 8, .causal = true, .alibi = true, .window = 40, .decay = true},
    {.B = 2,
     .N = 140,
     .S = 140,
     .H = 2,
     .G = 1,
     .D = 9,
     .causal = true,
     .alibi = true,
     .documents = {60, 1, 79},
     .E = 18,
     .decay = true,
     .sink = true},
    {.B = 1, .N = 33, .S = 40, .H = 3, .G = 1, .D = 20, .causal = false, .alibi = false, .decay = true},
    {.B = 1,
     .N = 70,
     .S = 70,
     .H = 2,
     .G = 1,
     .D = 16,
     .causal = true,
     .alibi = false,
     .window = 20,
     .windowed = Mask::kSymmetricWindow,
     .decay = true},
    {.B = 1, .N = 66, .S = 66, .H = 2, .G = 2, .D = 32, .causal = true, .alibi = false, .sink = true},
};

TEST(Attention, ReferenceGradientMatchesComplexStep) {
  for (const Case& c :
       {Case{1, 3, 3, 2, 1, 4, true, true}, Case{1, 2, 4, 2, 2, 2, true, false},
        Case{2, 6, 7, 2, 1, 4, true, true, 0, {3, 1, 3}},
        Case{1, 6, 7, 2, 1, 4, true, true, 2, {}, 5, FarRange::kBehindWindow, 3},
        Case{1, 5, 6, 2, 1, 2, true, false, 2, {}, 0, FarRange::kBehindWindow, 0, 0, Mask::kSymmetricWindow},
        Case{.B = 1,
        .N = 5,
        .S = 6,
        .H = 2,
        .G = 1,
        .D = 2,
        .causal = true,
        .alibi = true,
        .window = 2,
        .far = 3,
        .E = 5},
        Case{.B = 2,
        .N = 5,
        .S = 7,
        .H = 2,
        .G = 1,
        .D = 2,
        .causal = true,
        .alibi = true,
        .window = 4,
        .E = 3,
        .decay = true},
        Case{.B = 1,
        .N = 5,
        .S = 5,
        .H = 2,
        .G = 2,
        .D = 3,
        .causal = true,
        .alibi = false,
        .documents = {2, 3},
        .decay = true,
        .sink = true}}) {
    const std::vector<float> slopes = alibi_slopes(c.H);
    const Tensor documents = documents_of(c);
    const ref::AttentionSpec spec = spec_of(c, slopes, documents);
    const Dims qd = c.q_dims(), kd = c.k_dims(), vd = c.v_dims(), od = c.o_dims(), fd = c.far_dims();
    const int64_t sizes[] = {qd.product(), kd.product(),
                             vd.product(), c.far > 0 ? qd.product() : 0,
                             fd.product(), c.decay ? c.B * c.S * c.H : 0};
    const auto cut = [&](auto all) {  // splits into q, k, v, far q, far k, decay
      std::vector<decltype(all)> pieces;
      for (size_t at = 0, i = 0; i < 6; at += static_cast<size_t>(sizes[i++]))
        pieces.push_back(all.subspan(at, static_cast<size_t>(sizes[i])));
      return pieces;
    };
    const auto parts = [&]<typename T>(const std::vector<std::span<const T>>& x) {
      std::vector<ref::AttentionKeys<T>> keys{{spec, as_view<const T, 4>(x[0], qd), as_view<const T, 4>(x[1], kd)}};
      if (c.decay) {
        keys[0].decay = heads_before_tokens<const T>(x[5].data(), c);
        keys[0].query_decay = queries_of(keys[0].decay, c);
      }
      if (c.far > 0)
        keys.push_back({far_spec_of(c, spec), as_view<const T, 4>(x[3], qd), as_view<const T, 4>(x[4], fd)});
      return keys;
    };
    const auto draw = [](int64_t n, uint64_t seed) {
      const std::vector<float> values = test::random_values(n, seed, -2, 2);
      return std::vector<double>(values.begin(), values.end());
    };
    const std::vector<double> x = draw(std::accumulate(std::begin(sizes), std::end(sizes), int64_t{0}), 21),
                              weight = draw(od.product(), 22);
    const auto loss = [&](std::span<const Complex> at) {
      std::vector<Complex> o(weight.size()), lse(static_cast<size_t>(c.B * c.H * c.N));
      const auto pieces = cut(at);
      ref::attention_forward<Complex>(parts(pieces), as_view<const Complex, 4>(pieces[2], vd),
                                      as_view<Complex, 4>(o, od), as_view<Complex, 3>(lse, {c.B, c.H, c.N}));
      if (c.sink) add_sink<Complex>(o, lse, c);
      Complex sum(0);
      for (size_t i = 0; i < o.size(); ++i) sum += weight[i] * o[i];
      return sum;
    };
    std::vector<double> actual(x.size());
    const auto at = cut(std::span<const double>(x));
    const auto g = cut(std::span<double>(actual));
    std::vector<ref::AttentionKeyGrads<double>> grads{{as_view<double, 4>(g[0], qd), as_view<double, 4>(g[1], kd)}};
    if (c.decay) {
      grads[0].ddecay = heads_before_tokens<double>(g[5].data(), c);
      grads[0].dquery_decay = queries_of(grads[0].ddecay, c);
    }
    if (c.far > 0) grads.push_back({as_view<double, 4>(g[3], qd), as_view<double, 4>(g[4], fd)});
    std::vector<double> o(weight.size()), lse(static_cast<size_t>(c.B * c.H * c.N));
    ref::attention_forward<double>(parts(at), as_view<const double, 4>(at[2], vd), as_view<double, 4>(o, od),
                                   as_view<double, 3>(lse, {c.B, c.H, c.N}));
    if (c.sink) add_sink<double>(o, lse, c);
    const ref::AttentionSaved<double> saved{as_view<const double, 4>(o, od),
                                            as_view<const double, 3>(lse, {c.B, c.H, c.N})};
    ref::attention_backward<double>(parts(at), as_view<const double, 4>(at[2], vd),
                                    as_view<const double, 4>(weight, od), grads, as_view<double, 4>(g[2], vd),
                                    c.sink ? &saved : nullptr);
    test::expect_gradient(actual, test::complex_step_gradient(x, loss), "attention");
  }
}

TEST(Attention, ValuesAndGradientsMatchTheReferenceOnEveryTarget) {
  for (const Case& c : kCases) expect_matches_reference<float>(c, {"cpu"});
}

TEST(Attention, Bf16MatchesTheReferenceOnEveryTarget) {
  for (const Case& c : kCases) expect_matches_reference<BF16>(c, {"cpu", "ref"});
}

TEST(Attention, MatchesTheReferenceOnAGpu) {
  bool bf16 = true;  // only for every other case, since the arithmetic is the same
  for (const Case& c : kCases) {
    expect_matches_reference<float>(c, {"cuda"}, Where::kGpu);
    if (std::exchange(bf16, !bf16)) expect_matches_reference<BF16>(c, {"cuda"}, Where::kGpu);
    if (c.D % 8 == 0) expect_matches_reference<BF16>(c, {"cudnn"}, Where::kGpu);  // where it takes the call
  }
}

TEST(Attention, Bf16MatchesTheReferenceByBf16Instructions) {
  COCA_SKIP_UNLESS_RUNS("attention", "avx512_bf16");
  for (const Case& c : kCases) expect_matches_reference<BF16>(c, {"avx512_bf16"});
}

// With few groups and many keys the backward pass splits the keys into parts, whose dq are added in order.
TEST(Attention, BackwardInPartsMatchesTheReference) {
  for (const Case& c :
       {Case{1, 1100, 1100, 2, 1, 8, true, false}, Case{1, 1100, 1100, 2, 1, 8, true, false, 300},
        Case{1, 70, 1100, 1, 1, 8, true, false}, Case{1, 90, 1030, 3, 1, 8, false, false},
        Case{.B = 1,
        .N = 1100,
        .S = 1100,
        .H = 2,
        .G = 1,
        .D = 8,
        .causal = true,
        .alibi = false,
        .decay = true,
        .sink = true},
        Case{.B = 1, .N = 1100, .S = 1100, .H = 2, .G = 1, .D = 8, .causal = true, .alibi = false, .E = 20},
        Case{2, 1100, 1100, 2, 1, 8, true, false, 0, {300, 1, 500, 29, 270}}}) {
    expect_matches_reference<float>(c, {"cpu"});
    expect_matches_reference<BF16>(c, {test::some_target_runs("attention", "avx512_bf16") ? "avx512_bf16" : "cpu"});
  }
}

// Decays' gradients too, whose sums over keys come from several parts.
TEST(Attention, TheNumberOfThreadsDoesNotChangeABit) {
  const Case c{.B = 1, .N = 1030, .S = 1030, .H = 2, .G = 1, .D = 8, .causal = true, .alibi = false, .decay = true};
  const Tensor q = test::random_tensor(c.q_dims(), 1, -3, 3), k = test::random_tensor(c.k_dims(), 2, -2, 2),
               v = test::random_tensor(c.v_dims(), 3), d_o = test::random_tensor(c.o_dims(), 4), decay = decay_of(c);
  test::expect_same_bits(
      [&] {
        Tensor o(c.o_dims()), lse({c.B, c.H, c.N}), dq(c.q_dims()), dk(c.k_dims()), dv(c.v_dims()),
            ddecay(decay.shape());
        Context cx;
        const TensorRef decays = heads_before_tokens(decay.ref());
        attention_forward(cx, {}, {.q = q, .k = k, .v = v, .decay = decays, .o = o, .lse = lse});
        attention_backward(cx, {},
                           {.q = q,
                            .k = k,
                            .v = v,
                            .decay = decays,
                            .o = o,
                            .lse = lse,
                            .d_o = d_o,
                            .dq = dq,
                            .dk = dk,
                            .dv = dv,
                            .ddecay = heads_before_tokens(MutTensorRef(ddecay))});
        std::vector<float> all;
        for (const Tensor* t : {&o, &lse, &dq, &dk, &dv, &ddecay})
          all.insert(all.end(), t->values<float>().begin(), t->values<float>().end());
        return all;
      },
      "attention with decay");
}

TEST(Attention, RowsThatSeeNoKeyAreZero) {
  const Case c{1, 40, 20, 1, 1, 16, true, false, 8};  // keys end at 20; queries are at 0 .. 39
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

TEST(Attention, LargeScoresStayFiniteAndNaNsShow) {
  const Dims d{1, 70, 1, 16};
  Tensor q = test::random_tensor(d, 1, -300, 300), k = test::random_tensor(d, 2, -300, 300),
         v = test::random_tensor(d, 3), o(d);
  Context context;
  attention_forward(context, {}, {.q = q, .k = k, .v = v, .o = o});
  for (const float x : o.values<float>()) ASSERT_TRUE(std::isfinite(x));
  k.values<float>()[40 * 16] = std::numeric_limits<float>::quiet_NaN();
  attention_forward(context, {}, {.q = q, .k = k, .v = v, .o = o});
  for (int64_t n = 0; n < 70; ++n)  // only rows that see key 40 are NaN; none is silently wrong
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

TEST(Attention, AForcedImplementationThatCannotRunHereIsAnError) {
  Tensor q({1, 4, 2, 8}, DType::kBF16), o({1, 4, 2, 8}, DType::kBF16);
  test::for_each_target([&] {
    Context context;
    context.force_impl("attention", "avx512_bf16");
    const auto run = [&] { attention_forward(context, {}, {.q = q, .k = q, .v = q, .o = o}); };
    if (runs_here("attention", "avx512_bf16"))
      EXPECT_NO_THROW(run());
    else
      EXPECT_THAT(run, testing::ThrowsMessage<Error>(
                           testing::HasSubstr("\"avx512_bf16\" forced for op \"attention\" cannot run here")));
  });
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
              testing::ThrowsMessage<Error>(testing::HasSubstr("window=0: expected at least 1 with a window")));
  EXPECT_THAT([&] { attention_forward(plain, {.scale = -1}, {.q = q, .k = k3, .v = k3, .o = o}); },
              testing::ThrowsMessage<Error>(testing::HasSubstr("scale=-1 must be positive")));
  Tensor wide({1, 4, 3, 16}), wide_o({1, 4, 3, 16});  // values, and so o, of another width than q and k
  EXPECT_NO_THROW(attention_forward(plain, {}, {.q = q, .k = k3, .v = wide, .o = wide_o}));
  EXPECT_THAT([&] { attention_forward(plain, {}, {.q = q, .k = wide, .v = wide, .o = wide}); },
              testing::ThrowsMessage<Error>(testing::HasSubstr("k has shape [1, 4, 3, 16]; expected [1, 4, 3, 8]")));
  EXPECT_THAT([&] { attention_forward(plain, {}, {.q = q, .k = k3, .v = wide, .o = o}); },
              testing::ThrowsMessage<Error>(testing::HasSubstr("o has shape [1, 4, 3, 8]; expected [1, 4, 3, 16]")));
  Tensor decay({1, 3, 4}), short_decay({1, 3, 3}), lse({1, 3, 4});
  const auto decayed = [&](const AttentionOptions& options, TensorRef of_keys, const FarKeys& far = {}) {
    return [&, options, of_keys, far] {
      attention_forward(plain, options, {.q = q, .k = k3, .v = k3, .decay = of_keys, .far = far, .o = o});
    };
  };
  test::expect_error(decayed({}, short_decay), "decay has shape [1, 3, 3]; expected [1, 3, 4]");
  test::expect_error(decayed({.query_start = 1}, decay), "decay [1, 3, 4] ends before the last query at 4");
  test::expect_error(decayed({.mask = Mask::kSlidingWindow, .window = 2}, decay, {.q = q, .k = k3}),
                     "decay cannot be combined with far keys");
  test::expect_error([&] { attention_forward(plain, {}, {.q = q, .k = k3, .v = k3, .query_decay = decay, .o = o}); },
                     "query_decay [1, 3, 4] needs decay");
  test::expect_error(
      [&] {
        attention_backward(
            plain, {},
            {.q = q, .k = k3, .v = k3, .decay = decay, .o = o, .lse = lse, .d_o = o, .dq = o, .dk = k3, .dv = k3});
      },
      "ddecay is missing");
}

}  // namespace
}  // namespace coca::ops::attention_test
