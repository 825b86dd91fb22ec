// SPDX-License-Identifier: Apache-2.0
#include <cmath>
#include <span>
#include <vector>

#include "coca/kernels/ref/attention.h"
#include "coca/kernels/ref/rows.h"
#include "coca/tensor/float_copies.h"

namespace coca::ref {

namespace {

AttentionSpec spec_of(const ops::AttentionOptions& options, int64_t E, TensorRef slopes, TensorRef document_start) {
  AttentionSpec spec{.scale = options.scale != 0.0f ? options.scale : 1.0f / std::sqrt(static_cast<float>(E)),
                     .causal = options.mask != ops::Mask::kNone,
                     .window = options.window,
                     .hidden = options.mask == ops::Mask::kSymmetricWindow ? 1 - options.window : 0,
                     .query_start = options.query_start,
                     .query_step = options.spacing,
                     .key_step = options.spacing,
                     .slopes = slopes.empty() ? nullptr : slopes.as<float>()};
  if (!document_start.empty()) spec.document_start = document_start.view<int32_t, 2>();
  return spec;
}

// The far keys as attention of their own; `near` is the spec of the window.
AttentionSpec far_spec(const ops::AttentionOptions& options, AttentionSpec near, const ops::FarKeys& far) {
  near.hidden = near.window;
  near.window = 0;
  near.offset = options.first_place;
  near.key_step = 1;
  near.most_distance = far.most_distance;
  near.most_position = far.most_position;
  if (far.range == ops::FarRange::kAll) {
    near.causal = false;
    near.document_start = {};
  }
  return near;
}

// The operands in fp32: the window and, where there are any, the far keys.
struct Operands {
  FloatInput q, k, v, far_q, far_k, far_v;
  std::vector<AttentionKeys<float>> parts;

  template <typename Args>
  Operands(const ops::AttentionOptions& options, const Args& a)
      : q(a.q), k(a.k), v(a.v), far_q(a.far.q), far_k(a.far.k), far_v(a.far.v) {
    const AttentionSpec near = spec_of(options, a.q.size(3), a.slopes, a.document_start);
    parts.push_back({near, q.ref().view<float, 4>(), k.ref().view<float, 4>()});
    if (!a.decay.empty()) {
      parts.back().decay = a.decay.template view<float, 3>();
      parts.back().query_decay = ops::queries_of(options, a.query_decay, a.decay, a.q).template view<float, 3>();
    }
    if (a.far.k.empty()) return;
    parts.push_back({far_spec(options, near, a.far), far_q.ref().view<float, 4>(), far_k.ref().view<float, 4>(),
                     a.far.v.empty() ? TensorView<const float, 4>() : far_v.ref().view<float, 4>()});
  }
  TensorView<const float, 4> values() const { return v.ref().view<float, 4>(); }
};

void forward(Context&, const ops::AttentionOptions& options, const ops::AttentionForward& a) {
  const Operands in(options, a);
  if (a.write == ops::Write::kAccumulate) {
    Tensor o(a.o.shape), lse(a.lse.shape);
    attention_forward<float>(in.parts, in.values(), o.ref().view<float, 4>(), lse.ref().view<float, 3>());
    return attention_merge<float>(o.ref().view<float, 4>(), lse.ref().view<float, 3>(), a.o.view<float, 4>(),
                                  a.lse.view<float, 3>());
  }
  const FloatOutput o(a.o);
  attention_forward<float>(in.parts, in.values(), o.ref().view<float, 4>(),
                           a.lse.empty() ? TensorView<float, 3>() : a.lse.view<float, 3>());
  o.store();
}

void add(const Tensor& from, MutTensorRef to) {
  const auto x = TensorRef(from).view<float, 4>();
  const auto y = to.view<float, 4>();
  for (int64_t b = 0; b < to.size(0); ++b)
    for (int64_t n = 0; n < to.size(1); ++n)
      for (int64_t h = 0; h < to.size(2); ++h)
        for (int64_t d = 0; d < to.size(3); ++d) y(b, n, h, d) += x(b, n, h, d);
}

// The keys are a part of all: their gradients are made apart, and added.
void backward_part(const Operands& in, const ops::AttentionBackward& a, const AttentionSaved<float>& saved,
                   AttentionKeyGrads<float> grads) {
  const FloatInput d_o(a.d_o);
  Tensor dq(a.dq.shape), dk(a.dk.shape), dv(a.dv.shape);
  grads.dq = dq.ref().view<float, 4>();
  grads.dk = dk.ref().view<float, 4>();
  attention_backward<float>(in.parts, in.values(), d_o.ref().view<float, 4>(), std::span(&grads, 1),
                            dv.ref().view<float, 4>(), &saved);
  add(dq, a.dq);
  add(dk, a.dk);
  add(dv, a.dv);
}

void backward(Context&, const ops::AttentionOptions& options, const ops::AttentionBackward& a) {
  const Operands in(options, a);
  const FloatInput o(a.o), d_o(a.d_o);
  const AttentionSaved<float> saved{o.ref().view<float, 4>(), a.lse.view<float, 3>()};
  std::vector<AttentionKeyGrads<float>> grads(1);
  if (!a.decay.empty()) {
    grads[0].ddecay = a.ddecay.view<float, 3>();
    grads[0].dquery_decay = ops::queries_of(options, a.dquery_decay, a.ddecay, a.q).view<float, 3>();
  }
  if (a.write == ops::Write::kAccumulate) return backward_part(in, a, saved, grads[0]);
  const FloatOutput dq(a.dq), dk(a.dk), dv(a.dv), dq_far(a.dq_far), dk_far(a.dk_far), dv_far(a.dv_far);
  grads[0].dq = dq.ref().view<float, 4>();
  grads[0].dk = dk.ref().view<float, 4>();
  if (!a.far.k.empty())
    grads.push_back({dq_far.ref().view<float, 4>(), dk_far.ref().view<float, 4>(), dv_far.ref().view<float, 4>()});
  attention_backward<float>(in.parts, in.values(), d_o.ref().view<float, 4>(), grads, dv.ref().view<float, 4>(),
                            &saved);
  for (const FloatOutput* out : {&dq, &dk, &dv, &dq_far, &dk_far, &dv_far}) out->store();
}

}  // namespace

const ops::AttentionImpl attention_row{.name = "ref", .run = {forward, backward}};

}  // namespace coca::ref
