// Attention over keys that arrive in parts: forward sums that continue from part to part, and gradients of one part
// from o and lse of all keys, compared with the reference over all keys at once.
// SPDX-License-Identifier: Apache-2.0
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>

#include "coca/kernels/ref/attention.h"
#include "coca/tensor/transfer.h"
#include "ops/op_test.h"
#include "support/views.h"

#include "coca/ops/attention.h"

namespace coca::ops::attention_parts_test {
namespace {

using test::as_view;

// The queries are the last N of S tokens. Keys are split at `cuts`; the keys from S - N on are one part with a causal
// mask.
struct Case {
  int64_t B, N, S, H, G, E, D;
  bool alibi;
  std::vector<int64_t> cuts;
  bool decay = false;  // log forget gates
};
const Case kCases[] = {
    {1, 64, 256, 2, 1, 16, 16, false, {64, 128}}, {2, 65, 150, 4, 2, 20, 20, true, {3}},
    {1, 3, 90, 2, 2, 34, 34, true, {1, 50}},      {1, 1, 2, 1, 1, 4, 4, false, {}},
    {1, 130, 200, 3, 1, 80, 80, false, {40}},     {1, 1000, 2100, 1, 1, 8, 8, false, {}},
    {1, 64, 150, 2, 1, 32, 16, false, {64}},      {1, 4, 90, 2, 2, 10, 34, true, {30}},
    {2, 65, 150, 4, 2, 20, 16, true, {64}, true}, {1, 3, 90, 2, 1, 8, 8, false, {10, 50}, true},
};

struct Inputs {
  Tensor q, k, v, d_o, slopes, decay;  // decay [B, H, S]
  Dims qd, kd, vd, od;
};

template <typename T>
Inputs inputs_of(const Case& c) {
  const Dims qd{c.B, c.N, c.H, c.E}, kd{c.B, c.S, c.G, c.E}, vd{c.B, c.S, c.G, c.D}, od{c.B, c.N, c.H, c.D};
  Inputs in{test::tensor_of<T>(qd, test::random_values(qd.product(), 1, -3, 3)),
            test::tensor_of<T>(kd, test::random_values(kd.product(), 2, -2, 2)),
            test::tensor_of<T>(vd, test::random_values(vd.product(), 3)),
            test::tensor_of<T>(od, test::random_values(od.product(), 4)),
            {},
            {},
            qd,
            kd,
            vd,
            od};
  if (c.decay) {
    std::vector<float> sums = test::random_values(c.B * c.H * c.S, 7, -0.3, 0);
    for (size_t i = 1; i < sums.size(); ++i) sums[i] += i % static_cast<size_t>(c.S) == 0 ? 0.0f : sums[i - 1];
    in.decay = test::tensor_of<float>({c.B, c.H, c.S}, sums);
  }
  if (!c.alibi) return in;
  in.slopes = Tensor({c.H});
  std::ranges::copy(alibi_slopes(c.H), in.slopes.values<float>().begin());
  return in;
}

struct Results {
  std::vector<float> o, lse, dq, dk, dv, ddecay;
};

// Calls body(first key, number of keys, options) for every part.
template <typename Body>
void each_part(const Case& c, const Body& body) {
  std::vector<int64_t> bounds{0};
  bounds.insert(bounds.end(), c.cuts.begin(), c.cuts.end());
  bounds.push_back(c.S - c.N);
  for (size_t i = 0; i + 1 < bounds.size(); ++i)
    body(bounds[i], bounds[i + 1] - bounds[i],
         AttentionOptions{.mask = Mask::kNone, .query_start = c.S - c.N - bounds[i]});
  body(c.S - c.N, c.N, AttentionOptions{.mask = Mask::kCausal});
}

// The decays, or their gradients, of `count` tokens.
template <typename Ref>
Ref tokens(Ref decay, int64_t first, int64_t count) {
  return decay.empty() ? decay : decay.narrow(2, first, count);
}

Tensor filled(Context& cx, const Dims& dims, float value) {
  Tensor t(dims);
  std::ranges::fill(t.values<float>(), value);
  return to_device(cx, t);
}
std::vector<float> values_of(Context& cx, const Tensor& t) {
  return t.empty() ? std::vector<float>() : test::float_values(to_host(cx, t));
}
Results results(Context& cx, const std::array<const Tensor*, 6>& t) {
  return {values_of(cx, *t[0]), values_of(cx, *t[1]), values_of(cx, *t[2]),
          values_of(cx, *t[3]), values_of(cx, *t[4]), values_of(cx, *t[5])};
}

Results in_parts(Context& cx, const Case& c, const Inputs& in, TensorRef o_of_all) {
  // o must not be read if lse is -inf
  Tensor o = filled(cx, in.od, std::numeric_limits<float>::quiet_NaN()),
         lse = filled(cx, {c.B, c.H, c.N}, -std::numeric_limits<float>::infinity()), dq = filled(cx, in.qd, 0),
         dk = filled(cx, in.kd, 0), dv = filled(cx, in.vd, 0), ddecay, dquery_decay;
  if (c.decay) {
    ddecay = filled(cx, {c.B, c.H, c.S}, 0);
    dquery_decay = filled(cx, {c.B, c.H, c.N}, 0);
  }
  const TensorRef query_decay = tokens(in.decay.ref(), c.S - c.N, c.N);
  each_part(c, [&](int64_t first, int64_t count, const AttentionOptions& options) {
    attention_forward(cx, options,
                      {.q = in.q,
                       .k = in.k.ref().narrow(1, first, count),
                       .v = in.v.ref().narrow(1, first, count),
                       .slopes = in.slopes.ref(),
                       .decay = tokens(in.decay.ref(), first, count),
                       .query_decay = query_decay,
                       .document_start = {},
                       .far = {},
                       .o = o,
                       .lse = lse,
                       .write = Write::kAccumulate});
  });
  each_part(c, [&](int64_t first, int64_t count, const AttentionOptions& options) {
    attention_backward(cx, options,
                       {.q = in.q,
                        .k = in.k.ref().narrow(1, first, count),
                        .v = in.v.ref().narrow(1, first, count),
                        .slopes = in.slopes.ref(),
                        .decay = tokens(in.decay.ref(), first, count),
                        .query_decay = query_decay,
                        .document_start = {},
                        .far = {},
                        .o = o_of_all,
                        .lse = lse,
                        .d_o = in.d_o,
                        .dq = dq,
                        .dk = dk.ref().narrow(1, first, count),
                        .dv = dv.ref().narrow(1, first, count),
                        .ddecay = tokens(MutTensorRef(ddecay), first, count),
                        .dquery_decay = dquery_decay,
                        .write = Write::kAccumulate});
  });
  Results r = results(cx, {&o, &lse, &dq, &dk, &dv, &ddecay});
  const std::vector<float> of_queries = values_of(cx, dquery_decay);
  for (size_t i = 0; i < of_queries.size(); ++i) {
    const auto row = static_cast<int64_t>(i) / c.N, n = static_cast<int64_t>(i) % c.N;
    r.ddecay[static_cast<size_t>(row * c.S + c.S - c.N + n)] += of_queries[i];
  }
  return r;
}

Results at_once(Context& cx, const Case& c, const Inputs& in, Tensor& o) {
  const AttentionOptions options{.query_start = c.S - c.N};
  const auto made = [&](const Dims& dims) { return Tensor(dims, in.q.dtype(), cx.memory()); };
  Tensor lse = filled(cx, {c.B, c.H, c.N}, 0), dq = made(in.qd), dk = made(in.kd), dv = made(in.vd), ddecay;
  if (c.decay) ddecay = filled(cx, {c.B, c.H, c.S}, 0);
  attention_forward(
      cx, options,
      {.q = in.q, .k = in.k, .v = in.v, .slopes = in.slopes.ref(), .decay = in.decay.ref(), .o = o, .lse = lse});
  attention_backward(cx, options,
                     {.q = in.q,
                      .k = in.k,
                      .v = in.v,
                      .slopes = in.slopes.ref(),
                      .decay = in.decay.ref(),
                      .o = o,
                      .lse = lse,
                      .d_o = in.d_o,
                      .dq = dq,
                      .dk = dk,
                      .dv = dv,
                      .ddecay = ddecay});
  return results(cx, {&o, &lse, &dq, &dk, &dv, &ddecay});
}

struct Exact {
  std::vector<double> o, lse, dq, dk, dv, ddecay;
};

Exact exact(const Case& c, const Inputs& in, const Tensor& o_of_all) {
  const auto q = test::convert<double>(in.q), k = test::convert<double>(in.k), v = test::convert<double>(in.v),
             d_o = test::convert<double>(in.d_o), given = test::convert<double>(o_of_all);
  Exact r{std::vector<double>(d_o.size()), std::vector<double>(static_cast<size_t>(c.B * c.H * c.N)),
          std::vector<double>(q.size()),   std::vector<double>(k.size()),
          std::vector<double>(v.size()),   std::vector<double>(static_cast<size_t>(c.decay ? c.B * c.H * c.S : 0))};
  const ref::AttentionSpec spec{.scale = 1.0 / std::sqrt(static_cast<float>(c.E)),
                                .query_start = c.S - c.N,
                                .slopes = c.alibi ? in.slopes.ref().as<float>() : nullptr};
  ref::AttentionKeys<double> keys{spec, as_view<const double, 4>(q, in.qd), as_view<const double, 4>(k, in.kd)};
  const auto lse = as_view<double, 3>(r.lse, {c.B, c.H, c.N});
  const std::vector<double> decay = c.decay ? test::convert<double>(in.decay) : std::vector<double>();
  const auto of_queries = [&](auto of_keys) {
    of_keys.data += c.S - c.N;
    of_keys.shape[2] = c.N;
    return of_keys;
  };
  if (c.decay) {
    keys.decay = as_view<const double, 3>(decay, {c.B, c.H, c.S});
    keys.query_decay = of_queries(keys.decay);
  }
  ref::attention_forward<double>(std::span(&keys, 1), as_view<const double, 4>(v, in.vd),
                                 as_view<double, 4>(r.o, in.od), lse);
  ref::AttentionKeyGrads<double> grads{as_view<double, 4>(r.dq, in.qd), as_view<double, 4>(r.dk, in.kd)};
  if (c.decay) {
    grads.ddecay = as_view<double, 3>(r.ddecay, {c.B, c.H, c.S});
    grads.dquery_decay = of_queries(grads.ddecay);
  }
  const ref::AttentionSaved<double> saved{as_view<const double, 4>(given, in.od),
                                          lse};  // delta is computed from the stored o
  ref::attention_backward<double>(std::span(&keys, 1), as_view<const double, 4>(v, in.vd),
                                  as_view<const double, 4>(d_o, in.od), std::span(&grads, 1),
                                  as_view<double, 4>(r.dv, in.vd), &saved);
  return r;
}

// The error may be twice that of one call over all keys. Each part adds one rounding of o and lse.
void expect_parts_match(Context& cx, const Case& c, const Inputs& in) {
  SCOPED_TRACE(fmt::format("N {} S {} E {} D {}", c.N, c.S, c.E, c.D));
  const auto there = [&](const Tensor& t) { return t.empty() ? Tensor() : to_device(cx, t); };
  const Inputs sent{there(in.q),     there(in.k), there(in.v), there(in.d_o), there(in.slopes),
                    there(in.decay), in.qd,       in.kd,       in.vd,         in.od};
  Tensor o(in.od, in.q.dtype(), cx.memory());
  const Results once = at_once(cx, c, sent, o), parts = in_parts(cx, c, sent, o);
  const Exact r = exact(c, in, to_host(cx, o));
  const double terms = static_cast<double>(c.S + std::max(c.E, c.D));
  test::expect_close(parts.o, r.o, once.o, {.terms = terms}, "o");
  test::expect_close(parts.lse, r.lse, once.lse, {.terms = terms}, "lse");
  test::expect_close(parts.dq, r.dq, once.dq, {.terms = terms}, "dq");
  test::expect_close(parts.dk, r.dk, once.dk, {.terms = terms}, "dk");
  test::expect_close(parts.dv, r.dv, once.dv, {.terms = terms}, "dv");
  test::expect_close(parts.ddecay, r.ddecay, once.ddecay, {.terms = terms}, "ddecay");
}

template <typename T>
void expect_parts_match(const Case& c, const char* impl) {
  SCOPED_TRACE(impl);
  const Inputs in = inputs_of<T>(c);
  test::for_each_target([&] {
    if (!runs_here("attention", impl)) return;
    Context cx;
    cx.force_impl("attention", impl);
    expect_parts_match(cx, c, in);
  });
}

TEST(AttentionParts, AreAsGoodAsAllKeysAtOnce) {
  for (const Case& c : kCases) {
    expect_parts_match<float>(c, "cpu");
    expect_parts_match<BF16>(c, "cpu");
    if (c.S > 1000) continue;
    expect_parts_match<float>(c, "ref");
    expect_parts_match<BF16>(c, "ref");
  }
}

TEST(AttentionParts, AreAsGoodByBf16Instructions) {
  COCA_SKIP_UNLESS_RUNS("attention", "avx512_bf16");
  for (const Case& c : kCases) expect_parts_match<BF16>(c, "avx512_bf16");
}

TEST(AttentionParts, AreAsGoodOnAGpu) {
  if (const Gpus found = gpus(); found.list.empty()) GTEST_SKIP() << "not run on a GPU: " << found.none;
  Context cx(device_memory({DeviceKind::kCuda, 0}));
  cx.force_impl("attention", "cuda");
  for (const Case& c : kCases) {
    if (c.S > 150) continue;
    expect_parts_match(cx, c, inputs_of<float>(c));
    expect_parts_match(cx, c, inputs_of<BF16>(c));
  }
}

TEST(AttentionParts, TheNumberOfThreadsDoesNotChangeABit) {
  const Case& c = kCases[5];
  const Inputs in = inputs_of<float>(c);
  test::expect_same_bits(
      [&] {
        Context cx;
        Tensor o(in.od);
        at_once(cx, c, in, o);
        const Results r = in_parts(cx, c, in, o);
        std::vector<float> all;
        for (const auto* part : {&r.o, &r.lse, &r.dq, &r.dk, &r.dv}) all.insert(all.end(), part->begin(), part->end());
        return all;
      },
      "keys in parts");
}

TEST(AttentionParts, BadShapesAreNamed) {
  Context cx;
  Tensor q({1, 4, 1, 8}), half({1, 4, 1, 8}, DType::kBF16), lse({1, 1, 4});
  test::expect_error([&] { attention_forward(cx, {}, {.q = q, .k = q, .v = q, .o = q, .write = Write::kAccumulate}); },
                     "keys in parts need lse");
  test::expect_error(
      [&] {
        attention_forward(cx, {},
                          {.q = half, .k = half, .v = half, .o = half, .lse = lse, .write = Write::kAccumulate});
      },
      "[attention] o has type BF16; expected F32");
  test::expect_error(
      [&] {
        attention_forward(
            cx, {.mask = Mask::kSlidingWindow, .window = 2},
            {.q = q, .k = q, .v = q, .far = {.q = q, .k = q}, .o = q, .lse = lse, .write = Write::kAccumulate});
      },
      "keys in parts cannot be combined with far keys");
}

}  // namespace
}  // namespace coca::ops::attention_parts_test
