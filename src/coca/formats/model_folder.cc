// SPDX-License-Identifier: Apache-2.0
#include "coca/formats/model_folder.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <optional>
#include <set>
#include <span>
#include <vector>

#include "coca/base/count.h"
#include "coca/base/log.h"
#include "coca/base/parallel.h"
#include "coca/formats/config.h"
#include "coca/formats/shards.h"
#include "coca/io/fs.h"
#include "coca/io/hash.h"
#include "coca/io/json_file.h"
#include "coca/io/safetensors.h"
#include "coca/model/architecture.h"
#include "coca/model/t_width.h"

namespace coca::formats {

namespace fs = std::filesystem;

namespace {

// Buffers older files carry; we compute them.
bool is_buffer(std::string_view name) {
  return name.ends_with(".rotary_emb.inv_freq") || name.ends_with(".attention.bias") ||
         name.ends_with(".attention.masked_bias");
}

// As a store of that type holds it.
float stored_value(float value, DType type) { return type == DType::kBF16 ? static_cast<float>(BF16(value)) : value; }

// From element `first` of `out` (f32 or bf16) on.
void store(std::span<const float> values, MutTensorRef out, int64_t first) {
  if (out.dtype == DType::kBF16)
    std::ranges::transform(values, out.as<BF16>() + first, [](float x) { return BF16(x); });
  else
    std::ranges::copy(values, out.as<float>() + first);
}

// Fills `out` (f32 or bf16). Returns the first element that is not finite in it, if any.
std::optional<int64_t> load_values(const io::StoredTensor& tensor, MutTensorRef out) {
  constexpr int64_t kBlock = 4096;
  const int64_t n = out.numel();
  io::read_values(tensor, 0, {});  // throws for a type it cannot read; the threads below must not
  std::atomic<int64_t> first_bad{n};
  parallel_blocks(n, kBlock, [&](int64_t begin, int64_t end) {
    float values[kBlock];
    const auto count = static_cast<size_t>(end - begin);
    io::read_values(tensor, begin, {values, count});
    for (int64_t i = begin; i < end; ++i) {
      if (std::isfinite(stored_value(values[i - begin], out.dtype))) continue;
      for (int64_t seen = first_bad; i < seen && !first_bad.compare_exchange_weak(seen, i);) {
      }
      return;
    }
    store({values, count}, out, begin);
  });
  return first_bad < n ? std::optional<int64_t>(first_bad) : std::nullopt;
}

bool is_head(std::string_view name) { return name == "lm_head.weight" || name == "embed_out.weight"; }

bool equal_values(const WeightFiles::Entry& a, const WeightFiles::Entry& b) {
  constexpr int64_t kBlock = 1 << 16;
  std::vector<float> left(kBlock), right(kBlock);
  bool equal = a.tensor->shape == b.tensor->shape;
  const int64_t n = a.tensor->shape.product();
  for (int64_t at = 0; equal && at < n; at += kBlock) {
    const auto count = static_cast<size_t>(std::min(kBlock, n - at));
    io::read_values(*a.tensor, at, {left.data(), count});
    io::read_values(*b.tensor, at, {right.data(), count});
    equal = std::equal(left.begin(), left.begin() + static_cast<std::ptrdiff_t>(count), right.begin());
  }
  a.file->release(*a.tensor);
  b.file->release(*b.tensor);
  return equal;
}

// config.json may say that head and embedding are one tensor while the weights hold two: a merge or an extended
// vocabulary leaves that. The weights count.
void untie_another_head(const fs::path& config, const WeightFiles& stored, model::ModelSpec& spec) {
  const model::TensorNames names = model::tensor_names(spec);
  const WeightFiles::Entry head = stored.find(names.head + ".weight"), embed = stored.find(names.embed + ".weight");
  if (!head.tensor || !embed.tensor || equal_values(head, embed)) return;
  spec.embeddings = model::Embeddings::kUntied;
  log_once(LogLevel::kWarning,
           fmt::format("{}: \"{}.weight\" differs from \"{}.weight\", though {} says tie_word_embeddings; they are "
                       "kept apart, and what is saved of this model is untied",
                       head.file->path().string(), names.head, names.embed, config.string()));
}

constexpr const char *kModelFile = "config.json", *kAdapterFile = "adapter_config.json";

bool holds(const fs::path& folder, const char* file) { return io::exists(folder / file); }

// The folder of the run that this folder is, or belongs to.
fs::path run_of(const fs::path& dir) { return io::exists(dir / "checkpoints") ? dir : dir.parent_path(); }

fs::path newest_checkpoint(const fs::path& run) {
  fs::path newest;
  int64_t most = -1;
  std::error_code none;
  for (const auto& entry : fs::directory_iterator(run / "checkpoints", none)) {
    const std::string name = entry.path().filename().string();
    const std::string digits = name.starts_with("step-") ? name.substr(5) : "";
    if (digits.empty() || digits.size() > 18 || digits.find_first_not_of("0123456789") != std::string::npos) continue;
    if (const int64_t step = std::stoll(digits); step > most) {
      most = step;
      newest = entry.path();
    }
  }
  return newest;
}

}  // namespace

std::string what_instead(const fs::path& dir) {
  if (holds(dir, kAdapterFile))
    return "; it holds an adapter: give it as --adapter, and the model it was trained on as --model";
  if (holds(dir / "model", kModelFile)) return fmt::format("; the model is in {}", (dir / "model").string());
  const fs::path run = run_of(dir), newest = newest_checkpoint(run);
  if (holds(run / "adapter", kAdapterFile))
    return fmt::format(
        "; the run {} trained an adapter: give {} as --adapter, and the model it was trained on as --model",
        run.string(), (run / "adapter").string());
  if (newest.empty()) return "";
  if (holds(newest, kAdapterFile))
    return fmt::format("; the run {} is not finished: give its newest checkpoint, {}, as --adapter", run.string(),
                       newest.string());
  return fmt::format("; the run {} is not finished: its newest checkpoint is {}", run.string(), newest.string());
}

std::string adapter_instead(const fs::path& dir) {
  for (const fs::path& run : {dir, dir.parent_path()})
    if (holds(run / "adapter", kAdapterFile)) return fmt::format("; the adapter is in {}", (run / "adapter").string());
  if (const fs::path run = run_of(dir), newest = newest_checkpoint(run); holds(newest, kAdapterFile))
    return fmt::format("; the run {} is not finished: its newest checkpoint is {}", run.string(), newest.string());
  for (const fs::path& model : {dir, dir / "model"})
    if (holds(model, kModelFile)) return fmt::format("; {} is a model: give it as --model", model.string());
  return "";
}

ModelFolder::ModelFolder(const fs::path& dir) : dir_(dir) {
  const fs::path file = dir / "config.json";
  COCA_CHECK_AS(kIo, io::exists(dir), "model folder {} does not exist{}", dir.string(), what_instead(dir));
  COCA_CHECK_AS(kIo, io::exists(file), "{} has no config.json: not a model folder{}", dir.string(), what_instead(dir));
  spec_ = spec_from_json(io::read_json(file), file.string());
  if (spec_.embeddings != model::Embeddings::kTied || !WeightFiles::are_in(dir)) return;
  weights_ = std::make_unique<WeightFiles>(dir);
  untie_another_head(file, *weights_, spec_);
}

const WeightFiles& ModelFolder::weights() {
  if (!weights_) weights_ = std::make_unique<WeightFiles>(dir_);
  if (!checked_) check_tensors(*weights_, spec_);
  checked_ = true;
  return *weights_;
}

std::string ModelFolder::fingerprint() {
  constexpr size_t kBytes = 65536;
  const WeightFiles& stored = weights();
  std::set<std::string> names;
  for (const model::ParamInfo& info : model::parameter_list(spec_)) names.insert(info.name);
  uint32_t sum = 0;
  for (const std::string& name : names) {
    const io::StoredTensor& tensor = *stored.at(name).tensor;
    sum = io::crc32c(tensor.data, std::min(tensor.bytes, kBytes), sum);
  }
  return fmt::format("{:08x}", sum);
}

model::ModelSpec load_spec(const fs::path& dir) { return ModelFolder(dir).spec(); }

void check_tensors(const WeightFiles& stored, const model::ModelSpec& spec) {
  std::set<std::string, std::less<>> wanted;
  const model::TensorNames names = model::tensor_names(spec);
  // Before the list of all tensors is made, which config.json alone must not make long.
  COCA_CHECK_AS(kBadFile, static_cast<int64_t>(stored.entries().size()) >= spec.L, "{}: {} for a model of {}",
                stored.where(), counted(stored.entries().size(), "tensor"), counted(spec.L, "layer"));
  // config.json of the official code says nothing of CoCA; its tensors do, except GPT-NeoX's.
  COCA_CHECK_AS(
      kBadFile,
      model::is_coca(spec.attention) || spec.qkv == model::Qkv::kFused ||
          !stored.find(names.layer + "0.self_attn.t_proj.weight").tensor,
      "{}: holds t_proj, but config.json does not say attention_type: an official CoCA model; make it one of ours with "
      "`coca convert DIR OUT --source-attention coca-slack`",
      stored.where());
  for (const model::ParamInfo& info : model::parameter_list(spec)) {
    wanted.insert(info.name);
    const auto [file, tensor] = stored.at(info.name);
    COCA_CHECK_AS(kBadFile, tensor->shape == info.shape, "{}: tensor \"{}\" has shape {}; config.json asks for {}",
                  file->path().string(), info.name, tensor->shape.text(), info.shape.text());
  }
  for (const auto& [name, entry] : stored.entries()) {
    const bool tied_head = spec.embeddings == model::Embeddings::kTied && is_head(name);
    COCA_CHECK_AS(kBadFile, wanted.contains(name) || is_buffer(name) || tied_head,
                  "{}: tensor \"{}\" does not belong to a {} model with attention \"{}\"", entry.file->path().string(),
                  name, enum_name(spec.architecture), enum_name(spec.attention));
  }
}

namespace {

// A tensor that holds T, from a file at one width into a store at the other. Returns the first element that is not
// finite.
std::optional<int64_t> load_t(const model::ModelSpec& stored, const io::StoredTensor& tensor, MutTensorRef out) {
  std::vector<float> values = io::to_f32(tensor);
  for (size_t i = 0; i < values.size(); ++i)
    if (!std::isfinite(stored_value(values[i], out.dtype))) return static_cast<int64_t>(i);
  const model::ModelSpec other =
      model::with_t_width(stored, stored.t_width == model::TWidth::kFull ? model::TWidth::kHalf : model::TWidth::kFull);
  values = model::change_t_width(stored, other, std::move(values), out.rank() == 2 ? out.size(1) : 1);
  COCA_CHECK_AS(kInternal, std::ssize(values) == out.numel(), "tensor \"{}\" does not fit a store of {}", tensor.name,
                out.shape.text());
  store(values, out, 0);
  return std::nullopt;
}

void load_checked(const WeightFiles& stored, const model::ModelSpec& spec, model::ParamStore& store) {
  for (const model::ParamInfo& info : store.infos()) {
    if (model::is_clex(info.role) && spec.rope_scaling.type != model::Scaling::kClex) continue;
    const auto [file, tensor] = stored.at(info.name);
    const bool as_stored = tensor->shape == info.shape;
    if (const std::optional<int64_t> bad =
            as_stored ? load_values(*tensor, store.at(info)) : load_t(spec, *tensor, store.at(info))) {
      float value = 0;
      io::read_values(*tensor, *bad, {&value, 1});
      fail(ErrorKind::kBadFile, "{}: tensor \"{}\" holds {} at element {}; expected {}", file->path().string(),
           info.name, without_nan_sign(value), *bad,
           std::isfinite(value) ? "at most 3.38953e38, as --precision bf16 needs" : "finite values");
    }
    file->release(*tensor);
  }
}

}  // namespace

void load_params(const fs::path& at, const model::ModelSpec& spec, model::ParamStore& store) {
  const WeightFiles stored(at);
  check_tensors(stored, spec);
  load_checked(stored, spec, store);
}

void load_params(ModelFolder& folder, model::ParamStore& store) {
  load_checked(folder.weights(), folder.spec(), store);
}

model::Model load_model(ModelFolder& folder, model::Precision precision, LoadT t) {
  const model::ModelSpec& spec = folder.spec();
  const WeightFiles& stored = folder.weights();  // memory is taken for tensors that are there
  model::Model model{t == LoadT::kFolded ? model::folded_t(spec) : spec, nullptr};
  model.params = std::make_unique<model::ParamStore>(model.spec, precision);
  load_checked(stored, spec, *model.params);
  return model;
}

model::Model load_model(const fs::path& dir, model::Precision precision, LoadT t) {
  ModelFolder folder(dir);
  return load_model(folder, precision, t);
}

void save_params(const fs::path& file, const model::ParamStore& store,
                 const std::map<std::string, std::string>& metadata) {
  std::vector<io::TensorToSave> tensors;
  for (const model::ParamInfo& info : store.infos()) tensors.push_back({info.name, store.at(info)});
  io::save_safetensors(file, tensors, metadata);
}

void save_model(const fs::path& dir, const model::ModelSpec& spec, const model::ParamStore& store,
                const SaveOptions& options) {
  io::write_json(dir / "config.json", spec_to_json(spec, store.precision()));
  std::vector<io::TensorToSave> tensors;
  std::vector<size_t> sizes;
  for (const model::ParamInfo& info : store.infos()) {
    tensors.push_back({info.name, store.at(info)});
    sizes.push_back(tensors.back().value.bytes());
  }
  const auto shards = plan_shards(sizes, options.max_shard_bytes);
  ShardWriter writer(dir, shards.size());
  for (const std::vector<size_t>& shard : shards) {
    std::vector<io::TensorToSave> part;
    part.reserve(shard.size());
    for (const size_t i : shard) part.push_back(tensors[i]);
    writer.write(part);
  }
}

}  // namespace coca::formats
