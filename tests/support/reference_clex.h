// tests/support/reference_clex.h - CLEX's frequencies as in docs/math/clex.md, in double or complex<double>.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cmath>
#include <vector>

#include "coca/model/spec.h"

namespace coca::test {

// Frequencies at length factor t, from the model's up [R/2, W] and down [W, R/2].
template <typename T>
std::vector<T> reference_clex(const model::ModelSpec& s, const T* up, const T* down, int64_t t) {
  const int64_t half = s.R / 2, W = s.rope_scaling.param_factor * s.R;
  const double d = static_cast<double>(s.R), h = s.rope_scaling.time_step;
  using Vec = std::vector<T>;
  const auto rate = [&](double time, const Vec& z) {
    const double alpha = 2 * time - 1;
    Vec input = z, inner(static_cast<size_t>(W)), out(z.size());
    for (int64_t j = 0; j < half; ++j) {
      const double base = s.R > 2 ? s.rope_theta * std::pow(alpha, d / (d - 2)) : s.rope_theta;
      input[static_cast<size_t>(j)] += std::log(std::pow(base, -2.0 * static_cast<double>(j) / d));
      for (int64_t k = 0; k < W; ++k) inner[static_cast<size_t>(k)] += input[static_cast<size_t>(j)] * up[j * W + k];
      if (s.R > 2) out[static_cast<size_t>(j)] = -4.0 * static_cast<double>(j) / (d - 2) / alpha;
    }
    for (int64_t k = 0; k < W; ++k) {
      const T u = inner[static_cast<size_t>(k)];
      const T a = s.rope_scaling.activation == model::ClexActivation::kTanh ? std::tanh(u) : u / (T(1) + std::exp(-u));
      for (int64_t j = 0; j < half; ++j) out[static_cast<size_t>(j)] += a * down[k * half + j];
    }
    return out;
  };
  const auto moved = [](Vec z, double f, const Vec& v) {
    for (size_t j = 0; j < z.size(); ++j) z[j] += f * v[j];
    return z;
  };
  Vec z(static_cast<size_t>(half));
  for (int64_t j = 0; j < half; ++j)
    z[static_cast<size_t>(j)] = -2.0 * static_cast<double>(j) / d * std::log(s.rope_theta);
  const auto steps = static_cast<int64_t>(std::lround(static_cast<double>(t - 1) / h));
  for (int64_t i = 0; i < steps; ++i) {
    const double time = 1 + static_cast<double>(i) * h;
    const Vec k1 = rate(time, z), k2 = rate(time + h / 3, moved(z, h / 3, k1));
    const Vec k3 = rate(time + 2 * h / 3, moved(moved(z, h, k2), -h / 3, k1));
    const Vec k4 = rate(time + h, moved(moved(moved(z, h, k1), -h, k2), h, k3));
    for (size_t j = 0; j < z.size(); ++j) z[j] += h / 8 * (k1[j] + 3.0 * k2[j] + 3.0 * k3[j] + k4[j]);
  }
  for (T& f : z) f = std::exp(f);
  return z;
}

}  // namespace coca::test
