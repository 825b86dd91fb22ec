// coca/kernels/args/form.h - score forms: how a query and a key of a plane become two-dimensional vectors whose scalar
// product is the plane's share of the score. A form is one header in forms/; CMake makes forms_list.h from the folder.
// Its functions are templates over the scalar: float (also on a GPU), double, std::complex<double> (complex-step
// gradients) and the lanes of kernels/cpu, for which the headers are included once more for each SIMD target: hence
// they have no include guard and name the namespace COCA_FORM_TARGET. Math: docs/math/collinear.md.
//
// A form X in forms/x.h is a struct that has:
//   static constexpr FormInfo kInfo
//   static constexpr KeyDirection kKey     the key of a plane at position 0 is t_j (kKey.x, kKey.y)
//   query(a, b, c, s)                      q_eff in a plane from the query's numbers a and b and the cos and sin of its
//                                          angle; linear in (c, s). With one member b is not read.
//   query_backward(a, b, c, s, gx, gy)     the gradients of a and b from the gradient (gx, gy) of q_eff
// They may call the functions below and in form-inl.h. What depends on a lane's value is chosen by such a function, not
// by an if.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cmath>
#include <complex>
#include <cstdint>
#include <string_view>

#ifdef __CUDACC__
#define COCA_FORM __host__ __device__ __forceinline__
#else
#define COCA_FORM inline __attribute__((always_inline))
#endif

#define COCA_FORM_TARGET plain

namespace coca::ops {

// What makes the length of a key in a plane from the number that the projection gave: max(t, 0), or log(1 + exp(t)).
enum class Magnitude : uint8_t { kRelu, kSoftplus };

// What is said of a form outside of its functions.
struct FormInfo {
  std::string_view name;                   // in config.json ("attention_type"), flags and reports
  std::string_view summary;                // one line for `coca methods` and --help
  std::string_view source;                 // paper and equation
  int64_t members = 2;                     // numbers of a query in a plane: 2 or 1
  Magnitude magnitude = Magnitude::kRelu;  // of keys, unless config.json says otherwise
};

// Of the keys in a plane at position 0.
struct KeyDirection {
  float x, y;
};

// A vector in a plane.
template <typename S>
struct Plane {
  S x, y;
};

}  // namespace coca::ops

namespace coca::forms {

inline namespace plain {}

using ops::FormInfo;
using ops::KeyDirection;
using ops::Magnitude;
using ops::Plane;

COCA_FORM float positive(float t) { return t > 0.0f ? t : 0.0f; }
COCA_FORM float step(float t, float g) { return t > 0.0f ? g : 0.0f; }  // g where t > 0
COCA_FORM float softplus(float t) { return (t > 0.0f ? t : 0.0f) + ::log1pf(::expf(t > 0.0f ? -t : t)); }
COCA_FORM float logistic(float t) {
  const float e = ::expf(t > 0.0f ? -t : t);
  return (t > 0.0f ? 1.0f : e) / (1.0f + e);
}
COCA_FORM float root(float t) { return ::sqrtf(t); }
COCA_FORM float ratio(float a, float b) { return b > 0.0f ? a / b : 0.0f; }  // 0 where b is 0

COCA_FORM double positive(double t) { return t > 0.0 ? t : 0.0; }
COCA_FORM double step(double t, double g) { return t > 0.0 ? g : 0.0; }
COCA_FORM double softplus(double t) { return (t > 0.0 ? t : 0.0) + std::log1p(std::exp(t > 0.0 ? -t : t)); }
COCA_FORM double logistic(double t) {
  const double e = std::exp(t > 0.0 ? -t : t);
  return (t > 0.0 ? 1.0 : e) / (1.0 + e);
}
COCA_FORM double root(double t) { return std::sqrt(t); }
COCA_FORM double ratio(double a, double b) { return b > 0.0 ? a / b : 0.0; }

// For complex steps; branches go by the real part.
using Step = std::complex<double>;
inline Step positive(Step t) { return t.real() > 0.0 ? t : Step(0.0); }
inline Step step(Step t, Step g) { return t.real() > 0.0 ? g : Step(0.0); }
inline Step softplus(Step t) {
  const double x = t.real();  // its derivative is the logistic function
  return {softplus(x), t.imag() * logistic(x)};
}
inline Step logistic(Step t) {
  const double l = logistic(t.real());
  return {l, t.imag() * l * (1.0 - l)};
}
inline Step root(Step t) { return std::sqrt(t); }
inline Step ratio(Step a, Step b) { return b.real() > 0.0 ? a / b : Step(0.0); }

}  // namespace coca::forms
