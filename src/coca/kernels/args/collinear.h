// coca/kernels/args/collinear.h - what collinear takes; ops/collinear.h says what it does.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "coca/kernels/args/implementation.h"
#include "coca/kernels/args/rope.h"

namespace coca::ops {

enum class Collinear : uint8_t { kSlack, kStrict, kTied };
enum class Fold : uint8_t { kRotary, kOfficial };

struct CollinearOptions {
  Collinear kind = Collinear::kSlack;
  Fold fold = Fold::kRotary;
};

struct CollinearForward {
  RopeRows rows;
  RopeRows key_rows;   // of the keys, if they differ from those of the queries (xPos); empty: rows
  TensorRef q;         // [B, N, H, D]
  TensorRef t;         // [B, N, G, D or D/2]
  MutTensorRef q_eff;  // [B, N, H, D] written; not q
  MutTensorRef k_eff;  // [B, N, G, D] written; not t
};
struct CollinearBackward {
  RopeRows rows, key_rows;  // as above
  TensorRef q, t;           // as above
  TensorRef dq_eff, dk_eff;
  MutTensorRef dq, dt;  // written; dq may be dq_eff; dt may be dk_eff if both are [B, N, G, D]
};

// The steps that the cache needs: t is stored folded and before rotation, half as wide as a key.
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
// Their gradients, for ring attention, where one rank makes keys from the tbar of another and sends back sums in fp32.
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

// The official fold with R < D is for old checkpoints only, and only the reference implements it.
struct CollinearCase {
  DType type;
  bool official_partial = false;
};
struct CollinearFunctions {
  void (*forward)(Context&, const CollinearOptions&, const CollinearForward&);
  void (*backward)(Context&, const CollinearOptions&, const CollinearBackward&);
  void (*fold)(Context&, const CollinearOptions&, const CollinearFold&);
  void (*query)(Context&, const CollinearOptions&, const CollinearQuery&);
  void (*key)(Context&, const CollinearOptions&, const CollinearKey&);
  void (*key_backward)(Context&, const CollinearOptions&, const CollinearKeyBackward&);
  void (*fold_backward)(Context&, const CollinearOptions&, const CollinearFoldBackward&);
};
using CollinearImpl = Implementation<CollinearFunctions, CollinearCase>;

}  // namespace coca::ops
