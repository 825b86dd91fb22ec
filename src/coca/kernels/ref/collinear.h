// coca/kernels/ref/collinear.h - the collinear prologue, plainly. Math: docs/math/collinear.md.
// kind: 0 slack, 1 strict, 2 tied (ops::Collinear). Pairs of one head vector of D dims, R of which rotate:
//   j in [0, R/2):        (j, j + R/2), angle of row and j
//   j in [R/2, D/2):      (R + i, R + (D-R)/2 + i) with i = j - R/2, angle zero
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "coca/kernels/ref/scalar.h"
#include "coca/tensor/view.h"

namespace coca::ref {

struct Pair {
  int64_t a, b;
};
constexpr Pair collinear_pair(int64_t j, int64_t R, int64_t D) {
  if (j < R / 2) return {j, j + R / 2};
  const int64_t i = j - R / 2;
  return {R + i, R + (D - R) / 2 + i};
}

template <typename T>
constexpr T folded(T a, T b) {
  const T mean = (a + b) * T(0.5);
  return real_part(mean) > 0 ? mean : T(0);
}

template <typename T>
T positive(T t) {
  return real_part(t) > 0 ? t : T(0);
}

// tbar [D/2] of one head vector t [width]; width is D, or D/2 where the projection has folded it.
template <typename T>
void collinear_fold_head(const T* t, int64_t width, int64_t R, int64_t D, T* tbar) {
  for (int64_t j = 0; j < D / 2; ++j) {
    const Pair p = collinear_pair(j, R, D);
    tbar[j] = width == D ? folded(t[p.a], t[p.b]) : positive(t[j]);
  }
}
// dt [width] written from dtbar [D/2].
template <typename T>
void collinear_fold_head_backward(const T* t, const T* dtbar, int64_t width, int64_t R, int64_t D, T* dt) {
  for (int64_t j = 0; j < D / 2; ++j) {
    const Pair p = collinear_pair(j, R, D);
    if (width == D)
      dt[p.a] = dt[p.b] = real_part((t[p.a] + t[p.b]) * T(0.5)) > 0 ? dtbar[j] * T(0.5) : T(0);
    else
      dt[j] = real_part(t[j]) > 0 ? dtbar[j] : T(0);
  }
}

// cos(j), sin(j) return the row's values for j < R/2.
template <typename T, typename Cos, typename Sin>
constexpr void collinear_query_head(int kind, const T* q, int64_t R, int64_t D, Cos cos, Sin sin, T* q_eff) {
  for (int64_t j = 0; j < D / 2; ++j) {
    const Pair p = collinear_pair(j, R, D);
    const T c = j < R / 2 ? T(cos(j)) : T(1);
    const T s = j < R / 2 ? T(sin(j)) : T(0);
    T a = q[p.a], b = q[p.b];
    if (kind == 2) a = b = (a + b) * T(0.5);
    if (kind == 1) {
      const T w = a * a + b * b;
      q_eff[p.a] = w * c;
      q_eff[p.b] = w * s;
    } else {
      q_eff[p.a] = a * (a * c - b * s);
      q_eff[p.b] = b * (b * c + a * s);
    }
  }
}

template <typename T, typename Cos, typename Sin>
void collinear_key_head(int kind, const T* tbar, int64_t R, int64_t D, Cos cos, Sin sin, T* k_eff) {
  for (int64_t j = 0; j < D / 2; ++j) {
    const Pair p = collinear_pair(j, R, D);
    const T c = j < R / 2 ? T(cos(j)) : T(1);
    const T s = j < R / 2 ? T(sin(j)) : T(0);
    k_eff[p.a] = kind == 1 ? tbar[j] * c : tbar[j] * (c - s);
    k_eff[p.b] = kind == 1 ? tbar[j] * s : tbar[j] * (c + s);
  }
}

// The official GPT-NeoX code with rotary_pct < 1: fold over the whole head, then rotate the first R dims only.
template <typename T, typename Cos, typename Sin>
constexpr void collinear_official_head(const T* q, const T* t, int64_t R, int64_t D, Cos cos, Sin sin, T* q_eff,
                                       T* k_eff) {
  for (int64_t i = 0; i < D; ++i) {
    const int64_t half = R / 2, j = i % (half ? half : 1);
    const auto tb = [&](int64_t at) { return folded(t[at % (D / 2)], t[at % (D / 2) + D / 2]); };
    if (i >= R) {
      if (q_eff) q_eff[i] = q[i] * q[i];
      if (k_eff) k_eff[i] = tb(i);
    } else {
      const double sign = i < half ? -1.0 : 1.0;
      const int64_t other = i < half ? i + half : i - half;
      if (q_eff) q_eff[i] = q[i] * (q[i] * T(cos(j)) + q[other] * T(sin(j)) * T(sign));
      if (k_eff) k_eff[i] = tb(i) * T(cos(j)) + tb(other) * T(sin(j)) * T(sign);
    }
  }
}

// Gradients of the above, pair by pair; dq, dt [D] are written.
template <typename T, typename Cos, typename Sin>
void collinear_query_head_backward(int kind, const T* q, const T* dq_eff, int64_t R, int64_t D, Cos cos, Sin sin,
                                   T* dq) {
  for (int64_t j = 0; j < D / 2; ++j) {
    const Pair p = collinear_pair(j, R, D);
    const T c = j < R / 2 ? T(cos(j)) : T(1);
    const T s = j < R / 2 ? T(sin(j)) : T(0);
    const T ga = dq_eff[p.a], gb = dq_eff[p.b];
    T a = q[p.a], b = q[p.b];
    if (kind == 1) {  // q_eff = (w c, w s), w = a^2 + b^2
      const T dw = ga * c + gb * s;
      dq[p.a] = T(2) * a * dw;
      dq[p.b] = T(2) * b * dw;
      continue;
    }
    if (kind == 2) a = b = (a + b) * T(0.5);
    const T da = ga * (T(2) * a * c - b * s) + gb * b * s;  // q_eff_a = a^2 c - a b s, q_eff_b = b^2 c + a b s
    const T db = -ga * a * s + gb * (T(2) * b * c + a * s);
    dq[p.a] = kind == 2 ? (da + db) * T(0.5) : da;
    dq[p.b] = kind == 2 ? (da + db) * T(0.5) : db;
  }
}

// dtbar [D/2] += from dk_eff [D]. official: pairs (j, j + D/2), of which the official routine rotates back (i, i +
// R/2).
template <typename T, typename Cos, typename Sin>
void collinear_tbar_head_backward(int kind, const T* dk_eff, int64_t R, int64_t D, Cos cos, Sin sin, T* dtbar) {
  for (int64_t j = 0; j < D / 2; ++j) {
    const Pair p = collinear_pair(j, R, D);
    const T c = j < R / 2 ? T(cos(j)) : T(1);
    const T s = j < R / 2 ? T(sin(j)) : T(0);
    const T ga = dk_eff[p.a], gb = dk_eff[p.b];
    dtbar[j] += kind == 1 ? ga * c + gb * s : ga * (c - s) + gb * (c + s);
  }
}
template <typename T, typename Cos, typename Sin>
void collinear_official_tbar_head_backward(const T* dk_eff, int64_t R, int64_t D, Cos cos, Sin sin, T* dtbar) {
  const int64_t half = R / 2;
  for (int64_t i = 0; i < D; ++i) {
    T back = dk_eff[i];
    if (i < half)
      back = dk_eff[i] * T(cos(i)) + dk_eff[i + half] * T(sin(i));
    else if (i < R)
      back = dk_eff[i] * T(cos(i - half)) - dk_eff[i - half] * T(sin(i - half));
    dtbar[i % (D / 2)] += back;
  }
}
// dt [width] written from dk_eff [D].
template <typename T, typename Cos, typename Sin>
void collinear_key_head_backward(int kind, const T* t, const T* dk_eff, int64_t width, int64_t R, int64_t D, Cos cos,
                                 Sin sin, T* dtbar /* scratch [D/2] */, T* dt) {
  for (int64_t j = 0; j < D / 2; ++j) dtbar[j] = T(0);
  collinear_tbar_head_backward(kind, dk_eff, R, D, cos, sin, dtbar);
  collinear_fold_head_backward(t, dtbar, width, R, D, dt);
}

template <typename T, typename Cos, typename Sin>
void collinear_official_head_backward(const T* q, const T* t, const T* dq_eff, const T* dk_eff, int64_t R, int64_t D,
                                      Cos cos, Sin sin, T* dq, T* dt, T* dtbar /* scratch [D] */) {
  const int64_t half = R / 2;
  for (int64_t i = 0; i < D; ++i) dtbar[i] = dk_eff[i];
  for (int64_t j = 0; j < half; ++j) {
    const T c = T(cos(j)), s = T(sin(j));
    const T a = q[j], b = q[j + half], ga = dq_eff[j], gb = dq_eff[j + half];
    dq[j] = ga * (T(2) * a * c - b * s) + gb * b * s;
    dq[j + half] = -ga * a * s + gb * (T(2) * b * c + a * s);
    const T ka = dk_eff[j], kb = dk_eff[j + half];
    dtbar[j] = ka * c + kb * s;  // the rotation back
    dtbar[j + half] = kb * c - ka * s;
  }
  for (int64_t i = R; i < D; ++i) dq[i] = T(2) * q[i] * dq_eff[i];
  for (int64_t j = 0; j < D / 2; ++j) {
    const bool open = real_part((t[j] + t[j + D / 2]) * T(0.5)) > 0;
    dt[j] = dt[j + D / 2] = open ? (dtbar[j] + dtbar[j + D / 2]) * T(0.5) : T(0);
  }
}

}  // namespace coca::ref
