// The Forgetting Transformer's gate: f_n = sigmoid(w x_n + b) for each head, and the score of a query at m and a key at
// n gets log f_(n+1) + ... + log f_m (arXiv 2503.02130, eq. 6 to 8). w and b are made of the layer's normalised input
// and begin as the model's projections do, b at 0. The sums run on through packed documents, whose tokens only see
// differences within their own, so that a document's neighbours change it by roundings. Math:
// docs/math/head_modifiers.md.
// SPDX-License-Identifier: Apache-2.0
#include "coca/model/layer_acts.h"
#include "coca/model/modifier.h"
#include "coca/ops/head_modifiers.h"
#include "coca/ops/linear.h"

namespace coca::model::modifiers {

namespace {

class ForgetGate : public Modifier {
 public:
  Info info() const override {
    return {.name = "forget-gate",
            .summary = "scores lose the logs of the gates between key and query, made of the layer's input",
            .source = "arXiv 2503.02130",
            .stage = Stage::kDecay};
  }
  std::vector<ModifierParam> parameters(const ModelSpec& s) const override {
    return {{.name = "forget_proj", .shape = {s.H, s.C}, .matrix = true}, {.name = "forget_bias", .shape = {s.H}}};
  }
  int64_t own_width(const ModelSpec& s) const override { return s.H; }
  std::string refusal(const ModelSpec& s) const override {
    if (s.direction != Direction::kCausal) return "it forgets what lies back; this model is bidirectional";
    return s.pattern.far() ? "a pattern moves keys to other places, and the gates between them do not move" : "";
  }

  void project(const ModifierForward& f) const override {
    ops::linear_forward(f.cx, {.x = f.acts.ln1, .w = f.w.w, .b = f.w.b, .y = f.own});
  }
  void forward(const ModifierForward& f) const override {
    const MutTensorRef carry = f.carry ? f.carry->decay : MutTensorRef();
    ops::forget_gate_forward(f.cx, {.logits = logits(f.own, f.acts.decay),
                                    .carry = f.carry && !f.carry->first ? carry : MutTensorRef(),
                                    .decay = f.acts.decay,
                                    .end = carry});
  }
  void backward(const ModifierBackward& b) const override {
    ops::forget_gate_backward(
        b.cx,
        {.logits = logits(b.own, b.grads.ddecay), .ddecay = b.grads.ddecay, .dlogits = logits(b.down, b.grads.ddecay)});
  }
  void project_backward(const ModifierBackward& b) const override {
    ops::linear_backward(b.cx, {.x = b.acts.ln1,
                                .w = b.w.w,
                                .dy = b.down,
                                .dx = b.grads.dln1,
                                .dw = b.dw.w,
                                .db = b.dw.b,
                                .dx_write = ops::Write::kAccumulate});
  }

 private:
  // Rows [M, H] as [B, N, H], for decays [B, H, N].
  template <typename Ref>
  static Ref logits(Ref rows, TensorRef decay) {
    return rows.reshape({decay.size(0), decay.size(2), decay.size(1)});
  }
};

}  // namespace

const Modifier& forget_gate() {
  static const ForgetGate instance;
  return instance;
}

}  // namespace coca::model::modifiers
