// SPDX-License-Identifier: Apache-2.0
#include "coca/formats/convert.h"

#include <algorithm>
#include <cmath>
#include <ranges>
#include <string>
#include <vector>

#include "coca/base/count.h"
#include "coca/base/rng.h"
#include "coca/formats/config.h"
#include "coca/formats/shards.h"
#include "coca/formats/tensor_source.h"
#include "coca/io/json_file.h"
#include "coca/io/safetensors.h"
#include "coca/model/architecture.h"
#include "coca/model/t_width.h"

namespace coca::formats {

namespace fs = std::filesystem;

namespace {

model::ModelSpec target_attention(const model::ModelSpec& from, const ConvertOptions& o) {
  model::ModelSpec to = from;
  if (!o.attention || *o.attention == from.attention) return to;
  COCA_CHECK(from.global_tokens == 0,
             "cannot convert to attention \"{}\": the source has {}; convert it before these are added",
             enum_name(*o.attention), counted(from.global_tokens, "global token"));
  COCA_CHECK(model::is_coca(*o.attention) && ops::form_info(model::form_of(*o.attention)).members == 2,
             "cannot convert to attention \"{}\": only forms with a pair of q in each plane can be made from a model: "
             "coca-slack, coca-strict, coca-tied, coca-abs",
             enum_name(*o.attention));
  COCA_CHECK(model::uses_rotary(from.attention),
             "cannot convert attention \"{}\" to \"{}\": the source has no rotary positions", enum_name(from.attention),
             enum_name(*o.attention));
  to.attention = *o.attention;
  if (model::is_coca(from.attention)) return to;
  to.fold = ops::Fold::kRotary;
  return model::folded_t(to);
}

model::ModelSpec target_spec(const model::ModelSpec& from, const ConvertOptions& o) {
  model::ModelSpec to = target_attention(from, o);
  if (o.t_width) to.t_width = *o.t_width;
  model::validate(to);
  return model::with_windows(o.windows, to);
}

// For each tensor of the result the source's tensor that its values come from, and the result's tensor under whose name
// they are made: its own, or for global projections that the source lacks the ordinary one.
struct Origin {
  size_t from, as;
};
std::vector<Origin> origins_of(const model::ModelSpec& source, const std::vector<model::ParamInfo>& from,
                               const std::vector<model::ParamInfo>& to) {
  const size_t ordinary = static_cast<size_t>(
      std::ranges::count_if(to, [](const model::ParamInfo& info) { return !model::is_global(info.name); }));
  std::vector<Origin> origins;
  for (size_t i = 0, common = 0; i < to.size(); ++i) {
    size_t as = i;
    if (model::is_global(to[i].name) && source.global_tokens == 0) {
      std::string name = to[i].name;
      name.erase(name.find("_global"), std::string_view("_global").size());
      as = static_cast<size_t>(std::ranges::find(to, name, &model::ParamInfo::name) - to.begin());
      COCA_CHECK_AS(kInternal, as < ordinary, "tensor \"{}\" has no ordinary counterpart", to[i].name);
      origins.push_back({origins[as].from, as});
      continue;
    }
    while (model::is_global(from[common].name) != model::is_global(to[i].name))
      ++common;  // the result may do without global tokens
    origins.push_back({common++, as});
  }
  return origins;
}

// The root mean square of |q_j| over the G groups' query heads, [G, D/2], for a layer input x = g * z (+ b) with
// independent z of mean 0 and variance 1: E q_i^2 = sum_c (w_ic g_c)^2 + (bias_i + sum_c w_ic b_c)^2.
class QuerySize {
 public:
  QuerySize(const model::ModelSpec& s, int64_t layer, const TensorSource& source,
            const std::vector<model::ParamInfo>& infos)
      : s_(s), size_(static_cast<size_t>(s.G * s.D / 2)) {
    const model::TensorNames n = model::tensor_names(s);
    const std::string at = n.layer + std::to_string(layer) + ".";
    const auto values = [&](const std::string& name) -> std::vector<float> {
      const auto info =
          std::find_if(infos.begin(), infos.end(), [&](const model::ParamInfo& i) { return i.name == name; });
      return info == infos.end() ? std::vector<float>{} : source.read(*info);
    };
    // Rows [H, D] of q: those of the fused matrix lie 3 D apart.
    const bool fused = s.qkv == model::Qkv::kFused;
    const std::string q = at + (fused ? n.qkv : n.q);
    const std::vector<float> w = values(q + ".weight"), bias = values(q + ".bias"), g = values(at + n.ln1 + ".weight"),
                             b = values(at + n.ln1 + ".bias"),
                             head_g = n.q_norm.empty() ? std::vector<float>{} : values(at + n.q_norm + ".weight");
    const int64_t step = fused ? 3 * s.D : s.D, group = s.H / s.G;
    for (int64_t h = 0; h < s.H; ++h)
      for (int64_t d = 0; d < s.D; ++d) {
        double square = 0, mean = bias.empty() ? 0.0 : static_cast<double>(bias[static_cast<size_t>(h * step + d)]);
        for (int64_t c = 0; c < s.C; ++c) {
          const double weight = static_cast<double>(w[static_cast<size_t>((h * step + d) * s.C + c)]);
          square += std::pow(weight * static_cast<double>(g[static_cast<size_t>(c)]), 2);
          if (!b.empty()) mean += weight * static_cast<double>(b[static_cast<size_t>(c)]);
        }
        double expected = square + mean * mean;
        if (!head_g.empty()) expected = std::pow(static_cast<double>(head_g[static_cast<size_t>(d)]), 2);  // normalised
        if (d < s.plane_dims())
          size_[static_cast<size_t>(h / group * (s.D / 2) + pair_of(d))] += expected / static_cast<double>(group);
      }
    for (double& x : size_) x = std::sqrt(x);
  }
  // Of the pair that dim d of a head belongs to: rotary pairs first, then the halves of the rest, as CoCA folds them.
  double at(int64_t g, int64_t d) const {
    if (d >= s_.plane_dims()) return 1.0;  // a content channel: its share of the score is the source's
    return size_[static_cast<size_t>(g * (s_.D / 2) + pair_of(d))];
  }

 private:
  int64_t pair_of(int64_t d) const {
    if (d < s_.R) return d % (s_.R / 2);
    return s_.R / 2 + (d - s_.R) % std::max<int64_t>(1, (s_.plane_dims() - s_.R) / 2);
  }
  const model::ModelSpec& s_;
  std::vector<double> size_;
};

// Makes the tensors of a CoCA model out of those of a RoPE model.
class TMaker {
 public:
  TMaker(const TensorSource& source, const model::ModelSpec& to, const ConvertOptions& options)
      : source_(source),
        to_(to),
        options_(options),
        from_infos_(model::parameter_list(source.spec())),
        names_(model::tensor_names(to)) {}

  // Whether this output holds T (or its norm), in all or in part.
  bool makes(const model::ParamInfo& info) const {
    if (model::is_coca(source_.spec().attention) || !model::is_coca(to_.attention)) return false;
    const bool matrix =
        info.name.find("." + (to_.qkv == model::Qkv::kFused ? names_.qkv : names_.k) + ".") != std::string::npos;
    return matrix || (!names_.k_norm.empty() && info.name.find("." + names_.k_norm + ".") != std::string::npos);
  }

  std::vector<float> make(const model::ParamInfo& info, std::vector<float> values) {
    const bool norm = !names_.k_norm.empty() && info.name.find("." + names_.k_norm + ".") != std::string::npos;
    const bool linear = to_.attention.score == model::Score::kAbs;  // in q, as the dot product is
    if (options_.t_init == TInit::kFromK || (options_.t_init == TInit::kFromKScaled && linear)) return values;
    if (options_.t_init == TInit::kRandom) {
      randomise(info, norm, values);
      return values;
    }
    // Behind a norm of heads only its weight sets the size.
    const bool normed = to_.head_norm != model::HeadNorm::kNone;
    if (norm == normed) scale(info, values);
    return values;
  }

 private:
  // visit(index of the row's first value, kv head, dim) for each row of T of a matrix or bias, or each value of a norm.
  template <typename Visit>
  void rows(const model::ParamInfo& info, const Visit& visit) const {
    const int64_t width = info.shape.rank == 2 ? info.shape[1] : 1;
    if (info.shape[0] == to_.D && info.role == model::ParamRole::kNormWeight) {
      for (int64_t d = 0; d < to_.D; ++d) visit(d, -1, d, 1);
      return;
    }
    const bool fused = to_.qkv == model::Qkv::kFused;
    for (int64_t g = 0; g < to_.G; ++g)
      for (int64_t d = 0; d < to_.D; ++d) visit(((fused ? 3 * g + 1 : g) * to_.D + d) * width, g, d, width);
  }

  void scale(const model::ParamInfo& info, std::vector<float>& values) {
    const size_t dot = names_.layer.size();
    const int64_t layer = std::stoll(info.name.substr(dot));
    if (layer != layer_) {
      size_ = std::make_unique<QuerySize>(source_.spec(), layer, source_, from_infos_);
      layer_ = layer;
    }
    rows(info, [&](int64_t at, int64_t g, int64_t d, int64_t width) {
      const double size =
          std::max(size_->at(std::max<int64_t>(0, g), d), 1e-6);  // a norm's weight serves all heads alike
      for (int64_t i = 0; i < width; ++i)
        values[static_cast<size_t>(at + i)] =
            static_cast<float>(static_cast<double>(values[static_cast<size_t>(at + i)]) / size);
    });
  }

  void randomise(const model::ParamInfo& info, bool norm, std::vector<float>& values) const {
    Rng rng(options_.seed, static_cast<uint64_t>(info.index) + 1);
    rows(info, [&](int64_t at, int64_t, int64_t, int64_t width) {
      for (int64_t i = 0; i < width; ++i)
        values[static_cast<size_t>(at + i)] = norm ? 1.0f
                                              : info.role == model::ParamRole::kBias
                                                  ? 0.0f
                                                  : static_cast<float>(to_.init_std * rng.normal());
    });
  }

  const TensorSource& source_;
  const model::ModelSpec& to_;
  const ConvertOptions& options_;
  std::vector<model::ParamInfo> from_infos_;
  model::TensorNames names_;
  int64_t layer_ = -1;
  std::unique_ptr<QuerySize> size_;
};

Tensor store_as(DType type, const std::vector<float>& values, const model::ParamInfo& info) {
  Tensor out(info.shape, type);
  const auto n = values.size();
  if (type == DType::kF32) {
    std::copy_n(values.data(), n, out.values<float>().data());
    return out;
  }
  const bool half = type == DType::kF16;
  auto* bits = static_cast<uint16_t*>(out.ref().data);
  for (size_t i = 0; i < n; ++i) {
    const BF16 rounded(values[i]);
    bits[i] = half ? f32_to_f16(values[i]) : rounded.bits;
    COCA_CHECK_AS(kNumeric, std::isfinite(half ? f16_to_f32(bits[i]) : static_cast<float>(rounded)),
                  "tensor \"{}\" holds {} at element {}, which {} cannot hold; expected at most {}", info.name,
                  without_nan_sign(values[i]), i, dtype_name(type), half ? "65504" : "3.38953e38");
  }
  return out;
}

}  // namespace

ConvertReport convert_model(const fs::path& source_dir, const fs::path& out, const ConvertOptions& o,
                            const std::function<void(int64_t, int64_t)>& progress) {
  COCA_CHECK(!o.dtype || *o.dtype == DType::kF32 || *o.dtype == DType::kF16 || *o.dtype == DType::kBF16,
             "cannot store a model as {}; expected F32, F16 or BF16", dtype_name(*o.dtype));
  const std::unique_ptr<TensorSource> source = open_source(source_dir, o.source_attention, o.meta);
  ConvertReport report{.layout = source->layout(), .from = source->spec(), .to = target_spec(source->spec(), o)};
  const std::vector<model::ParamInfo> from = model::parameter_list(report.from), to = model::parameter_list(report.to);
  const std::vector<Origin> origins = origins_of(report.from, from, to);
  std::vector<DType> types;
  std::vector<size_t> sizes;
  int64_t total = 0;
  for (size_t i = 0; i < to.size(); ++i) {
    const DType stored = source->stored_type(from[origins[i].from]);
    types.push_back(o.dtype.value_or(stored == DType::kF64 ? DType::kF32 : stored));
    sizes.push_back(static_cast<size_t>(to[i].shape.product()) * dtype_size(types.back()));
    total += static_cast<int64_t>(sizes.back());
    report.copied += origins[i].as != i;
  }
  const model::ModelSpec wide =
      model::with_t_width(report.to, report.from.t_width);  // T is made at the source's width, then folded or unfolded
  const std::vector<model::ParamInfo> at_width = model::parameter_list(wide);
  TMaker maker(*source, wide, o);
  const auto shards = plan_shards(sizes, o.max_shard_bytes);
  ShardWriter writer(out, shards.size());
  for (const std::vector<size_t>& shard : shards) {
    std::vector<Tensor> tensors;
    std::vector<io::TensorToSave> saved;
    for (const size_t i : shard) {
      std::vector<float> values = source->read(from[origins[i].from]);
      const model::ParamInfo& made = at_width[origins[i].as];
      if (maker.makes(made)) {
        values = maker.make(made, std::move(values));
        ++report.made;
      }
      if (made.shape != to[i].shape)
        values = model::change_t_width(wide, report.to, std::move(values), to[i].shape.rank == 2 ? to[i].shape[1] : 1);
      tensors.push_back(store_as(types[i], values, to[i]));
      saved.push_back({to[i].name, tensors.back().ref()});
      report.bytes += static_cast<int64_t>(saved.back().value.bytes());
      if (progress) progress(report.bytes, total);
    }
    writer.write(saved);
  }
  nlohmann::ordered_json config = spec_to_json(report.to);
  const DType type = types.empty() ? DType::kF32 : *std::min_element(types.begin(), types.end(), [](DType a, DType b) {
    return dtype_size(a) < dtype_size(b);
  });
  config["torch_dtype"] = type == DType::kBF16 ? "bfloat16" : type == DType::kF16 ? "float16" : "float32";
  io::write_json(out / "config.json", config);
  report.tensors = static_cast<int64_t>(to.size());
  report.shards = static_cast<int64_t>(shards.size());
  return report;
}

}  // namespace coca::formats
