// coca/kernels/args/forms/pope.h - PoPE: every channel of a head is a plane of its own, the lengths of q and k are
// softplus(q_j) and softplus(k_j), so that a plane adds softplus(q_j) softplus(k_j) cos((m - n) theta_j + phase_j) to
// the score (arXiv 2509.10534, eq. 4 and 5). The learnt phases are the modifier "phases".
// SPDX-License-Identifier: Apache-2.0
#include "coca/kernels/args/form.h"

namespace coca::forms::COCA_FORM_TARGET {

struct Pope {
  static constexpr FormInfo kInfo{.name = "pope",
                                  .summary = "polar coordinates: a plane for each channel, lengths by softplus",
                                  .source = "arXiv 2509.10534",
                                  .members = 1,
                                  .magnitude = Magnitude::kSoftplus};
  static constexpr KeyDirection kKey{1.0f, 0.0f};

  template <typename S>
  COCA_FORM static Plane<S> query(S a, S, S c, S s) {
    return turned(softplus(a), c, s);
  }
  template <typename S>
  COCA_FORM static Plane<S> query_backward(S a, S, S c, S s, S gx, S gy) {
    return {turned_backward(c, s, gx, gy) * logistic(a), S(0.0f)};
  }
};

}  // namespace coca::forms::COCA_FORM_TARGET
