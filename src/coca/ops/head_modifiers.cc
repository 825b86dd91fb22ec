// SPDX-License-Identifier: Apache-2.0
#include "coca/ops/head_modifiers.h"

#include "coca/ops/check.h"
#include "coca/ops/run.h"

namespace coca::ops {

namespace {

constexpr std::string_view kOp = "head_modifiers";

std::span<const DType> type_of(const TensorRef& t) { return std::span(&t.dtype, 1); }

// The heads that give the others their shape and type.
void check_first(const Site& at, std::string_view name, TensorRef x) {
  check_given(at, name, x);
  COCA_CHECK(x.rank() == 4, "[{}] {} has shape {}; expected [B, N, H, X]", kOp, name, x.shape.text());
  check_heads(at, name, x, x.shape);
}

void check_like(const Site& at, std::string_view name, TensorRef t, TensorRef x) {
  check_heads(at, name, t, x.shape, type_of(x));
}

void check_innermost(std::string_view name, TensorRef t) {
  COCA_CHECK(t.size(-1) <= 1 || t.stride(-1) == 1, "[{}] {}: the innermost stride must be 1, not {}", kOp, name,
             t.stride(-1));
}

// Of any strides, unless they are checked afterwards.
void check_shape(const Site& at, std::string_view name, TensorRef t, const Dims& wanted, DType type) {
  check_dtype(at, name, t, type);
  COCA_CHECK(t.shape == wanted, "[{}] {} has shape {}; expected {}", kOp, name, t.shape.text(), wanted.text());
}

// A gradient that is not wanted is empty.
void check_gradient(const Site& at, std::string_view name, TensorRef gradient, const Dims& wanted) {
  if (!gradient.empty()) check_packed(at, name, gradient, wanted);
}

void check_apart(std::string_view y, TensorRef a, std::string_view x, TensorRef b) {
  COCA_CHECK(a.data != b.data, "[{}] {} must not be {}: rows are read after their neighbours are written", kOp, y, x);
}

void check_phases(const Site& at, TensorRef phases, TensorRef x) {
  check_packed(at, "phases", phases);
  COCA_CHECK(phases.rank() == 2 && phases.size(0) == x.size(2) && 2 * phases.size(1) <= x.size(3),
             "[{}] phases {} must be [{}, P] with 2P at most {}", kOp, phases.shape.text(), x.size(2), x.size(3));
}

void check_scale(const Site& at, TensorRef scale, TensorRef row, TensorRef x) {
  check_packed(at, "scale", scale, {x.size(2)});
  check_packed(at, "row", row);
  COCA_CHECK(row.shape == Dims({x.size(1)}) || row.shape == Dims({x.size(0), x.size(1)}),
             "[{}] row has shape {}; expected {} or {}", kOp, row.shape.text(), Dims({x.size(1)}).text(),
             Dims({x.size(0), x.size(1)}).text());
}

void check_gate(const Site& at, std::string_view name, TensorRef g, TensorRef x) {
  check_given(at, name, g);
  Dims per_head = x.shape;
  per_head[3] = 1;
  check_heads(at, name, g, g.shape == per_head ? per_head : x.shape, type_of(x));
}

void check_mix(const Site& at, const MixHeadsForward& a) {
  check_packed(at, "w", a.w, {a.x.size(2), 2});
  if (!a.before.empty()) check_heads(at, "before", a.before, {a.x.size(0), 1, a.x.size(2), a.x.size(3)}, type_of(a.x));
  COCA_CHECK(a.query_start >= 0, "[{}] query_start={} is negative", kOp, a.query_start);
  if (a.document_start.empty()) return;
  check_shape(at, "document_start", a.document_start, {a.x.size(0), a.x.size(1)}, DType::kI32);
  check_innermost("document_start", a.document_start);
}

void check_sink(const Site& at, TensorRef sink, TensorRef o, TensorRef lse) {
  check_first(at, "o", o);
  check_packed(at, "sink", sink, {o.size(2)});
  check_shape(at, "lse", lse, {o.size(0), o.size(2), o.size(1)}, DType::kF32);
}

void check_logits(const Site& at, TensorRef logits) {
  check_dtype(at, "logits", logits, kF32OrBF16);
  COCA_CHECK(logits.rank() == 3, "[{}] logits has shape {}; expected [B, N, H]", kOp, logits.shape.text());
  check_innermost("logits", logits);
}

void check_decay(const Site& at, std::string_view name, TensorRef decay, TensorRef logits) {
  check_shape(at, name, decay, {logits.size(0), logits.size(2), logits.size(1)}, DType::kF32);
  check_innermost(name, decay);
}

// row as [1 or B, N].
TensorRef as_rows(TensorRef row) { return row.rank() == 2 ? row : row.reshape({1, row.size(0)}); }

// carry as [B, H, 1 or 2].
TensorRef as_sums(TensorRef carry) {
  if (carry.empty() || carry.rank() == 3) return carry;
  carry.shape = {carry.size(0), carry.size(1), 1};
  carry.strides = {carry.stride(0), carry.stride(1), 1};
  return carry;
}

template <typename Args>
void run_on(Context& context, DType type, void (*HeadModifiersFunctions::*function)(Context&, const Args&),
            const Args& a) {
  run<HeadModifiersImpl>(context, type, function, a);
}

}  // namespace

void turn_heads_forward(Context& context, const TurnHeadsForward& a) {
  const Site at(kOp, context);
  check_first(at, "x", a.x);
  check_phases(at, a.phases, a.x);
  check_like(at, "y", a.y, a.x);
  run_on(context, a.x.dtype, &HeadModifiersFunctions::turn_forward, a);
}

void turn_heads_backward(Context& context, const TurnHeadsBackward& a) {
  const Site at(kOp, context);
  check_first(at, "dy", a.dy);
  check_phases(at, a.phases, a.dy);
  if (!a.dx.empty()) check_like(at, "dx", a.dx, a.dy);
  check_gradient(at, "dphases", a.dphases, a.phases.shape);
  if (!a.dphases.empty()) check_like(at, "y", a.y, a.dy);
  run_on(context, a.dy.dtype, &HeadModifiersFunctions::turn_backward, a);
}

void scale_heads_forward(Context& context, const ScaleHeadsForward& a) {
  const Site at(kOp, context);
  check_first(at, "x", a.x);
  check_scale(at, a.scale, a.row, a.x);
  check_like(at, "y", a.y, a.x);
  ScaleHeadsForward call = a;
  call.row = as_rows(a.row);
  run_on(context, a.x.dtype, &HeadModifiersFunctions::scale_forward, call);
}

void scale_heads_backward(Context& context, const ScaleHeadsBackward& a) {
  const Site at(kOp, context);
  check_first(at, "dy", a.dy);
  check_scale(at, a.scale, a.row, a.dy);
  if (!a.dx.empty()) check_like(at, "dx", a.dx, a.dy);
  check_gradient(at, "dscale", a.dscale, a.scale.shape);
  if (!a.dscale.empty()) check_like(at, "y", a.y, a.dy);
  ScaleHeadsBackward call = a;
  call.row = as_rows(a.row);
  run_on(context, a.dy.dtype, &HeadModifiersFunctions::scale_backward, call);
}

void gate_heads_forward(Context& context, const GateHeadsForward& a) {
  const Site at(kOp, context);
  check_first(at, "x", a.x);
  check_gate(at, "g", a.g, a.x);
  check_like(at, "y", a.y, a.x);
  run_on(context, a.x.dtype, &HeadModifiersFunctions::gate_forward, a);
}

void gate_heads_backward(Context& context, const GateHeadsBackward& a) {
  const Site at(kOp, context);
  check_first(at, "x", a.x);
  check_gate(at, "g", a.g, a.x);
  check_like(at, "dy", a.dy, a.x);
  check_like(at, "dx", a.dx, a.x);
  check_like(at, "dg", a.dg, a.g);
  run_on(context, a.x.dtype, &HeadModifiersFunctions::gate_backward, a);
}

void mix_heads_forward(Context& context, const MixHeadsForward& a) {
  const Site at(kOp, context);
  check_first(at, "x", a.x);
  check_mix(at, a);
  check_like(at, "y", a.y, a.x);
  check_apart("y", a.y, "x", a.x);
  run_on(context, a.x.dtype, &HeadModifiersFunctions::mix_forward, a);
}

void mix_heads_backward(Context& context, const MixHeadsBackward& a) {
  const Site at(kOp, context);
  check_first(at, "dy", a.dy);
  check_mix(at, {.w = a.w,
                 .x = a.dy,
                 .before = a.before,
                 .document_start = a.document_start,
                 .query_start = a.query_start,
                 .y = {}});
  check_like(at, "dx", a.dx, a.dy);
  check_apart("dx", a.dx, "dy", a.dy);
  check_gradient(at, "dw", a.dw, a.w.shape);
  if (!a.dw.empty()) check_like(at, "x", a.x, a.dy);
  if (!a.dbefore.empty())
    check_heads(at, "dbefore", a.dbefore, {a.dy.size(0), 1, a.dy.size(2), a.dy.size(3)}, type_of(a.dy));
  run_on(context, a.dy.dtype, &HeadModifiersFunctions::mix_backward, a);
}

void sink_heads_forward(Context& context, const SinkHeadsForward& a) {
  check_sink(Site(kOp, context), a.sink, a.o, a.lse);
  run_on(context, a.o.dtype, &HeadModifiersFunctions::sink_forward, a);
}

void sink_heads_backward(Context& context, const SinkHeadsBackward& a) {
  const Site at(kOp, context);
  check_sink(at, a.sink, a.o, a.lse);
  check_like(at, "d_o", a.d_o, a.o);
  check_packed(at, "dsink", a.dsink, a.sink.shape);
  run_on(context, a.o.dtype, &HeadModifiersFunctions::sink_backward, a);
}

void forget_gate_forward(Context& context, const ForgetGateForward& a) {
  const Site at(kOp, context);
  check_logits(at, a.logits);
  const Dims heads{a.logits.size(0), a.logits.size(2)}, pairs{heads[0], heads[1], 2};
  if (!a.carry.empty()) check_shape(at, "carry", a.carry, a.carry.rank() == 3 ? pairs : heads, DType::kF32);
  check_decay(at, "decay", a.decay, a.logits);
  if (!a.end.empty()) check_packed(at, "end", a.end, pairs);
  ForgetGateForward call = a;
  call.carry = as_sums(a.carry);
  run_on(context, a.logits.dtype, &HeadModifiersFunctions::forget_forward, call);
}

void forget_gate_backward(Context& context, const ForgetGateBackward& a) {
  const Site at(kOp, context);
  check_logits(at, a.logits);
  check_decay(at, "ddecay", a.ddecay, a.logits);
  check_shape(at, "dlogits", a.dlogits, a.logits.shape, a.logits.dtype);
  check_innermost("dlogits", a.dlogits);
  run_on(context, a.logits.dtype, &HeadModifiersFunctions::forget_backward, a);
}

}  // namespace coca::ops
