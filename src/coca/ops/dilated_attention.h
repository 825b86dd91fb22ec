// coca/ops/dilated_attention.h - attention whose heads may see every D_h-th key of a window D_h times as wide (Longformer's
// dilated sliding windows, Beltagy et al. 2020, section 3.1): query m sees the keys m - D_h k, k = 0 .. window - 1, and with a
// symmetric window those m + D_h k too. The tokens at positions r modulo D_h are sequences of their own, so each is one
// call of attention.h on strided views: work is proportional to what is attended, and every promise made there holds here.
// Math: docs/math/longformer.md.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "coca/kernels/args/dilated_attention.h"

namespace coca::ops {

// As attention_forward. Far keys beside dilated windows: all of them for every query (FarRange::kAll).
void dilated_attention_forward(Context&, const DilatedAttentionOptions&, const AttentionForward&);
// As attention_backward. Scratch: dk_far and what the far keys add to dv are summed in f32.
void dilated_attention_backward(Context&, const DilatedAttentionOptions&, const AttentionBackward&);

}  // namespace coca::ops
