// coca/kernels/ref/scalar.h - the little that lets reference loops run in float, double and complex<double>.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cmath>
#include <complex>

namespace coca::ref {

// Comparisons (max, ReLU, masks) act on the real part: a complex step of 1e-50 never crosses them.
constexpr float real_part(float x) { return x; }
constexpr double real_part(double x) { return x; }
constexpr double real_part(const std::complex<double>& x) { return x.real(); }

}  // namespace coca::ref
