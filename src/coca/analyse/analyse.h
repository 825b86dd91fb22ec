// coca/analyse/analyse.h - runs a model over windows of text and gathers, per layer and head, initial angles, attention
// and CoCA's own figures. Math: docs/analyse.md. Memory: the decoder's activations of one layer and one window, the
// rotations of a window's positions, and the sums; never a square of the window.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <optional>
#include <span>
#include <vector>

#include "coca/analyse/angles.h"
#include "coca/analyse/attention_stats.h"
#include "coca/analyse/borders.h"
#include "coca/analyse/collinear_stats.h"
#include "coca/analyse/induction.h"
#include "coca/model/params.h"

namespace coca::analyse {

struct HeadStats {
  std::vector<AngleStats> planes;  // [R / 2]; none without rotary positions
  int64_t pairs = 0;               // sampled; a plane counts those in which neither side is zero
  double unrotated = 0;            // sum over pairs of the part of q . k that does not rotate
  AttentionStats attention;
  CollinearStats collinear;  // CoCA only
  InductionStats induction;
  ContentStats content;  // if asked for; of one head, and not in sums of several

  void add(const HeadStats&);
  AngleStats all_planes() const;
  // Mean over pairs of (sum_j |q_j||k_j| cos(angle_j + distance theta_j) + the unrotated part) / sqrt(D), with the
  // rotation's amplitude and growth: what the content of the pairs looked at would score at this distance.
  double score_at(double distance, const ops::Rotation&, int64_t D) const;
};

struct AnalyseOptions {
  int64_t pairs = 4096;  // per window and head; 0: all causal pairs
  int64_t rows = 256;    // of attention, per window and head; 0: all
  int64_t seed = 0;
  std::vector<int64_t> shifts = {1, 16, 256};  // CoCA: shifts of both positions
  BordersOptions borders;
  // Gathers ContentStats: planes are slow that turn by at most this share of a circle over the trained length.
  std::optional<double> slow_turn;
  std::optional<model::RopeScaling> scaling;                  // instead of the spec's, with which the model was trained
  std::function<void(int64_t done, int64_t total)> progress;  // layers done, over all windows; may be empty
};

struct Analysis {
  model::ModelSpec spec;
  int64_t window = 0, windows = 0;  // tokens of a window
  int64_t pairs = 0, rows = 0;      // per window and head
  std::vector<int64_t> shifts;
  ops::Rotation rotation;        // of this window, with the requested scaling
  std::vector<HeadStats> heads;  // [L, H]
  std::vector<ScaledBorders> borders;

  const HeadStats& head(int64_t layer, int64_t h) const { return heads[static_cast<size_t>(layer * spec.H + h)]; }
  HeadStats layer(int64_t i) const;  // all heads of it
  HeadStats all() const;
};

// Which planes turn by at most this share of a circle over the trained length.
std::vector<char> slow_planes(const model::ModelSpec&, const ops::Rotation&, double slow_turn);

// CoCA with rotary positions whose fold joins the members of a plane. The official fold with partial rotary joins
// values of different planes: slack and strict in closed form know no such t.
bool has_collinear_planes(const model::ModelSpec&);

// Windows of equal length, at least 2 tokens. Throws Error kInterrupted on a request to stop.
Analysis analyse(const model::ModelSpec&, const model::Weights&, std::span<const std::vector<int32_t>> windows,
                 const AnalyseOptions&);
// The same; after an error, `out` covers the windows that were done.
void analyse(const model::ModelSpec&, const model::Weights&, std::span<const std::vector<int32_t>> windows,
             const AnalyseOptions&, Analysis& out);

}  // namespace coca::analyse
