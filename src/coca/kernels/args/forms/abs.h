// coca/kernels/args/forms/abs.h - strict CoCA with the length of q in a plane in place of its square: a plane adds
// t_j |q_j| cos((m - n) theta_j), so that the score is quadratic in the activations and not cubic.
// SPDX-License-Identifier: Apache-2.0
#include "coca/kernels/args/form.h"

namespace coca::forms::COCA_FORM_TARGET {

struct Abs {
  static constexpr FormInfo kInfo{.name = "coca-abs",
                                  .summary = "strict CoCA with |q| in place of |q|^2",
                                  .source = "after arXiv 2309.08646, eq. 8"};
  static constexpr KeyDirection kKey{1.0f, 0.0f};

  template <typename S>
  COCA_FORM static Plane<S> query(S a, S b, S c, S s) {
    return turned(root(a * a + b * b), c, s);
  }
  // At q = 0, where |q| has no derivative, it is taken to be 0.
  template <typename S>
  COCA_FORM static Plane<S> query_backward(S a, S b, S c, S s, S gx, S gy) {
    const S length = root(a * a + b * b), g = turned_backward(c, s, gx, gy);
    return {g * ratio(a, length), g * ratio(b, length)};
  }
};

}  // namespace coca::forms::COCA_FORM_TARGET
