// SPDX-License-Identifier: Apache-2.0
#include "coca/analyse/attention_stats.h"

#include <algorithm>
#include <bit>
#include <cmath>

#include "coca/analyse/angles.h"

namespace coca::analyse {

size_t distance_bin(int64_t distance) { return static_cast<size_t>(std::bit_width(static_cast<uint64_t>(distance))); }
int64_t bin_begin(size_t bin) { return bin == 0 ? 0 : int64_t{1} << (bin - 1); }
double bin_centre(size_t bin) {
  if (bin == 0) return 0.5;
  const auto begin = static_cast<double>(bin_begin(bin));
  return std::sqrt(begin * (2 * begin - 1));
}

AttentionStats::AttentionStats(int64_t N) {
  const size_t bins = distance_bin(N - 1) + 1;
  mass.resize(bins);
  score.resize(bins);
  score_count.resize(bins);
}

void AttentionStats::add_row(std::span<double> scores, int64_t first_key) {
  const auto keys = static_cast<int64_t>(scores.size());
  for (int64_t i = 0; i < keys; ++i) {
    const size_t bin = distance_bin(keys - 1 - i);
    score[bin] += scores[static_cast<size_t>(i)];
    ++score_count[bin];
  }
  const double largest = *std::max_element(scores.begin(), scores.end());
  double total = 0;
  for (double& s : scores) total += s = std::exp(s - largest);
  double nats = 0;
  for (int64_t i = 0; i < keys; ++i) {
    const double p = scores[static_cast<size_t>(i)] /= total;
    if (p > 0) nats -= p * std::log(p);
    mass[distance_bin(keys - 1 - i)] += p;
    distance += p * static_cast<double>(keys - 1 - i);
    if (first_key + i == 0) first_token += p;
    if (first_key + i < kSinkTokens) sink += p;
  }
  ++rows;
  entropy += nats;
  if (keys < 2) return;
  ++rows_of_choice;
  entropy_share += nats / std::log(static_cast<double>(keys));
}

void AttentionStats::add(const AttentionStats& other) {
  rows += other.rows;
  rows_of_choice += other.rows_of_choice;
  entropy += other.entropy;
  entropy_share += other.entropy_share;
  first_token += other.first_token;
  sink += other.sink;
  distance += other.distance;
  const size_t bins = std::max(mass.size(), other.mass.size());
  mass.resize(bins);
  score.resize(bins);
  score_count.resize(bins);
  for (size_t i = 0; i < other.mass.size(); ++i) {
    mass[i] += other.mass[i];
    score[i] += other.score[i];
    score_count[i] += other.score_count[i];
  }
}

double AttentionStats::mean_entropy() const { return ratio(entropy, static_cast<double>(rows)); }
double AttentionStats::mean_entropy_share() const { return ratio(entropy_share, static_cast<double>(rows_of_choice)); }
double AttentionStats::mean_first_token() const { return ratio(first_token, static_cast<double>(rows)); }
double AttentionStats::mean_sink() const { return ratio(sink, static_cast<double>(rows)); }
double AttentionStats::mean_distance() const { return ratio(distance, static_cast<double>(rows)); }
double AttentionStats::mean_score(size_t bin) const { return ratio(score[bin], static_cast<double>(score_count[bin])); }
double AttentionStats::mass_share(size_t bin) const { return ratio(mass[bin], static_cast<double>(rows)); }

}  // namespace coca::analyse
