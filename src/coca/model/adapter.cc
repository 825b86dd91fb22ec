// SPDX-License-Identifier: Apache-2.0
#include "coca/model/adapter.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "coca/base/rng.h"
#include "coca/base/sizes.h"
#include "coca/model/architecture.h"
#include "coca/model/select.h"
#include "coca/ops/cast.h"
#include "coca/ops/linear.h"

namespace coca::model {

namespace {

std::vector<ParamInfo> tensors_of(const std::vector<LoraTarget>& targets) {
  std::vector<ParamInfo> infos;
  for (const LoraTarget& t : targets) {
    infos.push_back({.name = t.module + ".lora_A.weight",
                     .shape = {t.rank, t.in},
                     .role = ParamRole::kMatrix,
                     .index = infos.size(),
                     .offset = 0});
    infos.push_back({.name = t.module + ".lora_B.weight",
                     .shape = {t.out, t.rank},
                     .role = ParamRole::kMatrix,
                     .index = infos.size(),
                     .offset = 0});
  }
  assign_offsets(infos);
  return infos;
}

// Names of a layer's matrices behind its prefix, and where their additions go.
struct Place {
  std::string name;
  LoraTensors<TensorRef> LayerLora<TensorRef>::*weights;
  LoraTensors<MutTensorRef> LayerLora<MutTensorRef>::*grads;
};

std::vector<Place> places_of(const TensorNames& n) {
  using W = LayerLora<TensorRef>;
  using G = LayerLora<MutTensorRef>;
  return {{n.qkv, &W::qkv, &G::qkv}, {n.q, &W::q, &G::q},         {n.k, &W::k, &G::k},
          {n.v, &W::v, &G::v},       {n.o, &W::o, &G::o},         {n.gate, &W::gate, &G::gate},
          {n.up, &W::up, &G::up},    {n.down, &W::down, &G::down}};
}

}  // namespace

std::vector<LoraTarget> lora_modules(const ModelSpec& spec) {
  const TensorNames names = tensor_names(spec);
  const std::vector<Place> places = places_of(names);
  std::vector<LoraTarget> modules;
  for (const ParamInfo& info : parameter_list(spec)) {
    if (info.role != ParamRole::kMatrix || !info.name.starts_with(names.layer) || is_global(info.name)) continue;
    if (info.modifier) continue;  // small, or made from scratch: trained whole
    const std::string module = info.name.substr(0, info.name.size() - std::string_view(".weight").size());
    const size_t dot = module.find('.', names.layer.size());
    const std::string own = module.substr(dot + 1);
    const auto place = std::find_if(places.begin(), places.end(), [&](const Place& p) { return p.name == own; });
    COCA_CHECK_AS(kInternal, place != places.end(), "[adapter] {} has no place in a layer", module);
    modules.push_back(
        {.module = module,
         .layer = static_cast<size_t>(std::stoll(module.substr(names.layer.size(), dot - names.layer.size()))),
         .weights = place->weights,
         .grads = place->grads,
         .in = info.shape[1],
         .out = info.shape[0]});
  }
  return modules;
}

std::vector<LoraTarget> select_lora_targets(const ModelSpec& spec, const LoraSettings& settings,
                                            const std::vector<std::string>& patterns) {
  std::vector<LoraTarget> modules = lora_modules(spec), chosen;
  std::vector<std::string> names;
  names.reserve(modules.size());
  for (const LoraTarget& m : modules) names.push_back(m.module);
  const std::vector<bool> in = select_names(names, patterns, "lora_targets");
  for (size_t i = 0; i < modules.size(); ++i) {
    if (!in[i]) continue;
    chosen.push_back(std::move(modules[i]));
    chosen.back().rank = settings.rank;
    chosen.back().alpha = settings.alpha;
  }
  double numbers = 0;
  for (const LoraTarget& t : chosen) numbers += static_cast<double>(t.rank) * static_cast<double>(t.in + t.out);
  const double bytes = numbers * 4 * sizeof(float);  // with the gradient and the two moments
  COCA_CHECK(bytes <= static_cast<double>(memory_limit()),
             "lora_rank is {}: its adapter takes {} to train; there are {}; give a lower rank", settings.rank,
             memory_text(bytes), memory_text(static_cast<double>(memory_limit())));
  return chosen;
}

Adapter::Adapter(const ModelSpec& spec, const LoraSettings& settings, std::vector<LoraTarget> targets)
    : spec_(spec), settings_(settings), targets_(std::move(targets)), tensors_(tensors_of(targets_)) {
  COCA_CHECK(!targets_.empty(), "[adapter] no modules to adapt");
  COCA_CHECK(settings.dropout >= 0 && settings.dropout < 1,
             "[adapter] dropout is {}; expected 0 or more and less than 1", settings.dropout);
  for (const LoraTarget& t : targets_) {
    COCA_CHECK(t.rank >= 1, "[adapter] the rank of {} is {}; expected at least 1", t.module, t.rank);
    COCA_CHECK(t.alpha > 0 && std::isfinite(t.alpha), "[adapter] the alpha of {} is {}; expected more than 0", t.module,
               t.alpha);
  }
}

float Adapter::scale(const LoraTarget& t) const {
  const auto rank = static_cast<double>(t.rank);
  return static_cast<float>(t.alpha / (settings_.scaling == LoraSettings::Scaling::kByRank ? rank : std::sqrt(rank)));
}

void Adapter::initialise(uint64_t seed) {
  for (size_t i = 0; i < targets_.size(); ++i) {
    Rng rng(seed, 0x10a0000 + i);
    const double bound = 1.0 / std::sqrt(static_cast<double>(targets_[i].in));
    const MutTensorRef a = tensors_.at(info_a(i)), b = tensors_.at(info_b(i));
    std::generate_n(a.as<float>(), a.numel(), [&] { return static_cast<float>(bound * (2.0 * rng.uniform() - 1.0)); });
    std::memset(b.data, 0, b.bytes());
  }
}

void Adapter::bind(const TensorStore& store, Weights& weights) const {
  for (size_t i = 0; i < targets_.size(); ++i)
    weights.layers.at(targets_[i].layer).lora.*targets_[i].weights = {
        .a = store.at(info_a(i)), .b = store.at(info_b(i)), .scale = scale(targets_[i]), .dropout = {}};
}

void Adapter::bind_gradients(TensorStore& store, MutWeights& grads) const {
  for (size_t i = 0; i < targets_.size(); ++i)
    grads.layers.at(targets_[i].layer).lora.*targets_[i].grads = {
        .a = store.at(info_a(i)), .b = store.at(info_b(i)), .scale = scale(targets_[i]), .dropout = {}};
}

void Adapter::set_dropout(uint64_t key, Weights& weights) const {
  for (size_t i = 0; i < targets_.size(); ++i)
    (weights.layers[targets_[i].layer].lora.*targets_[i].weights).dropout = {
        .rate = static_cast<float>(settings_.dropout), .key = mix64(key ^ mix64(i))};
}

void Adapter::clear_dropout(Weights& weights) const {
  for (const LoraTarget& t : targets_) (weights.layers[t.layer].lora.*t.weights).dropout = {};
}

void merge_adapter(const Adapter& adapter, ParamStore& params) {
  Context cx(nullptr);
  Weights bound = params.weights();
  adapter.bind(adapter.tensors(), bound);
  for (const LoraTarget& t : adapter.targets()) {
    const auto info = std::find_if(params.infos().begin(), params.infos().end(),
                                   [&](const ParamInfo& p) { return p.name == t.module + ".weight"; });
    COCA_CHECK(info != params.infos().end() && info->shape == Dims({t.out, t.in}),
               "[adapter] the model has no {} of {} x {}", t.module, t.out, t.in);
    const LoraTensors<TensorRef>& lora = bound.layers[t.layer].lora.*t.weights;
    Tensor transposed({t.in, t.rank}),
        sum({t.out, t.in});  // s B A = (s A^T applied as a linear layer to the rows of B)
    for (int64_t r = 0; r < t.rank; ++r)
      for (int64_t k = 0; k < t.in; ++k)
        transposed.values<float>()[static_cast<size_t>(k * t.rank + r)] = lora.scale * lora.a.as<float>()[r * t.in + k];
    const MutTensorRef w = params.at(*info);
    if (w.dtype == DType::kF32) {
      ops::linear_forward(cx, {.x = lora.b, .w = transposed, .y = w, .y_write = ops::Write::kAccumulate});
      continue;
    }
    ops::cast(cx, {.x = w, .y = sum});
    ops::linear_forward(cx, {.x = lora.b, .w = transposed, .y = sum, .y_write = ops::Write::kAccumulate});
    ops::cast(cx, {.x = sum, .y = w});
  }
}

}  // namespace coca::model
