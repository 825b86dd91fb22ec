// SPDX-License-Identifier: Apache-2.0
#include "coca/kernels/ref/head_modifiers.h"

#include "coca/kernels/ref/rows.h"
#include "coca/tensor/float_copies.h"

namespace coca::ref {

namespace {

// Operands as fp32; results are rounded to the operand's type when the object goes.
class In : public FloatInput {
 public:
  using FloatInput::FloatInput;
  template <int Rank>
  operator TensorView<const float, Rank>() const {  // NOLINT: implicit on purpose
    return ref().view<float, Rank>();
  }
};
class Out : public FloatOutput {
 public:
  using FloatOutput::FloatOutput;
  ~Out() { store(); }
  template <int Rank>
  operator TensorView<float, Rank>() const {  // NOLINT: implicit on purpose
    return ref().view<float, Rank>();
  }
};

void turn_forward(Context&, const ops::TurnHeadsForward& a) { turn_heads<float>(In(a.phases), In(a.x), Out(a.y)); }

void turn_backward(Context&, const ops::TurnHeadsBackward& a) {
  if (!a.dphases.empty()) turn_heads_phases<float>(In(a.y), In(a.dy), Out(a.dphases));
  if (!a.dx.empty()) turn_heads<float>(In(a.phases), In(a.dy), Out(a.dx), -1.0);
}

void scale_forward(Context&, const ops::ScaleHeadsForward& a) {
  scale_heads<float>(In(a.scale), In(a.row), In(a.x), Out(a.y));
}

void scale_backward(Context&, const ops::ScaleHeadsBackward& a) {
  if (!a.dscale.empty()) scale_heads_scale<float>(In(a.scale), In(a.y), In(a.dy), Out(a.dscale));
  if (!a.dx.empty()) scale_heads<float>(In(a.scale), In(a.row), In(a.dy), Out(a.dx));
}

void gate_forward(Context&, const ops::GateHeadsForward& a) { gate_heads<float>(In(a.x), In(a.g), Out(a.y)); }

void gate_backward(Context&, const ops::GateHeadsBackward& a) {
  gate_heads_backward<float>(In(a.x), In(a.g), In(a.dy), Out(a.dx), Out(a.dg));
}

template <typename Args>
DocumentStarts starts_of(const Args& a) {
  return {a.document_start.template view<int32_t, 2>(), a.query_start};
}

void mix_forward(Context&, const ops::MixHeadsForward& a) {
  mix_heads<float>(In(a.w), In(a.x), In(a.before), starts_of(a), Out(a.y));
}

void mix_backward(Context&, const ops::MixHeadsBackward& a) {
  if (!a.dw.empty()) mix_heads_weights<float>(In(a.x), In(a.before), starts_of(a), In(a.dy), Out(a.dw));
  mix_heads_backward<float>(In(a.w), starts_of(a), In(a.dy), Out(a.dx), Out(a.dbefore));
}

void sink_forward(Context&, const ops::SinkHeadsForward& a) { sink_heads<float>(In(a.sink), Out(a.o), Out(a.lse)); }

void sink_backward(Context&, const ops::SinkHeadsBackward& a) {
  sink_heads_sink<float>(In(a.sink), In(a.o), In(a.lse), In(a.d_o), Out(a.dsink));
}

void forget_forward(Context&, const ops::ForgetGateForward& a) {
  forget_gate<float>(In(a.logits), In(a.carry), Out(a.decay), Out(a.end));
}

void forget_backward(Context&, const ops::ForgetGateBackward& a) {
  forget_gate_backward<float>(In(a.logits), In(a.ddecay), Out(a.dlogits));
}

}  // namespace

const ops::HeadModifiersImpl head_modifiers_row{
    .name = "ref",
    .run = {turn_forward, turn_backward, scale_forward, scale_backward, gate_forward, gate_backward, mix_forward,
            mix_backward, sink_forward, sink_backward, forget_forward, forget_backward}};

}  // namespace coca::ref
