// coca/ops/collinear.h - the prologue of Collinear Constrained Attention (arXiv 2309.08646) and its relatives: computes
// q_eff and k_eff from q and t. Ordinary attention (attention.h) on these gives the scores. Math:
// docs/math/collinear.md.
//
// A head has P planes and C content channels. q_eff and k_eff have E = 2 P + C numbers: of the planes, the first R/2
// rotate, plane j being the pair (j, j + R/2), and the others have the angle zero, plane R/2 + i being the pair
// (R + i, R + (P - R/2) + i); the channels come last. t gives each plane the length of its key:
//   tbar_j = relu(t_j) or softplus(t_j);   k_eff = R_n of tbar_j times a fixed direction of the form
// and q_eff of a plane is what the form makes of the query's two numbers, or one (kernels/args/forms).
// q has `members` numbers a plane, laid out as q_eff (two) or plane by plane (one), then the channels. t has one number
// a plane, then the channels, [B, N, G, P + C]; or if q has two members, two numbers, [B, N, G, E], of which t_j is the
// mean. dt has the width of t. Channels pass through unchanged.
//
// Fold::kOfficial folds over the whole head (pairs j, j + E/2) and then rotates pairs (j, j + R/2), as the official
// GPT-NeoX code does; its checkpoints with rotary_pct < 1 need this. Slack with ReLU only, without channels. Both folds
// are equal when R = E.
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
