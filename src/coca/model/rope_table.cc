// SPDX-License-Identifier: Apache-2.0
#include "coca/model/rope_table.h"

#include <cmath>

#include "coca/base/parallel.h"

namespace coca::model {

namespace {

// Rows that there is room for serve again, whatever stood there.
void make_room(SentTensor& t, int64_t sequences, int64_t n, int64_t half, DeviceMemory* memory) {
  const Dims& there = t.shape();
  if (t.empty() || there[0] != sequences || there[1] < n || there[2] != half)
    t = SentTensor({sequences, n, half}, DType::kF32, memory);
}

ops::RopeRows narrowed(const SentTensor& cos, const SentTensor& sin, int64_t first, int64_t count) {
  return {cos.ref().narrow(1, first, count), sin.ref().narrow(1, first, count)};
}

}  // namespace

// growth_sign: +1 for queries, -1 for keys.
template <typename PositionOf>
void RopeTable::fill(Rows& rows, double growth_sign, int64_t sequences, int64_t n, std::span<const double> sizes,
                     const PositionOf& position_of) const {
  const int64_t half = rotation_.pairs();
  make_room(rows.cos, sequences, n, half, memory_);
  make_room(rows.sin, sequences, n, half, memory_);
  const auto cos = rows.cos.host().view<float, 3>(), sin = rows.sin.host().view<float, 3>();
  parallel_blocks(sequences * n, 256, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const double position = position_of(i);
      for (int64_t j = 0; j < half; ++j) {
        const auto pair = static_cast<size_t>(j);
        double size = rotation_.amplitude * (sizes.empty() ? 1.0 : sizes[static_cast<size_t>(i)]);
        if (!rotation_.growth.empty()) size *= std::exp(growth_sign * rotation_.growth[pair] * (position - origin_));
        const double angle = position * rotation_.frequencies[pair];
        *cos.ptr(i / n, i % n, j) = static_cast<float>(size * std::cos(angle));
        *sin.ptr(i / n, i % n, j) = static_cast<float>(size * std::sin(angle));
      }
    }
  });
  const int64_t written = ((sequences - 1) * rows.cos.shape()[1] + n) * half;
  rows.cos.send(written);
  rows.sin.send(written);
}

void RopeTable::build(const ops::Rotation& rotation, int64_t start, int64_t n, double origin) {
  if (rotation == rotation_ && start == start_ && n <= n_ && origin == origin_) return;  // what is there serves
  rotation_ = rotation;
  origin_ = origin;
  start_ = start;
  n_ = n;
  const auto position = [&](int64_t i) { return static_cast<double>(start + i); };
  fill(queries_, 1.0, 1, n, {}, position);
  if (!rotation_.growth.empty()) fill(keys_, -1.0, 1, n, {}, position);
}

void RopeTable::build_at(const ops::Rotation& rotation, std::span<const double> positions, int64_t n, double origin,
                         std::span<const double> sizes) {
  rotation_ = rotation;
  origin_ = origin;
  start_ = -1;
  n_ = n;
  const int64_t sequences = static_cast<int64_t>(positions.size()) / n;
  const auto position = [&](int64_t i) { return positions[static_cast<size_t>(i)]; };
  fill(queries_, 1.0, sequences, n, sizes, position);
  if (!rotation_.growth.empty()) fill(keys_, -1.0, sequences, n, sizes, position);
}

ops::RopeRows RopeTable::rows(int64_t first, int64_t count) const {
  return narrowed(queries_.cos, queries_.sin, first, count);
}

ops::RopeRows RopeTable::key_rows(int64_t first, int64_t count) const {
  return rotation_.growth.empty() ? ops::RopeRows{} : narrowed(keys_.cos, keys_.sin, first, count);
}

}  // namespace coca::model
