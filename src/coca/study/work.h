// coca/study/work.h - the amount of work of a study, and the time left.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <functional>
#include <optional>
#include <span>

#include "coca/study/config.h"

namespace coca::study {

enum class Work : uint8_t { kTraining, kPerplexity, kPasskey };
inline constexpr size_t kWorks = 3;

// Matrix products alone, in floating-point operations; by Work.
using Flops = std::array<double, kWorks>;

// What the parts of one method's run cost: its training, and one evaluation of each kind; `evaluations` of them follow.
struct MethodWork {
  int64_t parameters = 0;
  int64_t trained_tokens = 0, ppl_tokens = 0, passkey_tokens = 0;  // run through the model
  Flops flops{};                                                   // of one training, one evaluation
  double step_flops = 0;                                           // of a training step
  int64_t evaluations = 0;
  int64_t memory = 0;  // bytes: weights, gradients, moments, activations of training

  Flops all() const;
};
// `test_tokens`: of each test document.
MethodWork work_of(const StudyConfig& resolved, const std::string& method, int64_t vocabulary,
                   std::span<const int64_t> test_tokens);

// The time left, from the speed of each kind of work so far; a kind that has not begun is assumed to be as fast as the
// others.
class WorkMeter {
 public:
  explicit WorkMeter(std::function<double()> clock = {});  // seconds; default: the monotonic clock

  void plan(const Flops&);                     // more to do
  void leave_out(Work, double flops);          // planned work that is already done, or never will be
  void advance(Work, double flops);            // done since the last call
  std::optional<double> seconds_left() const;  // nothing: nothing is measured yet

 private:
  std::function<double()> clock_;
  double last_ = 0;
  Flops left_{}, done_{}, seconds_{};
};

}  // namespace coca::study
