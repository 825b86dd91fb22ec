// tests/support/numerics.h - random tensors, the error rule and gradients by complex step.
//
// Error rule (after FlashAttention's tests): with ref in double and naive the same formula in float,
//   max|actual - ref| <= 2 max|naive - ref| + 2 max|((ref + c) - c) - ref| + sqrt(terms) eps max|ref|.
// The second term is the cost of any float arithmetic on values of this size, the third the random-walk rounding of a
// sum of `terms` numbers in another order. An output stored as bf16 is such a float rounded once more, which changes a
// number f by at most 2^-8 |f|; reference and naive form use the same (bf16) inputs.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <complex>
#include <functional>
#include <limits>
#include <span>
#include <string>
#include <vector>

#include "coca/base/rng.h"
#include "coca/tensor/tensor.h"

namespace coca::test {

// Uniform values in [low, high), always the same for a seed.
inline std::vector<float> random_values(int64_t n, uint64_t seed, double low = -1.0, double high = 1.0) {
  Rng rng(seed, 0x7e57);
  std::vector<float> values(static_cast<size_t>(n));
  for (float& v : values) v = static_cast<float>(low + (high - low) * rng.uniform());
  return values;
}

// The values rounded to T (bf16), as float.
template <typename T>
std::vector<float> as_stored(std::vector<float> values) {
  for (float& v : values) v = static_cast<float>(static_cast<T>(v));
  return values;
}

// A tensor's numbers as float, whatever its type.
inline std::vector<float> float_values(const Tensor& t) {
  std::vector<float> out(static_cast<size_t>(t.numel()));
  if (t.dtype() == DType::kBF16)
    std::transform(t.values<BF16>().begin(), t.values<BF16>().end(), out.begin(),
                   [](BF16 v) { return static_cast<float>(v); });
  else
    std::copy(t.values<float>().begin(), t.values<float>().end(), out.begin());
  return out;
}

inline Tensor random_tensor(const Dims& shape, uint64_t seed, double low = -1.0, double high = 1.0) {
  Tensor t(shape);
  const std::vector<float> values = random_values(shape.product(), seed, low, high);
  std::copy(values.begin(), values.end(), t.values<float>().begin());
  return t;
}

// A tensor of type T with these values, rounded if T is bf16.
template <typename T>
Tensor tensor_of(const Dims& shape, const std::vector<float>& values) {
  Tensor t(shape, DTypeOf<T>::value);
  std::transform(values.begin(), values.end(), t.values<T>().begin(), [](float v) { return static_cast<T>(v); });
  return t;
}

template <typename To, typename From>
std::vector<To> convert(std::span<const From> from) {
  return std::vector<To>(from.begin(), from.end());
}
template <typename To>
std::vector<To> convert(const Tensor& from) {
  return convert<To>(std::span<const float>(float_values(from)));
}

// Fills rows of sentinels before and after a tensor, which reveal stray writes.
inline constexpr float kSentinel = -987654.25f;

struct ErrorRule {
  double terms = 1;            // number of terms in the longest sum for one element
  double zero_share = 0.5;     // more zeros than this in the reference would make the test meaningless
  DType stored = DType::kF32;  // type of the output
};

// Compares actual (float) with ref (double), using the naive float result for scale.
inline void expect_close(std::span<const float> actual, std::span<const double> ref, std::span<const float> naive,
                         const ErrorRule& rule, const std::string& what) {
  ASSERT_EQ(actual.size(), ref.size()) << what;
  ASSERT_EQ(naive.size(), ref.size()) << what;
  double max_ref = 0, naive_error = 0, float_cost = 0;
  size_t zeros = 0;
  for (size_t i = 0; i < ref.size(); ++i) {
    ASSERT_TRUE(std::isfinite(ref[i])) << what << ": reference not finite at " << i;
    ASSERT_TRUE(std::isfinite(actual[i])) << what << ": not finite at " << i << ": " << actual[i];
    max_ref = std::max(max_ref, std::abs(ref[i]));
    zeros += ref[i] == 0.0;
    naive_error = std::max(naive_error, std::abs(static_cast<double>(naive[i]) - ref[i]));
    const float c = 0.3f, r = static_cast<float>(ref[i]);
    const float moved = (r + c) - c;
    float_cost = std::max(float_cost, std::abs(static_cast<double>(moved) - ref[i]));
  }
  ASSERT_LE(static_cast<double>(zeros), rule.zero_share * static_cast<double>(ref.size()) + 0.5)
      << what << ": MISTRUSTED, " << zeros << " of " << ref.size() << " reference values are zero";
  const double eps = std::numeric_limits<float>::epsilon();
  const double bound = 2 * naive_error + 2 * float_cost + std::sqrt(rule.terms) * eps * max_ref;
  const double rounding = rule.stored == DType::kBF16 ? 0x1p-8 : 0.0;
  double worst = -1, error_there = 0, bound_there = 0;  // the element closest to its bound, or farthest beyond it
  size_t worst_at = 0;
  for (size_t i = 0; i < ref.size(); ++i) {
    const double error = std::abs(static_cast<double>(actual[i]) - ref[i]);
    const double element_bound = bound + rounding * (std::abs(ref[i]) + bound);
    const double share = error / std::max(element_bound, std::numeric_limits<double>::min());
    if (share > worst) {
      worst = share;
      worst_at = i;
      error_there = error;
      bound_there = element_bound;
    }
  }
  if (ref.empty()) return;
  EXPECT_LE(error_there, bound_there) << what << ": worst at " << worst_at << ": " << actual[worst_at] << " against "
                                      << ref[worst_at] << " (largest " << max_ref << ", naive error " << naive_error
                                      << ")";
}

// Gradient of a real function by complex step: f takes complex inputs, returns a complex loss and must be analytic at
// the point. Without subtraction the result is exact to double rounding.
using Complex = std::complex<double>;
inline std::vector<double> complex_step_gradient(std::span<const double> x,
                                                 const std::function<Complex(std::span<const Complex>)>& f) {
  constexpr double kStep = 1e-50;
  std::vector<Complex> at(x.begin(), x.end());
  std::vector<double> gradient(x.size());
  for (size_t i = 0; i < x.size(); ++i) {
    at[i] = Complex(x[i], kStep);
    gradient[i] = f(at).imag() / kStep;
    at[i] = Complex(x[i], 0.0);
  }
  return gradient;
}

// Compares a double-precision gradient with the complex-step one. 1e-10 of the largest magnitude allows sums of up to
// about 1e5 terms at double rounding.
inline void expect_gradient(std::span<const double> actual, std::span<const double> expected, const std::string& what) {
  ASSERT_EQ(actual.size(), expected.size()) << what;
  double largest = 0;
  for (double e : expected) largest = std::max(largest, std::abs(e));
  ASSERT_GT(largest, 0.0) << what << ": MISTRUSTED, the gradient is zero";
  for (size_t i = 0; i < actual.size(); ++i)
    ASSERT_NEAR(actual[i], expected[i], 1e-10 * std::max(largest, 1.0)) << what << " at " << i;
}

}  // namespace coca::test
