// tests/support/views.h - typed views of vectors, and tables of angles in float and double.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cmath>
#include <type_traits>
#include <vector>

#include "coca/base/rng.h"
#include "coca/ops/rope.h"
#include "coca/tensor/tensor.h"

namespace coca::test {

// A contiguous view of a vector (or span) with the given shape.
template <typename T, int Rank, typename Values>
TensorView<T, Rank> as_view(Values& values, const Dims& shape) {
  TensorView<T, Rank> view;
  const Dims strides = contiguous_strides(shape);
  view.data = values.data();
  for (int i = 0; i < Rank; ++i) {
    view.shape[static_cast<size_t>(i)] = shape[i];
    view.strides[static_cast<size_t>(i)] = strides[i];
  }
  return view;
}

// Rows of cos and sin [1, N, half] of random angles. The double tables hold the same values as the float ones, so that
// reference and kernel use the same numbers.
class Angles {
 public:
  Angles(int64_t N, int64_t half, uint64_t seed) : shape_{1, N, half}, cos_(shape_), sin_(shape_) {
    Rng rng(seed, 0xa7);
    for (int64_t i = 0; i < N * half; ++i) {
      const double angle = 100.0 * rng.uniform();
      cos_.values<float>()[static_cast<size_t>(i)] = static_cast<float>(std::cos(angle));
      sin_.values<float>()[static_cast<size_t>(i)] = static_cast<float>(std::sin(angle));
    }
    cosd_.assign(cos_.values<float>().begin(), cos_.values<float>().end());
    sind_.assign(sin_.values<float>().begin(), sin_.values<float>().end());
  }
  ops::RopeRows rows() const { return {cos_.ref(), sin_.ref()}; }
  TensorView<const float, 3> cos_f() const { return cos_.ref().view<float, 3>(); }
  TensorView<const float, 3> sin_f() const { return sin_.ref().view<float, 3>(); }
  TensorView<const double, 3> cos_d() const { return as_view<const double, 3>(cosd_, shape_); }
  TensorView<const double, 3> sin_d() const { return as_view<const double, 3>(sind_, shape_); }

 private:
  Dims shape_;
  Tensor cos_, sin_;
  std::vector<double> cosd_, sind_;
};

}  // namespace coca::test
