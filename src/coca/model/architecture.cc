// SPDX-License-Identifier: Apache-2.0
#include "coca/model/architecture.h"

namespace coca::model {

namespace {

TensorNames gpt_neox_names() {
  return {.embed = "gpt_neox.embed_in",
          .layer = "gpt_neox.layers.",
          .ln1 = "input_layernorm",
          .ln2 = "post_attention_layernorm",
          .qkv = "attention.query_key_value",
          .o = "attention.dense",
          .up = "mlp.dense_h_to_4h",
          .down = "mlp.dense_4h_to_h",
          .norm = "gpt_neox.final_layer_norm",
          .head = "embed_out",
          .attention = "attention",
          .qkv_global = "attention.query_key_value_global",
          .clex = "gpt_neox.clex_layer.proj_func."};
}

TensorNames llama_names(const ModelSpec& s) {
  const bool coca = is_coca(s.attention), head_norm = s.head_norm != HeadNorm::kNone;
  return {.embed = "model.embed_tokens",
          .layer = "model.layers.",
          .ln1 = "input_layernorm",
          .ln2 = "post_attention_layernorm",
          .q = "self_attn.q_proj",
          .k = coca ? "self_attn.t_proj" : "self_attn.k_proj",
          .v = "self_attn.v_proj",
          .q_norm = head_norm ? "self_attn.q_norm" : "",
          .k_norm = !head_norm ? ""
                    : coca     ? "self_attn.t_norm"
                               : "self_attn.k_norm",
          .o = "self_attn.o_proj",
          .gate = "mlp.gate_proj",
          .up = "mlp.up_proj",
          .down = "mlp.down_proj",
          .norm = "model.norm",
          .head = "lm_head",
          .attention = "self_attn",
          .q_global = "self_attn.q_global_proj",
          .k_global = coca ? "self_attn.t_global_proj" : "self_attn.k_global_proj",
          .v_global = "self_attn.v_global_proj",
          .clex = "model.clex_layer.proj_func."};
}

}  // namespace

TensorNames tensor_names(const ModelSpec& s) {
  return s.architecture == Architecture::kGptNeoX ? gpt_neox_names() : llama_names(s);
}

}  // namespace coca::model
