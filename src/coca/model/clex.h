// coca/model/clex.h - CLEX (Chen et al. 2024): the logarithms z of the rotary frequencies as the solution of an ODE
// over the length factor t, with a small network in its right side that is trained with the model. Everything in
// double. Math, and differences from the published code: docs/math/clex.md.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "coca/model/params.h"
#include "coca/model/spec.h"
#include "coca/tensor/tensor_ref.h"

namespace coca::model {

// L, the context before scaling.
int64_t clex_trained_length(const ModelSpec&);
// The length factor of a sequence of seq_len: ceil(seq_len / L), 1 to max_factor.
int64_t clex_factor(const ModelSpec&, int64_t seq_len);
// Inner width W of the network.
int64_t clex_width(const ModelSpec&);

class ClexOde {
 public:
  // up [R/2, W], down [W, R/2] f32, copied. Throws for weights without the network.
  ClexOde(const ModelSpec&, TensorRef up, TensorRef down);

  int64_t pairs() const { return pairs_; }
  // z at t = 1 and after every step up to t: [steps + 1, R/2].
  std::vector<double> path(int64_t t) const;
  int64_t steps(int64_t t) const { return (t - 1) * steps_per_unit_; }
  // exp(z) at the end of a path.
  std::vector<double> frequencies(const std::vector<double>& path) const;
  // Those of t = 1, 2, ..., max_factor, from one path.
  std::vector<std::vector<double>> tables(int64_t max_factor) const;

  // dfrequencies [R/2] at the end of the path to the gradients of up and down, which accumulate (+=).
  void backward(const std::vector<double>& path, std::span<const double> dfrequencies, MutTensorRef dup,
                MutTensorRef ddown) const;

 private:
  // The network at one point: the values that its gradient needs.
  struct Point {
    std::vector<double> input, inner, slope;  // [R/2]: z + ln w   [W]: activation and its derivative
  };
  struct Gradient {
    std::vector<double> up, down;
  };
  void rate(double t, std::span<const double> z, Point&, std::span<double> dz) const;
  void rate_backward(const Point&, std::span<const double> drate, Gradient&, std::span<double> dz) const;
  void step(int64_t i, std::span<const double> from, std::span<double> to) const;
  void step_backward(int64_t i, std::span<const double> from, Gradient&, std::span<double> dz) const;
  double time(int64_t i) const { return 1.0 + static_cast<double>(i) * step_; }

  int64_t pairs_, width_, steps_per_unit_;
  double step_, log_base_;
  ClexActivation activation_;
  std::vector<double> exponents_;  // [R/2]: 2 j / (R - 2)
  std::vector<double> start_;      // [R/2]: z at t = 1
  std::vector<double> up_, down_;
};

// The network as it is in the weights, which may lie on a device.
ClexOde clex_ode(Context&, const ModelSpec&, const Weights&);

}  // namespace coca::model
