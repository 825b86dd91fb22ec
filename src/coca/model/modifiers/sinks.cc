// A learnt sink for each head: one more key for every query, with the value 0 and a score of its own, so that a head
// may attend to nothing (as in gpt-oss; studied in arXiv 2410.10781). The scores begin at 0. Math:
// docs/math/head_modifiers.md.
// SPDX-License-Identifier: Apache-2.0
#include "coca/model/layer_acts.h"
#include "coca/model/modifier.h"
#include "coca/ops/head_modifiers.h"

namespace coca::model::modifiers {

namespace {

class Sinks : public Modifier {
 public:
  Info info() const override {
    return {.name = "sinks",
            .summary = "a learnt score per head that takes a share of the softmax and gives no value",
            .source = "gpt-oss; arXiv 2410.10781",
            .stage = Stage::kSoftmax};
  }
  std::vector<ModifierParam> parameters(const ModelSpec& s) const override {
    return {{.name = "sinks", .shape = {s.H}}};
  }

  void forward(const ModifierForward& f) const override {
    ops::sink_heads_forward(f.cx, {.sink = f.w.w, .o = f.acts.o, .lse = f.acts.lse});
  }
  // Attention's own backward pass takes the new o and lse, and is exact for all other keys.
  void backward(const ModifierBackward& b) const override {
    if (b.dw.w.empty()) return;
    ops::sink_heads_backward(b.cx,
                             {.sink = b.w.w, .o = b.acts.o, .lse = b.acts.lse, .d_o = b.grads.d_o, .dsink = b.dw.w});
  }
};

}  // namespace

const Modifier& sinks() {
  static const Sinks instance;
  return instance;
}

}  // namespace coca::model::modifiers
