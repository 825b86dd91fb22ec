// coca/model/modifier.h - changes to attention that go with any score: keys mixed with the token before, learnt phases,
// gates, sinks. A modifier is one file in modifiers/, found by CMake; from there it has its name in config.json and
// flags, its parameters in the list of a model's tensors, and its place in every forward and backward pass.
// docs/guide.md, "Add a method", goes through one.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "coca/base/enum_names.h"
#include "coca/base/rng.h"
#include "coca/tensor/context.h"
#include "coca/tensor/tensor.h"

namespace coca::model {

struct AttentionInputs;
struct LayerActs;
struct LayerActGrads;
struct ModelSpec;

// What a modifier changes, in the order of a layer's forward pass.
enum class Stage : uint8_t {
  kKeys,     // kt_in and v_in, as projected, become kt and v
  kQueries,  // q_eff and q_far in place: linear maps of a head's vector, which commute with one another
  kDecay,    // decay is written: what a score loses from one token to the next
  kSoftmax,  // o and lse in place
  kOutput,   // o becomes o_out, which the output projection reads
};

// A tensor of a modifier in each layer: the weight or the bias.
struct ModifierParam {
  std::string_view name;  // behind the layer's attention: "self_attn.NAME"; a matrix has ".weight" behind it
  Dims shape;
  // A matrix [out, C] begins and is trained as the model's projections. Other parameters are fp32, have no weight decay
  // and begin as Modifier::start() says.
  bool matrix = false;
};

// The token in front of these, of a chunk or a cached sequence; of one layer.
struct LayerCarry {
  TensorRef kt, v;     // [B, 1, G, K] [B, 1, G, D], before Stage::kKeys; empty: there is no token in front
  MutTensorRef decay;  // [B, H, 2] of ops::ForgetGateForward: read if there is a token in front, and written
  bool first = true;   // there is none
};

// Of one model.
inline constexpr size_t kMostModifiers = 8;

// A modifier's tensors in one layer; empty where it has none.
template <typename Ref>
struct ModifierTensors {
  Ref w, b;
};

// What a pass over some tokens hands to a modifier.
struct ModifierForward {
  Context& cx;
  const ModelSpec& spec;
  const ModifierTensors<TensorRef>& w;
  const AttentionInputs& at;
  LayerActs& acts;
  MutTensorRef own;             // [M, X] or empty: its own activation
  MutTensorRef x;               // Stage::kQueries: q_eff or q_far, [B, N, H, E]
  LayerCarry* carry = nullptr;  // null: no token is in front of these
};
struct ModifierBackward {
  Context& cx;
  const ModelSpec& spec;
  const ModifierTensors<TensorRef>& w;
  ModifierTensors<MutTensorRef>& dw;  // accumulated (+=); empty: not wanted
  const AttentionInputs& at;
  const LayerActs& acts;
  LayerActGrads& grads;
  TensorRef own;
  MutTensorRef down;  // the gradient of own, written in backward() and read in project_backward()
};

class Modifier {
 public:
  struct Info {
    std::string_view name;     // in "attention_modifiers" of config.json, in flags and reports
    std::string_view summary;  // one line
    std::string_view source;   // paper
    Stage stage;
  };
  virtual ~Modifier() = default;
  virtual Info info() const = 0;
  // At most two: the weight, then the bias.
  virtual std::vector<ModifierParam> parameters(const ModelSpec&) const = 0;
  // The values that parameter `index`, no matrix, begins with.
  virtual void start(const ModelSpec&, size_t index, Rng&, std::span<float> values) const;
  // The width X of its own activation [M, X], of the activations' type; 0: none.
  virtual int64_t own_width(const ModelSpec&) const { return 0; }
  // Why it cannot be in this model; empty: it can.
  virtual std::string refusal(const ModelSpec&) const { return ""; }

  // From ln1 of all rows of a call to own.
  virtual void project(const ModifierForward&) const {}
  // Its stage, for the tokens of whole sequences, or of one chunk of one sequence.
  virtual void forward(const ModifierForward&) const = 0;
  // From the gradients of what forward() wrote to those of what it read. Stage::kQueries: only those of the parameters,
  // from q_eff and its gradient as all of them have left it, as it is not kept in between.
  virtual void backward(const ModifierBackward&) const = 0;
  // Stage::kQueries: dq_eff in place, by the transposed map.
  virtual void queries_backward(const ModifierBackward&) const {}
  // dln1 += what came through own.
  virtual void project_backward(const ModifierBackward&) const {}
};

// Every modifier there is, by name.
std::span<const Modifier* const> all_modifiers();
// In that order. Error where one is named twice.
std::vector<const Modifier*> ordered(std::vector<const Modifier*>);
bool has_stage(const ModelSpec&, Stage);

}  // namespace coca::model

template <>
struct coca::EnumTraits<const coca::model::Modifier*> {
  static constexpr std::string_view what() { return "attention modifier"; }
  static std::span<const ::coca::EnumName<const coca::model::Modifier*>> names();
};
