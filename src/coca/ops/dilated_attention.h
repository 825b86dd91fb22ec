// coca/ops/dilated_attention.h - attention in which head h attends to every D_h-th key in a window D_h times as wide
// (Longformer's dilated sliding windows, Beltagy et al. 2020, section 3.1). Query m attends to the keys m - D_h k,
// k = 0 .. window - 1, and with a symmetric window also to m + D_h k. The tokens at positions r modulo D_h are a
// sequence of their own, so each residue r is one call of attention.h on strided views. The work is proportional to the
// attended keys, and everything that attention.h promises holds here.
// Math: docs/math/longformer.md.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "coca/kernels/args/dilated_attention.h"

namespace coca::ops {

// As attention_forward. With dilated windows, every query attends to all far keys (FarRange::kAll).
void dilated_attention_forward(Context&, const DilatedAttentionOptions&, const AttentionForward&);
// As attention_backward. dk_far and the far keys' part of dv are summed in f32 scratch.
void dilated_attention_backward(Context&, const DilatedAttentionOptions&, const AttentionBackward&);

}  // namespace coca::ops
