// Attention's output times sigmoid(W x) of the layer's normalised input, one gate for each number (arXiv 2505.06708,
// "G1, elementwise"). Math: docs/math/head_modifiers.md.
// SPDX-License-Identifier: Apache-2.0
#include "coca/model/layer_acts.h"
#include "coca/model/modifier.h"
#include "coca/ops/head_modifiers.h"
#include "coca/ops/linear.h"

namespace coca::model::modifiers {

namespace {

class OutputGate : public Modifier {
 public:
  Info info() const override {
    return {.name = "output-gate",
            .summary = "attention's output times a sigmoid gate made of the layer's input, one for each number",
            .source = "arXiv 2505.06708",
            .stage = Stage::kOutput};
  }
  std::vector<ModifierParam> parameters(const ModelSpec& s) const override {
    return {{.name = "gate_proj", .shape = {s.H * s.D, s.C}, .matrix = true}};
  }
  int64_t own_width(const ModelSpec& s) const override { return s.H * s.D; }

  void project(const ModifierForward& f) const override {
    ops::linear_forward(f.cx, {.x = f.acts.ln1, .w = f.w.w, .b = {}, .y = f.own});
  }
  void forward(const ModifierForward& f) const override {
    ops::gate_heads_forward(f.cx, {.x = f.acts.o, .g = f.own.reshape(f.acts.o.shape), .y = f.acts.o_out});
  }
  void backward(const ModifierBackward& b) const override {
    const Dims shape = b.acts.o.shape;
    ops::gate_heads_backward(
        b.cx,
        {.x = b.acts.o, .g = b.own.reshape(shape), .dy = b.grads.d_o, .dx = b.grads.d_o, .dg = b.down.reshape(shape)});
  }
  void project_backward(const ModifierBackward& b) const override {
    ops::linear_backward(b.cx, {.x = b.acts.ln1,
                                .w = b.w.w,
                                .dy = b.down,
                                .dx = b.grads.dln1,
                                .dw = b.dw.w,
                                .db = {},
                                .dx_write = ops::Write::kAccumulate});
  }
};

}  // namespace

const Modifier& output_gate() {
  static const OutputGate instance;
  return instance;
}

}  // namespace coca::model::modifiers
