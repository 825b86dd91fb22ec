// coca/analyse/induction.h - what copying is made of, by head: attention on the token before, on what followed the same
// token, and on that token; and how many contents and which distances the head's score can tell apart. Math:
// docs/analyse.md.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "coca/ops/rope.h"

namespace coca::analyse {

// For each token the most recent earlier place of the same id; -1: none.
std::vector<int64_t> earlier_places(std::span<const int32_t> ids);

// Sums over rows of attention. A row counts as a repeat if its token stood earlier, but not just before: there the
// token that followed is the row's own.
struct InductionStats {
  int64_t rows = 0, repeats = 0;
  double previous = 0, previous_chance = 0;                // attention on the token before; even attention's
  double induction = 0, duplicate = 0, repeat_chance = 0;  // on what followed the earlier token; on that token

  // Attention of one query on keys first_key .. the query itself.
  void add_row(std::span<const double> attention, int64_t first_key, int64_t earlier);
  void add(const InductionStats&);

  // Means over rows; NaN without.
  double mean_previous() const;
  double mean_previous_chance() const;
  double mean_induction() const;
  double mean_duplicate() const;
  double mean_repeat_chance() const;
};

// The part of a head's score that hardly depends on distance: planes that turn by at most a given share of a circle
// over the trained length, and what does not rotate. Queries and keys are turned back by their positions.
class ContentStats {
 public:
  ContentStats() = default;
  // planes: all; slow: values of q and k in slow planes and without rotation.
  ContentStats(size_t planes, size_t slow);

  void add_query(std::span<const double>);
  void add_key(std::span<const double>);
  // The parts of one pair's score: by plane, and of what does not rotate.
  void add_pair(std::span<const double> planes, double unrotated);
  void add(const ContentStats&);

  bool empty() const { return queries_ == 0 || keys_ == 0; }
  size_t slow_values() const { return slow_; }
  // Of the slow part q . k, q drawn from all queries and k from all keys: its variance over keys, mean over queries.
  double variance() const;
  // Over how many independent directions that variance is spread: (sum of v)^2 / sum of v^2. NaN without variance.
  double channels() const;
  // Share of the score's variance over pairs that slow planes (by this mask) and unrotated values have.
  double slow_share(std::span<const char> slow) const;

 private:
  struct Moments {
    double sum = 0, squares = 0;
  };
  std::vector<double> product() const;  // [slow, slow]: covariance of keys times second moment of queries

  size_t slow_ = 0;
  int64_t queries_ = 0, keys_ = 0, pairs_ = 0;
  std::vector<double> query_moment_, key_moment_, key_sum_;  // [slow, slow] [slow, slow] [slow]
  std::vector<Moments> planes_;                              // and one for the unrotated part
};

// Attention by distance alone, 0 .. length - 1: softmax of the scores.
struct DistanceChoice {
  int64_t best = 0;       // the distance with the largest score
  double best_share = 0;  // of attention
  double previous = 0;    // share of distance 1
};
DistanceChoice distance_choice(std::span<const double> scores);

}  // namespace coca::analyse
