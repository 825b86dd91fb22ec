// Scalable softmax: the scores of a query that sees n tokens are multiplied by s log n, with s learnt for each head, so
// that attention does not flatten as the text grows (arXiv 2501.19399, eq. 3). n counts the tokens up to the query in
// its document, whatever the window. s begins at 1 / log of the trained length. Math: docs/math/head_modifiers.md.
// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cmath>

#include "coca/model/attention_inputs.h"
#include "coca/model/layer_acts.h"
#include "coca/model/modifier.h"
#include "coca/ops/head_modifiers.h"

namespace coca::model::modifiers {

namespace {

class LogScale : public Modifier {
 public:
  Info info() const override {
    return {.name = "log-scale",
            .summary = "scalable softmax: scores times s log n at the n-th token, s learnt per head",
            .source = "arXiv 2501.19399",
            .stage = Stage::kQueries};
  }
  std::vector<ModifierParam> parameters(const ModelSpec& s) const override {
    return {{.name = "log_scale", .shape = {s.H}}};
  }
  // At the trained length the scores are those of the model without it.
  void start(const ModelSpec& s, size_t, Rng&, std::span<float> values) const override {
    std::ranges::fill(values,
                      static_cast<float>(1.0 / std::log(static_cast<double>(std::max<int64_t>(2, s.max_position)))));
  }
  std::string refusal(const ModelSpec& s) const override {
    if (s.direction != Direction::kCausal) return "it counts the tokens before each; this model is bidirectional";
    return s.rope_scaling.type == Scaling::kClex ? "rope scaling clex trains frequencies by the queries as rotated"
                                                 : "";
  }

  void forward(const ModifierForward& f) const override {
    ops::scale_heads_forward(f.cx, {.scale = f.w.w, .row = f.at.positions.log_tokens, .x = f.x, .y = f.x});
  }
  void backward(const ModifierBackward& b) const override {
    if (b.dw.w.empty()) return;
    ops::scale_heads_backward(b.cx, {.scale = b.w.w,
                                     .row = b.at.positions.log_tokens,
                                     .y = b.acts.q_eff,
                                     .dy = b.grads.dq_eff,
                                     .dx = {},
                                     .dscale = b.dw.w});
  }
  void queries_backward(const ModifierBackward& b) const override {
    const MutTensorRef dq = b.grads.dq_eff;
    ops::scale_heads_forward(b.cx, {.scale = b.w.w, .row = b.at.positions.log_tokens, .x = dq, .y = dq});
  }
};

}  // namespace

const Modifier& log_scale() {
  static const LogScale instance;
  return instance;
}

}  // namespace coca::model::modifiers
