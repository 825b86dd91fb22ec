// coca/kernels/ref/rope_angle.h - gradients of the angles of rotary pairs, plainly. Math: docs/math/rope_angle.md.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

namespace coca::ref {

// A head y that is the rotation of something, and its gradient: dangle [half] of pairs (j, j + half), added to.
template <typename T, typename S>
void rotated_head_angles(const T* y, const T* dy, int64_t half, S* dangle) {
  for (int64_t j = 0; j < half; ++j) dangle[j] += S(y[j]) * S(dy[j + half]) - S(y[j + half]) * S(dy[j]);
}

// A query head q of a form, and the gradient of q_eff. cos and sin [half]. q_eff is linear in (c, s), whose derivative
// by the angle is (-s, c).
template <typename Form, typename T, typename S>
void query_head_angles(Form, const T* q, const T* dq_eff, const S* cos, const S* sin, int64_t half, S* dangle) {
  constexpr bool kPairs = Form::kInfo.members == 2;
  for (int64_t j = 0; j < half; ++j) {
    const auto d = Form::query(S(q[j]), S(q[kPairs ? j + half : j]), -sin[j], cos[j]);
    dangle[j] += d.x * S(dq_eff[j]) + d.y * S(dq_eff[j + half]);
  }
}

}  // namespace coca::ref
