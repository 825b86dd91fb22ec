// SPDX-License-Identifier: Apache-2.0
#include "coca/model/params.h"

#include <algorithm>
#include <cstring>
#include <functional>

#include "coca/base/parallel.h"
#include "coca/base/rng.h"
#include "coca/model/architecture.h"
#include "coca/ops/cast.h"

namespace coca::model {

namespace {

// Walks every parameter in file order: visit(name, shape, role, slot).
template <typename Ref, typename Visit>
void for_each_parameter(const ModelSpec& s, ModelTensors<Ref>& t, const Visit& visit) {
  const TensorNames n = tensor_names(s);
  const Bias norm_bias = s.norm == ops::NormKind::kLayerNorm ? Bias::kYes : Bias::kNone;
  const auto matrix = [&](const std::string& name, int64_t out, int64_t in, Bias bias, Ref& w, Ref& b) {
    visit(name + ".weight", Dims{out, in}, ParamRole::kMatrix, w);
    if (bias == Bias::kYes) visit(name + ".bias", Dims{out}, ParamRole::kBias, b);
  };
  const auto norm = [&](const std::string& name, Ref& w, Ref& b) {
    visit(name + ".weight", Dims{s.C}, ParamRole::kNormWeight, w);
    if (norm_bias == Bias::kYes) visit(name + ".bias", Dims{s.C}, ParamRole::kBias, b);
  };
  visit(n.embed + ".weight", Dims{s.V, s.C}, ParamRole::kEmbedding, t.embed);
  t.layers.resize(static_cast<size_t>(s.L));
  for (int64_t i = 0; i < s.L; ++i) {
    LayerTensors<Ref>& l = t.layers[static_cast<size_t>(i)];
    const std::string at = n.layer + std::to_string(i) + ".";
    norm(at + n.ln1, l.ln1_w, l.ln1_b);
    norm(at + n.ln2, l.ln2_w, l.ln2_b);
    if (s.qkv == Qkv::kFused) {
      matrix(at + n.qkv, 3 * s.H * s.D, s.C, s.attention_bias, l.qkv_w, l.qkv_b);
    } else {
      matrix(at + n.q, s.H * s.D, s.C, s.attention_bias, l.q_w, l.q_b);
      matrix(at + n.k, s.G * s.D, s.C, s.attention_bias, l.k_w, l.k_b);
      matrix(at + n.v, s.G * s.D, s.C, s.attention_bias, l.v_w, l.v_b);
    }
    if (s.head_norm != HeadNorm::kNone) {
      visit(at + n.q_norm + ".weight", Dims{s.D}, ParamRole::kNormWeight, l.q_norm_w);
      visit(at + n.k_norm + ".weight", Dims{s.D}, ParamRole::kNormWeight, l.k_norm_w);
    }
    matrix(at + n.o, s.C, s.H * s.D, s.output_bias, l.o_w, l.o_b);
    if (s.mlp == Mlp::kSwiGlu) matrix(at + n.gate, s.F, s.C, s.mlp_bias, l.gate_w, l.gate_b);
    matrix(at + n.up, s.F, s.C, s.mlp_bias, l.up_w, l.up_b);
    matrix(at + n.down, s.C, s.F, s.mlp_bias, l.down_w, l.down_b);
  }
  norm(n.norm, t.norm_w, t.norm_b);
  if (s.embeddings == Embeddings::kTied)
    t.head = t.embed;
  else
    visit(n.head + ".weight", Dims{s.V, s.C}, ParamRole::kMatrix, t.head);
}

}  // namespace

DType param_dtype(ParamRole role, Precision precision) {
  return role == ParamRole::kEmbedding || role == ParamRole::kMatrix ? dtype_of(precision) : DType::kF32;
}

std::vector<ParamInfo> parameter_list(const ModelSpec& spec) {
  std::vector<ParamInfo> infos;
  size_t offset = 0;
  Weights unused;
  for_each_parameter(spec, unused, [&](std::string name, const Dims& shape, ParamRole role, TensorRef&) {
    infos.push_back({std::move(name), shape, role, infos.size(), offset});
    offset += (static_cast<size_t>(shape.product()) + 15) / 16 * 16;  // 64-byte alignment of every tensor
  });
  return infos;
}

ParamStore::ParamStore(const ModelSpec& spec, Precision precision) : precision_(precision), infos_(parameter_list(spec)) {
  size_t total = 0;
  for (const ParamInfo& info : infos_) {
    offsets_.push_back(total);
    total += (static_cast<size_t>(info.shape.product()) * dtype_size(param_dtype(info.role, precision)) + 63) / 64 * 64;
  }
  const auto count = static_cast<int64_t>(total);
  flat_ = precision == Precision::kF32 ? Tensor({count / 4}) : Tensor({count}, DType::kU8);
  size_t i = 0;
  const auto bind = [&](const std::string&, const Dims&, ParamRole, auto& slot) { slot = at(infos_[i++]); };
  for_each_parameter(spec, tensors_, bind);
  i = 0;
  for_each_parameter(spec, weights_, bind);
}

void ParamStore::zero() { std::memset(flat_.ref().data, 0, flat_.ref().bytes()); }

namespace {

void fill(MutTensorRef t, const std::function<float()>& next) {
  const int64_t n = t.numel();
  if (t.dtype == DType::kBF16)
    std::generate_n(t.as<BF16>(), n, [&] { return BF16(next()); });
  else
    std::generate_n(t.as<float>(), n, next);
}

}  // namespace

void initialise(const ModelSpec& spec, uint64_t seed, ParamStore& store) {
  const std::vector<ParamInfo>& infos = store.infos();
  parallel_for(static_cast<int64_t>(infos.size()), [&](int64_t i) {
    const ParamInfo& info = infos[static_cast<size_t>(i)];
    if (info.role == ParamRole::kNormWeight) return fill(store.at(info), [] { return 1.0f; });
    if (info.role == ParamRole::kBias) return fill(store.at(info), [] { return 0.0f; });
    Rng rng(seed, static_cast<uint64_t>(i) + 1);
    fill(store.at(info), [&] { return static_cast<float>(spec.init_std * rng.normal()); });
  });
}

void copy_params(Context& cx, const ParamStore& from, ParamStore& to) {
  for (const ParamInfo& info : from.infos()) {
    const TensorRef x = from.at(info);
    const MutTensorRef y = to.at(info);
    if (x.dtype == y.dtype)
      std::memcpy(y.data, x.data, x.bytes());
    else
      ops::cast(cx, {.x = x, .y = y});
  }
}

}  // namespace coca::model
