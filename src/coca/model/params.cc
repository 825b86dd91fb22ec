// SPDX-License-Identifier: Apache-2.0
#include "coca/model/params.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <functional>
#include <map>

#include "coca/base/count.h"
#include "coca/base/parallel.h"
#include "coca/base/rng.h"
#include "coca/model/architecture.h"
#include "coca/model/clex.h"
#include "coca/model/t_width.h"
#include "coca/ops/cast.h"
#include "coca/tensor/transfer.h"

namespace coca::model {

namespace {

// Whose a parameter of a modifier is.
struct Owner {
  const Modifier* modifier = nullptr;
  size_t index = 0;
};

// matrix(name, out, in, bias, weight slot, bias slot)
template <typename Ref, typename Matrix>
void for_each_global_projection(const ModelSpec& s, const TensorNames& n, ModelTensors<Ref>& t, const Matrix& matrix) {
  for (int64_t i = 0; i < s.L; ++i) {
    LayerTensors<Ref>& l = t.layers[static_cast<size_t>(i)];
    const std::string at = n.layer + std::to_string(i) + ".";
    if (s.qkv == Qkv::kFused) {
      matrix(at + n.qkv_global, s.H * s.qkv_width(), s.C, s.attention_bias, l.qkv_global_w, l.qkv_global_b);
      continue;
    }
    matrix(at + n.q_global, s.H * s.D, s.C, s.attention_bias, l.q_global_w, l.q_global_b);
    matrix(at + n.k_global, s.G * s.key_width(), s.C, s.attention_bias, l.k_global_w, l.k_global_b);
    matrix(at + n.v_global, s.G * s.D, s.C, s.attention_bias, l.v_global_w, l.v_global_b);
  }
}

// visit as below
template <typename Ref, typename Visit>
void for_each_modifier(const ModelSpec& s, const TensorNames& n, ModelTensors<Ref>& t, const Visit& visit) {
  for (int64_t i = 0; i < s.L; ++i)
    for (size_t k = 0; k < s.modifiers.size(); ++k) {
      ModifierTensors<Ref>& slots = t.layers[static_cast<size_t>(i)].modifiers[k];
      const std::vector<ModifierParam> params = s.modifiers[k]->parameters(s);
      for (size_t j = 0; j < params.size(); ++j) {
        const ModifierParam& p = params[j];
        const std::string name =
            fmt::format("{}{}.{}.{}{}", n.layer, i, n.attention, p.name, p.matrix ? ".weight" : "");
        visit(name, p.shape, p.matrix ? ParamRole::kMatrix : ParamRole::kModifier, j == 0 ? slots.w : slots.b,
              Owner{s.modifiers[k], j});
      }
    }
}

// Walks every parameter in file order: visit(name, shape, role, slot, owner). visit_part sees the parts of fused
// projections behind their whole: (name, shape, role, part, first row of a head's, slot).
template <typename Ref, typename Visit, typename VisitPart>
void for_each_parameter(const ModelSpec& s, ModelTensors<Ref>& t, const Visit& visit, const VisitPart& visit_part) {
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
  const auto parts = [&](const std::string& name, LayerTensors<Ref>& l) {
    const auto one = [&](const char* letter, ParamPart part, int64_t first, int64_t width, Ref& w, Ref& b) {
      visit_part(name + "." + letter + ".weight", Dims{s.H * width, s.C}, ParamRole::kMatrix, part, first, w);
      if (s.attention_bias == Bias::kYes)
        visit_part(name + "." + letter + ".bias", Dims{s.H * width}, ParamRole::kBias, part, first, b);
    };
    one("q", ParamPart::kQ, 0, s.D, l.q_w, l.q_b);
    one(is_coca(s.attention) ? "t" : "k", ParamPart::kK, s.D, s.key_width(), l.k_w, l.k_b);
    one("v", ParamPart::kV, s.D + s.key_width(), s.D, l.v_w, l.v_b);
  };
  visit(n.embed + ".weight", Dims{s.V, s.C}, ParamRole::kEmbedding, t.embed);
  t.layers.resize(static_cast<size_t>(s.L));
  for (int64_t i = 0; i < s.L; ++i) {
    LayerTensors<Ref>& l = t.layers[static_cast<size_t>(i)];
    const std::string at = n.layer + std::to_string(i) + ".";
    norm(at + n.ln1, l.ln1_w, l.ln1_b);
    norm(at + n.ln2, l.ln2_w, l.ln2_b);
    if (s.qkv == Qkv::kFused) {
      matrix(at + n.qkv, s.H * s.qkv_width(), s.C, s.attention_bias, l.qkv_w, l.qkv_b);
      parts(at + n.qkv, l);
    } else {
      matrix(at + n.q, s.H * s.D, s.C, s.attention_bias, l.q_w, l.q_b);
      matrix(at + n.k, s.G * s.key_width(), s.C, s.attention_bias, l.k_w, l.k_b);
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
  // What only some models have comes last: what is in front keeps its place and its draws.
  if (s.global_tokens > 0) for_each_global_projection(s, n, t, matrix);
  for_each_modifier(s, n, t, visit);
  if (s.rope_scaling.type != Scaling::kClex) return;
  const int64_t W = clex_width(s);
  visit(n.clex + "ode_up_proj", Dims{s.R / 2, W}, ParamRole::kClexUp, t.clex_up);
  visit(n.clex + "ode_down_proj", Dims{W, s.R / 2}, ParamRole::kClexDown, t.clex_down);
}

}  // namespace

bool has_tensors(const LayerTensors<MutTensorRef>& l) {
  for (const MutTensorRef* t :
       {&l.ln1_w,      &l.ln1_b,      &l.qkv_w,        &l.qkv_b,        &l.q_w,        &l.q_b,
        &l.k_w,        &l.k_b,        &l.v_w,          &l.v_b,          &l.q_norm_w,   &l.k_norm_w,
        &l.o_w,        &l.o_b,        &l.qkv_global_w, &l.qkv_global_b, &l.q_global_w, &l.q_global_b,
        &l.k_global_w, &l.k_global_b, &l.v_global_w,   &l.v_global_b,   &l.ln2_w,      &l.ln2_b,
        &l.gate_w,     &l.gate_b,     &l.up_w,         &l.up_b,         &l.down_w,     &l.down_b})
    if (!t->empty()) return true;
  for (const auto& m : l.modifiers)
    if (!m.w.empty() || !m.b.empty()) return true;
  const auto& x = l.lora;
  for (const auto* pair : {&x.qkv, &x.q, &x.k, &x.v, &x.o, &x.gate, &x.up, &x.down})
    if (!pair->a.empty()) return true;
  return false;
}

bool is_global(std::string_view name) { return name.find("_global") != std::string_view::npos; }

int64_t layer_of(const ModelSpec& spec, std::string_view name) {
  const std::string prefix = tensor_names(spec).layer;
  int64_t layer = -1;
  if (name.starts_with(prefix)) std::from_chars(name.data() + prefix.size(), name.data() + name.size(), layer);
  return layer;
}

DType param_dtype(ParamRole role, Precision precision) {
  return role == ParamRole::kEmbedding || role == ParamRole::kMatrix ? dtype_of(precision) : DType::kF32;
}

namespace {

constexpr auto kNoParts = [](auto&&...) {};

}  // namespace

std::vector<ParamInfo> parameter_list(const ModelSpec& spec) {
  std::vector<ParamInfo> infos;
  Weights unused;
  for_each_parameter(
      spec, unused,
      [&](std::string name, const Dims& shape, ParamRole role, TensorRef&, Owner owner = {}) {
        infos.push_back({.name = std::move(name),
                         .shape = shape,
                         .role = role,
                         .index = infos.size(),
                         .offset = 0,
                         .modifier = owner.modifier,
                         .modifier_index = owner.index});
      },
      kNoParts);
  assign_offsets(infos);
  return infos;
}

std::vector<ParamInfo> part_list(const ModelSpec& spec) {
  std::vector<ParamInfo> parts;
  std::map<ParamRole, size_t> whole;  // the fused weight and bias are adjacent, and their parts follow both
  size_t index = 0;
  Weights unused;
  for_each_parameter(
      spec, unused,
      [&](const std::string&, const Dims&, ParamRole role, TensorRef&, Owner = {}) { whole[role] = index++; },
      [&](std::string name, const Dims& shape, ParamRole role, ParamPart part, int64_t first, TensorRef&) {
        parts.push_back({.name = std::move(name),
                         .shape = shape,
                         .role = role,
                         .index = whole.at(role),
                         .offset = 0,
                         .part = part,
                         .block_rows = shape[0] / spec.H,
                         .block_first = first,
                         .block_step = spec.qkv_width()});
      });
  assign_offsets(parts);
  return parts;
}

void assign_offsets(std::vector<ParamInfo>& infos) {
  size_t offset = 0;
  for (ParamInfo& info : infos) {
    info.offset = offset;
    offset += (static_cast<size_t>(info.shape.product()) + 15) / 16 * 16;  // 64-byte alignment of every tensor
  }
}

TensorStore::TensorStore(std::vector<ParamInfo> infos, Precision precision, DeviceMemory* memory)
    : precision_(precision), infos_(std::move(infos)) {
  size_t total = 0;
  for (const ParamInfo& info : infos_) {
    const size_t at = key(info.index, info.part);
    if (places_.size() <= at) places_.resize(at + 1, kAbsent);
    places_[at] = total;
    total += (static_cast<size_t>(info.shape.product()) * dtype_size(param_dtype(info.role, precision)) + 63) / 64 * 64;
  }
  const auto count = static_cast<int64_t>(total);
  const std::string what =
      fmt::format("{} in {}, or their gradients (a smaller model needs less, or training only a part of it)",
                  counted(infos_.size(), "parameter"), enum_name(precision));
  flat_ = precision == Precision::kF32 ? Tensor({count / 4}, DType::kF32, memory, what)
                                       : Tensor({count}, DType::kU8, memory, what);
}

void TensorStore::move_to(DeviceMemory* memory) {
  if (memory == flat_.memory()) return;
  COCA_CHECK_AS(kInternal, !memory || !flat_.memory(), "tensors cannot go from {} to {} at once", flat_.device().text(),
                memory->device().text());
  Context cx(memory ? memory : flat_.memory());
  flat_ = memory ? to_device(cx, flat_) : to_host(cx, flat_);
}

size_t TensorStore::place(const ParamInfo& info) const {
  const size_t at = key(info.index, info.part);
  COCA_CHECK_AS(kInternal, at < places_.size() && places_[at] != kAbsent, "parameter \"{}\" is not in this store",
                info.name);
  return places_[at];
}

std::vector<MutTensorRef> TensorStore::blocks(const ParamInfo& info) {
  const size_t own = key(info.index, info.part);
  if (info.part == ParamPart::kWhole || (own < places_.size() && places_[own] != kAbsent))
    return {at(info).reshape({info.shape.product()})};
  ParamInfo whole = info;
  whole.part = ParamPart::kWhole;
  const int64_t width = info.shape.product() / info.shape[0], heads = info.shape[0] / info.block_rows;
  whole.shape[0] = heads * info.block_step;
  const MutTensorRef flat = at(whole).reshape({whole.shape.product()});
  std::vector<MutTensorRef> blocks;
  for (int64_t h = 0; h < heads; ++h)
    blocks.push_back(flat.narrow(0, (h * info.block_step + info.block_first) * width, info.block_rows * width));
  return blocks;
}

void TensorStore::zero() { flat_.set_zero(); }

ParamStore::ParamStore(const ModelSpec& spec, Precision precision, DeviceMemory* memory)
    : TensorStore(parameter_list(spec), precision, memory), spec_(spec) {
  bind();
}

ParamStore::ParamStore(const ModelSpec& spec, std::vector<ParamInfo> selection, DeviceMemory* memory)
    : TensorStore(std::move(selection), Precision::kF32, memory), spec_(spec) {
  bind();
}

void ParamStore::move_to(DeviceMemory* memory) {
  TensorStore::move_to(memory);
  bind();
}

void ParamStore::bind() {
  std::map<std::string, const ParamInfo*, std::less<>> here;
  for (const ParamInfo& info : infos()) here[info.name] = &info;
  const auto bind_to = [&](auto& tensors) {
    const auto set = [&](const std::string& name, auto& slot) {
      if (const auto it = here.find(name); it != here.end()) slot = at(*it->second);
    };
    for_each_parameter(
        spec_, tensors,
        [&](const std::string& name, const Dims&, ParamRole, auto& slot, Owner = {}) { set(name, slot); },
        [&](const std::string& name, const Dims&, ParamRole, ParamPart, int64_t, auto& slot) { set(name, slot); });
  };
  bind_to(tensors_);
  bind_to(weights_);
}

namespace {

void fill(MutTensorRef t, const std::function<float()>& next) {
  const int64_t n = t.numel();
  if (t.dtype == DType::kBF16)
    std::generate_n(t.as<BF16>(), n, [&] { return BF16(next()); });
  else
    std::generate_n(t.as<float>(), n, next);
}

}  // namespace

namespace {

bool initialise_as_clex(const ParamInfo& info, Rng rng, TensorStore& store) {
  if (info.role == ParamRole::kClexDown) fill(store.at(info), [] { return 0.0f; });
  if (info.role == ParamRole::kClexUp) {
    const double bound = 1.0 / std::sqrt(static_cast<double>(info.shape[1]));
    fill(store.at(info), [&] { return static_cast<float>(bound * (2.0 * rng.uniform() - 1.0)); });
  }
  return is_clex(info.role);
}

}  // namespace

void initialise_clex(uint64_t seed, TensorStore& store) {
  for (size_t i = 0; i < store.infos().size(); ++i) initialise_as_clex(store.infos()[i], Rng(seed, i + 1), store);
}

void initialise(const ModelSpec& spec, uint64_t seed, TensorStore& store) {
  const std::vector<ParamInfo>& infos = store.infos();
  ModelSpec full = spec;
  full.t_width = TWidth::kFull;
  const std::vector<ParamInfo> drawn = parameter_list(full);
  parallel_for(static_cast<int64_t>(infos.size()), [&](int64_t i) {
    const ParamInfo& info = infos[static_cast<size_t>(i)];
    if (info.role == ParamRole::kNormWeight) return fill(store.at(info), [] { return 1.0f; });
    if (info.role == ParamRole::kBias) return fill(store.at(info), [] { return 0.0f; });
    Rng rng(seed, static_cast<uint64_t>(i) + 1);
    if (info.role == ParamRole::kModifier) {
      const MutTensorRef t = store.at(info);
      return info.modifier->start(spec, info.modifier_index, rng, {t.as<float>(), static_cast<size_t>(t.numel())});
    }
    if (initialise_as_clex(info, rng, store)) return;
    const auto draw = [&] { return static_cast<float>(spec.init_std * rng.normal()); };
    const Dims shape = drawn[info.index].shape;
    if (shape == info.shape) return fill(store.at(info), draw);
    std::vector<float> values(static_cast<size_t>(shape.product()));
    std::ranges::generate(values, draw);
    values = change_t_width(full, spec, std::move(values), spec.C);
    fill(store.at(info), [next = values.begin()]() mutable { return *next++; });
  });
}

void copy_params(Context& cx, const TensorStore& from, TensorStore& to) {
  for (const ParamInfo& info : from.infos()) {
    const TensorRef x = from.at(info);
    const MutTensorRef y = to.at(info);
    if (x.dtype == y.dtype)
      transfer(cx, y, x);
    else
      ops::cast(cx, {.x = x, .y = y});
  }
  if (from.memory() != to.memory()) cx.synchronize();
}

}  // namespace coca::model
