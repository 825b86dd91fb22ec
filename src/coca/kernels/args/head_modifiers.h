// coca/kernels/args/head_modifiers.h - what head_modifiers takes; ops/head_modifiers.h says what it does.
// Heads are [B, N, H, X], f32 or bf16, with any strides before X and an innermost stride of 1; all heads of a call have
// the same type. They are computed in fp32 and rounded once. Parameters and their gradients are contiguous f32.
// An empty gradient of a parameter is not wanted.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "coca/kernels/args/implementation.h"

namespace coca::ops {

// y = x with the pairs (j, j + P), j < P, of head h turned by phases[h, j] radians; dims 2P..X-1 are copied.
struct TurnHeadsForward {
  TensorRef phases;  // [H, P] f32, 2P <= X
  TensorRef x;       // [B, N, H, X]
  MutTensorRef y;    // [B, N, H, X] written; may be x
};
struct TurnHeadsBackward {
  TensorRef phases;
  TensorRef y;           // the result of the forward pass; empty if dphases is
  TensorRef dy;          // [B, N, H, X]
  MutTensorRef dx;       // [B, N, H, X] written; may be dy; empty: not wanted
  MutTensorRef dphases;  // [H, P] f32 accumulated (+=), or empty
};

// y[b, n, h] = x[b, n, h] * scale[h] * row[n].
struct ScaleHeadsForward {
  TensorRef scale;  // [H] f32
  TensorRef row;    // [N] or [B, N] f32
  TensorRef x;      // [B, N, H, X]
  MutTensorRef y;   // [B, N, H, X] written; may be x
};
struct ScaleHeadsBackward {
  TensorRef scale, row;
  TensorRef y;          // the result of the forward pass; empty if dscale is
  TensorRef dy;         // [B, N, H, X]
  MutTensorRef dx;      // [B, N, H, X] written; may be dy; empty: not wanted
  MutTensorRef dscale;  // [H] f32 accumulated (+=), or empty; no scale may be 0
};

// y = x * sigmoid(g), with a gate for each number or one for each head.
struct GateHeadsForward {
  TensorRef x, g;  // [B, N, H, X]  [B, N, H, X or 1]
  MutTensorRef y;  // [B, N, H, X] written; may be x if no backward follows
};
struct GateHeadsBackward {
  TensorRef x, g;       // as above
  TensorRef dy;         // [B, N, H, X]
  MutTensorRef dx, dg;  // shapes of x and g, written; dx may be dy, and dg may be g
};

// y[b, n, h] = w[h, 0] x[b, n, h] + w[h, 1] x[b, n - 1, h]. Token 0 comes after `before`. A token that begins a
// document comes after none, and then only w[h, 0] counts.
struct MixHeadsForward {
  TensorRef w;               // [H, 2] f32
  TensorRef x;               // [B, N, H, X]
  TensorRef before;          // [B, 1, H, X]; empty: zeros
  TensorRef document_start;  // [B, N] i32, rows contiguous, as in attention.h: token n begins its document if its value
                             // is query_start + n. Empty: `before` and x are one document.
  int64_t query_start = 0;   // position of token 0
  MutTensorRef y;            // [B, N, H, X] written; not x
};
struct MixHeadsBackward {
  TensorRef w;
  TensorRef x, before;  // as above; x may be empty if dw is
  TensorRef document_start;
  int64_t query_start = 0;
  TensorRef dy;          // [B, N, H, X]
  MutTensorRef dx;       // [B, N, H, X] written; not dy
  MutTensorRef dw;       // [H, 2] f32 accumulated (+=), or empty
  MutTensorRef dbefore;  // [B, 1, H, X] written; empty: not wanted
};

// One more key for every query, with the value 0 and the score sink[h]: of attention's o and lse without it, those with
// it. attention_backward then takes the new o and lse, and is exact for all but the sink.
struct SinkHeadsForward {
  TensorRef sink;    // [H] f32
  MutTensorRef o;    // [B, N, H, X] in place: o * exp(lse - new lse)
  MutTensorRef lse;  // [B, H, N] f32, any strides, in place: log(exp(lse) + exp(sink))
};
struct SinkHeadsBackward {
  TensorRef sink;
  TensorRef o, lse;    // the results of the forward pass
  TensorRef d_o;       // [B, N, H, X], the gradient of the new o
  MutTensorRef dsink;  // [H] f32 accumulated (+=)
};

// decay[b, h, n] = carry[b, h] + the sum over m <= n of log sigmoid(logits[b, m, h]). Summed in double and rounded
// once.
struct ForgetGateForward {
  TensorRef logits;  // [B, N, H] f32 or bf16, innermost stride 1
  // [B, H] f32, the decay of the token before; or [B, H, 2], an `end`; any strides. Empty: zeros.
  TensorRef carry;
  MutTensorRef decay;  // [B, H, N] f32, innermost stride 1, written
  // [B, H, 2] f32, contiguous, written: the last decay, and what its rounding left out. Sums that are carried token by
  // token stay exact with it. Empty: not wanted. May be `carry`.
  MutTensorRef end;
};
struct ForgetGateBackward {
  TensorRef logits;
  TensorRef ddecay;      // [B, H, N] f32, innermost stride 1
  MutTensorRef dlogits;  // [B, N, H] of the type of logits, innermost stride 1, written; may be logits
};

// The ops hand `row` on as [1 or B, N] and `carry` as [B, H, 1 or 2].
struct HeadModifiersFunctions {
  void (*turn_forward)(Context&, const TurnHeadsForward&);
  void (*turn_backward)(Context&, const TurnHeadsBackward&);
  void (*scale_forward)(Context&, const ScaleHeadsForward&);
  void (*scale_backward)(Context&, const ScaleHeadsBackward&);
  void (*gate_forward)(Context&, const GateHeadsForward&);
  void (*gate_backward)(Context&, const GateHeadsBackward&);
  void (*mix_forward)(Context&, const MixHeadsForward&);
  void (*mix_backward)(Context&, const MixHeadsBackward&);
  void (*sink_forward)(Context&, const SinkHeadsForward&);
  void (*sink_backward)(Context&, const SinkHeadsBackward&);
  void (*forget_forward)(Context&, const ForgetGateForward&);
  void (*forget_backward)(Context&, const ForgetGateBackward&);
};
using HeadModifiersImpl = Implementation<HeadModifiersFunctions>;

}  // namespace coca::ops
