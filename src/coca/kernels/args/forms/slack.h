// coca/kernels/args/forms/slack.h - slack CoCA: q_eff = q * R_m q, k_eff = R_n [t, t]. The paper's final form and that
// of the official code (arXiv 2309.08646, eq. 10).
// SPDX-License-Identifier: Apache-2.0
#include "coca/kernels/args/form.h"

namespace coca::forms::COCA_FORM_TARGET {

struct Slack {
  static constexpr FormInfo kInfo{.name = "coca-slack",
                                  .summary = "CoCA as published: q times its own rotation, keys along the diagonal",
                                  .source = "arXiv 2309.08646, eq. 10"};
  static constexpr KeyDirection kKey{1.0f, 1.0f};

  template <typename S>
  COCA_FORM static Plane<S> query(S a, S b, S c, S s) {
    return {a * (a * c - b * s), b * (b * c + a * s)};
  }
  template <typename S>
  COCA_FORM static Plane<S> query_backward(S a, S b, S c, S s, S gx, S gy) {
    return {gx * (a * (c + c) - b * s) + gy * b * s, gy * (b * (c + c) + a * s) - gx * a * s};
  }
};

}  // namespace coca::forms::COCA_FORM_TARGET
