// CoCA is ordinary attention with q_eff and k_eff. Computes both, attends, and shows how slack and strict scores change
// when all positions are shifted. Math: docs/math/collinear.md.
// SPDX-License-Identifier: Apache-2.0
#include <cmath>
#include <cstdio>

#include "coca/base/rng.h"
#include "coca/ops/attention.h"
#include "coca/ops/collinear.h"

using namespace coca;

namespace {

constexpr int64_t N = 4, D = 16;  // tokens and head dim; one batch, one head

Tensor random_heads(uint64_t seed) {
  Tensor t({1, N, 1, D});
  Rng rng(seed);
  for (float& x : t.values<float>()) x = static_cast<float>(rng.normal());
  return t;
}

// Attends with tokens at positions start, start + 1, ... Returns the score of the last query and the first key.
double attend(ops::Collinear kind, int64_t start, const Tensor& q, const Tensor& t, const Tensor& v, Tensor& o) {
  Tensor cos({1, N, D / 2}), sin({1, N, D / 2});
  for (int64_t n = 0; n < N; ++n)
    for (int64_t j = 0; j < D / 2; ++j) {
      const double angle = static_cast<double>(start + n) * std::pow(10000.0, -2.0 * static_cast<double>(j) / D);
      *cos.ref().view<float, 3>().ptr(0, n, j) = static_cast<float>(std::cos(angle));
      *sin.ref().view<float, 3>().ptr(0, n, j) = static_cast<float>(std::sin(angle));
    }
  Context cx;
  Tensor q_eff({1, N, 1, D}), k_eff({1, N, 1, D});
  ops::collinear_forward(cx, {.kind = kind}, {.rows = {cos, sin}, .q = q, .t = t, .q_eff = q_eff, .k_eff = k_eff});
  ops::attention_forward(cx, {.mask = ops::Mask::kCausal}, {.q = q_eff, .k = k_eff, .v = v, .o = o});
  double score = 0;
  for (int64_t d = 0; d < D; ++d)
    score += q_eff.ref().view<float, 4>()(0, N - 1, 0, d) * k_eff.ref().view<float, 4>()(0, 0, 0, d);
  return score;
}

}  // namespace

int main() {
  const Tensor q = random_heads(1), t = random_heads(2), v = random_heads(3);
  Tensor o({1, N, 1, D});
  std::printf("score of the query at n + %d and the key at n\n%-8s %12s %12s\n", static_cast<int>(N) - 1, "n", "slack",
              "strict");
  for (const int64_t start : {0, 10, 100, 1000}) {
    const double slack = attend(ops::Collinear::kSlack, start, q, t, v, o),
                 strict = attend(ops::Collinear::kStrict, start, q, t, v, o);
    std::printf("%-8d %12.6f %12.6f\n", static_cast<int>(start), slack, strict);
  }
  std::printf("Equal at n = 0; only the strict score is a function of the distance alone.\n");
  std::printf("o of the last token begins %.4f %.4f %.4f\n", o.ref().view<float, 4>()(0, N - 1, 0, 0),
              o.ref().view<float, 4>()(0, N - 1, 0, 1), o.ref().view<float, 4>()(0, N - 1, 0, 2));
  return 0;
}
