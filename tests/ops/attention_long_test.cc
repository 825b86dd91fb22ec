// Rows of 131,072 keys: a few queries at the end of a long text compared with the reference in double.
// decode_attention_test.cc tests a cache of that length.
// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include "coca/kernels/ref/attention.h"
#include "coca/ops/attention.h"
#include "support/numerics.h"
#include "support/targets.h"
#include "support/views.h"

namespace coca::ops::attention_long_test {
namespace {

using test::as_view;

constexpr int64_t kKeys = 131072, kDim = 64, kHeads = 2;

struct Row {
  std::vector<float> o, lse;
};

// The naive form in float. For bf16 it rounds the probabilities before multiplying them by the values, as frameworks
// do.
template <typename T>
Row naive(const ref::AttentionSpec& spec, int64_t N, const Tensor& q, const Tensor& k, const Tensor& v) {
  const auto qx = test::convert<float>(q), kx = test::convert<float>(k), vx = test::convert<float>(v);
  const auto keys = as_view<const float, 4>(kx, k.shape()), values = as_view<const float, 4>(vx, v.shape());
  const auto queries = as_view<const float, 4>(qx, q.shape());
  Row row{std::vector<float>(qx.size()), std::vector<float>(static_cast<size_t>(kHeads * N))};
  const auto o = as_view<float, 4>(row.o, q.shape());
  const ref::AttentionKeys<float> all{spec, queries, keys};
  for (int64_t h = 0; h < kHeads; ++h)
    for (int64_t n = 0; n < N; ++n) {
      const ref::AttentionRow<float> plain(std::span(&all, 1), 0, n, h, 0);
      row.lse[static_cast<size_t>(h * N + n)] = plain.lse;
      for (size_t s = 0; s < plain.p.size(); ++s) {
        const float weight = static_cast<float>(static_cast<T>(plain.p[s]));
        for (int64_t d = 0; d < kDim; ++d) o(0, n, h, d) += weight * values(0, static_cast<int64_t>(s), 0, d);
      }
    }
  return row;
}

template <typename T>
void expect_long_rows_match(int64_t N, const std::vector<const char*>& impls) {
  const Dims qd{1, N, kHeads, kDim}, kd{1, kKeys, 1, kDim};
  const Tensor q = test::tensor_of<T>(qd, test::random_values(qd.product(), 1, -3, 3)),
               k = test::tensor_of<T>(kd, test::random_values(kd.product(), 2, -2, 2)),
               v = test::tensor_of<T>(kd, test::random_values(kd.product(), 3));
  const ref::AttentionSpec spec{.scale = 1.0 / std::sqrt(static_cast<float>(kDim)), .query_start = kKeys - N};
  const auto qx = test::convert<double>(q), kx = test::convert<double>(k), vx = test::convert<double>(v);
  std::vector<double> o_ref(qx.size()), lse_ref(static_cast<size_t>(kHeads * N));
  ref::attention_forward<double>(spec, as_view<const double, 4>(qx, qd), as_view<const double, 4>(kx, kd),
                                 as_view<const double, 4>(vx, kd), as_view<double, 4>(o_ref, qd),
                                 as_view<double, 3>(lse_ref, {1, kHeads, N}));
  const Row plain = naive<T>(spec, N, q, k, v);
  double score = 0;  // as in attention_test.cc: exp turns an absolute error of eps |s| into a relative one
  for (const double l : lse_ref) score = std::max(score, std::abs(l));
  const double terms = static_cast<double>(kKeys + kDim) + 4 * score * score;
  test::for_each_target([&] {
    for (const char* impl : impls) {
      SCOPED_TRACE(fmt::format("{} queries, {}", N, impl));
      if (!runs_here("attention", impl)) continue;
      Context context;
      context.force_impl("attention", impl);
      Tensor o(qd, DTypeOf<T>::value), lse({1, kHeads, N});
      attention_forward(context, {.query_start = kKeys - N}, {.q = q, .k = k, .v = v, .o = o, .lse = lse});
      test::expect_close(test::float_values(o), o_ref, plain.o, {.terms = terms, .stored = DTypeOf<T>::value}, "o");
      test::expect_close(lse.values<float>(), lse_ref, plain.lse, {.terms = terms}, "lse");
    }
  });
}

// 3 queries are processed row by row, 9 in packed tiles.
TEST(AttentionLong, RowsOf131072KeysMatchTheReference) {
  for (const int64_t N : {3, 9}) {
    expect_long_rows_match<float>(N, {"cpu"});
    expect_long_rows_match<BF16>(N, {"cpu"});
  }
}

TEST(AttentionLong, RowsOf131072KeysMatchTheReferenceByBf16Instructions) {
  COCA_SKIP_UNLESS_RUNS("attention", "avx512_bf16");
  for (const int64_t N : {3, 9}) expect_long_rows_match<BF16>(N, {"avx512_bf16"});
}

}  // namespace
}  // namespace coca::ops::attention_long_test
