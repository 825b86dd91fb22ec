// SPDX-License-Identifier: Apache-2.0
#include "coca/ops/kv_store.h"

#include "coca/ops/check.h"
#include "coca/ops/run.h"

namespace coca::ops {

namespace {

void check_source(const Site& at, std::string_view name, TensorRef t, const Dims& wanted) {
  check_given(at, name, t);
  COCA_CHECK(t.dtype == DType::kF32 || t.dtype == DType::kBF16, "[kv_store] {} has type {}; expected F32 or BF16", name,
             dtype_name(t.dtype));
  COCA_CHECK(t.shape == wanted, "[kv_store] {} has shape {}; expected {}", name, t.shape.text(), wanted.text());
  COCA_CHECK(t.size(3) <= 1 || t.stride(3) == 1, "[kv_store] {}: the innermost stride must be 1, not {}", name,
             t.stride(3));
}

void check_range(std::string_view op, int64_t first, int64_t N, int64_t length) {
  COCA_CHECK(first >= 0 && N >= 0 && first + N <= length, "[{}] tokens {} to {} are not among the {} of the cache", op,
             first, first + N, length);
}

}  // namespace

void kv_store(Context& context, std::span<const KvStore> sequences) {
  if (sequences.empty()) return;
  const Site at("kv_store", context);
  for (const KvStore& a : sequences) {
    const KvLayout& l = a.cache.layout;
    check_cache(at, a.cache);
    COCA_CHECK(a.keys.rank() == 4, "[kv_store] keys {} must be [1, N, G, W]", a.keys.shape.text());
    COCA_CHECK(l == sequences[0].cache.layout && a.keys.dtype == sequences[0].keys.dtype,
               "[kv_store] all sequences of a call must have the same layout and the same type of keys");
    const int64_t N = a.keys.size(1);
    check_source(at, "keys", a.keys, {1, N, l.G, l.W});
    check_source(at, "values", a.values, {1, N, l.G, l.D});
    check_range("kv_store", a.first, N, a.cache.length);
  }
  run<KvStoreImpl>(context, sequences[0].keys.dtype, &KvStoreFunctions::store, sequences);
}

void kv_load(Context& context, const KvLoad& a) {
  const Site at("kv_load", context);
  const KvLayout& l = a.cache.layout;
  check_cache(at, a.cache);
  const MutTensorRef& given = a.keys.empty() ? a.values : a.keys;
  COCA_CHECK(given.rank() == 4, "[kv_load] neither keys nor values [1, N, G, width] are given");
  const int64_t N = given.size(1);
  if (!a.keys.empty()) check_packed(at, "keys", a.keys, {1, N, l.G, l.W});
  if (!a.values.empty()) check_packed(at, "values", a.values, {1, N, l.G, l.D});
  check_range("kv_load", a.first, N, a.cache.length);
  run<KvStoreImpl>(context, given.dtype, &KvStoreFunctions::load, a);
}

}  // namespace coca::ops
