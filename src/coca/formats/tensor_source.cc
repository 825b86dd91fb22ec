// SPDX-License-Identifier: Apache-2.0
#include "coca/formats/tensor_source.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <set>

#include "coca/base/count.h"
#include "coca/base/log.h"
#include "coca/formats/config_fields.h"
#include "coca/formats/model_folder.h"
#include "coca/formats/weight_files.h"
#include "coca/io/fs.h"
#include "coca/io/json_file.h"

namespace coca::formats {

namespace fs = std::filesystem;

namespace {

class HuggingFaceSource final : public TensorSource {
 public:
  HuggingFaceSource(const fs::path& dir, std::optional<model::AttentionKind> attention)
      : spec_(load_spec(dir)), files_(dir) {
    if (attention) {
      spec_.attention = *attention;
      if (model::is_coca(*attention) && spec_.R != spec_.plane_dims()) spec_.fold = ops::Fold::kOfficial;
    }
    model::validate(spec_);
    check_tensors(files_, spec_);
  }
  Layout layout() const override { return Layout::kHuggingFace; }
  const model::ModelSpec& spec() const override { return spec_; }
  DType stored_type(const model::ParamInfo& info) const override { return files_.at(info.name).tensor->dtype; }
  std::vector<float> read(const model::ParamInfo& info) const override {
    const auto [file, tensor] = files_.at(info.name);
    std::vector<float> values = io::to_f32(*tensor);
    file->release(*tensor);
    check_finite(values, file->path().string(), info.name);
    return values;
  }

 private:
  model::ModelSpec spec_;
  WeightFiles files_;
};

// What the versions of LLaMA have where params.json says nothing: lengths and factors of Hugging Face's folders.
struct VersionDefaults {
  int64_t length;
  std::optional<double> factor;  // of those that scale their angles
};
VersionDefaults defaults_of(LlamaVersion version) {
  switch (version) {
    case LlamaVersion::k1: return {2048, {}};
    case LlamaVersion::k2: return {4096, {}};
    case LlamaVersion::k3: return {8192, {}};
    case LlamaVersion::k31: return {131072, 8.0};
    case LlamaVersion::k32: return {131072, 32.0};
    case LlamaVersion::k33: return {131072, 8.0};
  }
  return {};
}

constexpr double kLlama3Theta = 500000.0;

// use_scaled_rope says that angles are scaled, not by how much; the rest of the numbers is in Meta's code.
model::RopeScaling meta_scaling(const ConfigFields& f, const MetaSettings& meta) {
  const bool scaled = f.boolean("use_scaled_rope", false);
  const std::optional<double> own =
      f.has("rope_scaling_factor") ? std::optional(f.number("rope_scaling_factor")) : std::nullopt;
  const std::optional<double> known = meta.version ? defaults_of(*meta.version).factor : std::nullopt;
  COCA_CHECK(!meta.version || known.has_value() == scaled,
             "--llama-version {}: {} says use_scaled_rope {}; LLaMA 3.1, 3.2 and 3.3 have it, others do not",
             enum_name(*meta.version), f.origin(), scaled);
  COCA_CHECK(!meta.rope_factor || scaled, "--rope-factor {}: {} does not say use_scaled_rope", *meta.rope_factor,
             f.origin());
  COCA_CHECK(!meta.rope_factor || *meta.rope_factor >= 1, "--rope-factor {}: must be at least 1", *meta.rope_factor);
  if (!scaled) return {};
  const std::optional<double> factor = meta.rope_factor ? meta.rope_factor : own ? own : known;
  COCA_CHECK_AS(kBadFile, factor,
                "{}: says use_scaled_rope, but not by which factor, which LLaMA 3.1, 3.2 and 3.3 do not share; give "
                "--llama-version "
                "3.1 (factor 8), 3.2 (32) or 3.3 (8), or --rope-factor",
                f.origin());
  return {.type = model::Scaling::kLlama3, .factor = *factor, .original_max_position = 8192};
}

int64_t meta_length(const ConfigFields& f, const MetaSettings& meta, const model::ModelSpec& s) {
  const bool says = f.has("max_seq_len") || f.has("max_position_embeddings");
  const int64_t own = f.integer("max_seq_len", f.integer("max_position_embeddings", 2048));
  if (meta.trained_length) {
    COCA_CHECK(*meta.trained_length >= 1, "--trained-length {}: must be at least 1", *meta.trained_length);
    return *meta.trained_length;
  }
  if (says) return own;
  if (meta.version) return defaults_of(*meta.version).length;
  if (s.rope_scaling.type == model::Scaling::kLlama3) return 131072;
  if (s.rope_theta == kLlama3Theta) return 8192;
  log_once(
      LogLevel::kInfo,
      fmt::format("{} does not give the trained length; {} is assumed (--trained-length or --llama-version changes it)",
                  f.origin(), own));
  return own;
}

// params.json of Meta's LLaMA and of Mistral. The width of the mlp is not in LLaMA's: the shape of w1 says it.
model::ModelSpec read_params_json(const fs::path& file, const MetaSettings& meta) {
  const nlohmann::json json = io::read_json(file);
  const ConfigFields f(json, file.string());
  model::ModelSpec s;
  s.architecture = model::Architecture::kLlama;
  s.norm = ops::NormKind::kRmsNorm;
  s.qkv = model::Qkv::kSeparate;
  s.residual = model::ResidualKind::kSequential;
  s.attention_bias = s.output_bias = s.mlp_bias = model::Bias::kNone;
  s.mlp = model::Mlp::kSwiGlu;
  s.C = f.integer("dim");
  s.L = f.integer("n_layers");
  s.H = f.integer("n_heads");
  COCA_CHECK_AS(kBadFile, s.H >= 1 && s.L >= 1 && s.L <= 10'000,
                "{}: n_heads {} and n_layers {}; expected at least 1, and at most 10000 layers", file.string(), s.H,
                s.L);
  s.G = f.integer("n_kv_heads", s.H);
  s.D = s.R = f.integer("head_dim", s.C / s.H);
  s.V = f.integer("vocab_size", -1);
  s.F = f.integer("hidden_dim", 0);
  s.norm_eps = f.number("norm_eps", 1e-5);
  s.rope_theta = f.number("rope_theta", 10000.0);
  s.rope_scaling = meta_scaling(f, meta);
  s.max_position = meta_length(f, meta, s);
  if (f.has("sliding_window")) {
    s.architecture = model::Architecture::kMistral;
    s.layer_window.assign(static_cast<size_t>(s.L), f.integer("sliding_window"));
  }
  f.ignore({"multiple_of", "ffn_dim_multiplier", "max_batch_size", "model_parallel_size"});
  f.refuse_unread();
  return s;
}

class MetaSource final : public TensorSource {
 public:
  MetaSource(const fs::path& dir, const MetaSettings& meta)
      : dir_(dir), spec_(read_params_json(dir / "params.json", meta)) {
    std::vector<fs::path> files;
    for (const fs::path& entry : io::list_folder(dir)) {
      const std::string name = entry.filename().string();
      if (name.starts_with("consolidated") && name.ends_with(".safetensors")) files.push_back(entry);
      COCA_CHECK_AS(kBadFile, !name.ends_with(".pth"),
                    "{}: weights of PyTorch's pickle format are not read; save them as consolidated.safetensors first",
                    entry.string());
    }
    std::sort(files.begin(), files.end());
    COCA_CHECK_AS(kIo, !files.empty(), "{} has params.json but no consolidated*.safetensors", dir.string());
    for (const fs::path& file : files) parts_.push_back(std::make_unique<io::SafetensorsFile>(file));
    COCA_CHECK_AS(kBadFile, std::ssize(parts_[0]->tensors()) >= spec_.L, "{}: {} for a model of {}", files[0].string(),
                  counted(parts_[0]->tensors().size(), "tensor"), counted(spec_.L, "layer"));
    complete_spec();
    set_ends(meta);
    model::validate(spec_);
    refuse_others();
  }
  Layout layout() const override { return Layout::kMeta; }
  const model::ModelSpec& spec() const override { return spec_; }
  DType stored_type(const model::ParamInfo& info) const override { return parts_[0]->at(meta_name(info.name)).dtype; }

  std::vector<float> read(const model::ParamInfo& info) const override {
    const std::string name = meta_name(info.name);
    std::vector<float> values = joined(name, info.shape);
    check_finite(values, dir_.string(), name);
    if (name.ends_with("attention.wq.weight")) return half_split_rows(values, spec_.H, spec_.D, spec_.C);
    if (name.ends_with("attention.wk.weight")) return half_split_rows(values, spec_.G, spec_.D, spec_.C);
    return values;
  }

 private:
  static std::string meta_name(std::string name) {
    static constexpr std::pair<std::string_view, std::string_view> kNames[] = {
        {"model.embed_tokens", "tok_embeddings"},
        {"model.norm", "norm"},
        {"lm_head", "output"},
        {"self_attn.q_proj", "attention.wq"},
        {"self_attn.k_proj", "attention.wk"},
        {"self_attn.v_proj", "attention.wv"},
        {"self_attn.o_proj", "attention.wo"},
        {"mlp.gate_proj", "feed_forward.w1"},
        {"mlp.down_proj", "feed_forward.w2"},
        {"mlp.up_proj", "feed_forward.w3"},
        {"input_layernorm", "attention_norm"},
        {"post_attention_layernorm", "ffn_norm"}};
    for (const auto& [ours, theirs] : kNames)
      if (const size_t at = name.find(ours); at != std::string::npos) {
        name.replace(at, ours.size(), theirs);
        break;
      }
    return name.starts_with("model.") ? name.substr(6) : name;
  }

  void complete_spec() {
    const auto total = [&](const char* name, size_t dim) {
      int64_t size = 0;
      for (const auto& part : parts_) size += part->at(name).shape[static_cast<int>(dim)];
      return size;
    };
    if (spec_.F == 0) spec_.F = total("layers.0.feed_forward.w1.weight", 0);
    if (spec_.V < 0) {  // LLaMA 2's params.json says -1: the embedding knows (its columns or rows are split)
      const Dims first = parts_[0]->at("tok_embeddings.weight").shape;
      spec_.V = first[1] == spec_.C ? total("tok_embeddings.weight", 0) : first[0];
    }
    if (!parts_[0]->find("output.weight")) spec_.embeddings = model::Embeddings::kTied;
  }

  // LLaMA 3 has 256 special tokens after its vocabulary: bos, eos, and from 3.1 on <|eom_id|>, always <|eot_id|>.
  void set_ends(const MetaSettings& meta) {
    const bool third = meta.version ? *meta.version >= LlamaVersion::k3 : spec_.rope_theta == kLlama3Theta;
    const int64_t first = third ? spec_.V - 256 : 1;
    if (third && first > 0) {
      spec_.bos_id = first;
      spec_.eos_ids = {first + 1, first + 8, first + 9};
      if (spec_.rope_scaling.type == model::Scaling::kNone) spec_.eos_ids.erase(spec_.eos_ids.begin() + 1);
    } else if (!third && spec_.V > 2) {
      spec_.bos_id = 1;
      spec_.eos_ids = {2};
    }
    if (!meta.eos.empty()) spec_.eos_ids = meta.eos;
  }

  void refuse_others() const {
    std::set<std::string> wanted;
    for (const model::ParamInfo& info : model::parameter_list(spec_)) wanted.insert(meta_name(info.name));
    for (const io::StoredTensor& tensor : parts_[0]->tensors())
      COCA_CHECK_AS(kBadFile, tensor.name == "rope.freqs" || wanted.contains(tensor.name),
                    "{}: tensor \"{}\" does not belong to a llama model", parts_[0]->path().string(), tensor.name);
  }

  // The parts of a model-parallel tensor side by side along the dimension in which they are split; norms are copies.
  std::vector<float> joined(const std::string& name, const Dims& shape) const {
    const io::StoredTensor& first = parts_[0]->at(name);
    if (first.shape == shape) return io::to_f32(first);
    const auto n = static_cast<int64_t>(parts_.size());
    const bool rows = shape.rank == 2 && first.shape == Dims({shape[0] / n, shape[1]}) && shape[0] % n == 0;
    const bool columns = shape.rank == 2 && first.shape == Dims({shape[0], shape[1] / n}) && shape[1] % n == 0;
    COCA_CHECK_AS(kBadFile, rows || columns, "{}: tensor \"{}\" has shape {} in each of {}; expected a part of {}",
                  parts_[0]->path().string(), name, first.shape.text(), counted(n, "file"), shape.text());
    std::vector<float> out(static_cast<size_t>(shape.product()));
    for (int64_t p = 0; p < n; ++p) {
      const io::StoredTensor& part = parts_[static_cast<size_t>(p)]->at(name);
      COCA_CHECK_AS(kBadFile, part.shape == first.shape, "{}: tensor \"{}\" has shape {}; the first file has {}",
                    parts_[static_cast<size_t>(p)]->path().string(), name, part.shape.text(), first.shape.text());
      const std::vector<float> values = io::to_f32(part);
      if (rows) {
        std::copy(values.begin(), values.end(), out.begin() + p * static_cast<int64_t>(values.size()));
      } else {
        const int64_t width = part.shape[1];
        for (int64_t r = 0; r < shape[0]; ++r)
          std::copy_n(values.begin() + r * width, width, out.begin() + r * shape[1] + p * width);
      }
    }
    return out;
  }

  fs::path dir_;
  model::ModelSpec spec_;
  std::vector<std::unique_ptr<io::SafetensorsFile>> parts_;
};

}  // namespace

std::vector<float> half_split_rows(const std::vector<float>& x, int64_t heads, int64_t D, int64_t C) {
  std::vector<float> y(x.size());
  for (int64_t h = 0; h < heads; ++h)
    for (int64_t j = 0; j < D / 2; ++j)
      for (int64_t half = 0; half < 2; ++half)
        std::copy_n(x.begin() + (h * D + 2 * j + half) * C, C, y.begin() + (h * D + half * (D / 2) + j) * C);
  return y;
}

namespace {

std::string given_options(const MetaSettings& meta) {
  std::vector<std::string> options;
  if (meta.version) options.push_back("--llama-version");
  if (meta.rope_factor) options.push_back("--rope-factor");
  if (meta.trained_length) options.push_back("--trained-length");
  if (!meta.eos.empty()) options.push_back("--eos");
  return fmt::format("{}", fmt::join(options, ", "));
}

}  // namespace

std::unique_ptr<TensorSource> open_source(const fs::path& dir, std::optional<model::AttentionKind> attention,
                                          const MetaSettings& meta) {
  COCA_CHECK_AS(kIo, io::is_folder(dir), "model folder {} does not exist", dir.string());
  if (io::exists(dir / "params.json") && !io::exists(dir / "config.json")) {
    COCA_CHECK(!attention || *attention == model::AttentionKind::kRope, "{}: Meta's layout holds RoPE models only",
               dir.string());
    return std::make_unique<MetaSource>(dir, meta);
  }
  COCA_CHECK(!meta.any(),
             "{}: given for {}, whose config.json already says it; only Meta's layout (params.json) needs it",
             given_options(meta), dir.string());
  return std::make_unique<HuggingFaceSource>(dir, attention);
}

}  // namespace coca::formats
