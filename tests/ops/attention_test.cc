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
#include "coca/kernels/ref/attention.h"
#include "coca/tensor/transfer.h"
#include "ops/attention_case.h"
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
};

ref::AttentionSpec spec_of(const Case& c, const std::vector<float>& slopes, const Tensor& documents) {
  return {.scale = 1.0 / std::sqrt(static_cast<float>(c.D)),
          .causal = c.causal,
          .window = c.window,
          .hidden = c.windowed == Mask::kSymmetricWindow ? 1 - c.window : 0,
          .query_start = c.S - c.N,
          .slopes = c.alibi ? slopes.data() : nullptr,
          .document_start = documents.ref().view<int32_t, 2>()};
}

// The rules by which far keys are visible.
ref::AttentionSpec far_spec_of(const Case& c, const ref::AttentionSpec& window) {
  ref::AttentionSpec far = window;
  far.window = 0;
  far.hidden = c.window;
  far.most_distance = c.most_distance;
  far.most_position = c.most_position;
  if (c.far_range == FarRange::kAll) {
    far.causal = false;
    far.document_start = {};
  }
  return far;
}

struct Inputs {
  Tensor q, k, v, d_o, far_q, far_k;
};

template <typename T>
struct Results {
  std::vector<T> o, lse, dq, dk, dv, dq_far, dk_far;
  Results(const Case& c, const Inputs& in)
      : o(static_cast<size_t>(in.q.numel())),
        lse(static_cast<size_t>(c.B * c.H * c.N)),
        dq(o.size()),
        dk(static_cast<size_t>(in.k.numel())),
        dv(dk.size()),
        dq_far(c.far > 0 ? o.size() : 0),
        dk_far(static_cast<size_t>(in.far_k.numel())) {}
};

// The inputs converted to another type and passed as the reference expects them.
template <typename T>
struct ReferenceInputs {
  std::vector<T> q, k, v, d_o, far_q, far_k;
  std::vector<ref::AttentionKeys<T>> parts;
  TensorView<const T, 4> values, gradient;

  ReferenceInputs(const ref::AttentionSpec& spec, const Case& c, const Inputs& in)
      : q(test::convert<T>(in.q)),
        k(test::convert<T>(in.k)),
        v(test::convert<T>(in.v)),
        d_o(test::convert<T>(in.d_o)),
        values(as_view<const T, 4>(v, in.v.shape())),
        gradient(as_view<const T, 4>(d_o, in.q.shape())) {
    parts.push_back({spec, as_view<const T, 4>(q, in.q.shape()), as_view<const T, 4>(k, in.k.shape())});
    if (c.far == 0) return;
    far_q = test::convert<T>(in.far_q);
    far_k = test::convert<T>(in.far_k);
    parts.push_back(
        {far_spec_of(c, spec), as_view<const T, 4>(far_q, in.q.shape()), as_view<const T, 4>(far_k, in.far_k.shape())});
  }
};

template <typename T>
std::vector<ref::AttentionKeyGrads<T>> gradients_of(const Case& c, const Inputs& in, Results<T>& r) {
  std::vector<ref::AttentionKeyGrads<T>> grads{{as_view<T, 4>(r.dq, in.q.shape()), as_view<T, 4>(r.dk, in.k.shape())}};
  if (c.far > 0) grads.push_back({as_view<T, 4>(r.dq_far, in.q.shape()), as_view<T, 4>(r.dk_far, in.far_k.shape())});
  return grads;
}

template <typename T>
Results<T> reference(const ref::AttentionSpec& spec, const Case& c, const Inputs& in) {
  const ReferenceInputs<T> x(spec, c, in);
  Results<T> r(c, in);
  ref::attention_forward<T>(x.parts, x.values, as_view<T, 4>(r.o, in.q.shape()), as_view<T, 3>(r.lse, {c.B, c.H, c.N}));
  ref::attention_backward<T>(x.parts, x.values, x.gradient, gradients_of(c, in, r), as_view<T, 4>(r.dv, in.k.shape()));
  return r;
}

TEST(Attention, ReferenceGradientMatchesComplexStep) {
  for (const Case& c :
       {Case{1, 3, 3, 2, 1, 4, true, true}, Case{1, 2, 4, 2, 2, 2, true, false},
        Case{2, 6, 7, 2, 1, 4, true, true, 0, {3, 1, 3}},
        Case{1, 6, 7, 2, 1, 4, true, true, 2, {}, 5, FarRange::kBehindWindow, 3},
        Case{1, 5, 6, 2, 1, 2, true, false, 2, {}, 0, FarRange::kBehindWindow, 0, 0, Mask::kSymmetricWindow}}) {
    const std::vector<float> slopes = alibi_slopes(c.H);
    const Tensor documents = documents_of(c);
    const ref::AttentionSpec spec = spec_of(c, slopes, documents);
    const Dims qd{c.B, c.N, c.H, c.D}, kd{c.B, c.S, c.G, c.D}, fd{c.B, c.far, c.G, c.D};
    const int64_t sizes[] = {qd.product(), kd.product(), kd.product(), c.far > 0 ? qd.product() : 0, fd.product()};
    const auto cut = [&](auto all) {  // splits into q, k, v, far q, far k
      std::vector<decltype(all)> pieces;
      for (size_t at = 0, i = 0; i < 5; at += static_cast<size_t>(sizes[i++]))
        pieces.push_back(all.subspan(at, static_cast<size_t>(sizes[i])));
      return pieces;
    };
    const auto parts = [&]<typename T>(const std::vector<std::span<const T>>& x) {
      std::vector<ref::AttentionKeys<T>> keys{{spec, as_view<const T, 4>(x[0], qd), as_view<const T, 4>(x[1], kd)}};
      if (c.far > 0)
        keys.push_back({far_spec_of(c, spec), as_view<const T, 4>(x[3], qd), as_view<const T, 4>(x[4], fd)});
      return keys;
    };
    const auto draw = [](int64_t n, uint64_t seed) {
      const std::vector<float> values = test::random_values(n, seed, -2, 2);
      return std::vector<double>(values.begin(), values.end());
    };
    const std::vector<double> x = draw(std::accumulate(std::begin(sizes), std::end(sizes), int64_t{0}), 21),
                              weight = draw(qd.product(), 22);
    const auto loss = [&](std::span<const Complex> at) {
      std::vector<Complex> o(weight.size());
      const auto pieces = cut(at);
      ref::attention_forward<Complex>(parts(pieces), as_view<const Complex, 4>(pieces[2], kd),
                                      as_view<Complex, 4>(o, qd), {});
      Complex sum(0);
      for (size_t i = 0; i < o.size(); ++i) sum += weight[i] * o[i];
      return sum;
    };
    std::vector<double> actual(x.size());
    const auto at = cut(std::span<const double>(x));
    const auto g = cut(std::span<double>(actual));
    std::vector<ref::AttentionKeyGrads<double>> grads{{as_view<double, 4>(g[0], qd), as_view<double, 4>(g[1], kd)}};
    if (c.far > 0) grads.push_back({as_view<double, 4>(g[3], qd), as_view<double, 4>(g[4], fd)});
    ref::attention_backward<double>(parts(at), as_view<const double, 4>(at[2], kd),
                                    as_view<const double, 4>(weight, qd), grads, as_view<double, 4>(g[2], kd));
    test::expect_gradient(actual, test::complex_step_gradient(x, loss), "attention");
  }
}

// The naive form in bf16 as frameworks compute it, rounding each product's result to bf16. Only roundings that the
// tiled form has too are included: probabilities, ds and the outputs.
Results<float> naive_bf16(const ref::AttentionSpec& spec, const Case& c, const Inputs& in) {
  const ReferenceInputs<float> x(spec, c, in);
  Results<float> r(c, in);
  const auto grads = gradients_of(c, in, r);
  const auto o = as_view<float, 4>(r.o, in.q.shape()), dv = as_view<float, 4>(r.dv, in.k.shape());
  const auto lse = as_view<float, 3>(r.lse, {c.B, c.H, c.N});
  const auto round = [](float value) { return static_cast<float>(BF16(value)); };
  for (int64_t b = 0; b < c.B; ++b)
    for (int64_t h = 0; h < c.H; ++h)
      for (int64_t n = 0; n < c.N; ++n) {
        const int64_t g = h / (c.H / c.G);
        const ref::AttentionRow<float> row(x.parts, b, n, h, g);
        const auto over_keys = [&](const auto& body) {  // calls body(part, index in row.p, key)
          for (size_t part = 0; part < x.parts.size(); ++part)
            for (size_t i = row.offset[part]; i < row.offset[part + 1]; ++i)
              body(part, i, row.begin[part] + static_cast<int64_t>(i - row.offset[part]));
        };
        lse(b, h, n) = row.lse;
        float delta = 0;
        std::vector<float> dp(row.p.size());
        over_keys([&](size_t, size_t i, int64_t s) {
          for (int64_t d = 0; d < c.D; ++d) {
            o(b, n, h, d) += round(row.p[i]) * x.values(b, s, g, d);
            dp[i] += x.gradient(b, n, h, d) * x.values(b, s, g, d);
          }
        });
        for (int64_t d = 0; d < c.D; ++d) delta += (o(b, n, h, d) = round(o(b, n, h, d))) * x.gradient(b, n, h, d);
        over_keys([&](size_t part, size_t i, int64_t s) {
          const float ds = round(row.p[i] * (dp[i] - delta)) * static_cast<float>(spec.scale);
          for (int64_t d = 0; d < c.D; ++d) {
            dv(b, s, g, d) += round(row.p[i]) * x.gradient(b, n, h, d);
            grads[part].dq(b, n, h, d) += ds * x.parts[part].k(b, s, g, d);
            grads[part].dk(b, s, g, d) += ds * x.parts[part].q(b, n, h, d);
          }
        });
      }
  for (auto* out : {&r.dq, &r.dk, &r.dv, &r.dq_far, &r.dk_far})
    for (float& value : *out) value = round(value);
  return r;
}

// Shares of gradients that are zero by definition: dv of keys that no query sees; dq of queries that see a single key
// (whose softmax is constant) or none of a part; and dk of keys that only such queries see.
struct Blank {
  double dq = 0, dk = 0, dv = 0, dq_far = 0, dk_far = 0;
};
Blank blank_of(const ref::AttentionSpec& window, const Case& c) {
  Blank blank;
  std::vector<ref::AttentionSpec> specs{window};
  if (c.far > 0) specs.push_back(far_spec_of(c, window));
  for (int64_t b = 0; b < c.B; ++b) {
    std::vector<int> seen(static_cast<size_t>(c.S));
    std::vector<std::vector<int>> moved(specs.size(), seen);
    for (int64_t n = 0; n < c.N; ++n) {
      int64_t all = 0;
      for (size_t part = 0; part < specs.size(); ++part) {
        const auto [begin, end, step] = ref::visible_keys(specs[part], b, n, part == 0 ? c.S : c.far);
        all += end - begin;
      }
      for (size_t part = 0; part < specs.size(); ++part) {
        const auto [begin, end, step] = ref::visible_keys(specs[part], b, n, part == 0 ? c.S : c.far);
        (part == 0 ? blank.dq : blank.dq_far) += all <= 1 || begin == end;
        for (int64_t s = begin; s < end; ++s) seen[static_cast<size_t>(s)] = 1;
        for (int64_t s = begin; s < end && all > 1; ++s) moved[part][static_cast<size_t>(s)] = 1;
      }
    }
    blank.dv += static_cast<double>(std::count(seen.begin(), seen.end(), 0));
    blank.dk += static_cast<double>(std::count(moved[0].begin(), moved[0].end(), 0));
    if (c.far > 0) blank.dk_far += static_cast<double>(std::count(moved[1].begin(), moved[1].begin() + c.far, 0));
  }
  const auto keys = static_cast<double>(c.B * c.S), queries = static_cast<double>(c.B * c.N),
             far = static_cast<double>(c.B * c.far);
  return {blank.dq / queries, blank.dk / keys, blank.dv / keys, blank.dq_far / queries,
          blank.dk_far / std::max(1.0, far)};
}

enum class Where : uint8_t { kCpu, kGpu };
template <typename T>
void expect_matches_reference(const Case& c, const std::vector<const char*>& impls, Where where = Where::kCpu) {
  SCOPED_TRACE(fmt::format("{} {}", testing::PrintToString(c), dtype_name(DTypeOf<T>::value)));
  const std::vector<float> slope_values = alibi_slopes(c.H);
  Tensor slopes({c.H});
  std::copy(slope_values.begin(), slope_values.end(), slopes.values<float>().begin());
  const Dims qd{c.B, c.N, c.H, c.D}, kd{c.B, c.S, c.G, c.D};
  // Scores of several units make the softmax far from uniform.
  const auto make = [](const Dims& dims, uint64_t seed, double limit) {
    return test::tensor_of<T>(dims, test::random_values(dims.product(), seed, -limit, limit));
  };
  const Dims fd{c.B, c.far, c.G, c.D};
  Inputs in{
      .q = make(qd, 1, 3), .k = make(kd, 2, 2), .v = make(kd, 3, 1), .d_o = make(qd, 4, 1), .far_q = {}, .far_k = {}};
  if (c.far > 0) {
    in.far_q = make(qd, 5, 3);
    in.far_k = make(fd, 6, 2);
  }
  const Tensor documents = documents_of(c);
  const ref::AttentionSpec spec = spec_of(c, slope_values, documents);
  const Results<double> expected = reference<double>(spec, c, in);
  const Results<float> naive = std::is_same_v<T, BF16> ? naive_bf16(spec, c, in) : reference<float>(spec, c, in);
  const auto S = static_cast<double>(c.S), rows = static_cast<double>(c.N * c.H / c.G);
  // Rounding D products changes the exponent, and exp(s - lse) turns an absolute error of eps |s| into a relative error
  // of the probability. With terms = a^2 the rule's last term is a eps.
  double score = 0;
  for (const double l : expected.lse) score = std::max(score, std::abs(l));
  const double D = static_cast<double>(c.D) + 4 * score * score;
  const DType stored = DTypeOf<T>::value;
  const auto zeros = [](double share) {
    return share + 0.5 * (1 - share);
  };  // of the remaining numbers, the rule's half
  const Blank blank = blank_of(spec, c);
  const auto run = [&](Context& cx) {
    const auto there = [&](const Tensor& t) { return t.empty() ? Tensor() : to_device(cx, t); };
    const auto made = [&](const Dims& dims, DType type) { return Tensor(dims, type, cx.memory()); };
    const Tensor q_in = there(in.q), k_in = there(in.k), v_in = there(in.v), d_o_in = there(in.d_o),
                 slopes_in = there(slopes), starts = there(documents), q_far = there(in.far_q), k_far = there(in.far_k);
    const TensorRef slope_ref = c.alibi ? slopes_in.ref() : TensorRef();
    const FarKeys far{.q = q_far,
                      .k = k_far,
                      .range = c.far_range,
                      .most_distance = c.most_distance,
                      .most_position = c.most_position};
    Tensor o = made(qd, stored), lse = made({c.B, c.H, c.N}, DType::kF32), dq = made(qd, stored), dk = made(kd, stored),
           dv = made(kd, stored), dq_far, dk_far;
    if (c.far > 0) {
      dq_far = made(qd, stored);
      dk_far = made(fd, stored);
    }
    attention_forward(cx, options_of(c),
                      {.q = q_in,
                       .k = k_in,
                       .v = v_in,
                       .slopes = slope_ref,
                       .document_start = starts,
                       .far = far,
                       .o = o,
                       .lse = lse});
    attention_backward(cx, options_of(c),
                       {.q = q_in,
                        .k = k_in,
                        .v = v_in,
                        .slopes = slope_ref,
                        .document_start = starts,
                        .far = far,
                        .o = o,
                        .lse = lse,
                        .d_o = d_o_in,
                        .dq = dq,
                        .dk = dk,
                        .dv = dv,
                        .dq_far = dq_far,
                        .dk_far = dk_far});
    const auto values = [&](const Tensor& t) { return test::float_values(to_host(cx, t)); };
    test::expect_close(values(o), expected.o, naive.o, {.terms = S + D, .stored = stored}, "o");
    test::expect_close(values(lse), expected.lse, naive.lse, {.terms = S + D}, "lse");
    test::expect_close(values(dv), expected.dv, naive.dv,
                       {.terms = rows + D, .zero_share = zeros(blank.dv), .stored = stored}, "dv");
    if (c.far > 0) {
      test::expect_close(values(dq_far), expected.dq_far, naive.dq_far,
                         {.terms = S + D, .zero_share = zeros(blank.dq_far), .stored = stored}, "dq_far");
      test::expect_close(values(dk_far), expected.dk_far, naive.dk_far,
                         {.terms = rows + D, .zero_share = zeros(blank.dk_far), .stored = stored}, "dk_far");
    }
    if (c.S == 1 || c.window == 1)
      return;  // with one key the softmax is constant, and dq and dk are zero by definition
    test::expect_close(values(dq), expected.dq, naive.dq,
                       {.terms = S + D, .zero_share = zeros(blank.dq), .stored = stored}, "dq");
    test::expect_close(values(dk), expected.dk, naive.dk,
                       {.terms = rows + D, .zero_share = zeros(blank.dk), .stored = stored}, "dk");
  };
  if (where == Where::kGpu) {
    if (const Gpus found = gpus(); found.list.empty()) GTEST_SKIP() << "not run on a GPU: " << found.none;
    for (const char* impl : impls) {
      if (!runs_here("attention", impl)) continue;
      SCOPED_TRACE(impl);
      Context gpu(device_memory({DeviceKind::kCuda, 0}));
      gpu.force_impl("attention", impl);
      run(gpu);
    }
    return;
  }
  test::for_each_target([&] {
    for (const char* impl : impls) {
      if (!runs_here("attention", impl)) continue;
      SCOPED_TRACE(impl);
      Context context;
      context.force_impl("attention", impl);
      run(context);
    }
  });
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
  for (const Case& c : {Case{1, 1100, 1100, 2, 1, 8, true, false}, Case{1, 1100, 1100, 2, 1, 8, true, false, 300},
                        Case{1, 70, 1100, 1, 1, 8, true, false}, Case{1, 90, 1030, 3, 1, 8, false, false},
                        Case{2, 1100, 1100, 2, 1, 8, true, false, 0, {300, 1, 500, 29, 270}}}) {
    expect_matches_reference<float>(c, {"cpu"});
    expect_matches_reference<BF16>(c, {test::some_target_runs("attention", "avx512_bf16") ? "avx512_bf16" : "cpu"});
  }
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
}

}  // namespace
}  // namespace coca::ops::attention_test
