// coca/model/architecture.h - the names of an architecture's tensors, as in Hugging Face's files and the official code.
// A CoCA model of the LLaMA family has t_proj (t_norm) where a RoPE model has k_proj (k_norm).
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "coca/model/spec.h"

namespace coca::model {

// Without ".weight" and ".bias"; layer is the prefix before the layer's number. Empty: the tensor does not exist.
struct TensorNames {
  std::string embed, layer, ln1, ln2, qkv, q, k, v, q_norm, k_norm, o, gate, up, down, norm, head;
  std::string attention;                                 // of a layer: what holds the projections
  std::string qkv_global, q_global, k_global, v_global;  // of the global tokens
  std::string clex;                                      // prefix of its network's two tensors, which have no ".weight"
};
TensorNames tensor_names(const ModelSpec&);

}  // namespace coca::model
