// SPDX-License-Identifier: Apache-2.0
#include "coca/analyse/collinear_stats.h"

#include <algorithm>
#include <cmath>

namespace coca::analyse {

double slack_score(Plane q, double t, Rotation query, Rotation key) {
  const double c = query.real(), s = query.imag(), kc = key.real(), ks = key.imag();
  return t * (q.a * (q.a * c - q.b * s) * (kc - ks) + q.b * (q.b * c + q.a * s) * (kc + ks));
}

double strict_score(Plane q, double t, Rotation query, Rotation key) {
  return t * (q.a * q.a + q.b * q.b) * (query * std::conj(key)).real();
}

namespace {

// Of the form itself, from what it makes of q and t.
double form_score(ops::Collinear kind, Plane q, double t, Rotation query, Rotation key) {
  return ops::with_form(kind, [&](auto form) {
    using Form = decltype(form);
    const ops::Plane<double> x = Form::query(q.a, q.b, query.real(), query.imag()),
                             k = forms::key_of(Form::kKey, t, key.real(), key.imag());
    return x.x * k.x + x.y * k.y;
  });
}

}  // namespace

void CollinearStats::add_pair(ops::Collinear kind, const CollinearPair& p,
                              std::span<const std::vector<Rotation>> shifts) {
  const size_t planes = p.query.size();
  const bool pairs = ops::form_info(kind).members == 2;
  const auto own_plane = [&](size_t j) { return Plane{p.q[j], pairs ? p.q[j + planes] : 0.0}; };
  const auto plane = [&](size_t j) {
    const Plane q = own_plane(j);
    return kind == ops::Collinear::kTied ? Plane{(q.a + q.b) / 2, (q.a + q.b) / 2} : q;
  };
  const auto own_score = [&](size_t j, Rotation query, Rotation key) {
    return form_score(kind, own_plane(j), p.tbar[j], query, key);
  };
  double strict_sum = 0, slack_sum = 0, own_sum = 0;
  for (size_t j = 0; j < planes; ++j) {
    if (pairs) {
      strict_sum += strict_score(plane(j), p.tbar[j], p.query[j], p.key[j]);
      slack_sum += slack_score(plane(j), p.tbar[j], p.query[j], p.key[j]);
    }
    own_sum += own_score(j, p.query[j], p.key[j]);
  }
  strict += strict_sum * strict_sum;
  difference += (strict_sum - slack_sum) * (strict_sum - slack_sum);
  own += own_sum * own_sum;
  for (size_t i = 0; i < shifts.size(); ++i) {
    double there = 0;
    for (size_t j = 0; j < planes; ++j) there += own_score(j, p.query[j] * shifts[i][j], p.key[j] * shifts[i][j]);
    moved[i] += (there - own_sum) * (there - own_sum);
  }
}

void CollinearStats::add_angle(double angle) {
  largest_angle = std::max(largest_angle, std::min(angle, kTurn - angle));
}

void CollinearStats::add(const CollinearStats& other) {
  strict += other.strict;
  difference += other.difference;
  own += other.own;
  moved.resize(std::max(moved.size(), other.moved.size()));
  for (size_t i = 0; i < other.moved.size(); ++i) moved[i] += other.moved[i];
  values += other.values;
  zeros += other.zeros;
  largest_angle = std::max(largest_angle, other.largest_angle);
}

double CollinearStats::departure() const { return std::sqrt(ratio(difference, strict)); }
double CollinearStats::moved_departure(size_t shift) const { return std::sqrt(ratio(moved[shift], own)); }
double CollinearStats::zero_share() const { return ratio(static_cast<double>(zeros), static_cast<double>(values)); }

}  // namespace coca::analyse
