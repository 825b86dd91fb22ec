// SPDX-License-Identifier: Apache-2.0
#include "coca/ops/top_keys.h"

#include "coca/ops/check.h"
#include "coca/ops/run.h"

namespace coca::ops {

namespace {

constexpr std::string_view kOp = "top_keys";

void check_lists(const Site& at, TensorRef scores, TensorRef keys, const Dims& shape) {
  check_packed(at, "scores", scores, shape);
  check_packed(at, "keys", keys, shape, DType::kI32);
}

void check_find(const Site& at, const TopKeysOptions& o, const TopKeysFind& a) {
  COCA_CHECK(o.count >= 1, "[top_keys] count {} must be at least 1", o.count);
  COCA_CHECK(o.scale >= 0, "[top_keys] scale={} must be positive (0: 1/sqrt(D))", o.scale);
  COCA_CHECK(o.first >= 0 && o.hidden >= 1 && o.query_start >= 0 && o.most_distance >= 0,
             "[top_keys] first {}, query_start {} and most_distance {} must not be negative, hidden {} at least 1",
             o.first, o.query_start, o.most_distance, o.hidden);
  COCA_CHECK(a.q.rank() == 4 && a.k.rank() == 4, "[top_keys] q {} and k {} must be [B, N, H, D] and [B, n, G, D]",
             a.q.shape.text(), a.k.shape.text());
  const int64_t G = a.k.size(2);
  check_heads(at, "q", a.q, a.q.shape);
  check_heads(at, "k", a.k, {a.q.size(0), a.k.size(1), G, a.q.size(3)});
  COCA_CHECK(G > 0 && a.q.size(2) % G == 0, "[top_keys] H={} must be a multiple of G={}", a.q.size(2), G);
  COCA_CHECK(a.key_start >= 0 && a.key_start % kKeyTile == 0, "[top_keys] key_start {} must be a multiple of {}",
             a.key_start, kKeyTile);
  if (!a.slopes.empty()) check_packed(at, "slopes", a.slopes, {a.q.size(2)});
  check_lists(at, a.scores, a.keys, {a.q.size(0), a.q.size(1), a.q.size(2), o.count});
}

}  // namespace

void top_keys_find(Context& context, const TopKeysOptions& options, const TopKeysFind& a) {
  check_find(Site(kOp, context), options, a);
  run<TopKeysImpl>(context, a.q.dtype, &TopKeysFunctions::find, options, a);
}

void top_keys_add(Context& context, const TopKeysAdd& a) {
  const Site at(kOp, context);
  COCA_CHECK(a.o.rank() == 4 && a.v.rank() == 4 && a.scores.rank() == 4,
             "[top_keys] o {}, v {} and scores {} must be [B, N, H, D], [B, n, G, D] and [B, N, H, count]",
             a.o.shape.text(), a.v.shape.text(), a.scores.shape.text());
  const int64_t B = a.o.size(0), N = a.o.size(1), H = a.o.size(2), D = a.o.size(3), G = a.v.size(2);
  check_heads(at, "o", a.o, a.o.shape);
  check_heads(at, "v", a.v, {B, a.v.size(1), G, D});
  COCA_CHECK(G > 0 && H % G == 0, "[top_keys] H={} must be a multiple of G={}", H, G);
  check_lists(at, a.scores, a.keys, {B, N, H, a.scores.size(3)});
  check_packed(at, "lse", a.lse, {B, H, N});
  run<TopKeysImpl>(context, a.o.dtype, &TopKeysFunctions::add, a);
}

}  // namespace coca::ops
