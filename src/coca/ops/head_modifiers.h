// coca/ops/head_modifiers.h - the small steps by which methods of attention change heads before and after attention:
// learned phases per head (turn), scalable softmax (scale), output gates (gate), mixing with the token before (mix),
// learned sinks (sink) and the decay of forget gates (forget_gate). Math: docs/math/head_modifiers.md.
// Deterministic: the same bits for any number of threads.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "coca/kernels/args/head_modifiers.h"

namespace coca::ops {

void turn_heads_forward(Context&, const TurnHeadsForward&);
void turn_heads_backward(Context&, const TurnHeadsBackward&);
void scale_heads_forward(Context&, const ScaleHeadsForward&);
void scale_heads_backward(Context&, const ScaleHeadsBackward&);
void gate_heads_forward(Context&, const GateHeadsForward&);
void gate_heads_backward(Context&, const GateHeadsBackward&);
void mix_heads_forward(Context&, const MixHeadsForward&);
void mix_heads_backward(Context&, const MixHeadsBackward&);
void sink_heads_forward(Context&, const SinkHeadsForward&);
void sink_heads_backward(Context&, const SinkHeadsBackward&);
void forget_gate_forward(Context&, const ForgetGateForward&);
void forget_gate_backward(Context&, const ForgetGateBackward&);

}  // namespace coca::ops
