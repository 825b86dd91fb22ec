// coca/ops/collinear.h - the collinear prologue of CoCA (arXiv 2309.08646): from q and t to q_eff and k_eff, on
// which ordinary attention (attention.h) gives the CoCA scores. Math: docs/math/collinear.md.
//
//   fold:    tbar_j = relu((t_a + t_b) / 2)                      the two members of a pair; D/2 numbers per head
//   slack:   q_eff = q * R_m q,             k_eff = R_n [tbar, tbar]     (paper eq. 10; official code)
//   strict:  q_eff = R_m (|q_j|^2, 0),      k_eff = R_n (tbar, 0)        (paper eq. 9 and 17)
//   tied:    slack with q_a = q_b = their mean                           (paper eq. 11; equals strict of that q)
//
// Partial rotary (R < D): kRotary folds inside the rotary dims (pairs j, j + R/2) and, by themselves, inside the
// D-R dims that do not rotate (pairs R + j, R + (D-R)/2 + j, angle zero), so every pair stays collinear.
// kOfficial folds over the whole head (pairs j, j + D/2) and then rotates pairs (j, j + R/2), which is what the
// official GPT-NeoX code does and what its checkpoints with rotary_pct < 1 need; slack only. Equal when R = D.
// t may also come folded: [B, N, G, D/2], one number a pair (the mean of the two halves, made by a projection of half
// the width). Then tbar = relu(t), in the order of the pairs above, and dt has that width too. This holds for every t
// and dt below; the official fold's numbers stand for its own pairs (j, j + D/2).
// q, t, q_eff, k_eff and their gradients are all f32 or all bf16 (computed in f32, rounded once); tbar may be either.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "coca/ops/rope.h"

namespace coca::ops {

enum class Collinear : uint8_t { kSlack, kStrict, kTied };
enum class Fold : uint8_t { kRotary, kOfficial };

struct CollinearOptions {
  Collinear kind = Collinear::kSlack;
  Fold fold = Fold::kRotary;
};

struct CollinearForward {
  RopeRows rows;
  RopeRows key_rows;   // of the keys, where they are others than the queries' (xPos); empty: rows
  TensorRef q;         // [B, N, H, D]
  TensorRef t;         // [B, N, G, D or D/2]
  MutTensorRef q_eff;  // [B, N, H, D] written; not q
  MutTensorRef k_eff;  // [B, N, G, D] written; not t
};
struct CollinearBackward {
  RopeRows rows, key_rows;  // as above
  TensorRef q, t;          // as above
  TensorRef dq_eff, dk_eff;
  MutTensorRef dq, dt;     // written; dq may be dq_eff; dt may be dk_eff where both are [B, N, G, D]
};
void collinear_forward(Context&, const CollinearOptions&, const CollinearForward&);
void collinear_backward(Context&, const CollinearOptions&, const CollinearBackward&);

// The pieces the cache needs: t is stored folded and un-rotated, half as wide as a key.
struct CollinearFold {
  int64_t R = 0;      // rotary dims
  TensorRef t;        // [B, N, G, D or D/2]
  MutTensorRef tbar;  // [B, N, G, D/2] written; f32 or bf16, whatever t is
};
struct CollinearQuery {
  RopeRows rows;
  TensorRef q;         // [B, N, H, D]
  MutTensorRef q_eff;  // [B, N, H, D] written; not q
};
struct CollinearKey {
  RopeRows rows;       // rows of the keys' positions
  TensorRef tbar;      // [B, S, G, D/2]; f32 or bf16, whatever k_eff is
  MutTensorRef k_eff;  // [B, S, G, D] written
};
// Their gradients, where keys are made in one place of a tbar from another (ring attention): sums in fp32 travel.
struct CollinearKeyBackward {
  RopeRows rows;
  TensorRef dk_eff;    // [B, S, G, D] f32
  MutTensorRef dtbar;  // [B, S, G, D/2] f32, added to (+=)
};
struct CollinearFoldBackward {
  int64_t R = 0;
  TensorRef t;      // [B, N, G, D or D/2]
  TensorRef dtbar;  // [B, N, G, D/2] f32
  MutTensorRef dt;  // as t: written, of t's type
};
void collinear_fold(Context&, const CollinearOptions&, const CollinearFold&);
void collinear_query(Context&, const CollinearOptions&, const CollinearQuery&);
void collinear_key(Context&, const CollinearOptions&, const CollinearKey&);
void collinear_key_backward(Context&, const CollinearOptions&, const CollinearKeyBackward&);
void collinear_fold_backward(Context&, const CollinearOptions&, const CollinearFoldBackward&);

}  // namespace coca::ops
