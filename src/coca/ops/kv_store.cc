// SPDX-License-Identifier: Apache-2.0
#include "coca/ops/kv_store.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <span>
#include <vector>

#include "coca/base/parallel.h"
#include "coca/ops/check.h"

namespace coca::ops {

namespace {

// Where one token's head lies: number i at element i * step.
struct Slot {
  std::byte* at;
  int64_t step;
  float* scale;  // int8 only
  int64_t limit;  // int8: largest integer, 255 or 127
};

Slot key_slot(const KvLayout& l, std::byte* run, int64_t n) {
  return {run + l.key_at(n), kKvTile, reinterpret_cast<float*>(run + l.key_scale_at(n)),
          l.key_sign == KeySign::kNonNegative ? 255 : 127};
}
Slot value_slot(const KvLayout& l, std::byte* run, int64_t n) {
  return {run + l.value_at(n), 1, reinterpret_cast<float*>(run + l.value_scale_at(n)), 127};
}

// The largest magnitude, or NaN when there is one.
float largest(std::span<const float> x, bool non_negative) {
  float m = 0;
  for (const float value : x) {
    const float a = non_negative && value < 0 ? 0.0f : std::abs(value);
    if (a > m || std::isnan(a)) m = a;  // nothing is larger than NaN, so it stays
  }
  return m;
}

void write_int8(std::span<const float> x, const Slot& slot) {
  const bool non_negative = slot.limit == 255;
  const float most = largest(x, non_negative);
  // Not below the smallest normal number: denormal scales would lose the bound of half a scale.
  const float scale = std::isfinite(most) ? std::max(most / static_cast<float>(slot.limit), std::numeric_limits<float>::min())
                                          : std::numeric_limits<float>::quiet_NaN();
  *slot.scale = scale;
  const long low = non_negative ? 0 : -slot.limit, high = slot.limit;
  for (size_t i = 0; i < x.size(); ++i) {
    const long q = std::isfinite(most) ? std::clamp(std::lrint(x[i] / scale), low, high) : 0;
    slot.at[static_cast<int64_t>(i) * slot.step] = static_cast<std::byte>(q);  // two's complement
  }
}

void write_head(KvType type, std::span<const float> x, const Slot& slot) {
  if (type == KvType::kInt8) return write_int8(x, slot);
  for (size_t i = 0; i < x.size(); ++i) {
    const int64_t at = static_cast<int64_t>(i) * slot.step;
    if (type == KvType::kF32)
      reinterpret_cast<float*>(slot.at)[at] = x[i];
    else
      reinterpret_cast<BF16*>(slot.at)[at] = BF16(x[i]);
  }
}

void read_head(KvType type, const Slot& slot, std::span<float> x) {
  for (size_t i = 0; i < x.size(); ++i) {
    const int64_t at = static_cast<int64_t>(i) * slot.step;
    switch (type) {
      case KvType::kF32: x[i] = reinterpret_cast<const float*>(slot.at)[at]; break;
      case KvType::kBF16: x[i] = static_cast<float>(reinterpret_cast<const BF16*>(slot.at)[at]); break;
      case KvType::kInt8: {
        const auto byte = static_cast<uint8_t>(slot.at[at]);
        const float q = slot.limit == 255 ? static_cast<float>(byte) : static_cast<float>(static_cast<int8_t>(byte));
        x[i] = q * *slot.scale;
      }
    }
  }
}

// One head of a strided tensor as floats.
class HeadReader {
 public:
  explicit HeadReader(TensorRef t) : t_(t) {}
  std::span<const float> head(int64_t b, int64_t n, int64_t g, std::vector<float>& buffer) const {
    const int64_t at = b * t_.stride(0) + n * t_.stride(1) + g * t_.stride(2);
    const auto width = static_cast<size_t>(t_.size(3));
    if (t_.dtype == DType::kF32) return {static_cast<const float*>(t_.data) + at, width};
    const auto* p = static_cast<const BF16*>(t_.data) + at;
    buffer.assign(width, 0.0f);
    for (size_t i = 0; i < width; ++i) buffer[i] = static_cast<float>(p[i]);
    return buffer;
  }

 private:
  TensorRef t_;
};

void check_source(std::string_view name, TensorRef t, const Dims& wanted) {
  check_given("kv_store", name, t);
  COCA_CHECK(t.dtype == DType::kF32 || t.dtype == DType::kBF16, "[kv_store] {} has type {}; expected F32 or BF16", name,
             dtype_name(t.dtype));
  COCA_CHECK(t.shape == wanted, "[kv_store] {} has shape {}; expected {}", name, t.shape.text(), wanted.text());
  COCA_CHECK(t.size(3) <= 1 || t.stride(3) == 1, "[kv_store] {}: the innermost stride must be 1, not {}", name, t.stride(3));
}

void check_range(std::string_view op, int64_t first, int64_t N, int64_t length) {
  COCA_CHECK(first >= 0 && N >= 0 && first + N <= length, "[{}] tokens {} to {} are not among the {} of the cache", op, first,
             first + N, length);
}

}  // namespace

void kv_store(Context&, const KvStore& a) {
  const KvLayout& l = a.cache.layout;
  COCA_CHECK(a.keys.rank() == 4, "[kv_store] keys {} must be [B, N, G, W]", a.keys.shape.text());
  const int64_t N = a.keys.size(1);
  check_source("keys", a.keys, {l.B, N, l.G, l.W});
  check_source("values", a.values, {l.B, N, l.G, l.D});
  check_range("kv_store", a.first, N, a.cache.length);
  const HeadReader keys(a.keys), values(a.values);
  // Tasks are whole tiles of one (b, g): a line of memory has one writer.
  const int64_t first_tile = a.first / kKvTile, tiles = N == 0 ? 0 : (a.first + N - 1) / kKvTile - first_tile + 1;
  parallel_blocks(l.B * l.G * tiles, grain_of(std::min(N, kKvTile) * (l.W + l.D)), [&](int64_t begin, int64_t end) {
    std::vector<float> buffer;
    for (int64_t task = begin; task < end; ++task) {
      const int64_t b = task / (l.G * tiles), g = task / tiles % l.G, t = first_tile + task % tiles;
      std::byte* run = a.cache.run(b, g, t * kKvTile);
      const int64_t stop = std::min(a.first + N, (t + 1) * kKvTile);
      for (int64_t token = std::max(a.first, t * kKvTile); token < stop; ++token) {
        const int64_t n = token - a.first, at = token % kKvPage;
        write_head(l.type, keys.head(b, n, g, buffer), key_slot(l, run, at));
        write_head(l.type, values.head(b, n, g, buffer), value_slot(l, run, at));
      }
    }
  });
}

void kv_load(Context&, const KvLoad& a) {
  const KvLayout& l = a.cache.layout;
  const MutTensorRef& given = a.keys.empty() ? a.values : a.keys;
  COCA_CHECK(given.rank() == 4, "[kv_load] neither keys nor values [B, N, G, width] are given");
  const int64_t N = given.size(1);
  if (!a.keys.empty()) check_packed("kv_load", "keys", a.keys, {l.B, N, l.G, l.W});
  if (!a.values.empty()) check_packed("kv_load", "values", a.values, {l.B, N, l.G, l.D});
  check_range("kv_load", a.first, N, a.cache.length);
  parallel_blocks(l.B * N, grain_of(l.G * (l.W + l.D)), [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row)
      for (int64_t g = 0; g < l.G; ++g) {
        const int64_t token = a.first + row % N, at = token % kKvPage;
        auto* run = const_cast<std::byte*>(a.cache.run(row / N, g, token));  // slots serve both ways; only read here
        const int64_t head = row * l.G + g;
        if (!a.keys.empty())
          read_head(l.type, key_slot(l, run, at), {a.keys.as<float>() + head * l.W, static_cast<size_t>(l.W)});
        if (!a.values.empty())
          read_head(l.type, value_slot(l, run, at), {a.values.as<float>() + head * l.D, static_cast<size_t>(l.D)});
      }
  });
}

}  // namespace coca::ops
