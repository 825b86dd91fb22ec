// coca/analyse/attention_stats.h - what one head attends to: sums over rows of attention. Math: docs/analyse.md.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace coca::analyse {

// Distances by octave: 0, 1, 2-3, 4-7, ...
size_t distance_bin(int64_t distance);
int64_t bin_begin(size_t bin);  // its smallest distance
double bin_centre(size_t bin);  // geometric mean of its ends; 1/2 for distance 0, which a logarithmic axis lacks

struct AttentionStats {
  static constexpr int64_t kSinkTokens = 4;

  int64_t rows = 0, rows_of_choice = 0;  // rows with visible keys; with two or more
  double entropy = 0;                    // nats
  double entropy_share = 0;              // of ln(visible keys), over rows_of_choice
  double first_token = 0, sink = 0;      // attention on token 0, on the first kSinkTokens
  double distance = 0;                   // mean distance attended to
  std::vector<double> mass;              // attention by distance_bin
  std::vector<double> score;             // sum of scores by distance_bin
  std::vector<int64_t> score_count;

  AttentionStats() = default;
  explicit AttentionStats(int64_t N);  // room for distances below N
  // Scores of one query, scaled and with any bias, for keys first_key .. the query itself. Allocates nothing.
  void add_row(std::span<double> scores, int64_t first_key);  // scores become probabilities
  void add(const AttentionStats&);

  double mean_entropy() const;
  double mean_entropy_share() const;
  double mean_first_token() const;
  double mean_sink() const;
  double mean_distance() const;
  double mean_score(size_t bin) const;
  double mass_share(size_t bin) const;
};

}  // namespace coca::analyse
