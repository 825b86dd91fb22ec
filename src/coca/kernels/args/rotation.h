// coca/kernels/args/rotation.h - how positions become angles: the numbers of one rotary embedding. Math:
// docs/math/rope.md.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <vector>

namespace coca::ops {

// Pair j of a token at position p is rotated by p * frequencies[j]. cos and sin are multiplied by `amplitude`, and with
// growth (xPos, Sun et al. 2022) by exp(growth[j] (p - origin)) for queries and by its inverse for keys. A score is
// thus multiplied by exp(growth[j] (m - n)) whatever the origin, which is chosen per call to keep both factors in
// range.
struct Rotation {
  std::vector<double> frequencies;  // [R/2] radians per token
  double amplitude = 1.0;
  std::vector<double> growth;  // [R/2] or empty

  int64_t pairs() const { return static_cast<int64_t>(frequencies.size()); }
  friend bool operator==(const Rotation&, const Rotation&) = default;
};

}  // namespace coca::ops
