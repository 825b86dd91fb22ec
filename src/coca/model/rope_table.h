// coca/model/rope_table.h - frequencies and tables of rotary positions under each scaling.
// Math: docs/math/rope.md. Frequencies and angles are formed in double: at position 32768 a float angle is off by
// 2e-3, which the tests against double would see.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <vector>

#include "coca/model/spec.h"
#include "coca/ops/rope.h"

namespace coca::model {

// theta_j, j < R/2, for a sequence of seq_len tokens (dynamic NTK depends on it; the other scalings do not).
//   linear:  theta_j / factor (position interpolation, Chen et al. 2023)
//   llama3:  theta_j / factor where the pair turns seldom within the original length, theta_j where it turns often, and
//            between them a mean of both, linear in the number of turns
//   dynamic: base' = base (factor seq_len / L - (factor - 1))^(R/(R-2)) when seq_len > L = max_position, else base
std::vector<double> rope_frequencies(const ModelSpec&, int64_t seq_len);

// The base after dynamic NTK; equals rope_theta where it does not apply.
double rope_base(const ModelSpec&, int64_t seq_len);

class RopeTable {
 public:
  // Rows for positions start, start + 1, ..., start + n - 1 of a sequence of seq_len tokens.
  void build(const ModelSpec&, int64_t start, int64_t n, int64_t seq_len);
  ops::RopeRows rows(int64_t first, int64_t count) const;  // [1, count, R/2], from row `first` of the last build

 private:
  Tensor cos_, sin_;
  std::vector<double> frequencies_;
  int64_t start_ = -1, n_ = 0;
};

}  // namespace coca::model
