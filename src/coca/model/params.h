// coca/model/params.h - the one list of a model's tensors. Allocation, initialisation, files, gradients, optimizer
// state, decay groups and verification all walk it.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "coca/base/enum_names.h"
#include "coca/model/spec.h"
#include "coca/ops/lora.h"
#include "coca/tensor/context.h"

namespace coca::model {

// The type of matrices and embeddings, and of the activations between products. In either, fp32 are the residual
// stream, norms' weights and statistics, biases, every gradient of a weight and the optimizer's state, and every sum.
enum class Precision : uint8_t { kF32, kBF16 };
inline DType dtype_of(Precision precision) { return precision == Precision::kBF16 ? DType::kBF16 : DType::kF32; }

// A low-rank addition to a matrix (ops/lora.h); a and b are empty where there is none.
template <typename Ref>
struct LoraTensors {
  Ref a, b;  // [r, in] [out, r]
  float scale = 0.0f;
  ops::Dropout dropout;
};
template <typename Ref>
struct LayerLora {
  LoraTensors<Ref> qkv, q, k, v, o, gate, up, down;
};

template <typename Ref>
struct LayerTensors {
  Ref ln1_w, ln1_b;        // [C]
  Ref qkv_w, qkv_b;        // [H (2 D + K), C] [H (2 D + K)], K = key_width(); Qkv::kFused
  Ref q_w, q_b;            // [H D, C] [H D]; Qkv::kSeparate, and gradients of the parts of a fused projection
  Ref k_w, k_b;            // [G K, C] [G K]: keys, or CoCA's T
  Ref v_w, v_b;            // [G D, C] [G D]
  Ref q_norm_w, k_norm_w;  // [D]; HeadNorm::kRms
  // Of global tokens, as those without: global_tokens > 0.
  Ref qkv_global_w, qkv_global_b, q_global_w, q_global_b, k_global_w, k_global_b, v_global_w, v_global_b;
  std::array<ModifierTensors<Ref>, kMostModifiers> modifiers;  // as in ModelSpec::modifiers
  Ref o_w, o_b;                                                // [C, H D] [C]
  Ref ln2_w, ln2_b;                                            // [C]
  Ref gate_w, gate_b;                                          // [F, C] [F]; SwiGLU only
  Ref up_w, up_b;                                              // [F, C] [F]
  Ref down_w, down_b;                                          // [C, F] [C]
  LayerLora<Ref> lora;  // of an adapter (adapter.h): not in the list of a model's tensors
};

template <typename Ref>
struct ModelTensors {
  Ref embed;  // [V, C]
  std::vector<LayerTensors<Ref>> layers;
  Ref norm_w, norm_b;      // [C]
  Ref head;                // [V, C]; with tied embeddings the same tensor as embed
  Ref clex_up, clex_down;  // [R/2, W] [W, R/2]; Scaling::kClex
};

using Weights = ModelTensors<TensorRef>;
using MutWeights = ModelTensors<MutTensorRef>;
bool has_tensors(const LayerTensors<MutTensorRef>&);  // any at all
bool is_global(std::string_view name);                // whether a parameter is a projection of global tokens

// The layer of a parameter, or of an adapter's, by its name; -1: none.
int64_t layer_of(const ModelSpec&, std::string_view name);

// CLEX's network makes frequencies and is no part of the stream: fp32 always, and no weight decay, which would pull its
// frequencies towards NTK's.
// kModifier: of a modifier, and no matrix (modifier.h); fp32 as well.
enum class ParamRole : uint8_t { kEmbedding, kMatrix, kNormWeight, kBias, kClexUp, kClexDown, kModifier };
inline bool is_clex(ParamRole role) { return role == ParamRole::kClexUp || role == ParamRole::kClexDown; }

// A part of a fused projection that may be trained by itself: of each head's rows those of q, of k (or t), or of v.
enum class ParamPart : uint8_t { kWhole, kQ, kK, kV };

struct ParamInfo {
  std::string
      name;  // as in the architecture's official files; parts: ".q", ".k" or ".t", ".v" before ".weight", ".bias"
  Dims shape;
  ParamRole role;
  size_t index;   // in the list of all; a part has its whole's
  size_t offset;  // in floats, within an fp32 store of the list
  ParamPart part = ParamPart::kWhole;
  // Parts only: of every block_step rows of the whole, the block_rows from block_first on.
  int64_t block_rows = 0, block_first = 0, block_step = 0;
  // kModifier only: whose it is, and which of its parameters.
  const Modifier* modifier = nullptr;
  size_t modifier_index = 0;
};
// Of a parameter in a store of this precision.
DType param_dtype(ParamRole, Precision);

std::vector<ParamInfo> parameter_list(const ModelSpec&);
// The parts of the fused projections, in the order of the list; none with separate projections.
std::vector<ParamInfo> part_list(const ModelSpec&);
// Places for the tensors of a list, one behind the other.
void assign_offsets(std::vector<ParamInfo>&);

// Storage of a list of tensors in one block, on the host or a device.
class TensorStore {
 public:
  explicit TensorStore(std::vector<ParamInfo>, Precision = Precision::kF32, DeviceMemory* = nullptr);
  TensorStore(TensorStore&&) = default;
  TensorStore& operator=(TensorStore&&) = default;
  virtual ~TensorStore() = default;  // owners hold a ParamStore by this type

  // Brings the tensors to this memory (null: the host's). What refers to them must be bound anew.
  virtual void move_to(DeviceMemory*);
  DeviceMemory* memory() const { return flat_.memory(); }  // null: the host's

  Precision precision() const { return precision_; }
  const std::vector<ParamInfo>& infos() const { return infos_; }
  MutTensorRef at(const ParamInfo& info) {
    return {bytes_at(info), param_dtype(info.role, precision_), info.shape, flat_.device()};
  }
  TensorRef at(const ParamInfo& info) const {
    return {bytes_at(info), param_dtype(info.role, precision_), info.shape, flat_.device()};
  }
  // The tensor as flat vectors: one, or the blocks of rows of a part whose whole is here.
  std::vector<MutTensorRef> blocks(const ParamInfo&);
  // Everything as one vector, fp32 stores only: in a bf16 store these are bytes.
  MutTensorRef flat() { return flat_; }
  TensorRef flat() const { return flat_; }
  void zero();  // on a device queued

 private:
  static constexpr size_t kAbsent = ~size_t{0};
  static size_t key(size_t index, ParamPart part) { return 4 * index + static_cast<size_t>(part); }
  size_t place(const ParamInfo&) const;
  std::byte* bytes_at(const ParamInfo& info) const {
    return static_cast<std::byte*>(const_cast<void*>(flat_.ref().data)) + place(info);
  }

  Precision precision_;
  std::vector<ParamInfo> infos_;
  std::vector<size_t> places_;  // in bytes, by key
  Tensor flat_;
};

// A store of a model's parameters, and these by their places in the model: weights, gradients and optimizer moments are
// three or four of these. Of a selection (select.h) the others are empty.
class ParamStore : public TensorStore {
 public:
  explicit ParamStore(const ModelSpec&, Precision = Precision::kF32, DeviceMemory* = nullptr);
  ParamStore(const ModelSpec&, std::vector<ParamInfo> selection, DeviceMemory* = nullptr);  // f32

  void move_to(DeviceMemory*) override;
  MutWeights& tensors() { return tensors_; }
  const Weights& weights() const { return weights_; }

 private:
  void bind();

  ModelSpec spec_;
  MutWeights tensors_;
  Weights weights_;
};

// A decoder with its weights.
struct Model {
  ModelSpec spec;
  std::unique_ptr<ParamStore> params;
};

// Linear and embedding weights N(0, init_std), norms 1, biases 0 (as the official code). Each tensor draws from its
// own stream (seed, position in the list), so that models of different kinds share all draws they can; a T of half the
// width is the mean of the pairs of what is drawn for a full one, and so the same function. A bf16 store holds the fp32
// values, rounded. The store must be on the host.
void initialise(const ModelSpec&, uint64_t seed, TensorStore&);
// CLEX's network alone, as initialise() has it: W_up uniform within 1 / sqrt(W) (as published), W_down zero.
void initialise_clex(uint64_t seed, TensorStore&);

// All parameters of a store of the same spec, rounded or widened where the precisions differ; then both stores must be
// on the context's device. Where they lie apart, the copy is complete on return.
void copy_params(Context&, const TensorStore& from, TensorStore& to);

}  // namespace coca::model

COCA_ENUM_NAMES(coca::model::Precision, "precision", {coca::model::Precision::kF32, "f32"},
                {coca::model::Precision::kBF16, "bf16"})
