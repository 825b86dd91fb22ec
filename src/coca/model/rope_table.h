// coca/model/rope_table.h - rows of cos and sin for positions. Math: docs/math/rope.md. Angles are formed in double.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <span>
#include <vector>

#include "coca/model/rope_rotation.h"
#include "coca/ops/rope.h"
#include "coca/tensor/transfer.h"

namespace coca::model {

class RopeTable {
 public:
  // The rows lie in this memory; null: the host's.
  explicit RopeTable(DeviceMemory* memory = nullptr) : memory_(memory) {}
  // Rows for positions start, start + 1, ..., start + n - 1.
  void build(const ops::Rotation&, int64_t start, int64_t n, double origin = 0.0);
  // Rows for any positions, [sequences, n] of them; sequences is 1 or B. If `sizes` is given, the rows are
  // multiplied by it.
  void build_at(const ops::Rotation&, std::span<const double> positions, int64_t n, double origin = 0.0,
                std::span<const double> sizes = {});
  ops::RopeRows rows(int64_t first, int64_t count) const;  // [1 or B, count, R/2], from row `first` of the last build
  // The rows of keys if they differ from the queries' (growth); else empty.
  ops::RopeRows key_rows(int64_t first, int64_t count) const;

 private:
  struct Rows {
    SentTensor cos, sin;  // [sequences, at least n, R/2]
  };
  template <typename PositionOf>
  void fill(Rows&, double growth_sign, int64_t sequences, int64_t n, std::span<const double> sizes,
            const PositionOf&) const;

  DeviceMemory* memory_;
  ops::Rotation rotation_;
  Rows queries_, keys_;
  double origin_ = 0.0;
  int64_t start_ = -1, n_ = 0;
};

}  // namespace coca::model
