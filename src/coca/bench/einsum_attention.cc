// SPDX-License-Identifier: Apache-2.0
#include "coca/bench/einsum_attention.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <limits>

#include "coca/base/parallel.h"
#include "coca/ops/collinear.h"
#include "coca/ops/linear.h"

namespace coca::bench {

namespace {

constexpr size_t kLanes = 8;
constexpr int64_t kRowGrain = 16;

// e^x for x <= 0 without branches, so that the compiler makes vectors of it (the yardstick should not lose by
// a slow exp): 2^i from the exponent bits, the rest by a polynomial of degree 6 on [-ln2/2, ln2/2]; off by
// less than 1e-6.
float exp_of_negative(float x) {
  x = std::max(x, -87.0f);
  const auto i = static_cast<int32_t>(x * 1.44269504f - 0.5f);  // nearest, as x <= 0
  const float r = x - static_cast<float>(i) * 0.693147181f;
  const float p =
      1.0f + r * (1.0f + r * (0.5f + r * (1.0f / 6 + r * (1.0f / 24 + r * (1.0f / 120 + r * (1.0f / 720))))));
  return p * std::bit_cast<float>((i + 127) << 23);
}

float max_of(const float* x, int64_t n) {
  std::array<float, kLanes> lanes;
  lanes.fill(-std::numeric_limits<float>::infinity());
  int64_t i = 0;
  for (; i + static_cast<int64_t>(kLanes) <= n; i += static_cast<int64_t>(kLanes))
    for (size_t l = 0; l < kLanes; ++l) lanes[l] = std::max(lanes[l], x[i + static_cast<int64_t>(l)]);
  for (; i < n; ++i) lanes[0] = std::max(lanes[0], x[i]);
  return *std::max_element(lanes.begin(), lanes.end());
}

float dot(const float* x, const float* y, int64_t n) {
  std::array<float, kLanes> lanes{};
  int64_t i = 0;
  for (; i + static_cast<int64_t>(kLanes) <= n; i += static_cast<int64_t>(kLanes))
    for (size_t l = 0; l < kLanes; ++l) lanes[l] += x[i + static_cast<int64_t>(l)] * y[i + static_cast<int64_t>(l)];
  float sum = 0;
  for (; i < n; ++i) sum += x[i] * y[i];
  for (const float lane : lanes) sum += lane;
  return sum;
}

// Row `visible` - 1 of the causal mask: the softmax of the first numbers, followed by zeros.
void softmax_row(float* row, int64_t visible, int64_t N, float scale) {
  const float largest = max_of(row, visible);
  for (int64_t s = 0; s < visible; ++s) row[s] = exp_of_negative((row[s] - largest) * scale);
  float sum = 0;
  for (int64_t s = 0; s < visible; ++s) sum += row[s];
  const float inverse = 1.0f / sum;
  for (int64_t s = 0; s < visible; ++s) row[s] *= inverse;
  std::fill(row + visible, row + N, 0.0f);
}

MutTensorRef head_matrix(MutTensorRef x, int64_t b, int64_t h) { return x.select(0, b).select(1, h); }  // [N, D]
TensorRef head_matrix(TensorRef x, int64_t b, int64_t h) { return x.select(0, b).select(1, h); }
MutTensorRef plane(Tensor& x, int64_t b, int64_t h) { return x.ref().select(0, b).select(0, h); }  // [N, N]

void fill_zero(MutTensorRef x) { std::fill_n(x.as<float>(), x.numel(), 0.0f); }

}  // namespace

int64_t EinsumAttention::bytes(EinsumForm form, const EinsumShape& s, Gradients gradients) {
  const int64_t pairs = s.B * s.H * s.N * s.N, numbers = form == EinsumForm::kTriples ? pairs * (s.D + 1) : pairs;
  return numbers * static_cast<int64_t>(sizeof(float)) * (gradients == Gradients::kWanted ? 2 : 1);
}

EinsumAttention::EinsumAttention(EinsumForm form, const EinsumShape& s, Gradients gradients)
    : form_(form),
      s_(s),
      left_({s.B, s.N, s.H, s.D}),
      keys_({s.B, s.N, s.G, s.D}),
      tbar_({s.B, s.N, s.G, s.D / 2}),
      scores_({s.B, s.H, s.N, s.N}) {
  const bool triples = form == EinsumForm::kTriples;
  if (triples) triples_ = Tensor({s.B * s.H, s.N, s.N, s.D});
  if (gradients == Gradients::kNone) return;
  dleft_ = Tensor(left_.shape());
  dkeys_ = Tensor(keys_.shape());
  dscores_ = Tensor(scores_.shape());
  if (triples) {
    dtriples_ = Tensor(triples_.shape());
    dq_own_ = Tensor(left_.shape());
  }
}

// left_ is q_rot here. triples[n, s] = q[n] * t_rot[s]; scores[n, s] = triples[n, s] . q_rot[n].
void EinsumAttention::scores_of_triples(const Forward& a) {
  const auto q = a.q.view<float, 4>(), q_rot = TensorRef(left_).view<float, 4>(),
             t_rot = TensorRef(keys_).view<float, 4>();
  parallel_for(s_.B * s_.H * s_.N, [&](int64_t task) {
    const int64_t n = task % s_.N, h = task / s_.N % s_.H, b = task / s_.N / s_.H;
    const float* query = q.ptr(b, n, h);
    float* row = triples_.ref().as<float>() + task * s_.N * s_.D;
    for (int64_t s = 0; s < s_.N; ++s) {
      const float* key = t_rot.ptr(b, s, h / (s_.H / s_.G));
      for (int64_t d = 0; d < s_.D; ++d) row[s * s_.D + d] = query[d] * key[d];
    }
    float* score = scores_.ref().as<float>() + task * s_.N;
    for (int64_t s = 0; s < s_.N; ++s) score[s] = dot(row + s * s_.D, q_rot.ptr(b, n, h), s_.D);
  });
}

void EinsumAttention::forward(Context& cx, const Forward& a) {
  if (form_ == EinsumForm::kPairs) {
    ops::collinear_forward(cx, {}, {.rows = a.rows, .q = a.q, .t = a.t, .q_eff = left_, .k_eff = keys_});
    for (int64_t b = 0; b < s_.B; ++b)
      for (int64_t h = 0; h < s_.H; ++h)
        ops::linear_forward(cx, {.x = head_matrix(TensorRef(left_), b, h),
                                 .w = head_matrix(TensorRef(keys_), b, h / (s_.H / s_.G)),
                                 .y = plane(scores_, b, h)});
  } else {
    ops::rope_forward(cx, {.rows = a.rows, .x = a.q, .y = left_});
    ops::collinear_fold(cx, {}, {.R = s_.D, .t = a.t, .tbar = tbar_});
    ops::collinear_key(cx, {}, {.rows = a.rows, .tbar = tbar_, .k_eff = keys_});
    scores_of_triples(a);
  }
  const float scale = 1.0f / std::sqrt(static_cast<float>(s_.D));
  parallel_blocks(s_.B * s_.H * s_.N, kRowGrain, [&](int64_t first, int64_t last) {
    for (int64_t row = first; row < last; ++row)
      softmax_row(scores_.ref().as<float>() + row * s_.N, row % s_.N + 1, s_.N, scale);
  });
  for (int64_t b = 0; b < s_.B; ++b)
    for (int64_t h = 0; h < s_.H; ++h)  // o = p v, in the words of linear: dx = dy w
      ops::linear_backward(cx, {.x = head_matrix(a.q, b, h),
                                .w = head_matrix(a.v, b, h / (s_.H / s_.G)),
                                .dy = plane(scores_, b, h),
                                .dx = head_matrix(a.o, b, h)});
}

// dtriples[n, s] = ds q_rot[n]; dq_rot[n] = sum_s ds triples[n, s]; dq[n] = sum_s dtriples[n, s] * t_rot[s];
// dt_rot[s] = sum_n dtriples[n, s] * q[n].
void EinsumAttention::gradients_of_triples(const Backward& a) {
  const auto q = a.q.view<float, 4>(), q_rot = TensorRef(left_).view<float, 4>(),
             t_rot = TensorRef(keys_).view<float, 4>();
  const auto dq_rot = dleft_.ref().view<float, 4>(), dq = dq_own_.ref().view<float, 4>(),
             dt = dkeys_.ref().view<float, 4>();
  const int64_t N = s_.N, D = s_.D, group = s_.H / s_.G;
  parallel_for(s_.B * s_.H * N, [&](int64_t task) {
    const int64_t n = task % N, h = task / N % s_.H, b = task / N / s_.H;
    const float *ds = dscores_.ref().as<float>() + task * N, *row = triples_.ref().as<float>() + task * N * D;
    float *drow = dtriples_.ref().as<float>() + task * N * D, *to_rot = dq_rot.ptr(b, n, h), *to = dq.ptr(b, n, h);
    const float* rotated = q_rot.ptr(b, n, h);
    std::fill_n(to_rot, D, 0.0f);
    std::fill_n(to, D, 0.0f);
    for (int64_t s = 0; s < N; ++s) {
      const float* key = t_rot.ptr(b, s, h / group);
      for (int64_t d = 0; d < D; ++d) drow[s * D + d] = ds[s] * rotated[d];
      for (int64_t d = 0; d < D; ++d) to_rot[d] += ds[s] * row[s * D + d];
      for (int64_t d = 0; d < D; ++d) to[d] += drow[s * D + d] * key[d];
    }
  });
  parallel_for(s_.B * s_.G * N, [&](int64_t task) {
    const int64_t s = task % N, g = task / N % s_.G, b = task / N / s_.G;
    float* to = dt.ptr(b, s, g);
    std::fill_n(to, D, 0.0f);
    for (int64_t h = g * group; h < (g + 1) * group; ++h)
      for (int64_t n = s; n < N; ++n) {
        const float* from = dtriples_.ref().as<float>() + (((b * s_.H + h) * N + n) * N + s) * D;
        const float* query = q.ptr(b, n, h);
        for (int64_t d = 0; d < D; ++d) to[d] += from[d] * query[d];
      }
  });
}

void EinsumAttention::backward(Context& cx, const Backward& a) {
  const int64_t group = s_.H / s_.G;
  fill_zero(a.dv);
  for (int64_t b = 0; b < s_.B; ++b)
    for (int64_t h = 0; h < s_.H; ++h) {
      const TensorRef d_o = head_matrix(a.d_o, b, h), v = head_matrix(a.v, b, h / group);
      ops::linear_forward(cx, {.x = d_o, .w = v, .y = plane(dscores_, b, h)});  // dp = d_o v^T
      ops::linear_backward(cx, {.x = d_o, .w = v, .dy = plane(scores_, b, h), .dw = head_matrix(a.dv, b, h / group)});
    }
  const float scale = 1.0f / std::sqrt(static_cast<float>(s_.D));
  parallel_blocks(s_.B * s_.H * s_.N, kRowGrain, [&](int64_t first, int64_t last) {
    for (int64_t row = first; row < last; ++row) {  // ds = p (dp - sum p dp)
      const float* p = scores_.ref().as<float>() + row * s_.N;
      float* d = dscores_.ref().as<float>() + row * s_.N;
      const float mean = dot(p, d, s_.N);
      for (int64_t s = 0; s < s_.N; ++s) d[s] = p[s] * (d[s] - mean) * scale;
    }
  });
  if (form_ == EinsumForm::kTriples) {
    gradients_of_triples(a);
    ops::rope_backward(cx, {.rows = a.rows, .dy = dleft_, .dx = a.dq});
    const auto own = dq_own_.values<float>();
    float* dq = a.dq.as<float>();
    parallel_blocks(a.dq.numel(), 1 << 16, [&](int64_t first, int64_t last) {
      for (int64_t i = first; i < last; ++i) dq[i] += own[static_cast<size_t>(i)];
    });
    // The gradient of t does not depend on the one of q_eff, which this form does not have.
    ops::collinear_backward(
        cx, {}, {.rows = a.rows, .q = a.q, .t = a.t, .dq_eff = dq_own_, .dk_eff = dkeys_, .dq = dleft_, .dt = a.dt});
    return;
  }
  fill_zero(dkeys_);
  for (int64_t b = 0; b < s_.B; ++b)
    for (int64_t h = 0; h < s_.H; ++h)
      ops::linear_backward(cx, {.x = head_matrix(TensorRef(left_), b, h),
                                .w = head_matrix(TensorRef(keys_), b, h / group),
                                .dy = plane(dscores_, b, h),
                                .dx = head_matrix(dleft_.ref(), b, h),
                                .dw = head_matrix(dkeys_.ref(), b, h / group)});
  ops::collinear_backward(
      cx, {}, {.rows = a.rows, .q = a.q, .t = a.t, .dq_eff = dleft_, .dk_eff = dkeys_, .dq = a.dq, .dt = a.dt});
}

}  // namespace coca::bench
