// Dilated windows compared with the plain reference, which visits every D_h-th key: uneven lengths, several dilations,
// grouped queries, ALiBi, documents, tokens that all queries see, symmetric windows, queries that start late.
// SPDX-License-Identifier: Apache-2.0
#include "coca/ops/dilated_attention.h"
#include "coca/ops/attention.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <numeric>

#include "coca/kernels/ref/attention.h"
#include "ops/op_test.h"
#include "support/views.h"

namespace coca::ops::dilated_attention_test {
namespace {

using test::as_view;
using test::Complex;

struct Case {
  int64_t B, N, S, H, G, D, window;
  std::vector<int64_t> dilation;
  bool alibi = false, symmetric = false;
  int64_t far = 0;                      // number of first tokens that all queries see; the queries come after them
  std::vector<int64_t> documents = {};  // lengths, S in total
  int64_t E = 0;                        // width of q and k; 0: D
  bool decay = false;                   // log forget gates

  int64_t width() const { return E > 0 ? E : D; }
};
std::ostream& operator<<(std::ostream& out, const Case& c) {
  return out << fmt::format("B{} N{} S{} H{} G{} D{} window {} dilation {}{}{} far {} documents {} E {}{}", c.B, c.N,
                            c.S, c.H, c.G, c.D, c.window, fmt::join(c.dilation, ","), c.alibi ? " alibi" : "",
                            c.symmetric ? " symmetric" : "", c.far, fmt::join(c.documents, ","), c.width(),
                            c.decay ? " decay" : "");
}

const Case kCases[] = {
    {1, 40, 40, 2, 2, 8, 5, {1, 3}},
    {2, 67, 67, 4, 2, 16, 7, {2, 2, 5, 5}},
    {1, 200, 200, 2, 1, 20, 70, {2, 2}},
    {1, 3, 3, 2, 2, 8, 2, {5, 1}},                // fewer tokens than residues
    {1, 13, 150, 2, 1, 24, 9, {4, 4}},            // decoding: the first query may have any residue
    {1, 300, 300, 3, 3, 8, 20, {3, 3, 2}, true},  // ALiBi uses undilated distances
    {1, 150, 150, 2, 2, 16, 8, {3, 1}, false, true},
    {1, 90, 90, 2, 1, 8, 12, {4, 4}, true, true},
    {2, 60, 65, 2, 1, 16, 6, {3, 3}, false, false, 5},
    {1, 150, 154, 4, 2, 8, 9, {2, 2, 1, 1}, true, false, 4},
    {1, 80, 83, 2, 2, 8, 5, {3, 2}, true, true, 3},
    {2, 120, 120, 2, 2, 16, 9, {3, 2}, false, false, 0, {50, 1, 69}},
    {1, 7, 100, 2, 2, 16, 9, {3, 2}, true, false, 0, {40, 60}},
    {1, 80, 83, 4, 2, 8, 5, {3, 3, 2, 2}, true, true, 3, {}, 20},  // q and k wider than v, and narrower
    {2, 67, 70, 2, 2, 24, 7, {1, 4}, false, false, 3, {}, 6},
    {2, 61, 61, 4, 2, 8, 9, {3, 3, 1, 1}, true, false, 0, {20, 41}, 0, true},
    {1, 40, 70, 2, 1, 8, 6, {4, 4}, false, true, 0, {}, 0, true},
};

Tensor starts_of(const Case& c) {
  if (c.documents.empty() && c.far == 0) return {};
  Tensor starts({c.B, c.N}, DType::kI32);
  for (int64_t i = 0; i < c.B * c.N; ++i) {
    int64_t start = 0, m = c.S - c.N + i % c.N;
    for (const int64_t length : c.documents)
      if (start + length <= m) start += length;
    starts.values<int32_t>()[static_cast<size_t>(i)] = static_cast<int32_t>(c.far > 0 ? c.far : start);
  }
  return starts;
}

// [B, H, S]: sums of logarithms of gates.
std::vector<float> decay_of(const Case& c) {
  std::vector<float> sums = test::random_values(c.decay ? c.B * c.H * c.S : 0, 7, -0.3, 0);
  for (size_t i = 1; i < sums.size(); ++i) sums[i] += i % static_cast<size_t>(c.S) == 0 ? 0.0f : sums[i - 1];
  return sums;
}
template <typename T>
TensorView<T, 3> queries_of(TensorView<T, 3> keys, const Case& c) {
  return {keys.ptr(0, 0, c.S - c.N), {c.B, c.H, c.N}, keys.strides};
}

Dims query_dims(const Case& c) { return {c.B, c.N, c.H, c.width()}; }
Dims value_dims(const Case& c) { return {c.B, c.S, c.G, c.D}; }
Dims out_dims(const Case& c) { return {c.B, c.N, c.H, c.D}; }
Dims key_dims(const Case& c) { return {c.B, c.S, c.G, c.width()}; }
Dims far_dims(const Case& c) { return {c.B, c.far, c.G, c.width()}; }

// The reference over q, k, v, far q and far k in type T.
template <typename T>
struct Plain {
  std::vector<float> slopes;
  Tensor starts;
  std::vector<T> decay;
  std::vector<ref::AttentionKeys<T>> parts;
  TensorView<const T, 4> v;

  Plain(const Case& c, std::span<const T> q, std::span<const T> k, std::span<const T> values, std::span<const T> far_q,
        std::span<const T> far_k)
      : slopes(alibi_slopes(c.H)), starts(starts_of(c)), v(as_view<const T, 4>(values, value_dims(c))) {
    const float scale = 1.0f / std::sqrt(static_cast<float>(c.width()));
    parts.push_back({{.scale = static_cast<double>(scale),
                      .window = c.window,
                      .hidden = c.symmetric ? 1 - c.window : 0,
                      .query_start = c.S - c.N,
                      .dilation = c.dilation.data(),
                      .slopes = c.alibi ? slopes.data() : nullptr,
                      .document_start = TensorRef(starts.ref()).view<int32_t, 2>()},
                     as_view<const T, 4>(q, query_dims(c)),
                     as_view<const T, 4>(k, key_dims(c))});
    if (c.decay) {
      for (const float sum : decay_of(c)) decay.push_back(T(sum));
      parts[0].decay = as_view<const T, 3>(decay, {c.B, c.H, c.S});
      parts[0].query_decay = queries_of(parts[0].decay, c);
    }
    if (c.far > 0)
      parts.push_back({{.scale = static_cast<double>(scale),
                        .causal = false,
                        .query_start = c.S - c.N,
                        .slopes = c.alibi ? slopes.data() : nullptr},
                       as_view<const T, 4>(far_q, query_dims(c)),
                       as_view<const T, 4>(far_k, far_dims(c))});
  }
};

template <typename T>
struct Results {
  std::vector<T> o, lse, dq, dk, dv, dq_far, dk_far, ddecay;
  explicit Results(const Case& c)
      : o(static_cast<size_t>(out_dims(c).product())),
        lse(static_cast<size_t>(c.B * c.H * c.N)),
        dq(static_cast<size_t>(query_dims(c).product())),
        dk(static_cast<size_t>(key_dims(c).product())),
        dv(static_cast<size_t>(value_dims(c).product())),
        dq_far(c.far > 0 ? dq.size() : 0),
        dk_far(static_cast<size_t>(far_dims(c).product())),
        ddecay(decay_of(c).size()) {}
};

struct Inputs {
  Tensor q, k, v, d_o, far_q, far_k;
};
template <typename T>
Inputs inputs_of(const Case& c) {
  const auto make = [](const Dims& dims, uint64_t seed, double limit) {
    return test::tensor_of<T>(dims, test::random_values(dims.product(), seed, -limit, limit));
  };
  Inputs in{.q = make(query_dims(c), 1, 3),
            .k = make(key_dims(c), 2, 2),
            .v = make(value_dims(c), 3, 1),
            .d_o = make(out_dims(c), 4, 1),
            .far_q = {},
            .far_k = {}};
  if (c.far > 0) {
    in.far_q = make(query_dims(c), 5, 3);
    in.far_k = make(far_dims(c), 6, 2);
  }
  return in;
}

template <typename T>
Results<T> reference(const Case& c, const Inputs& in) {
  const auto convert = [](const Tensor& t) { return t.empty() ? std::vector<T>() : test::convert<T>(t); };
  const auto q = convert(in.q), k = convert(in.k), v = convert(in.v), d_o = convert(in.d_o), far_q = convert(in.far_q),
             far_k = convert(in.far_k);
  const Plain<T> plain(c, q, k, v, far_q, far_k);
  Results<T> r(c);
  ref::attention_forward<T>(plain.parts, plain.v, as_view<T, 4>(r.o, out_dims(c)),
                            as_view<T, 3>(r.lse, {c.B, c.H, c.N}));
  std::vector<ref::AttentionKeyGrads<T>> grads{{as_view<T, 4>(r.dq, query_dims(c)), as_view<T, 4>(r.dk, key_dims(c))}};
  if (c.decay) {
    grads[0].ddecay = as_view<T, 3>(r.ddecay, {c.B, c.H, c.S});
    grads[0].dquery_decay = queries_of(grads[0].ddecay, c);
  }
  if (c.far > 0) grads.push_back({as_view<T, 4>(r.dq_far, query_dims(c)), as_view<T, 4>(r.dk_far, far_dims(c))});
  ref::attention_backward<T>(plain.parts, plain.v, as_view<const T, 4>(d_o, out_dims(c)), grads,
                             as_view<T, 4>(r.dv, value_dims(c)));
  return r;
}

DilatedAttentionOptions options_of(const Case& c) {
  return {.attention = {.mask = c.symmetric ? Mask::kSymmetricWindow : Mask::kSlidingWindow,
                        .window = c.window,
                        .query_start = c.S - c.N},
          .dilation = c.dilation};
}

// The op's outputs. Outputs that the op does not have must keep their guard values.
struct Outputs {
  Tensor o, lse, dq, dk, dv, dq_far, dk_far, ddecay;
};
Outputs run(Context& context, const Case& c, const Inputs& in) {
  Tensor slopes({c.H});
  const std::vector<float> a = alibi_slopes(c.H);
  std::copy(a.begin(), a.end(), slopes.values<float>().begin());
  const Tensor starts = starts_of(c);
  const DType type = in.q.dtype();
  Outputs out{.o = Tensor(out_dims(c), type),
              .lse = Tensor({c.B, c.H, c.N}),
              .dq = Tensor(query_dims(c), type),
              .dk = Tensor(key_dims(c), type),
              .dv = Tensor(value_dims(c), type),
              .dq_far = {},
              .dk_far = {},
              .ddecay = {}};
  Tensor decay;
  if (c.decay) {
    decay = test::tensor_of<float>({c.B, c.H, c.S}, decay_of(c));
    out.ddecay = Tensor({c.B, c.H, c.S});
  }
  if (c.far > 0) {
    out.dq_far = Tensor(query_dims(c), type);
    out.dk_far = Tensor(far_dims(c), type);
  }
  const TensorRef s = c.alibi ? TensorRef(slopes) : TensorRef();
  const FarKeys far{.q = in.far_q, .k = in.far_k, .v = {}, .range = FarRange::kAll};
  dilated_attention_forward(context, options_of(c),
                            {.q = in.q,
                             .k = in.k,
                             .v = in.v,
                             .slopes = s,
                             .decay = decay,
                             .document_start = starts,
                             .far = far,
                             .o = out.o,
                             .lse = out.lse});
  dilated_attention_backward(context, options_of(c),
                             {.q = in.q,
                              .k = in.k,
                              .v = in.v,
                              .slopes = s,
                              .decay = decay,
                              .document_start = starts,
                              .far = far,
                              .o = out.o,
                              .lse = out.lse,
                              .d_o = in.d_o,
                              .dq = out.dq,
                              .dk = out.dk,
                              .dv = out.dv,
                              .dq_far = out.dq_far,
                              .dk_far = out.dk_far,
                              .dv_far = {},
                              .ddecay = out.ddecay});
  return out;
}

// The reference's backward pass is the derivative of its dilated forward pass.
TEST(DilatedAttention, ReferenceGradientMatchesComplexStep) {
  for (const Case& c : {Case{1, 9, 9, 2, 1, 2, 2, {3, 3}, true}, Case{1, 7, 8, 2, 2, 2, 2, {2, 1}, true, true},
                        Case{2, 6, 8, 2, 1, 2, 2, {2, 2}, true, false, 2, {}, 3}}) {
    const int64_t sizes[] = {query_dims(c).product(), key_dims(c).product(), value_dims(c).product(),
                             c.far > 0 ? query_dims(c).product() : 0, far_dims(c).product()};
    const auto cut = [&](auto all) {
      std::vector<decltype(all)> pieces;
      for (size_t at = 0, i = 0; i < 5; at += static_cast<size_t>(sizes[i++]))
        pieces.push_back(all.subspan(at, static_cast<size_t>(sizes[i])));
      return pieces;
    };
    const std::vector<float> drawn =
        test::random_values(std::accumulate(std::begin(sizes), std::end(sizes), int64_t{0}), 21, -2, 2);
    const std::vector<double> x(drawn.begin(), drawn.end());
    const std::vector<double> weight = test::as<double>(test::random_values(out_dims(c).product(), 22, -1, 1));
    const auto loss = [&](std::span<const Complex> at) {
      const auto p = cut(at);
      const Plain<Complex> plain(c, p[0], p[1], p[2], p[3], p[4]);
      std::vector<Complex> o(weight.size());
      ref::attention_forward<Complex>(plain.parts, plain.v, as_view<Complex, 4>(o, out_dims(c)), {});
      return test::weighted_sum(o, weight);
    };
    std::vector<double> actual(x.size());
    const auto p = cut(std::span<const double>(x));
    auto g = cut(std::span<double>(actual));
    const Plain<double> plain(c, p[0], p[1], p[2], p[3], p[4]);
    std::vector<ref::AttentionKeyGrads<double>> grads{
        {as_view<double, 4>(g[0], query_dims(c)), as_view<double, 4>(g[1], key_dims(c))}};
    if (c.far > 0) grads.push_back({as_view<double, 4>(g[3], query_dims(c)), as_view<double, 4>(g[4], far_dims(c))});
    ref::attention_backward<double>(plain.parts, plain.v, as_view<const double, 4>(weight, out_dims(c)), grads,
                                    as_view<double, 4>(g[2], value_dims(c)));
    test::expect_gradient(actual, test::complex_step_gradient(x, loss), "dilated attention");
  }
}

TEST(DilatedAttention, ValuesAndGradientsMatchTheReferenceOnEveryTarget) {
  for (const Case& c : kCases) {
    SCOPED_TRACE(testing::PrintToString(c));
    const Inputs in = inputs_of<float>(c);
    const Results<double> expected = reference<double>(c, in);
    const Results<float> naive = reference<float>(c, in);
    double score = 0;
    for (const double l : expected.lse) score = std::max(score, std::abs(l));
    const double keys = static_cast<double>(2 * c.window + c.far), rows = static_cast<double>(c.N * c.H / c.G);
    const double D = static_cast<double>(std::max(c.width(), c.D)) + 4 * score * score;  // as in attention_test.cc
    test::for_each_target([&] {
      for (const char* impl : {"cpu", "ref"}) {
        SCOPED_TRACE(impl);
        Context context;
        context.force_impl("attention", impl);
        const Outputs out = run(context, c, in);
        // Keys that no query sees, or that are the only key of their queries, have zero gradients. With few queries
        // these are the majority.
        const auto close = [&](const Tensor& actual, const std::vector<double>& right, const std::vector<float>& rough,
                               double terms, const char* what) {
          if (right.empty()) return;
          test::expect_close(actual.values<float>(), right, rough, {.terms = terms + D, .zero_share = 0.97}, what);
        };
        close(out.o, expected.o, naive.o, keys, "o");
        close(out.lse, expected.lse, naive.lse, keys, "lse");
        close(out.dv, expected.dv, naive.dv, rows, "dv");
        if (c.S > 3) {
          close(out.dq, expected.dq, naive.dq, keys, "dq");
          close(out.dk, expected.dk, naive.dk, rows, "dk");
        }
        close(out.ddecay, expected.ddecay, naive.ddecay, keys + rows, "ddecay");
        close(out.dq_far, expected.dq_far, naive.dq_far, keys, "dq_far");
        close(out.dk_far, expected.dk_far, naive.dk_far, rows, "dk_far");
      }
    });
  }
}

// A residue is a separate sequence: copying it out and back gives the same bits in either type.
template <typename T>
void expect_residues_are_sequences(const Case& c) {
  const Inputs in = inputs_of<T>(c);
  Context context;
  const Outputs out = run(context, c, in);
  const int64_t d = c.dilation.front();
  const auto gathered = [&](const Tensor& t, int64_t r) {
    const int64_t rows = (t.size(1) - r + d - 1) / d, width = t.size(2) * t.size(3);
    Tensor g({c.B, rows, t.size(2), t.size(3)}, t.dtype());
    for (int64_t b = 0; b < c.B; ++b)
      for (int64_t n = 0; n < rows; ++n)
        std::copy_n(t.values<T>().data() + (b * t.size(1) + r + n * d) * width, width,
                    g.values<T>().data() + (b * rows + n) * width);
    return g;
  };
  for (int64_t r = 0; r < d; ++r) {
    const Tensor q = gathered(in.q, r), k = gathered(in.k, r), v = gathered(in.v, r), d_o = gathered(in.d_o, r);
    Tensor o(q.shape(), q.dtype()), lse({c.B, c.H, q.size(1)}), dq(q.shape(), q.dtype()), dk(k.shape(), q.dtype()),
        dv(k.shape(), q.dtype());
    const AttentionOptions options{.mask = Mask::kSlidingWindow, .window = c.window};
    attention_forward(context, options, {.q = q, .k = k, .v = v, .o = o, .lse = lse});
    attention_backward(context, options,
                       {.q = q, .k = k, .v = v, .o = o, .lse = lse, .d_o = d_o, .dq = dq, .dk = dk, .dv = dv});
    for (const auto& [mine, theirs] :
         {std::pair{&out.o, &o}, std::pair{&out.dq, &dq}, std::pair{&out.dk, &dk}, std::pair{&out.dv, &dv}}) {
      const Tensor part = gathered(*mine, r);
      EXPECT_EQ(std::memcmp(part.ref().data, theirs->ref().data, part.ref().bytes()), 0) << r;
    }
  }
}
TEST(DilatedAttention, AResidueIsASequenceOfItsOwn) {
  for (const Case& c : {Case{2, 100, 100, 2, 1, 24, 9, {3, 3}}, Case{1, 331, 331, 2, 2, 16, 70, {2, 2}}}) {
    expect_residues_are_sequences<float>(c);
    expect_residues_are_sequences<BF16>(c);
  }
}

// In bf16 the contribution of each residue to the far keys' gradients is rounded once. These roundings of 2^-9 on
// average add up like independent random numbers. With those of probabilities and ds they stay below 2^-6 of the
// gradient's size.
TEST(DilatedAttention, FarKeysInBf16) {
  const Case c{1, 150, 154, 4, 2, 8, 9, {3, 3, 1, 1}, false, false, 4};
  const Inputs in = inputs_of<BF16>(c);
  const Results<double> expected = reference<double>(c, in);
  Context context;
  const Outputs out = run(context, c, in);
  const auto error = [](const Tensor& actual, const std::vector<double>& right) {
    const std::vector<float> values = test::float_values(actual);
    double difference = 0, size = 0;
    for (size_t i = 0; i < right.size(); ++i) {
      difference += std::pow(values[i] - right[i], 2);
      size += right[i] * right[i];
    }
    return std::sqrt(difference / size);
  };
  EXPECT_LT(error(out.dk_far, expected.dk_far), 0x1p-6);
  EXPECT_LT(error(out.dv, expected.dv), 0x1p-6);
  EXPECT_LT(error(out.dq_far, expected.dq_far), 0x1p-6);
}

TEST(DilatedAttention, SameBitsForAnyNumberOfThreads) {
  const Case c{1, 700, 704, 4, 2, 16, 40, {3, 3, 1, 1}, true, false, 4};
  const Inputs in = inputs_of<float>(c);
  test::expect_same_bits(
      [&] {
        Context context;
        const Outputs out = run(context, c, in);
        std::vector<float> all;
        for (const Tensor* t : {&out.o, &out.dq, &out.dk, &out.dv, &out.dq_far, &out.dk_far})
          all.insert(all.end(), t->values<float>().begin(), t->values<float>().end());
        return all;
      },
      "dilated attention");
}

TEST(DilatedAttention, WrongCallsAreNamed) {
  Tensor q({1, 8, 4, 8}), k({1, 8, 2, 8}), o({1, 8, 4, 8});
  Context context;
  const auto call = [&](const std::vector<int64_t>& dilation, Mask mask, const FarKeys& far = {}) {
    const DilatedAttentionOptions options{.attention = {.mask = mask, .window = mask == Mask::kCausal ? 0 : 2},
                                          .dilation = dilation};
    dilated_attention_forward(context, options, {.q = q, .k = k, .v = k, .far = far, .o = o});
  };
  test::expect_error([&] { call({1, 1}, Mask::kSlidingWindow); }, "2 dilations; expected 4, one per head");
  test::expect_error(
      [&] {
        call({2, 1, 1, 1}, Mask::kSlidingWindow);
      },
      "dilation[1]=1, but head 0 reads the same key/value head with dilation 2");
  test::expect_error([&] { call({0, 0, 1, 1}, Mask::kSlidingWindow); }, "dilation[0]=0 must be at least 1");
  test::expect_error([&] { call({2, 2, 1, 1}, Mask::kCausal); }, "dilation needs a window");
  test::expect_error(
      [&] {
        call({2, 2, 1, 1}, Mask::kSlidingWindow, {.q = q, .k = k, .v = {}});
      },
      "must be seen by every query");
}

}  // namespace
}  // namespace coca::ops::dilated_attention_test
