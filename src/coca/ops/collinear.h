// coca/ops/collinear.h - the collinear prologue of CoCA (arXiv 2309.08646): computes q_eff and k_eff from q and t.
// Ordinary attention (attention.h) on these gives the CoCA scores. Math: docs/math/collinear.md.
//
//   fold:    tbar_j = relu((t_a + t_b) / 2)                      the two members of a pair; D/2 numbers per head
//   slack:   q_eff = q * R_m q,             k_eff = R_n [tbar, tbar]     (paper eq. 10; official code)
//   strict:  q_eff = R_m (|q_j|^2, 0),      k_eff = R_n (tbar, 0)        (paper eq. 9 and 17)
//   tied:    slack with q_a = q_b = their mean                           (paper eq. 11; equals strict of that q)
//
// Partial rotary (R < D): kRotary folds the rotary dims (pairs j, j + R/2) and, separately, the D-R dims that do not
// rotate (pairs R + j, R + (D-R)/2 + j, angle zero), so every pair stays collinear.
// kOfficial folds over the whole head (pairs j, j + D/2) and then rotates pairs (j, j + R/2), as the official GPT-NeoX
// code does; its checkpoints with rotary_pct < 1 need this. Slack only. Both are equal when R = D.
// t may also be given folded: [B, N, G, D/2], one number per pair (the mean of the two halves, made by a projection of
// half the width). Then tbar = relu(t), in the order of the pairs above, and dt has that width too. This holds for
// every t and dt below; with the official fold, the numbers belong to its own pairs (j, j + D/2).
// q, t, q_eff, k_eff and their gradients are all f32 or all bf16 (computed in f32, rounded once); tbar may be either.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "coca/kernels/args/collinear.h"

namespace coca::ops {

void collinear_forward(Context&, const CollinearOptions&, const CollinearForward&);
void collinear_backward(Context&, const CollinearOptions&, const CollinearBackward&);
void collinear_fold(Context&, const CollinearOptions&, const CollinearFold&);
void collinear_query(Context&, const CollinearOptions&, const CollinearQuery&);
void collinear_key(Context&, const CollinearOptions&, const CollinearKey&);
void collinear_key_backward(Context&, const CollinearOptions&, const CollinearKeyBackward&);
void collinear_fold_backward(Context&, const CollinearOptions&, const CollinearFoldBackward&);

}  // namespace coca::ops
