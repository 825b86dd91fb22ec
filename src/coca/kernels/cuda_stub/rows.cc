// SPDX-License-Identifier: Apache-2.0
#include "coca/kernels/cuda/rows.h"

namespace coca::cuda {

namespace {

template <typename Impl>
constexpr Impl kNone{
    .name = "cuda", .device = DeviceKind::kCuda, .needs = "CUDA", .runs_here = [] { return false; }, .run = {}};

}  // namespace

const ops::AdamWImpl adamw_row = kNone<ops::AdamWImpl>;
const ops::AttentionImpl attention_row = kNone<ops::AttentionImpl>;
const ops::AttentionImpl cudnn_attention_row{.name = "cudnn",
                                             .device = DeviceKind::kCuda,
                                             .needs = "CUDA and cuDNN",
                                             .runs_here = [] { return false; },
                                             .run = {}};
const ops::CastImpl cast_row = kNone<ops::CastImpl>;
const ops::CollinearImpl collinear_row = kNone<ops::CollinearImpl>;
const ops::CrossEntropyImpl cross_entropy_row = kNone<ops::CrossEntropyImpl>;
const ops::DecodeAttentionImpl decode_attention_row = kNone<ops::DecodeAttentionImpl>;
const ops::DilatedAttentionImpl dilated_attention_row = kNone<ops::DilatedAttentionImpl>;
const ops::EmbeddingImpl embedding_row = kNone<ops::EmbeddingImpl>;
const ops::GeluImpl gelu_row = kNone<ops::GeluImpl>;
const ops::HeadModifiersImpl head_modifiers_row = kNone<ops::HeadModifiersImpl>;
const ops::HeadsImpl heads_row = kNone<ops::HeadsImpl>;
const ops::KvStoreImpl kv_store_row = kNone<ops::KvStoreImpl>;
const ops::LinearImpl linear_row = kNone<ops::LinearImpl>;
const ops::LoraImpl lora_row = kNone<ops::LoraImpl>;
const ops::NormImpl norm_row = kNone<ops::NormImpl>;
const ops::ResidualImpl residual_row = kNone<ops::ResidualImpl>;
const ops::RopeAngleImpl rope_angle_row = kNone<ops::RopeAngleImpl>;
const ops::RopeImpl rope_row = kNone<ops::RopeImpl>;
const ops::SwiGluImpl swiglu_row = kNone<ops::SwiGluImpl>;
const ops::TopKeysImpl top_keys_row = kNone<ops::TopKeysImpl>;

}  // namespace coca::cuda
