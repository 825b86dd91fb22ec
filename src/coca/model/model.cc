// SPDX-License-Identifier: Apache-2.0
#include "coca/model/model.h"

#include <cmath>
#include <cstring>
#include <set>

#include "coca/io/json_file.h"
#include "coca/io/safetensors.h"
#include "coca/model/config.h"

namespace coca::model {

namespace fs = std::filesystem;

namespace {

// Buffers older files carry; we compute them.
bool is_buffer(std::string_view name) {
  return name.ends_with(".rotary_emb.inv_freq") || name.ends_with(".attention.bias") ||
         name.ends_with(".attention.masked_bias");
}

}  // namespace

ModelSpec load_spec(const fs::path& dir) {
  const fs::path file = dir / "config.json";
  COCA_CHECK_AS(kIo, fs::exists(dir), "model folder {} does not exist", dir.string());
  COCA_CHECK_AS(kIo, fs::exists(file), "{} has no config.json: not a model folder", dir.string());
  return spec_from_json(io::read_json(file), file.string());
}

void load_params(const fs::path& file, const ModelSpec& spec, ParamStore& store) {
  const io::SafetensorsFile stored(file);
  std::set<std::string, std::less<>> wanted;
  for (const ParamInfo& info : store.infos()) {
    wanted.insert(info.name);
    const io::StoredTensor* tensor = stored.find(info.name);
    COCA_CHECK_AS(kBadFile, tensor, "{}: tensor \"{}\" is missing", file.string(), info.name);
    COCA_CHECK_AS(kBadFile, tensor->shape == info.shape, "{}: tensor \"{}\" has shape {}; config.json asks for {}",
                  file.string(), info.name, tensor->shape.text(), info.shape.text());
    const std::vector<float> values = io::to_f32(*tensor);
    for (size_t i = 0; i < values.size(); ++i)
      COCA_CHECK_AS(kBadFile, std::isfinite(values[i]), "{}: tensor \"{}\" holds {} at element {}; expected finite values",
                    file.string(), info.name, values[i], i);
    std::memcpy(store.at(info).data, values.data(), values.size() * sizeof(float));
  }
  for (const io::StoredTensor& tensor : stored.tensors()) {
    const bool tied_head = spec.embeddings == Embeddings::kTied && (tensor.name == "lm_head.weight" || tensor.name == "embed_out.weight");
    COCA_CHECK_AS(kBadFile, wanted.contains(tensor.name) || is_buffer(tensor.name) || tied_head,
                  "{}: tensor \"{}\" does not belong to a {} model with attention \"{}\"", file.string(), tensor.name,
                  enum_name(spec.architecture), enum_name(spec.attention));
  }
}

Model load_model(const fs::path& dir) {
  Model model{load_spec(dir), nullptr};
  model.params = std::make_unique<ParamStore>(model.spec);
  const fs::path file = dir / "model.safetensors";
  COCA_CHECK_AS(kIo, fs::exists(file), "{} has no model.safetensors", dir.string());
  load_params(file, model.spec, *model.params);
  return model;
}

void save_params(const fs::path& file, const ParamStore& store, const std::map<std::string, std::string>& metadata) {
  std::vector<io::TensorToSave> tensors;
  for (const ParamInfo& info : store.infos()) tensors.push_back({info.name, store.at(info)});
  io::save_safetensors(file, tensors, metadata);
}

void save_model(const fs::path& dir, const ModelSpec& spec, const ParamStore& store) {
  io::write_json(dir / "config.json", spec_to_json(spec));
  save_params(dir / "model.safetensors", store, {{"format", "pt"}});
}

}  // namespace coca::model
