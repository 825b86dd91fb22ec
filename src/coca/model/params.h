// coca/model/params.h - the one list of a model's tensors. Allocation, initialisation, files, gradients, optimizer
// state, decay groups and verification all walk it.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <vector>

#include "coca/model/spec.h"
#include "coca/tensor/tensor.h"

namespace coca::model {

template <typename Ref>
struct LayerTensors {
  Ref ln1_w, ln1_b;              // [C]
  Ref qkv_w, qkv_b;              // [3 H D, C] [3 H D]; Qkv::kFused
  Ref q_w, q_b;                  // [H D, C] [H D]; Qkv::kSeparate
  Ref k_w, k_b;                  // [G D, C] [G D]: K, or CoCA's T
  Ref v_w, v_b;                  // [G D, C] [G D]
  Ref o_w, o_b;                  // [C, H D] [C]
  Ref ln2_w, ln2_b;              // [C]
  Ref gate_w;                    // [F, C]; SwiGLU only
  Ref up_w, up_b;                // [F, C] [F]
  Ref down_w, down_b;            // [C, F] [C]
};

template <typename Ref>
struct ModelTensors {
  Ref embed;                     // [V, C]
  std::vector<LayerTensors<Ref>> layers;
  Ref norm_w, norm_b;            // [C]
  Ref head;                      // [V, C]; with tied embeddings the same tensor as embed
};

using Weights = ModelTensors<TensorRef>;
using MutWeights = ModelTensors<MutTensorRef>;

enum class ParamRole : uint8_t { kEmbedding, kMatrix, kNormWeight, kBias };

struct ParamInfo {
  std::string name;  // as in the architecture's official files
  Dims shape;
  ParamRole role;
  size_t offset;     // in floats, within a ParamStore
};

std::vector<ParamInfo> parameter_list(const ModelSpec&);

// fp32 storage of all parameters in one block: weights, gradients and optimizer moments are three or four of these.
class ParamStore {
 public:
  explicit ParamStore(const ModelSpec&);

  const std::vector<ParamInfo>& infos() const { return infos_; }
  MutTensorRef at(const ParamInfo& info) { return {flat_.ref().as<float>() + info.offset, DType::kF32, info.shape}; }
  TensorRef at(const ParamInfo& info) const { return {flat_.ref().as<float>() + info.offset, DType::kF32, info.shape}; }
  MutTensorRef flat() { return flat_; }
  TensorRef flat() const { return flat_; }
  MutWeights& tensors() { return tensors_; }
  const Weights& weights() const { return weights_; }
  void zero();

 private:
  std::vector<ParamInfo> infos_;
  Tensor flat_;
  MutWeights tensors_;
  Weights weights_;
};

// Linear and embedding weights N(0, init_std), norms 1, biases 0 (as the official code). Each tensor draws from its
// own stream (seed, position in the list), so that models of different kinds share all draws they can.
void initialise(const ModelSpec&, uint64_t seed, ParamStore&);

}  // namespace coca::model
