// coca/kernels/cuda/rows.h - the rows of ops/table.cc for NVIDIA GPUs. In builds without CUDA, kernels/cuda_stub
// defines rows that never run.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "coca/kernels/args/all.h"

namespace coca::cuda {

extern const ops::AdamWImpl adamw_row;
extern const ops::AttentionImpl attention_row, cudnn_attention_row;
extern const ops::CastImpl cast_row;
extern const ops::CollinearImpl collinear_row;
extern const ops::CrossEntropyImpl cross_entropy_row;
extern const ops::DecodeAttentionImpl decode_attention_row;
extern const ops::DilatedAttentionImpl dilated_attention_row;
extern const ops::EmbeddingImpl embedding_row;
extern const ops::GeluImpl gelu_row;
extern const ops::HeadModifiersImpl head_modifiers_row;
extern const ops::HeadsImpl heads_row;
extern const ops::KvStoreImpl kv_store_row;
extern const ops::LinearImpl linear_row;
extern const ops::LoraImpl lora_row;
extern const ops::NormImpl norm_row;
extern const ops::ResidualImpl residual_row;
extern const ops::RopeAngleImpl rope_angle_row;
extern const ops::RopeImpl rope_row;
extern const ops::SwiGluImpl swiglu_row;
extern const ops::TopKeysImpl top_keys_row;

}  // namespace coca::cuda
