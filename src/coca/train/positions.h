// coca/train/positions.h - the positions of the tokens of a training window: consecutive, or drawn from a range longer
// than the window, so that a model is trained at long distances in short windows. Math: docs/math/drawn_positions.md.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>
#include <span>

#include "coca/base/enum_names.h"
#include "coca/base/rng.h"
#include "coca/model/spec.h"

namespace coca::train {

//   kRandom: sorted distinct positions in [0, target_length) (Ruoss et al. 2023)
//   kPose:   two chunks of a longer window, the second one shifted by a random distance (PoSE, Zhu et al. 2023)
enum class PositionDraw : uint8_t { kPlain, kRandom, kPose };

// CLEX draws a length factor for each step, and positions over that many times the window. max_factor 0: not a CLEX
// model.
struct ClexDraws {
  int64_t max_factor = 0;
  int64_t trained_length = 0;  // L
};
ClexDraws clex_draws(const model::ModelSpec&);

// Options about positions that pretraining and fine-tuning share.
struct PositionOptions {
  PositionDraw draw = PositionDraw::kPlain;
  int64_t target_length = 0;
  int64_t plain_steps = 0;
  std::optional<model::Scaling> rope_scaling;
  std::optional<double> factor;

  bool draws() const { return draw != PositionDraw::kPlain; }

  template <class V>
  void visit(V&& v) {
    v.group("Positions");
    v("positions",
      "positions of a window's tokens in training: plain, random (sorted draws), or pose (two chunks, the second "
      "shifted)",
      draw);
    v("target_length", "positions are drawn below this; larger than the length; default: none, for plain positions",
      target_length);
    v("plain_steps", "first steps, in which positions are plain", plain_steps);
    v("rope_scaling", "scaling of the rotary frequencies; default: that of the model", rope_scaling);
    v("factor", "factor of the scaling; clex: the largest length factor (default 16)", factor);
  }
};

// Throws Error naming options that cannot be combined. length: tokens per window.
void check_positions(const PositionOptions&, model::AttentionKind, int64_t length);
void check_plain_steps(const PositionOptions&, int64_t steps);  // of the whole run
// The model with the requested scaling, if any. Error for plain_steps if the steps after them draw nothing.
model::ModelSpec scaled_spec(const PositionOptions&, const model::ModelSpec&);

// The draws of window k of a run; they depend on (seed, k) alone.
Rng position_rng(uint64_t seed, int64_t k);

// out.size() sorted and distinct integers in [0, target_length); every such set is equally likely.
void draw_random(Rng&, int64_t target_length, std::span<double> out);

// Two chunks of N tokens in all and the target of the last one.
struct PoseCut {
  int64_t first = 0;           // tokens of the first chunk
  int64_t skipped_tokens = 0;  // of the text between the chunks
  int64_t skipped_positions = 0;
};
// readable: the number of tokens of text from the beginning of the window on, at least N + 1.
PoseCut draw_pose(Rng&, int64_t N, int64_t target_length, int64_t readable);
void pose_positions(const PoseCut&, std::span<double> out);

// t of a step, uniform over 1 .. max_factor.
int64_t draw_clex_factor(uint64_t seed, int64_t step, int64_t max_factor);
// Sorted positions over t windows: the first, the last, and others in between; divided if the window is longer
// than the trained length.
void draw_clex(Rng&, int64_t factor, int64_t trained_length, std::span<double> out);

}  // namespace coca::train

COCA_ENUM_NAMES(coca::train::PositionDraw, "positions", {coca::train::PositionDraw::kPlain, "plain"},
                {coca::train::PositionDraw::kRandom, "random"}, {coca::train::PositionDraw::kPose, "pose"})
