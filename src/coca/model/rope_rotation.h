// coca/model/rope_rotation.h - the angles of a model's positions under its scaling. Math: docs/math/rope.md.
// Everything is computed in double: at position 32768 a float angle is off by 2e-3, which the tests against double
// would detect.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "coca/model/spec.h"
#include "coca/ops/rope.h"

namespace coca::model {

// For a sequence of seq_len tokens, or as many positions as its pattern uses (dynamic NTK and longrope depend on it;
// the others do not). theta_j is the pair's own frequency, L the original context, turns_j = L theta_j / (2 pi).
//   linear:     theta_j / factor (position interpolation, Chen et al. 2023)
//   ntk:        base' = base factor^(R/(R-2)) (NTK-aware, bloc97 2023)
//   dynamic:    base' = base (factor seq_len / max_position - (factor - 1))^(R/(R-2)) beyond max_position, else base
//   yarn:       theta_j / factor and theta_j mixed by a ramp over the pair index, amplitude 0.1 ln factor + 1
//               (Peng et al. 2023 as Hugging Face's _compute_yarn_parameters has it)
//   yarn-paper: the same with the paper's own ramp, linear in turns_j between beta_slow and beta_fast
//   llama3:     the mix is linear in turns_j between low and high_freq_factor; amplitude 1 (Grattafiori et al. 2024)
//   clex:       from the weights of a network: PositionSource (position_source.h) asks clex.h
//   longrope:   theta_j / long_factor_j beyond the original context, else theta_j / short_factor_j (Ding et al. 2024)
// Without rotary positions all frequencies are zero; xPos adds its growth.
ops::Rotation rope_rotation(const ModelSpec&, int64_t seq_len);

// Whether queries have positions inside the pattern's window: slack CoCA's do, unless the pattern says otherwise.
bool frames_queries(const ModelSpec&);

// Where the growth of queries start .. start + n - 1 is 1 (ops/rotation.h): their middle, 0 without growth. Throws
// beyond 65,536 tokens in one piece: zeta^(n / 2 / 512) would leave fp32.
double growth_origin(const ModelSpec&, int64_t start, int64_t n);

// The base after NTK scaling; equals rope_theta if the scaling does not apply.
double rope_base(const ModelSpec&, int64_t seq_len);

}  // namespace coca::model
