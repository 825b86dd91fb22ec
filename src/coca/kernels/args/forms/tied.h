// coca/kernels/args/forms/tied.h - tied CoCA: slack with both members of a query's pair set to their mean. Equal to
// strict CoCA of that query (arXiv 2309.08646, eq. 11 and theorem 1).
// SPDX-License-Identifier: Apache-2.0
#include "coca/kernels/args/form.h"

namespace coca::forms::COCA_FORM_TARGET {

struct Tied {
  static constexpr FormInfo kInfo{.name = "coca-tied",
                                  .summary = "slack CoCA with the halves of q tied: equals strict CoCA of that q",
                                  .source = "arXiv 2309.08646, eq. 11"};
  static constexpr KeyDirection kKey{1.0f, 1.0f};

  // Slack's query with both numbers equal to their mean u: u (u c - u s), u (u c + u s).
  template <typename S>
  COCA_FORM static Plane<S> query(S a, S b, S c, S s) {
    const S u = (a + b) * S(0.5f), w = u * u;
    return {w * (c - s), w * (c + s)};
  }
  template <typename S>
  COCA_FORM static Plane<S> query_backward(S a, S b, S c, S s, S gx, S gy) {
    const S half = (a + b) * S(0.5f) * (gx * (c - s) + gy * (c + s));  // 2 u g, half of it each
    return {half, half};
  }
};

}  // namespace coca::forms::COCA_FORM_TARGET
