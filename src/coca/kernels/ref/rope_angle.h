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

// A query head q of slack CoCA (kind 0) or tied (kind 2: its pairs' means), and the gradient of q_eff. cos and sin
// [half].
template <typename T, typename S>
void slack_head_angles(int kind, const T* q, const T* dq_eff, const S* cos, const S* sin, int64_t half, S* dangle) {
  for (int64_t j = 0; j < half; ++j) {
    S a(q[j]), b(q[j + half]);
    if (kind == 2) a = b = (a + b) * S(0.5);
    dangle[j] += S(dq_eff[j + half]) * b * (a * cos[j] - b * sin[j]) - S(dq_eff[j]) * a * (b * cos[j] + a * sin[j]);
  }
}

}  // namespace coca::ref
