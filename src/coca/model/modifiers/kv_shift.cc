// Keys and values mixed with those of the token before: k_n becomes a k_n + b k_(n-1), v_n likewise, with weights
// learnt for each key/value head (KV shifting attention, arXiv 2411.19574, eq. 6 and 7). CoCA's t is mixed in front of
// its ReLU. As published a is drawn from [0, 1) and b is 1 - a. Math: docs/math/head_modifiers.md.
// SPDX-License-Identifier: Apache-2.0
#include "coca/model/attention_inputs.h"
#include "coca/model/layer_acts.h"
#include "coca/model/modifier.h"
#include "coca/ops/head_modifiers.h"

namespace coca::model::modifiers {

namespace {

class KvShift : public Modifier {
 public:
  Info info() const override {
    return {.name = "kv-shift",
            .summary = "keys (or t) and values mixed with those of the token before, by weights learnt per head",
            .source = "arXiv 2411.19574",
            .stage = Stage::kKeys};
  }
  // For each head the weight of the token itself and that of the one before.
  std::vector<ModifierParam> parameters(const ModelSpec& s) const override {
    return {{.name = "kv_shift_k", .shape = {s.G, 2}}, {.name = "kv_shift_v", .shape = {s.G, 2}}};
  }
  void start(const ModelSpec&, size_t, Rng& rng, std::span<float> values) const override {
    for (size_t i = 0; i < values.size(); i += 2) {
      values[i] = static_cast<float>(rng.uniform());
      values[i + 1] = 1.0f - values[i];
    }
  }
  std::string refusal(const ModelSpec& s) const override {
    return s.direction == Direction::kCausal ? "" : "it looks back; this model is bidirectional";
  }

  void forward(const ModifierForward& f) const override {
    const auto mix = [&](TensorRef w, MutTensorRef x, MutTensorRef y, TensorRef before) {
      ops::mix_heads_forward(f.cx,
                             {.w = w, .x = x, .before = before, .document_start = f.at.scope.document_start, .y = y});
    };
    const bool follows = f.carry && !f.carry->first;
    mix(f.w.w, f.acts.kt_in, f.acts.kt, follows ? f.carry->kt : TensorRef());
    mix(f.w.b, f.acts.v_in, f.acts.v, follows ? f.carry->v : TensorRef());
  }

  void backward(const ModifierBackward& b) const override {
    const auto mix = [&](TensorRef w, MutTensorRef dw, TensorRef x, TensorRef dy, MutTensorRef dx) {
      ops::mix_heads_backward(b.cx, {.w = w,
                                     .x = x,
                                     .before = {},
                                     .document_start = b.at.scope.document_start,
                                     .dy = dy,
                                     .dx = dx,
                                     .dw = dw,
                                     .dbefore = {}});
    };
    mix(b.w.w, b.dw.w, b.acts.kt_in, b.grads.dkt, b.grads.dkt_in);
    mix(b.w.b, b.dw.b, b.acts.v_in, b.grads.dv, b.grads.dv_in);
  }
};

}  // namespace

const Modifier& kv_shift() {
  static const KvShift instance;
  return instance;
}

}  // namespace coca::model::modifiers
