// SPDX-License-Identifier: Apache-2.0
#include "coca/model/clex.h"

#include <algorithm>
#include <cmath>

#include "coca/tensor/transfer.h"

namespace coca::model {

namespace {

using Vector = std::vector<double>;

// out = a + sum of factor * v
struct Term {
  double factor;
  const Vector& v;
};
void combine(std::span<const double> a, std::initializer_list<Term> terms, std::span<double> out) {
  for (size_t j = 0; j < out.size(); ++j) {
    double sum = a[j];
    for (const Term& term : terms) sum += term.factor * term.v[j];
    out[j] = sum;
  }
}

Vector doubles_of(TensorRef t) { return {t.as<float>(), t.as<float>() + t.numel()}; }

void add_to(MutTensorRef out, const Vector& values) {
  if (out.empty()) return;
  for (size_t i = 0; i < values.size(); ++i) out.as<float>()[i] += static_cast<float>(values[i]);
}

constexpr double kThird = 1.0 / 3.0;

}  // namespace

int64_t clex_trained_length(const ModelSpec& s) {
  return s.rope_scaling.original_max_position > 0 ? s.rope_scaling.original_max_position : s.max_position;
}

int64_t clex_factor(const ModelSpec& s, int64_t seq_len) {
  const int64_t L = clex_trained_length(s);
  return std::clamp<int64_t>((seq_len + L - 1) / L, 1, s.rope_scaling.max_factor);
}

int64_t clex_width(const ModelSpec& s) { return s.rope_scaling.param_factor * s.R; }

ClexOde::ClexOde(const ModelSpec& s, TensorRef up, TensorRef down)
    : pairs_(s.R / 2),
      width_(clex_width(s)),
      steps_per_unit_(static_cast<int64_t>(std::ceil(1.0 / s.rope_scaling.time_step - 1e-9))),
      step_(1.0 / static_cast<double>(steps_per_unit_)),
      log_base_(std::log(s.rope_theta)),
      activation_(s.rope_scaling.activation) {
  COCA_CHECK(
      !up.empty() && !down.empty(),
      "model: rope scaling clex needs the weights of its network, which this model does not have; `coca finetune "
      "--rope-scaling clex` trains them");
  COCA_CHECK(up.dtype == DType::kF32 && up.shape == Dims({pairs_, width_}) && down.dtype == DType::kF32 &&
                 down.shape == Dims({width_, pairs_}),
             "model: clex has {} and {}; expected [{}, {}] and [{}, {}]", up.shape.text(), down.shape.text(), pairs_,
             width_, width_, pairs_);
  for (int64_t j = 0; j < pairs_; ++j) {
    // A single pair has frequency 1 under any base.
    exponents_.push_back(s.R > 2 ? 2.0 * static_cast<double>(j) / static_cast<double>(s.R - 2) : 0.0);
    start_.push_back(-2.0 * static_cast<double>(j) / static_cast<double>(s.R) * log_base_);
  }
  up_ = doubles_of(up);
  down_ = doubles_of(down);
}

// dz/dt = act((z + ln w) up) down + d ln w / dt, where w is NTK's frequency under alpha = 2 t - 1.
void ClexOde::rate(double t, std::span<const double> z, Point& p, std::span<double> dz) const {
  const auto P = static_cast<size_t>(pairs_), W = static_cast<size_t>(width_);
  const double alpha = 2.0 * t - 1.0, log_alpha = std::log(alpha);
  p.input.resize(P);
  p.inner.assign(W, 0.0);
  p.slope.resize(W);
  for (size_t j = 0; j < P; ++j) {
    p.input[j] = z[j] + start_[j] - exponents_[j] * log_alpha;
    for (size_t k = 0; k < W; ++k) p.inner[k] += p.input[j] * up_[j * W + k];
  }
  for (size_t k = 0; k < W; ++k) {
    const double u = p.inner[k];
    if (activation_ == ClexActivation::kTanh) {
      p.inner[k] = std::tanh(u);
      p.slope[k] = 1.0 - p.inner[k] * p.inner[k];
    } else {
      const double gate = 1.0 / (1.0 + std::exp(-u));
      p.inner[k] = u * gate;
      p.slope[k] = gate * (1.0 + u * (1.0 - gate));
    }
  }
  for (size_t j = 0; j < P; ++j) dz[j] = -2.0 * exponents_[j] / alpha;
  for (size_t k = 0; k < W; ++k)
    for (size_t j = 0; j < P; ++j) dz[j] += p.inner[k] * down_[k * P + j];
}

// dz is written.
void ClexOde::rate_backward(const Point& p, std::span<const double> drate, Gradient& g, std::span<double> dz) const {
  const auto P = static_cast<size_t>(pairs_), W = static_cast<size_t>(width_);
  Vector du(W);
  for (size_t k = 0; k < W; ++k) {
    double sum = 0;
    for (size_t j = 0; j < P; ++j) {
      sum += down_[k * P + j] * drate[j];
      g.down[k * P + j] += p.inner[k] * drate[j];
    }
    du[k] = sum * p.slope[k];
  }
  for (size_t j = 0; j < P; ++j) {
    double sum = 0;
    for (size_t k = 0; k < W; ++k) {
      sum += up_[j * W + k] * du[k];
      g.up[j * W + k] += p.input[j] * du[k];
    }
    dz[j] = sum;
  }
}

// Runge-Kutta of fourth order by the 3/8 rule.
void ClexOde::step(int64_t i, std::span<const double> z, std::span<double> to) const {
  const double h = step_;
  Vector f1(z.size()), f2 = f1, f3 = f1, f4 = f1, y = f1;
  Point unused;
  rate(time(i), z, unused, f1);
  combine(z, {{h * kThird, f1}}, y);
  rate(time(i) + h * kThird, y, unused, f2);
  combine(z, {{h, f2}, {-h * kThird, f1}}, y);
  rate(time(i) + 2 * h * kThird, y, unused, f3);
  combine(z, {{h, f1}, {-h, f2}, {h, f3}}, y);
  rate(time(i) + h, y, unused, f4);
  combine(z, {{h / 8, f1}, {3 * h / 8, f2}, {3 * h / 8, f3}, {h / 8, f4}}, to);
}

// dz turns from the gradient behind the step into that in front of it.
void ClexOde::step_backward(int64_t i, std::span<const double> z, Gradient& g, std::span<double> dz) const {
  const double h = step_;
  const Vector zero(z.size());
  Vector f1(z.size()), f2 = f1, f3 = f1, f4 = f1, y = f1;
  Point p1, p2, p3, p4;
  rate(time(i), z, p1, f1);
  combine(z, {{h * kThird, f1}}, y);
  rate(time(i) + h * kThird, y, p2, f2);
  combine(z, {{h, f2}, {-h * kThird, f1}}, y);
  rate(time(i) + 2 * h * kThird, y, p3, f3);
  combine(z, {{h, f1}, {-h, f2}, {h, f3}}, y);
  rate(time(i) + h, y, p4, f4);

  // v_k: gradient of the point y_k; df_k: that of the rate there.
  const Vector out(dz.begin(), dz.end());
  Vector v1 = zero, v2 = zero, v3 = zero, v4 = zero, df = zero;
  combine(zero, {{h / 8, out}}, df);
  rate_backward(p4, df, g, v4);
  combine(zero, {{3 * h / 8, out}, {h, v4}}, df);
  rate_backward(p3, df, g, v3);
  combine(zero, {{3 * h / 8, out}, {-h, v4}, {h, v3}}, df);
  rate_backward(p2, df, g, v2);
  combine(zero, {{h / 8, out}, {h, v4}, {-h * kThird, v3}, {h * kThird, v2}}, df);
  rate_backward(p1, df, g, v1);
  combine(out, {{1, v1}, {1, v2}, {1, v3}, {1, v4}}, dz);
}

std::vector<double> ClexOde::path(int64_t t) const {
  const auto P = static_cast<size_t>(pairs_), n = static_cast<size_t>(steps(t));
  Vector z((n + 1) * P);
  std::copy(start_.begin(), start_.end(), z.begin());
  for (size_t i = 0; i < n; ++i)
    step(static_cast<int64_t>(i), std::span(z).subspan(i * P, P), std::span(z).subspan((i + 1) * P, P));
  return z;
}

std::vector<double> ClexOde::frequencies(const std::vector<double>& path) const {
  Vector out(path.end() - pairs_, path.end());
  for (double& f : out) f = std::exp(f);
  return out;
}

std::vector<std::vector<double>> ClexOde::tables(int64_t max_factor) const {
  const Vector whole = path(max_factor);
  std::vector<Vector> all;
  for (int64_t t = 1; t <= max_factor; ++t)
    all.push_back(frequencies({whole.begin(), whole.begin() + (steps(t) + 1) * pairs_}));
  return all;
}

void ClexOde::backward(const std::vector<double>& path, std::span<const double> dfrequencies, MutTensorRef dup,
                       MutTensorRef ddown) const {
  const auto P = static_cast<size_t>(pairs_), W = static_cast<size_t>(width_);
  Gradient g{Vector(P * W), Vector(W * P)};
  Vector dz = frequencies(path);
  for (size_t j = 0; j < P; ++j) dz[j] *= dfrequencies[j];
  for (size_t i = path.size() / P - 1; i-- > 0;)
    step_backward(static_cast<int64_t>(i), std::span(path).subspan(i * P, P), g, dz);
  add_to(dup, g.up);
  add_to(ddown, g.down);
}

ClexOde clex_ode(Context& cx, const ModelSpec& spec, const Weights& w) {
  FetchedTensor up, down;
  return {spec, up.now(cx, w.clex_up), down.now(cx, w.clex_down)};
}

}  // namespace coca::model
