// SPDX-License-Identifier: Apache-2.0
#include "coca/model/rope_scaling.h"

#include <cmath>

#include "coca/base/count.h"

namespace coca::model {

namespace {

constexpr double kMostFactor = 1e6;

void check_factors(const char* name, const std::vector<double>& factors, int64_t pairs) {
  COCA_CHECK(static_cast<int64_t>(factors.size()) == pairs,
             "model: rope scaling longrope has {} in {}; expected {}, one per rotary pair",
             counted(factors.size(), "number"), name, pairs);
  for (const double f : factors)
    COCA_CHECK(f >= 1 / kMostFactor && f <= kMostFactor,
               "model: rope scaling longrope has {} in {}; expected positive numbers, of 1e-6 to 1e6", f, name);
}

// Numbers that are absent pass.
void check_number(const RopeScaling& s, const char* name, std::optional<double> value, double least) {
  COCA_CHECK(!value || (*value >= least && *value <= kMostFactor),
             "model: rope scaling {} has {} {}; expected {:g} to 1e6", enum_name(s.type), name, *value, least);
}

}  // namespace

void validate(const RopeScaling& s, int64_t pairs) {
  if (s.type == Scaling::kNone) return;
  check_number(s, "factor", s.factor, 1);
  COCA_CHECK(s.original_max_position >= 0,
             "model: rope scaling {} has original_max_position_embeddings {}; expected a positive length",
             enum_name(s.type), s.original_max_position);
  COCA_CHECK(s.type != Scaling::kLlama3 || (s.low_freq_factor > 0 && s.high_freq_factor > s.low_freq_factor),
             "model: rope scaling llama3 needs 0 < low_freq_factor < high_freq_factor, found {} and {}",
             s.low_freq_factor, s.high_freq_factor);
  COCA_CHECK(
      (s.type != Scaling::kYarn && s.type != Scaling::kYarnPaper) || (s.beta_slow > 0 && s.beta_fast > s.beta_slow),
      "model: rope scaling {} needs 0 < beta_slow < beta_fast, found {} and {}", enum_name(s.type), s.beta_slow,
      s.beta_fast);
  if (s.type == Scaling::kLlama3) {
    check_number(s, "low_freq_factor", s.low_freq_factor, 1 / kMostFactor);
    check_number(s, "high_freq_factor", s.high_freq_factor, 1 / kMostFactor);
  }
  if (s.type == Scaling::kYarn || s.type == Scaling::kYarnPaper) {
    check_number(s, "beta_slow", s.beta_slow, 1 / kMostFactor);
    check_number(s, "beta_fast", s.beta_fast, 1 / kMostFactor);
  }
  check_number(s, "attention_factor", s.attention_factor, 1 / kMostFactor);
  check_number(s, "mscale", s.mscale, 0);
  check_number(s, "mscale_all_dim", s.mscale_all_dim, 0);
  COCA_CHECK(s.type != Scaling::kClex || (s.max_factor >= 1 && s.max_factor <= 1024 && s.param_factor >= 1 &&
                                          s.param_factor <= 64 && s.time_step >= 1e-3 && s.time_step <= 1),
             "model: rope scaling clex needs a max_factor {} of 1 to 1024, a param_factor {} of 1 to 64 and a time_dt "
             "{} of 0.001 to 1",
             s.max_factor, s.param_factor, s.time_step);
  if (s.type != Scaling::kLongRope) return;
  check_factors("short_factor", s.short_factor, pairs);
  check_factors("long_factor", s.long_factor, pairs);
}

}  // namespace coca::model
