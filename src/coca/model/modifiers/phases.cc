// A learnt phase for each head and plane, by which q_eff is turned: the plane's cosine has its maximum at a distance of
// its own (PoPE, arXiv 2509.10534; there within [-2 pi, 0]). Phases begin at 0. Math: docs/math/head_modifiers.md.
// SPDX-License-Identifier: Apache-2.0
#include "coca/model/attention_inputs.h"
#include "coca/model/layer_acts.h"
#include "coca/model/modifier.h"
#include "coca/ops/head_modifiers.h"

namespace coca::model::modifiers {

namespace {

class Phases : public Modifier {
 public:
  Info info() const override {
    return {.name = "phases",
            .summary = "a learnt phase per head and rotary plane: the distance at which its cosine is largest",
            .source = "arXiv 2509.10534",
            .stage = Stage::kQueries};
  }
  std::vector<ModifierParam> parameters(const ModelSpec& s) const override {
    return {{.name = "phases", .shape = {s.H, s.R / 2}}};
  }
  std::string refusal(const ModelSpec& s) const override {
    if (!uses_rotary(s.attention)) return "it turns rotary planes; this attention has none";
    return s.rope_scaling.type == Scaling::kClex ? "rope scaling clex trains the frequencies of the same planes" : "";
  }

  void forward(const ModifierForward& f) const override {
    ops::turn_heads_forward(f.cx, {.phases = f.w.w, .x = f.x, .y = f.x});
  }
  void backward(const ModifierBackward& b) const override { turn_back(b, b.acts.q_eff, {}, b.dw.w); }
  void queries_backward(const ModifierBackward& b) const override { turn_back(b, {}, b.grads.dq_eff, {}); }

 private:
  static void turn_back(const ModifierBackward& b, TensorRef y, MutTensorRef dx, MutTensorRef dphases) {
    if (dx.empty() && dphases.empty()) return;
    ops::turn_heads_backward(b.cx, {.phases = b.w.w, .y = y, .dy = b.grads.dq_eff, .dx = dx, .dphases = dphases});
  }
};

}  // namespace

const Modifier& phases() {
  static const Phases instance;
  return instance;
}

}  // namespace coca::model::modifiers
