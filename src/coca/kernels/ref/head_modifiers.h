// coca/kernels/ref/head_modifiers.h - what methods do to heads around attention, plainly. Math:
// docs/math/head_modifiers.md. Operands as in kernels/args/head_modifiers.h; views of gradients that are not wanted are
// empty.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cmath>
#include <complex>
#include <limits>
#include <type_traits>

#include "coca/kernels/ref/scalar.h"
#include "coca/tensor/view.h"

namespace coca::ref {

template <typename T, int Rank>
using Of = TensorView<const T, Rank>;  // an operand that is read

// body(b, n, h) for every head of x [B, N, H, X].
template <typename View, typename Body>
void for_heads(const View& x, const Body& body) {
  for (int64_t b = 0; b < x.size(0); ++b)
    for (int64_t n = 0; n < x.size(1); ++n)
      for (int64_t h = 0; h < x.size(2); ++h) body(b, n, h);
}

template <typename T>
T dot(const T* a, const T* b, int64_t n) {
  T sum = 0;
  for (int64_t i = 0; i < n; ++i) sum += a[i] * b[i];
  return sum;
}

// 1 / (1 + exp(-x)) without overflow.
template <typename T>
T sigmoid(T x) {
  using std::exp;
  const T e = exp(real_part(x) < 0 ? x : -x);
  return (real_part(x) < 0 ? e : T(1)) / (T(1) + e);
}

// log(1 / (1 + exp(-x))) = min(x, 0) - log(1 + exp(-|x|)).
template <typename T>
T log_sigmoid(T x) {
  using std::exp;
  using std::log;
  const bool low = real_part(x) < 0;
  const T e = exp(low ? x : -x), least = low ? x : T(0);
  if constexpr (std::is_floating_point_v<T>)
    return least - std::log1p(e);
  else
    return least - log(T(1) + e);
}

// sign = -1 turns back, which is the gradient.
template <typename T>
void turn_heads(Of<T, 2> phases, Of<T, 4> x, TensorView<T, 4> y, double sign = 1.0) {
  using std::cos;
  using std::sin;
  const int64_t P = phases.size(1);
  for_heads(x, [&](int64_t b, int64_t n, int64_t h) {
    const T* in = x.ptr(b, n, h);
    T* out = y.ptr(b, n, h);
    for (int64_t j = 0; j < P; ++j) {
      const T c = cos(phases(h, j)), s = sin(phases(h, j)) * static_cast<T>(sign);
      const T first = in[j], second = in[j + P];
      out[j] = first * c - second * s;
      out[j + P] = second * c + first * s;
    }
    std::copy(in + 2 * P, in + x.size(3), out + 2 * P);
  });
}

// The derivative of a turn is that turn and a quarter turn.
template <typename T>
void turn_heads_phases(Of<T, 4> y, Of<T, 4> dy, TensorView<T, 2> dphases) {
  const int64_t P = dphases.size(1);
  for_heads(y, [&](int64_t b, int64_t n, int64_t h) {
    const T *v = y.ptr(b, n, h), *d = dy.ptr(b, n, h);
    for (int64_t j = 0; j < P; ++j) dphases(h, j) += v[j] * d[j + P] - v[j + P] * d[j];
  });
}

// row [1 or B, N]. The gradient of x is the same function of dy.
template <typename T>
void scale_heads(Of<T, 1> scale, Of<T, 2> row, Of<T, 4> x, TensorView<T, 4> y) {
  for_heads(x, [&](int64_t b, int64_t n, int64_t h) {
    const T factor = scale(h) * row(row.size(0) == 1 ? 0 : b, n), *in = x.ptr(b, n, h);
    for (int64_t i = 0; i < x.size(3); ++i) y.ptr(b, n, h)[i] = in[i] * factor;
  });
}

template <typename T>
void scale_heads_scale(Of<T, 1> scale, Of<T, 4> y, Of<T, 4> dy, TensorView<T, 1> dscale) {
  for_heads(y, [&](int64_t b, int64_t n, int64_t h) {
    dscale(h) += dot(y.ptr(b, n, h), dy.ptr(b, n, h), y.size(3)) / scale(h);
  });
}

template <typename T>
void gate_heads(Of<T, 4> x, Of<T, 4> g, TensorView<T, 4> y) {
  const int64_t step = g.size(3) == x.size(3) ? 1 : 0;
  for_heads(x, [&](int64_t b, int64_t n, int64_t h) {
    const T *in = x.ptr(b, n, h), *gate = g.ptr(b, n, h);
    for (int64_t i = 0; i < x.size(3); ++i) y.ptr(b, n, h)[i] = in[i] * sigmoid(gate[i * step]);
  });
}

template <typename T>
void gate_heads_backward(Of<T, 4> x, Of<T, 4> g, Of<T, 4> dy, TensorView<T, 4> dx, TensorView<T, 4> dg) {
  const int64_t X = x.size(3), G = g.size(3), group = G == X ? 1 : X;  // numbers that share a gate
  for_heads(x, [&](int64_t b, int64_t n, int64_t h) {
    const T *in = x.ptr(b, n, h), *d = dy.ptr(b, n, h);
    for (int64_t k = 0; k < G; ++k) {
      const T gate = g(b, n, h, k), open = sigmoid(gate), slope = open * sigmoid(-gate);
      dg(b, n, h, k) = slope * dot(in + k * group, d + k * group, group);
      for (int64_t i = k * group; i < (k + 1) * group; ++i) dx(b, n, h, i) = d[i] * open;
    }
  });
}

// Where documents begin: a token of the call, or none.
struct DocumentStarts {
  TensorView<const int32_t, 2> document_start;
  int64_t query_start = 0;
  bool begins(int64_t b, int64_t n) const { return !document_start.empty() && document_start(b, n) >= query_start + n; }
};

// The head of the token before (b, n), or null.
template <typename T>
const T* head_before(Of<T, 4> x, Of<T, 4> before, const DocumentStarts& starts, int64_t b, int64_t n, int64_t h) {
  if (starts.begins(b, n)) return nullptr;
  if (n > 0) return x.ptr(b, n - 1, h);
  return before.empty() ? nullptr : before.ptr(b, 0, h);
}

template <typename T>
void mix_heads(Of<T, 2> w, Of<T, 4> x, Of<T, 4> before, const DocumentStarts& starts, TensorView<T, 4> y) {
  for_heads(x, [&](int64_t b, int64_t n, int64_t h) {
    const T *in = x.ptr(b, n, h), *last = head_before(x, before, starts, b, n, h);
    for (int64_t i = 0; i < x.size(3); ++i)
      y.ptr(b, n, h)[i] = last ? w(h, 0) * in[i] + w(h, 1) * last[i] : w(h, 0) * in[i];
  });
}

template <typename T>
void mix_heads_backward(Of<T, 2> w, const DocumentStarts& starts, Of<T, 4> dy, TensorView<T, 4> dx,
                        TensorView<T, 4> dbefore) {
  const int64_t N = dy.size(1), X = dy.size(3);
  for_heads(dy, [&](int64_t b, int64_t n, int64_t h) {
    const bool two = n + 1 < N && !starts.begins(b, n + 1);
    const T *d = dy.ptr(b, n, h), *next = dy.ptr(b, two ? n + 1 : n, h);
    for (int64_t i = 0; i < X; ++i) dx.ptr(b, n, h)[i] = two ? w(h, 0) * d[i] + w(h, 1) * next[i] : w(h, 0) * d[i];
    if (n > 0 || dbefore.empty()) return;
    for (int64_t i = 0; i < X; ++i) dbefore(b, 0, h, i) = starts.begins(b, 0) ? T(0) : w(h, 1) * d[i];
  });
}

template <typename T>
void mix_heads_weights(Of<T, 4> x, Of<T, 4> before, const DocumentStarts& starts, Of<T, 4> dy, TensorView<T, 2> dw) {
  for_heads(x, [&](int64_t b, int64_t n, int64_t h) {
    const T *d = dy.ptr(b, n, h), *last = head_before(x, before, starts, b, n, h);
    dw(h, 0) += dot(x.ptr(b, n, h), d, x.size(3));
    if (last) dw(h, 1) += dot(last, d, x.size(3));
  });
}

// Whether there are no keys but the sink.
template <typename T>
bool no_keys(T lse) {
  return real_part(lse) == -std::numeric_limits<decltype(real_part(lse))>::infinity();
}

template <typename T>
void sink_heads(Of<T, 1> sink, TensorView<T, 4> o, TensorView<T, 3> lse) {
  for_heads(o, [&](int64_t b, int64_t n, int64_t h) {
    T& sum = lse(b, h, n);
    const bool none = no_keys(sum);
    const T above = sum - sink(h), share = none ? T(0) : sigmoid(above);
    const bool low = none || real_part(above) < 0;
    sum = (low ? sink(h) : sum) - (none ? T(0) : log_sigmoid(low ? -above : above));
    for (int64_t i = 0; i < o.size(3); ++i) o(b, n, h, i) = none ? T(0) : o(b, n, h, i) * share;
  });
}

template <typename T>
void sink_heads_sink(Of<T, 1> sink, Of<T, 4> o, Of<T, 3> lse, Of<T, 4> d_o, TensorView<T, 1> dsink) {
  using std::exp;
  for_heads(o, [&](int64_t b, int64_t n, int64_t h) {
    if (!no_keys(lse(b, h, n)))
      dsink(h) -= exp(sink(h) - lse(b, h, n)) * dot(d_o.ptr(b, n, h), o.ptr(b, n, h), o.size(3));
  });
}

// Sums over tokens: double even where the operands are float.
template <typename T>
using Sum = std::conditional_t<std::is_same_v<T, float>, double, T>;

// carry [B, H, 1 or 2] and end [B, H, 2]: a sum, and what its rounding to T left out; each may be empty.
template <typename T>
void forget_gate(Of<T, 3> logits, Of<T, 3> carry, TensorView<T, 3> decay, TensorView<T, 3> end) {
  for (int64_t b = 0; b < logits.size(0); ++b)
    for (int64_t h = 0; h < logits.size(2); ++h) {
      Sum<T> sum = 0;
      for (int64_t i = 0; !carry.empty() && i < carry.size(2); ++i) sum += Sum<T>(carry(b, h, i));
      for (int64_t n = 0; n < logits.size(1); ++n)
        decay(b, h, n) = static_cast<T>(sum += log_sigmoid(Sum<T>(logits(b, n, h))));
      if (end.empty()) continue;
      end(b, h, 0) = static_cast<T>(sum);
      end(b, h, 1) = static_cast<T>(sum - Sum<T>(end(b, h, 0)));
    }
}

template <typename T>
void forget_gate_backward(Of<T, 3> logits, Of<T, 3> ddecay, TensorView<T, 3> dlogits) {
  for (int64_t b = 0; b < logits.size(0); ++b)
    for (int64_t h = 0; h < logits.size(2); ++h) {
      Sum<T> sum = 0;
      for (int64_t n = logits.size(1); n-- > 0;) {
        sum += Sum<T>(ddecay(b, h, n));
        dlogits(b, n, h) = static_cast<T>(sum * sigmoid(Sum<T>(-logits(b, n, h))));
      }
    }
}

}  // namespace coca::ref
