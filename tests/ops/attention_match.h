// tests/ops/attention_match.h - a call of attention compared with the double reference and its complex-step gradient.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "coca/kernels/ref/attention.h"
#include "coca/ops/attention.h"
#include "coca/tensor/transfer.h"
#include "ops/attention_case.h"
#include "support/numerics.h"
#include "support/targets.h"
#include "support/views.h"

namespace coca::ops::attention_test {

inline ref::AttentionSpec spec_of(const Case& c, const std::vector<float>& slopes, const Tensor& documents) {
  return {.scale = 1.0 / std::sqrt(static_cast<float>(c.key_width())),
          .causal = c.causal,
          .window = c.window,
          .hidden = c.windowed == Mask::kSymmetricWindow ? 1 - c.window : 0,
          .query_start = c.S - c.N,
          .slopes = c.alibi ? slopes.data() : nullptr,
          .document_start = documents.ref().view<int32_t, 2>()};
}

// The rules by which far keys are visible.
inline ref::AttentionSpec far_spec_of(const Case& c, const ref::AttentionSpec& window) {
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
  Tensor q, k, v, d_o, far_q, far_k, far_v, decay;
};

// Gradients of decay are added to this.
inline constexpr float kBefore = 0.25f;

template <typename T>
struct Results {
  std::vector<T> o, lse, dq, dk, dv, dq_far, dk_far, dv_far, ddecay;
  Results(const Case& c, const Inputs& in)
      : o(static_cast<size_t>(c.o_dims().product())),
        lse(static_cast<size_t>(c.B * c.H * c.N)),
        dq(static_cast<size_t>(c.q_dims().product())),
        dk(static_cast<size_t>(c.k_dims().product())),
        dv(static_cast<size_t>(c.v_dims().product())),
        dq_far(c.far > 0 ? dq.size() : 0),
        dk_far(static_cast<size_t>(in.far_k.numel())),
        dv_far(static_cast<size_t>(c.far_values ? c.far_v_dims().product() : 0)),
        ddecay(static_cast<size_t>(c.decay ? in.decay.numel() : 0), T(kBefore)) {}
};

// The inputs converted to another type and passed as the reference expects them.
template <typename T>
struct ReferenceInputs {
  std::vector<T> q, k, v, d_o, far_q, far_k, far_v, decay;
  std::vector<ref::AttentionKeys<T>> parts;
  TensorView<const T, 4> values, gradient;

  ReferenceInputs(const ref::AttentionSpec& spec, const Case& c, const Inputs& in)
      : q(test::convert<T>(in.q)),
        k(test::convert<T>(in.k)),
        v(test::convert<T>(in.v)),
        d_o(test::convert<T>(in.d_o)),
        values(test::as_view<const T, 4>(v, in.v.shape())),
        gradient(test::as_view<const T, 4>(d_o, c.o_dims())) {
    parts.push_back({spec, test::as_view<const T, 4>(q, in.q.shape()), test::as_view<const T, 4>(k, in.k.shape())});
    if (c.decay) {
      decay = test::convert<T>(in.decay);
      parts.back().decay = heads_before_tokens<const T>(decay.data(), c);
      parts.back().query_decay = queries_of(parts.back().decay, c);
    }
    if (c.far == 0) return;
    far_q = test::convert<T>(in.far_q);
    far_k = test::convert<T>(in.far_k);
    parts.push_back({far_spec_of(c, spec), test::as_view<const T, 4>(far_q, in.q.shape()),
                     test::as_view<const T, 4>(far_k, in.far_k.shape())});
    if (!c.far_values) return;
    far_v = test::convert<T>(in.far_v);
    parts.back().v = test::as_view<const T, 4>(far_v, c.far_v_dims());
  }
  TensorView<const T, 4> values_of(size_t part) const { return parts[part].v.empty() ? values : parts[part].v; }
};

template <typename T>
std::vector<ref::AttentionKeyGrads<T>> gradients_of(const Case& c, const Inputs& in, Results<T>& r) {
  std::vector<ref::AttentionKeyGrads<T>> grads{
      {test::as_view<T, 4>(r.dq, in.q.shape()), test::as_view<T, 4>(r.dk, in.k.shape())}};
  if (c.decay) {
    grads.back().ddecay = heads_before_tokens(r.ddecay.data(), c);
    grads.back().dquery_decay = queries_of(grads.back().ddecay, c);
  }
  if (c.far > 0)
    grads.push_back({test::as_view<T, 4>(r.dq_far, in.q.shape()), test::as_view<T, 4>(r.dk_far, in.far_k.shape())});
  if (c.far_values) grads.back().dv = test::as_view<T, 4>(r.dv_far, c.far_v_dims());
  return grads;
}

template <typename T>
Results<T> reference(const ref::AttentionSpec& spec, const Case& c, const Inputs& in) {
  const ReferenceInputs<T> x(spec, c, in);
  Results<T> r(c, in);
  ref::attention_forward<T>(x.parts, x.values, test::as_view<T, 4>(r.o, c.o_dims()),
                            test::as_view<T, 3>(r.lse, {c.B, c.H, c.N}));
  std::vector<T> o = r.o, lse = r.lse;
  if (c.sink) add_sink<T>(o, lse, c);
  const ref::AttentionSaved<T> saved{test::as_view<const T, 4>(o, c.o_dims()),
                                     test::as_view<const T, 3>(lse, {c.B, c.H, c.N})};
  ref::attention_backward<T>(x.parts, x.values, x.gradient, gradients_of(c, in, r),
                             test::as_view<T, 4>(r.dv, c.v_dims()), c.sink ? &saved : nullptr);
  return r;
}

// The naive form in bf16 as frameworks compute it, rounding each product's result to bf16. Only roundings that the
// tiled form has too are included: probabilities, ds and the outputs.
inline Results<float> naive_bf16(const ref::AttentionSpec& spec, const Case& c, const Inputs& in) {
  const ReferenceInputs<float> x(spec, c, in);
  Results<float> r(c, in);
  const auto grads = gradients_of(c, in, r);
  const auto o = test::as_view<float, 4>(r.o, c.o_dims()), dv = test::as_view<float, 4>(r.dv, c.v_dims());
  const auto lse = test::as_view<float, 3>(r.lse, {c.B, c.H, c.N});
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
        const float share = c.sink ? 1 / (1 + std::exp(static_cast<float>(kSink) - row.lse)) : 1.0f;
        float delta = 0;
        std::vector<float> dp(row.p.size());
        over_keys([&](size_t part, size_t i, int64_t s) {
          for (int64_t d = 0; d < c.D; ++d) {
            o(b, n, h, d) += round(row.p[i]) * x.values_of(part)(b, s, g, d);
            dp[i] += x.gradient(b, n, h, d) * x.values_of(part)(b, s, g, d);
          }
        });
        for (int64_t d = 0; d < c.D; ++d) {
          o(b, n, h, d) = round(o(b, n, h, d));
          delta += round(o(b, n, h, d) * share) * x.gradient(b, n, h, d);
        }
        over_keys([&](size_t part, size_t i, int64_t s) {
          const float p = row.p[i] * share, dx = p * (dp[i] - delta);
          const float ds = round(dx) * static_cast<float>(spec.scale);
          if (c.decay) {
            grads[part].dquery_decay(b, h, n) += dx;
            grads[part].ddecay(b, h, s) -= dx;
          }
          const auto own = grads[part].dv.empty() ? dv : grads[part].dv;
          for (int64_t d = 0; d < c.D; ++d) own(b, s, g, d) += round(p) * x.gradient(b, n, h, d);
          for (int64_t e = 0; e < c.key_width(); ++e) {
            grads[part].dq(b, n, h, e) += ds * x.parts[part].k(b, s, g, e);
            grads[part].dk(b, s, g, e) += ds * x.parts[part].q(b, n, h, e);
          }
        });
      }
  for (auto* out : {&r.dq, &r.dk, &r.dv, &r.dq_far, &r.dk_far, &r.dv_far})
    for (float& value : *out) value = round(value);
  return r;
}

// Shares of gradients that are zero by definition: dv of keys that no query sees; dq of queries that see a single key
// (whose softmax is constant) or none of a part; and dk of keys that only such queries see.
struct Blank {
  double dq = 0, dk = 0, dv = 0, dq_far = 0, dk_far = 0;
};
inline Blank blank_of(const ref::AttentionSpec& window, const Case& c) {
  Blank blank;
  std::vector<ref::AttentionSpec> specs{window};
  if (c.far > 0) specs.push_back(far_spec_of(c, window));
  for (int64_t b = 0; b < c.B; ++b) {
    std::vector<int> seen(static_cast<size_t>(std::max(c.S, c.far)));
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
        for (int64_t s = begin; s < end && !(part == 1 && c.far_values); ++s) seen[static_cast<size_t>(s)] = 1;
        for (int64_t s = begin; s < end && all > 1; ++s) moved[part][static_cast<size_t>(s)] = 1;
      }
    }
    blank.dv += static_cast<double>(std::count(seen.begin(), seen.begin() + c.S, 0));
    blank.dk += static_cast<double>(std::count(moved[0].begin(), moved[0].begin() + c.S, 0));
    if (c.far > 0) blank.dk_far += static_cast<double>(std::count(moved[1].begin(), moved[1].begin() + c.far, 0));
  }
  const auto keys = static_cast<double>(c.B * c.S), queries = static_cast<double>(c.B * c.N),
             far = static_cast<double>(c.B * c.far);
  return {blank.dq / queries, blank.dk / keys, blank.dv / keys, blank.dq_far / queries,
          blank.dk_far / std::max(1.0, far)};
}

// o and lse as the backward pass gets them.
struct Saved {
  Tensor o, lse;
};
template <typename T>
Saved saved_for_backward(Context& cx, const Case& c, const Tensor& o, const Tensor& lse) {
  std::vector<float> values = test::float_values(to_host(cx, o)), logs = test::float_values(to_host(cx, lse));
  if (c.sink) add_sink<float>(values, logs, c);
  return {to_device(cx, test::tensor_of<T>(o.shape(), values)),
          to_device(cx, test::tensor_of<float>(lse.shape(), logs))};
}

enum class Where : uint8_t { kCpu, kGpu };
template <typename T>
void expect_matches_reference(const Case& c, const std::vector<const char*>& impls, Where where = Where::kCpu) {
  SCOPED_TRACE(fmt::format("{} {}", testing::PrintToString(c), dtype_name(DTypeOf<T>::value)));
  const std::vector<float> slope_values = alibi_slopes(c.H);
  Tensor slopes({c.H});
  std::copy(slope_values.begin(), slope_values.end(), slopes.values<float>().begin());
  const Dims qd = c.q_dims(), kd = c.k_dims(), vd = c.v_dims(), od = c.o_dims(), fd = c.far_dims();
  // Scores of several units make the softmax far from uniform.
  const auto make = [](const Dims& dims, uint64_t seed, double limit) {
    return test::tensor_of<T>(dims, test::random_values(dims.product(), seed, -limit, limit));
  };
  Inputs in{.q = make(qd, 1, 3),
            .k = make(kd, 2, 2),
            .v = make(vd, 3, 1),
            .d_o = make(od, 4, 1),
            .far_q = {},
            .far_k = {},
            .far_v = {},
            .decay = decay_of(c)};
  if (c.far > 0) {
    in.far_q = make(qd, 5, 3);
    in.far_k = make(fd, 6, 2);
    if (c.far_values) in.far_v = make(c.far_v_dims(), 8, 1);
  }
  const Tensor documents = documents_of(c);
  const ref::AttentionSpec spec = spec_of(c, slope_values, documents);
  const Results<double> expected = reference<double>(spec, c, in);
  const Results<float> naive = std::is_same_v<T, BF16> ? naive_bf16(spec, c, in) : reference<float>(spec, c, in);
  const auto S = static_cast<double>(c.S), rows = static_cast<double>(c.N * c.H / c.G);
  // Rounding E products changes the exponent, and exp(s - lse) turns an absolute error of eps |s| into a relative error
  // of the probability. With terms = a^2 the rule's last term is a eps.
  double score = 0;
  for (const double l : expected.lse) score = std::max(score, std::abs(l));
  const double D = static_cast<double>(std::max(c.key_width(), c.D)) + 4 * score * score;
  const DType stored = DTypeOf<T>::value;
  const auto zeros = [](double share) {
    return share + 0.5 * (1 - share);
  };  // of the remaining numbers, the rule's half
  const Blank blank = blank_of(spec, c);
  const auto run = [&](Context& cx) {
    const auto there = [&](const Tensor& t) { return t.empty() ? Tensor() : to_device(cx, t); };
    const auto made = [&](const Dims& dims, DType type) { return Tensor(dims, type, cx.memory()); };
    const Tensor q_in = there(in.q), k_in = there(in.k), v_in = there(in.v), d_o_in = there(in.d_o),
                 slopes_in = there(slopes), starts = there(documents), q_far = there(in.far_q), k_far = there(in.far_k),
                 v_far = there(in.far_v), decay_in = there(in.decay);
    Tensor ddecay;
    if (c.decay) {
      Tensor before(in.decay.shape());
      std::ranges::fill(before.values<float>(), kBefore);
      ddecay = to_device(cx, before);
    }
    const TensorRef slope_ref = c.alibi ? slopes_in.ref() : TensorRef();
    const FarKeys far{.q = q_far,
                      .k = k_far,
                      .v = v_far,
                      .range = c.far_range,
                      .most_distance = c.most_distance,
                      .most_position = c.most_position};
    Tensor o = made(od, stored), lse = made({c.B, c.H, c.N}, DType::kF32), dq = made(qd, stored), dk = made(kd, stored),
           dv = made(vd, stored), dq_far, dk_far, dv_far;
    if (c.far_values) dv_far = made(c.far_v_dims(), stored);
    if (c.far > 0) {
      dq_far = made(qd, stored);
      dk_far = made(fd, stored);
    }
    attention_forward(cx, options_of(c),
                      {.q = q_in,
                       .k = k_in,
                       .v = v_in,
                       .slopes = slope_ref,
                       .decay = heads_before_tokens(TensorRef(decay_in)),
                       .document_start = starts,
                       .far = far,
                       .o = o,
                       .lse = lse});
    const Saved saved = saved_for_backward<T>(cx, c, o, lse);
    attention_backward(cx, options_of(c),
                       {.q = q_in,
                        .k = k_in,
                        .v = v_in,
                        .slopes = slope_ref,
                        .decay = heads_before_tokens(TensorRef(decay_in)),
                        .document_start = starts,
                        .far = far,
                        .o = saved.o,
                        .lse = saved.lse,
                        .d_o = d_o_in,
                        .dq = dq,
                        .dk = dk,
                        .dv = dv,
                        .dq_far = dq_far,
                        .dk_far = dk_far,
                        .dv_far = dv_far,
                        .ddecay = heads_before_tokens(MutTensorRef(ddecay))});
    const auto values = [&](const Tensor& t) { return test::float_values(to_host(cx, t)); };
    test::expect_close(values(o), expected.o, naive.o, {.terms = S + D, .stored = stored}, "o");
    test::expect_close(values(lse), expected.lse, naive.lse, {.terms = S + D}, "lse");
    test::expect_close(values(dv), expected.dv, naive.dv,
                       {.terms = rows + D, .zero_share = zeros(blank.dv), .stored = stored}, "dv");
    if (c.decay)  // a key's sum over its queries, and a query's over its keys
      test::expect_close(values(ddecay), expected.ddecay, naive.ddecay, {.terms = rows + S + D}, "ddecay");
    if (c.far_values)
      test::expect_close(values(dv_far), expected.dv_far, naive.dv_far,
                         {.terms = rows + D, .zero_share = zeros(blank.dk_far), .stored = stored}, "dv_far");
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

}  // namespace coca::ops::attention_test
