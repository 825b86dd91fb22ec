// The middle keys: lists and merged softmax compared with a reference in double, block by block, on every SIMD target.
// SPDX-License-Identifier: Apache-2.0
#include "coca/ops/top_keys.h"

#include <cmath>
#include <limits>

#include "coca/kernels/ref/attention.h"
#include "coca/kernels/ref/top_keys.h"
#include "ops/op_test.h"
#include "support/views.h"

namespace coca::ops::top_keys_test {
namespace {

using test::as_view;

struct Case {
  int64_t B, N, H, G, D, S, count, first, hidden;
  int64_t most_distance = 0;
  bool alibi = false;
};
const Case kCases[] = {{1, 1, 1, 1, 2, 9, 1, 0, 1},
                       {2, 70, 4, 2, 8, 200, 5, 3, 9},
                       {1, 130, 6, 2, 16, 130, 3, 4, 20},
                       {1, 3, 4, 4, 34, 1500, 7, 70, 100},
                       {2, 40, 2, 1, 24, 300, 4, 0, 30, 60, true},
                       {1, 5, 3, 3, 8, 12, 6, 2, 8},
                       {1, 2, 8, 1, 64, 1100, 5, 10, 1, 0, true}};

// q, k and v, and o and lse of a preceding attention over the window, whose softmax is to be continued.
template <typename T>
struct Inputs {
  explicit Inputs(const Case& c_) : c(c_) {
    q = test::tensor_of<T>({c.B, c.N, c.H, c.D}, test::random_values(c.B * c.N * c.H * c.D, 1, -2, 2));
    k = test::tensor_of<T>({c.B, c.S, c.G, c.D}, test::random_values(c.B * c.S * c.G * c.D, 2, -2, 2));
    v = test::tensor_of<T>({c.B, c.S, c.G, c.D}, test::random_values(c.B * c.S * c.G * c.D, 3));
    o = test::tensor_of<T>({c.B, c.N, c.H, c.D}, test::random_values(c.B * c.N * c.H * c.D, 4));
    lse = test::random_tensor({c.B, c.H, c.N}, 5, -1, 3);
    slopes = test::random_tensor({c.H}, 6, 0.001, 0.02);
  }
  TopKeysOptions options() const {
    return {.count = c.count,
            .first = c.first,
            .hidden = c.hidden,
            .query_start = c.S - c.N,
            .most_distance = c.most_distance};
  }
  Case c;
  Tensor q, k, v, o, lse, slopes;
};

// Lists and sums computed in Real; stored bf16 values are read exactly.
template <typename Real, typename T>
struct Expected {
  explicit Expected(const Inputs<T>& in) {
    const Case& c = in.c;
    const Dims lists{c.B, c.N, c.H, c.count}, heads{c.B, c.N, c.H, c.D}, tokens{c.B, c.S, c.G, c.D};
    scores.assign(static_cast<size_t>(lists.product()), -std::numeric_limits<Real>::infinity());
    keys.assign(scores.size(), -1);
    o = test::convert<Real>(in.o);
    lse = test::convert<Real>(in.lse);
    const auto q = test::convert<Real>(in.q), k = test::convert<Real>(in.k), v = test::convert<Real>(in.v);
    const TopKeysOptions options = in.options();
    ref::top_keys_find<Real>({.count = c.count,
                              .scale = 1.0 / std::sqrt(static_cast<double>(c.D)),
                              .first = c.first,
                              .hidden = c.hidden,
                              .query_start = options.query_start,
                              .most_distance = c.most_distance,
                              .slopes = c.alibi ? in.slopes.template values<float>().data() : nullptr},
                             as_view<const Real, 4>(q, heads), as_view<const Real, 4>(k, tokens), 0,
                             as_view<Real, 4>(scores, lists), as_view<int32_t, 4>(keys, lists));
    ref::top_keys_add<Real>(as_view<const Real, 4>(scores, lists), as_view<const int32_t, 4>(keys, lists),
                            as_view<const Real, 4>(v, tokens), 0, as_view<Real, 4>(o, heads),
                            as_view<Real, 3>(lse, {c.B, c.H, c.N}));
  }
  std::vector<Real> scores, o, lse;
  std::vector<int32_t> keys;
};

struct Result {
  std::vector<int32_t> keys;
  std::vector<float> o, lse;
};
template <typename T>
Result run(Context& cx, const Inputs<T>& in, int64_t block) {
  const Case& c = in.c;
  const Tensor q = to_device(cx, in.q), k = to_device(cx, in.k), v = to_device(cx, in.v),
               slopes = to_device(cx, in.slopes);
  Tensor o = to_device(cx, in.o), lse = to_device(cx, in.lse);
  const Dims lists{c.B, c.N, c.H, c.count};
  Tensor scores(lists, DType::kF32, cx.memory()), keys(lists, DType::kI32, cx.memory());
  for (int64_t at = 0; at < c.S; at += block)
    top_keys_find(cx, in.options(),
                  {.q = q,
                   .k = k.ref().narrow(1, at, std::min(block, c.S - at)),
                   .key_start = at,
                   .slopes = c.alibi ? TensorRef(slopes) : TensorRef(),
                   .scores = scores,
                   .keys = keys});
  for (int64_t at = 0; at < c.S; at += block)
    top_keys_add(cx, {.scores = scores,
                      .keys = keys,
                      .v = v.ref().narrow(1, at, std::min(block, c.S - at)),
                      .key_start = at,
                      .o = o,
                      .lse = lse});
  const Tensor found = to_host(cx, keys);
  return {{found.values<int32_t>().begin(), found.values<int32_t>().end()},
          test::float_values(to_host(cx, o)),
          test::float_values(to_host(cx, lse))};
}

template <typename T>
void run_case(const Case& c) {
  const Inputs<T> in(c);
  const Expected<double, T> exact(in);
  const Expected<float, T> naive(in);
  const auto check = [&](Context& cx) {
    for (const int64_t block : {int64_t{4096}, int64_t{256}, int64_t{64}}) {
      const Result r = run(cx, in, block);
      const std::string what = fmt::format("S {} D {} block {}", c.S, c.D, block);
      // Scores are random draws from a density. With these seeds no two of some thousand scores are within their
      // rounding of 1e-6.
      ASSERT_EQ(r.keys, exact.keys) << what;
      const std::vector<float> o_naive(naive.o.begin(), naive.o.end()), lse_naive(naive.lse.begin(), naive.lse.end());
      // A bf16 o is rounded once for each block with a chosen key, at most `count` times.
      std::vector<double> o_exact(exact.o.begin(), exact.o.end());
      if constexpr (std::is_same_v<T, float>) {
        test::expect_close(r.o, o_exact, o_naive, {.terms = static_cast<double>(c.D + c.count)}, "o " + what);
      } else {
        // |o| <= 1, as o and the values are drawn from that range, and one rounding changes it by at most 2^-9.
        for (size_t i = 0; i < r.o.size(); ++i)
          ASSERT_NEAR(r.o[i], o_exact[i], 0x1p-9 * static_cast<double>(c.count) + 1e-5) << what << " " << i;
      }
      test::expect_close(r.lse, exact.lse, lse_naive, {.terms = static_cast<double>(c.D + c.count)}, "lse " + what);
    }
  };
  test::for_each_way({"top_keys"}, check);
}

TEST(TopKeys, ListsAndSumsMatchTheReferenceOnEveryTarget) {
  for (const Case& c : kCases) {
    run_case<float>(c);
    run_case<BF16>(c);
  }
}

// Attention over the window followed by all middle keys equals attention over all keys.
TEST(TopKeys, AllOfTheMiddleIsFullAttention) {
  const Case c{1, 12, 4, 2, 8, 40, 64, 0, 6};
  const Inputs<float> in(c);
  const auto attend = [&](int64_t window, std::vector<float>& o, std::vector<float>& lse) {
    ref::attention_forward<float>({.scale = 1.0 / std::sqrt(8.0), .window = window, .query_start = c.S - c.N},
                                  in.q.ref().view<float, 4>(), in.k.ref().view<float, 4>(), in.v.ref().view<float, 4>(),
                                  as_view<float, 4>(o, in.q.shape()), as_view<float, 3>(lse, in.lse.shape()));
  };
  std::vector<float> o(static_cast<size_t>(in.q.numel())), lse(static_cast<size_t>(in.lse.numel())), whole = o,
                                                                                                     whole_lse = lse;
  attend(0, whole, whole_lse);
  Inputs<float> windowed(c);
  attend(c.hidden, o, lse);
  std::copy(o.begin(), o.end(), windowed.o.values<float>().begin());
  std::copy(lse.begin(), lse.end(), windowed.lse.values<float>().begin());
  Context cx;
  const Result r = run(cx, windowed, 64);
  for (size_t i = 0; i < whole.size(); ++i) ASSERT_NEAR(r.o[i], whole[i], 2e-6) << i;  // sums of 40 numbers below 1
  for (size_t i = 0; i < whole_lse.size(); ++i) ASSERT_NEAR(r.lse[i], whole_lse[i], 4e-6) << i;
}

TEST(TopKeys, BitsDoNotDependOnThreads) {
  const Inputs<float> in(kCases[1]);
  test::expect_same_bits(
      [&] {
        Context cx;
        return run(cx, in, 128).o;
      },
      "top_keys");
}

TEST(TopKeys, EqualScoresGoToTheEarlierKeyAndNanShows) {
  const Case c{1, 1, 1, 1, 4, 70, 3, 1, 2};
  Inputs<float> in(c);
  std::fill(in.k.values<float>().begin(), in.k.values<float>().end(), 1.0f);
  Context cx;
  EXPECT_EQ(run(cx, in, 64).keys, (std::vector<int32_t>{1, 2, 3}));
  in.k.values<float>()[4 * 67] = std::numeric_limits<float>::quiet_NaN();
  const Result r = run(cx, in, 64);
  EXPECT_EQ(r.keys, (std::vector<int32_t>{67, 1, 2}));
  EXPECT_TRUE(std::isnan(r.o[0]));
}

TEST(TopKeys, MistakesAreNamed) {
  const Inputs<float> in(kCases[0]);
  Context cx;
  Tensor scores({1, 1, 1, 1}), keys({1, 1, 1, 1}, DType::kI32), o({1, 1, 1, 2}), lse({1, 1, 1});
  const auto find = [&](TopKeysOptions options, int64_t key_start) {
    top_keys_find(cx, options,
                  {.q = in.q, .k = in.k, .key_start = key_start, .slopes = {}, .scores = scores, .keys = keys});
  };
  test::expect_error([&] { find({}, 0); }, "count 0 must be at least 1");
  test::expect_error([&] { find({.count = 1}, 7); }, "key_start 7 must be a multiple of 64");
  test::expect_error([&] { find({.count = 2}, 0); }, "scores has shape [1, 1, 1, 1]; expected [1, 1, 1, 2]");
  test::expect_error([&] { find({.count = 1, .hidden = 0}, 0); }, "hidden 0 at least 1");
  test::expect_error(
      [&] {
        top_keys_add(
            cx, {.scores = scores, .keys = keys, .v = in.q.ref().narrow(3, 0, 1), .key_start = 0, .o = o, .lse = lse});
      },
      "v has shape");
}

}  // namespace
}  // namespace coca::ops::top_keys_test
