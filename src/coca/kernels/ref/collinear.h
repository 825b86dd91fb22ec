// coca/kernels/ref/collinear.h - the collinear prologue, plainly. Math: docs/math/collinear.md.
// Pairs of one head vector of E numbers, of which R rotate and the last C are content channels, which pass through:
//   plane j in [0, R/2):           (j, j + R/2), angle of row and j
//   plane j in [R/2, (E - C)/2):   (R + i, R + (E-C-R)/2 + i) with i = j - R/2, angle zero
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "coca/kernels/args/collinear.h"
#include "coca/kernels/ref/scalar.h"
#include "coca/tensor/view.h"

namespace coca::ref {

struct Pair {
  int64_t a, b;
};
constexpr Pair collinear_pair(int64_t j, int64_t R, int64_t pairs_width) {
  if (j < R / 2) return {j, j + R / 2};
  const int64_t i = j - R / 2;
  return {R + i, R + (pairs_width - R) / 2 + i};
}

struct CollinearHead {
  int64_t R, E, content = 0;
  constexpr int64_t planes() const { return (E - content) / 2; }
  constexpr int64_t stored() const { return planes() + content; }
  constexpr Pair pair(int64_t j) const { return collinear_pair(j, R, E - content); }
  // Of q, whose planes have one or two numbers.
  constexpr Pair members(int64_t count, int64_t j) const { return count == 2 ? pair(j) : Pair{j, j}; }
};

template <typename T>
struct Turn {
  T c, s;
};
// cos(j), sin(j) return the row's values for j < R/2.
template <typename T, typename Cos, typename Sin>
Turn<T> collinear_turn(int64_t j, int64_t R, Cos cos, Sin sin) {
  if (j < R / 2) return {T(cos(j)), T(sin(j))};
  return {T(1), T(0)};
}

template <typename T>
T key_length(ops::Magnitude magnitude, T t) {
  if (magnitude == ops::Magnitude::kSoftplus) return forms::key_length<ops::Magnitude::kSoftplus>(t);
  return forms::key_length<ops::Magnitude::kRelu>(t);
}
template <typename T>
T key_length_backward(ops::Magnitude magnitude, T t, T dlength) {
  if (magnitude == ops::Magnitude::kSoftplus) return forms::key_length_backward<ops::Magnitude::kSoftplus>(t, dlength);
  return forms::key_length_backward<ops::Magnitude::kRelu>(t, dlength);
}

// tbar [P + C] of one head vector t [width]; width is E, or P + C where the projection has folded it.
template <typename T>
void collinear_fold_head(ops::Magnitude magnitude, const CollinearHead& head, const T* t, int64_t width, T* tbar) {
  const int64_t P = head.planes();
  for (int64_t j = 0; j < P; ++j) {
    const Pair p = head.pair(j);
    tbar[j] = key_length(magnitude, width == head.E ? (t[p.a] + t[p.b]) * T(0.5) : t[j]);
  }
  for (int64_t i = 0; i < head.content; ++i) tbar[P + i] = t[width - head.content + i];
}
// dt [width] written from dtbar [P + C].
template <typename T>
void collinear_fold_head_backward(ops::Magnitude magnitude, const CollinearHead& head, const T* t, const T* dtbar,
                                  int64_t width, T* dt) {
  const int64_t P = head.planes();
  for (int64_t j = 0; j < P; ++j) {
    const Pair p = head.pair(j);
    if (width == head.E)
      dt[p.a] = dt[p.b] = key_length_backward(magnitude, (t[p.a] + t[p.b]) * T(0.5), dtbar[j] * T(0.5));
    else
      dt[j] = key_length_backward(magnitude, t[j], dtbar[j]);
  }
  for (int64_t i = 0; i < head.content; ++i) dt[width - head.content + i] = dtbar[P + i];
}

// q_eff [E] of q [members P + C].
template <typename Form, typename T, typename Cos, typename Sin>
void collinear_query_head(Form, const CollinearHead& head, const T* q, Cos cos, Sin sin, T* q_eff) {
  constexpr int64_t kMembers = Form::kInfo.members;
  const int64_t P = head.planes();
  for (int64_t j = 0; j < P; ++j) {
    const Pair p = head.pair(j), m = head.members(kMembers, j);
    const Turn<T> turn = collinear_turn<T>(j, head.R, cos, sin);
    const ops::Plane<T> y = Form::query(q[m.a], q[m.b], turn.c, turn.s);
    q_eff[p.a] = y.x;
    q_eff[p.b] = y.y;
  }
  for (int64_t i = 0; i < head.content; ++i) q_eff[2 * P + i] = q[kMembers * P + i];
}
// dq [members P + C] written from dq_eff [E].
template <typename Form, typename T, typename Cos, typename Sin>
void collinear_query_head_backward(Form, const CollinearHead& head, const T* q, const T* dq_eff, Cos cos, Sin sin,
                                   T* dq) {
  constexpr int64_t kMembers = Form::kInfo.members;
  const int64_t P = head.planes();
  for (int64_t j = 0; j < P; ++j) {
    const Pair p = head.pair(j), m = head.members(kMembers, j);
    const Turn<T> turn = collinear_turn<T>(j, head.R, cos, sin);
    const ops::Plane<T> d = Form::query_backward(q[m.a], q[m.b], turn.c, turn.s, dq_eff[p.a], dq_eff[p.b]);
    dq[m.a] = d.x;
    if (kMembers == 2) dq[m.b] = d.y;
  }
  for (int64_t i = 0; i < head.content; ++i) dq[kMembers * P + i] = dq_eff[2 * P + i];
}

// k_eff [E] of tbar [P + C].
template <typename T, typename Cos, typename Sin>
void collinear_key_head(ops::KeyDirection direction, const CollinearHead& head, const T* tbar, Cos cos, Sin sin,
                        T* k_eff) {
  const int64_t P = head.planes();
  for (int64_t j = 0; j < P; ++j) {
    const Pair p = head.pair(j);
    const Turn<T> turn = collinear_turn<T>(j, head.R, cos, sin);
    const ops::Plane<T> y = forms::key_of(direction, tbar[j], turn.c, turn.s);
    k_eff[p.a] = y.x;
    k_eff[p.b] = y.y;
  }
  for (int64_t i = 0; i < head.content; ++i) k_eff[2 * P + i] = tbar[P + i];
}
// dtbar [P + C] += from dk_eff [E].
template <typename T, typename Cos, typename Sin>
void collinear_tbar_head_backward(ops::KeyDirection direction, const CollinearHead& head, const T* dk_eff, Cos cos,
                                  Sin sin, T* dtbar) {
  const int64_t P = head.planes();
  for (int64_t j = 0; j < P; ++j) {
    const Pair p = head.pair(j);
    const Turn<T> turn = collinear_turn<T>(j, head.R, cos, sin);
    dtbar[j] += forms::key_backward(direction, turn.c, turn.s, dk_eff[p.a], dk_eff[p.b]);
  }
  for (int64_t i = 0; i < head.content; ++i) dtbar[P + i] += dk_eff[2 * P + i];
}

// The official GPT-NeoX code with rotary_pct < 1: fold over the whole head, then rotate the first R dims only.
template <typename T, typename Cos, typename Sin>
void collinear_official_head(const T* q, const T* t, int64_t R, int64_t D, Cos cos, Sin sin, T* q_eff, T* k_eff) {
  for (int64_t i = 0; i < D; ++i) {
    const int64_t half = R / 2, j = i % (half ? half : 1);
    const auto tb = [&](int64_t at) { return forms::positive((t[at % (D / 2)] + t[at % (D / 2) + D / 2]) * T(0.5)); };
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

// dtbar [D/2] += from dk_eff [D]: pairs (j, j + D/2), of which the official routine rotates back (i, i + R/2).
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
