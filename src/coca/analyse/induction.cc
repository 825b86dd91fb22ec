// SPDX-License-Identifier: Apache-2.0
#include "coca/analyse/induction.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <utility>

#include "coca/analyse/angles.h"

namespace coca::analyse {

std::vector<int64_t> earlier_places(std::span<const int32_t> ids) {
  std::map<int32_t, int64_t> last;
  std::vector<int64_t> places(ids.size(), -1);
  for (size_t i = 0; i < ids.size(); ++i) {
    const auto [at, is_new] = last.try_emplace(ids[i], static_cast<int64_t>(i));
    if (!is_new) places[i] = std::exchange(at->second, static_cast<int64_t>(i));
  }
  return places;
}

void InductionStats::add_row(std::span<const double> attention, int64_t first_key, int64_t earlier) {
  const int64_t m = first_key + static_cast<int64_t>(attention.size()) - 1;
  const auto on = [&](int64_t key) { return key < first_key ? 0.0 : attention[static_cast<size_t>(key - first_key)]; };
  const double even = 1 / static_cast<double>(attention.size());
  if (m < 1) return;
  ++rows;
  previous += on(m - 1);
  previous_chance += even;
  if (earlier < 0 || earlier + 1 >= m) return;
  ++repeats;
  induction += on(earlier + 1);
  duplicate += on(earlier);
  repeat_chance += even;
}

void InductionStats::add(const InductionStats& other) {
  rows += other.rows;
  repeats += other.repeats;
  previous += other.previous;
  previous_chance += other.previous_chance;
  induction += other.induction;
  duplicate += other.duplicate;
  repeat_chance += other.repeat_chance;
}

double InductionStats::mean_previous() const { return ratio(previous, static_cast<double>(rows)); }
double InductionStats::mean_previous_chance() const { return ratio(previous_chance, static_cast<double>(rows)); }
double InductionStats::mean_induction() const { return ratio(induction, static_cast<double>(repeats)); }
double InductionStats::mean_duplicate() const { return ratio(duplicate, static_cast<double>(repeats)); }
double InductionStats::mean_repeat_chance() const { return ratio(repeat_chance, static_cast<double>(repeats)); }

ContentStats::ContentStats(size_t planes, size_t slow)
    : slow_(slow), query_moment_(slow * slow), key_moment_(slow * slow), key_sum_(slow), planes_(planes + 1) {}

namespace {

void add_products(std::span<const double> x, std::vector<double>& moment) {
  for (size_t i = 0; i < x.size(); ++i)
    for (size_t j = 0; j < x.size(); ++j) moment[i * x.size() + j] += x[i] * x[j];
}

void add_to(std::vector<double>& sum, const std::vector<double>& other) {
  if (sum.empty()) sum.resize(other.size());
  for (size_t i = 0; i < other.size(); ++i) sum[i] += other[i];
}

}  // namespace

void ContentStats::add_query(std::span<const double> q) {
  ++queries_;
  add_products(q, query_moment_);
}

void ContentStats::add_key(std::span<const double> k) {
  ++keys_;
  add_products(k, key_moment_);
  for (size_t i = 0; i < k.size(); ++i) key_sum_[i] += k[i];
}

void ContentStats::add_pair(std::span<const double> planes, double unrotated) {
  ++pairs_;
  const auto one = [](Moments& m, double part) {
    m.sum += part;
    m.squares += part * part;
  };
  for (size_t j = 0; j < planes.size(); ++j) one(planes_[j], planes[j]);
  one(planes_.back(), unrotated);
}

void ContentStats::add(const ContentStats& other) {
  slow_ = std::max(slow_, other.slow_);
  queries_ += other.queries_;
  keys_ += other.keys_;
  pairs_ += other.pairs_;
  add_to(query_moment_, other.query_moment_);
  add_to(key_moment_, other.key_moment_);
  add_to(key_sum_, other.key_sum_);
  if (planes_.empty()) planes_.resize(other.planes_.size());
  for (size_t j = 0; j < other.planes_.size(); ++j) {
    planes_[j].sum += other.planes_[j].sum;
    planes_[j].squares += other.planes_[j].squares;
  }
}

// What all keys have in common is taken away: softmax does not see it.
std::vector<double> ContentStats::product() const {
  const size_t n = slow_;
  const double keys = static_cast<double>(keys_), queries = static_cast<double>(queries_);
  std::vector<double> covariance(n * n), out(n * n);
  for (size_t i = 0; i < n; ++i)
    for (size_t j = 0; j < n; ++j)
      covariance[i * n + j] = key_moment_[i * n + j] / keys - key_sum_[i] / keys * (key_sum_[j] / keys);
  for (size_t i = 0; i < n; ++i)
    for (size_t l = 0; l < n; ++l)
      for (size_t j = 0; j < n; ++j) out[i * n + j] += covariance[i * n + l] * query_moment_[l * n + j] / queries;
  return out;
}

double ContentStats::variance() const {
  if (empty()) return std::numeric_limits<double>::quiet_NaN();
  const std::vector<double> m = product();
  double trace = 0;
  for (size_t i = 0; i < slow_; ++i) trace += m[i * slow_ + i];
  return std::max(trace, 0.0);
}

// The eigenvalues of the product are the variances along the directions; their squares sum up to the trace of its
// square.
double ContentStats::channels() const {
  if (empty()) return std::numeric_limits<double>::quiet_NaN();
  const std::vector<double> m = product();
  double trace = 0, squares = 0;
  for (size_t i = 0; i < slow_; ++i) {
    trace += m[i * slow_ + i];
    for (size_t j = 0; j < slow_; ++j) squares += m[i * slow_ + j] * m[j * slow_ + i];
  }
  return ratio(std::max(trace, 0.0) * std::max(trace, 0.0), std::max(squares, 0.0));
}

double ContentStats::slow_share(std::span<const char> slow) const {
  const auto n = static_cast<double>(pairs_);
  double part = 0, all = 0;
  for (size_t j = 0; j < planes_.size(); ++j) {
    const double mean = planes_[j].sum / n, variance = std::max(0.0, planes_[j].squares / n - mean * mean);
    all += variance;
    if (j >= slow.size() || slow[j]) part += variance;
  }
  return ratio(part, all);
}

DistanceChoice distance_choice(std::span<const double> scores) {
  const auto largest = std::ranges::max_element(scores);
  double total = 0;
  for (const double score : scores) total += std::exp(score - *largest);
  return {.best = largest - scores.begin(),
          .best_share = 1 / total,
          .previous = scores.size() < 2 ? 0 : std::exp(scores[1] - *largest) / total};
}

}  // namespace coca::analyse
