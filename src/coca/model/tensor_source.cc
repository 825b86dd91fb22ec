// SPDX-License-Identifier: Apache-2.0
#include "coca/model/tensor_source.h"

#include <algorithm>
#include <cmath>
#include <set>

#include "coca/io/fs.h"
#include "coca/io/json_file.h"
#include "coca/model/config_fields.h"
#include "coca/model/model.h"
#include "coca/model/weight_files.h"

namespace coca::model {

namespace fs = std::filesystem;

namespace {

void check_finite(const std::vector<float>& values, const std::string& where, std::string_view name) {
  for (size_t i = 0; i < values.size(); ++i)
    COCA_CHECK_AS(kBadFile, std::isfinite(values[i]), "{}: tensor \"{}\" holds {} at element {}; expected finite values", where, name,
                  values[i], i);
}

class HuggingFaceSource final : public TensorSource {
 public:
  HuggingFaceSource(const fs::path& dir, std::optional<AttentionKind> attention) : spec_(load_spec(dir)), files_(dir) {
    if (attention) {
      spec_.attention = *attention;
      if (is_coca(*attention) && spec_.R != spec_.D) spec_.fold = ops::Fold::kOfficial;
    }
    validate(spec_);
    check_tensors(files_, spec_);
  }
  Layout layout() const override { return Layout::kHuggingFace; }
  const ModelSpec& spec() const override { return spec_; }
  DType stored_type(const ParamInfo& info) const override { return files_.at(info.name).tensor->dtype; }
  std::vector<float> read(const ParamInfo& info) const override {
    const auto [file, tensor] = files_.at(info.name);
    std::vector<float> values = io::to_f32(*tensor);
    file->release(*tensor);
    check_finite(values, file->path().string(), info.name);
    return values;
  }

 private:
  ModelSpec spec_;
  WeightFiles files_;
};

// params.json of Meta's LLaMA and of Mistral. The width of the mlp is not in LLaMA's: the shape of w1 says it.
ModelSpec read_params_json(const fs::path& file) {
  const nlohmann::json json = io::read_json(file);
  const ConfigFields f(json, file.string());
  ModelSpec s;
  s.architecture = Architecture::kLlama;
  s.norm = ops::NormKind::kRmsNorm;
  s.qkv = Qkv::kSeparate;
  s.residual = ResidualKind::kSequential;
  s.attention_bias = s.output_bias = s.mlp_bias = Bias::kNone;
  s.mlp = Mlp::kSwiGlu;
  s.C = f.integer("dim");
  s.L = f.integer("n_layers");
  s.H = f.integer("n_heads");
  COCA_CHECK_AS(kBadFile, s.H >= 1 && s.L >= 1 && s.L <= 10'000, "{}: n_heads {} and n_layers {}; expected at least 1, and at most 10000 layers", file.string(), s.H, s.L);
  s.G = f.integer("n_kv_heads", s.H);
  s.D = s.R = f.integer("head_dim", s.C / s.H);
  s.V = f.integer("vocab_size", -1);
  s.F = f.integer("hidden_dim", 0);
  s.norm_eps = f.number("norm_eps", 1e-5);
  s.rope_theta = f.number("rope_theta", 10000.0);
  s.max_position = f.integer("max_seq_len", f.integer("max_position_embeddings", 2048));
  if (f.has("sliding_window")) {
    s.architecture = Architecture::kMistral;
    s.layer_window.assign(static_cast<size_t>(s.L), f.integer("sliding_window"));
  }
  // LLaMA 3.1: the factor is not in the file; 8 and 8192 are what Meta's code has.
  if (f.boolean("use_scaled_rope", false))
    s.rope_scaling = {.type = Scaling::kLlama3, .factor = f.number("rope_scaling_factor", 8.0), .original_max_position = 8192};
  f.ignore({"multiple_of", "ffn_dim_multiplier", "max_batch_size", "model_parallel_size"});
  f.refuse_unread();
  return s;
}

class MetaSource final : public TensorSource {
 public:
  explicit MetaSource(const fs::path& dir) : dir_(dir), spec_(read_params_json(dir / "params.json")) {
    std::vector<fs::path> files;
    for (const fs::path& entry : io::list_folder(dir)) {
      const std::string name = entry.filename().string();
      if (name.starts_with("consolidated") && name.ends_with(".safetensors")) files.push_back(entry);
      COCA_CHECK_AS(kBadFile, !name.ends_with(".pth"), "{}: weights of PyTorch's pickle format are not read; save them as consolidated.safetensors first",
                    entry.string());
    }
    std::sort(files.begin(), files.end());
    COCA_CHECK_AS(kIo, !files.empty(), "{} has params.json but no consolidated*.safetensors", dir.string());
    for (const fs::path& file : files) parts_.push_back(std::make_unique<io::SafetensorsFile>(file));
    COCA_CHECK_AS(kBadFile, std::ssize(parts_[0]->tensors()) >= spec_.L, "{}: {} tensors for a model of {} layers", files[0].string(),
                  parts_[0]->tensors().size(), spec_.L);
    complete_spec();
    validate(spec_);
    refuse_others();
  }
  Layout layout() const override { return Layout::kMeta; }
  const ModelSpec& spec() const override { return spec_; }
  DType stored_type(const ParamInfo& info) const override { return parts_[0]->at(meta_name(info.name)).dtype; }

  std::vector<float> read(const ParamInfo& info) const override {
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
        {"model.embed_tokens", "tok_embeddings"}, {"model.norm", "norm"}, {"lm_head", "output"},
        {"self_attn.q_proj", "attention.wq"}, {"self_attn.k_proj", "attention.wk"}, {"self_attn.v_proj", "attention.wv"},
        {"self_attn.o_proj", "attention.wo"}, {"mlp.gate_proj", "feed_forward.w1"}, {"mlp.down_proj", "feed_forward.w2"},
        {"mlp.up_proj", "feed_forward.w3"}, {"input_layernorm", "attention_norm"}, {"post_attention_layernorm", "ffn_norm"}};
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
    if (!parts_[0]->find("output.weight")) spec_.embeddings = Embeddings::kTied;
  }

  void refuse_others() const {
    std::set<std::string> wanted;
    for (const ParamInfo& info : parameter_list(spec_)) wanted.insert(meta_name(info.name));
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
    COCA_CHECK_AS(kBadFile, rows || columns, "{}: tensor \"{}\" has shape {} in each of {} files; expected a part of {}",
                  parts_[0]->path().string(), name, first.shape.text(), n, shape.text());
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
        for (int64_t r = 0; r < shape[0]; ++r) std::copy_n(values.begin() + r * width, width, out.begin() + r * shape[1] + p * width);
      }
    }
    return out;
  }

  fs::path dir_;
  ModelSpec spec_;
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

std::unique_ptr<TensorSource> open_source(const fs::path& dir, std::optional<AttentionKind> attention) {
  COCA_CHECK_AS(kIo, io::is_folder(dir), "model folder {} does not exist", dir.string());
  if (io::exists(dir / "params.json") && !io::exists(dir / "config.json")) {
    COCA_CHECK(!attention || *attention == AttentionKind::kRope, "{}: Meta's layout holds RoPE models only", dir.string());
    return std::make_unique<MetaSource>(dir);
  }
  return std::make_unique<HuggingFaceSource>(dir, attention);
}

}  // namespace coca::model
