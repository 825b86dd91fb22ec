// coca/bench/einsum_attention.h - CoCA (slack) as the official code writes it, einsum('bnd,bsd,bnd->bns', q,
// t_rot, q_rot), softmax and product with everything materialised: the yardstick of `coca bench attention`,
// not an op.
//   kPairs:    q * q_rot first, then a matrix product: N x N scores per head (the best order for the einsum)
//   kTriples:  q * t_rot first, as torch.einsum contracts from the left: N x N x D numbers per head
// Every pair is computed and the upper half masked afterwards, as there. Matrix products run in ops::linear.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

#include "coca/ops/rope.h"

namespace coca::bench {

enum class EinsumForm : uint8_t { kPairs, kTriples };
enum class Gradients : uint8_t { kNone, kWanted };

struct EinsumShape {
  int64_t B, N, H, G, D;
};

class EinsumAttention {
 public:
  EinsumAttention(EinsumForm, const EinsumShape&, Gradients);
  static int64_t bytes(EinsumForm, const EinsumShape&, Gradients);  // of what is materialised, over all heads

  struct Forward {
    ops::RopeRows rows;
    TensorRef q, t, v;  // [B, N, H, D] [B, N, G, D] [B, N, G, D] f32
    MutTensorRef o;     // [B, N, H, D] written
  };
  struct Backward {
    ops::RopeRows rows;
    TensorRef q, t, v, d_o;   // as above; forward() ran on them last
    MutTensorRef dq, dt, dv;  // written
  };
  void forward(Context&, const Forward&);
  void backward(Context&, const Backward&);

 private:
  void scores_of_triples(const Forward&);
  void gradients_of_triples(const Backward&);

  EinsumForm form_;
  EinsumShape s_;
  Tensor left_, keys_;             // q * q_rot [B, N, H, D] or q_rot; t_rot [B, N, G, D]
  Tensor dleft_, dkeys_, dq_own_;  // their gradients; kTriples: the one of q itself
  Tensor tbar_;                    // [B, N, G, D/2]
  Tensor scores_, dscores_;        // [B, H, N, N]; scores_ becomes the probabilities
  Tensor triples_, dtriples_;      // [B * H, N, N, D]
};

}  // namespace coca::bench
