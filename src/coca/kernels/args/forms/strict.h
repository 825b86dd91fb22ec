// coca/kernels/args/forms/strict.h - strict CoCA: q_eff = R_m (|q_j|^2, 0), k_eff = R_n (t_j, 0), so that a plane adds
// t_j |q_j|^2 cos((m - n) theta_j) to the score (arXiv 2309.08646, eq. 9 and 17).
// SPDX-License-Identifier: Apache-2.0
#include "coca/kernels/args/form.h"

namespace coca::forms::COCA_FORM_TARGET {

struct Strict {
  static constexpr FormInfo kInfo{.name = "coca-strict",
                                  .summary = "collinear in every plane: t |q|^2 cos of the distance",
                                  .source = "arXiv 2309.08646, eq. 9"};
  static constexpr KeyDirection kKey{1.0f, 0.0f};

  template <typename S>
  COCA_FORM static Plane<S> query(S a, S b, S c, S s) {
    return turned(a * a + b * b, c, s);
  }
  template <typename S>
  COCA_FORM static Plane<S> query_backward(S a, S b, S c, S s, S gx, S gy) {
    const S twice = S(2.0f) * turned_backward(c, s, gx, gy);
    return {a * twice, b * twice};
  }
};

}  // namespace coca::forms::COCA_FORM_TARGET
