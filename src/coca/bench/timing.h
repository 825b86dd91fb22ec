// coca/bench/timing.h - how every benchmark measures time: warm-up, then rounds in which all contestants run one
// after the other (A B C A B C ...), so that a slow phase of the machine affects them all; medians and
// quartiles over the rounds.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "coca/base/sizes.h"

namespace coca::bench {

struct RepeatOptions {
  int64_t repeats = 7, warmup = 1;
  double sample_seconds = 0.02;

  template <class V>
  void visit(V&& v) {
    v.group("Timing");
    v("repeats", "rounds; each runs everything that is compared once", repeats, Least{1});
    v("warmup", "warm-up rounds; with 0, --sample-seconds has no effect", warmup);
    v("sample_seconds", "least duration of a round; shorter work is repeated", sample_seconds);
  }
};
void check_repeats(const RepeatOptions&);

// Seconds of one run, or a ratio; one sample per round.
struct Timing {
  double median = 0, low = 0, high = 0;  // low, high: the quartiles
  std::vector<double> samples;

  double fastest() const;  // of a rate that others are held against: what slows a round down is not the machine's
  double spread() const { return median > 0 ? (high - low) / 2 / median : 0; }  // as a share of the median
  std::string spread_text() const;  // "1.5 %"; "-" of one round, which has none
};
Timing summarise(std::vector<double> samples);
Timing operator+(const Timing& a, const Timing& b);  // round by round
Timing ratio_of(const Timing& a, const Timing& b);   // a / b, round by round: drift cancels
// name, name_low, name_high and rounds; "ratio", "ratio_low", "ratio_high", null where nothing was compared. The
// quartiles of a single round are null.
void add_timing(nlohmann::ordered_json& to, const std::string& name, const Timing&);
void add_ratio(nlohmann::ordered_json& to, const std::optional<Timing>&);
void add_rates(nlohmann::ordered_json& to, double gflops, double matrix_gflops);  // and the share of the latter

double quantile(std::vector<double> values, double share);  // linear between neighbours

// The progress of a benchmark.
struct ProgressState {
  int64_t done = 0, total = 0;  // steps
  double share = 0;             // of the work, as far as it is known: longer sequences take longer
  std::string_view what;        // being done, or just done
  bool begins = false;
};
struct ProgressCounter {
  std::function<void(const ProgressState&)> sink;  // may be empty
  int64_t total = 0, done = 0;
  double work_total = 0, work_done = 0, work_of_step = 1;  // in any unit

  // The number of steps, and the work of each.
  void plan(int64_t steps, double work) {
    total += steps;
    work_total += static_cast<double>(steps) * work;
  }
  void begin(std::string_view what) const { tell(what, true); }
  void step(std::string_view what) {
    ++done;
    work_done += work_of_step;
    tell(what, false);
  }

 private:
  void tell(std::string_view what, bool begins) const {
    if (sink)
      sink({.done = done,
            .total = total,
            .share = work_total > 0 ? work_done / work_total : 0,
            .what = what,
            .begins = begins});
  }
};

struct Contestant {
  std::string name;
  std::function<void()> run;
};
// One Timing per contestant. Throws Error kInterrupted on a request to stop. Steps: planned_steps().
std::vector<Timing> measure_interleaved(std::span<const Contestant>, const RepeatOptions&, ProgressCounter&);
int64_t planned_steps(int64_t contestants, const RepeatOptions&);

}  // namespace coca::bench
