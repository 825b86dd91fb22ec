// coca/formats/model_folder.h - a model as a folder: config.json and model.safetensors (or shards with an index), in
// Hugging Face's layout.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <filesystem>
#include <map>
#include <memory>
#include <string>

#include "coca/formats/weight_files.h"
#include "coca/model/params.h"
#include "coca/model/spec.h"

namespace coca::formats {

// Whether a model's T projection of full width is folded to half while it is loaded (t_width.h), where that is
// possible.
enum class LoadT : uint8_t { kAsStored, kFolded };

// A folder whose config.json and headers of weights are read only once. The weights stay mapped.
class ModelFolder {
 public:
  // Reads config.json; of weights, where there are some, only one thing: a head of its own in a model said to be tied
  // makes it untied, with a warning.
  explicit ModelFolder(const std::filesystem::path& dir);

  const model::ModelSpec& spec() const { return spec_; }
  const WeightFiles& weights();  // opened, and checked as by check_tensors(), by the first call
  // CRC-32C of the first 64 KiB of every tensor as it is stored, in the order of their names: 8 hexadecimal digits.
  std::string fingerprint();

 private:
  std::filesystem::path dir_;
  model::ModelSpec spec_;
  std::unique_ptr<WeightFiles> weights_;
  bool checked_ = false;
};

// For an error about a folder that is no model but belongs to a run, or is an adapter: "; ..." with what to give
// instead; else empty.
std::string what_instead(const std::filesystem::path& dir);
// The same for a folder that is given as an adapter and is none.
std::string adapter_instead(const std::filesystem::path& dir);

// Errors name the folder, the file and the tensor: missing, unexpected, of another shape, or not finite.
model::Model load_model(ModelFolder&, model::Precision = model::Precision::kF32, LoadT = LoadT::kAsStored);
model::Model load_model(const std::filesystem::path& dir, model::Precision = model::Precision::kF32,
                        LoadT = LoadT::kAsStored);
model::ModelSpec load_spec(const std::filesystem::path& dir);

// Error for a tensor of the spec that the files lack or hold in another shape, and for one that the spec does not have.
void check_tensors(const WeightFiles&, const model::ModelSpec&);

// Tensors of a folder or of one file, of the given spec, into a store of the same model. The store may hold T at the
// other width. It may be without CLEX's network, or have it where the spec does not, and then keeps what it holds; F32,
// F16, BF16 and F64 are converted to the store's precision, through fp32, a block at a time.
void load_params(const std::filesystem::path& folder_or_file, const model::ModelSpec&, model::ParamStore&);
void load_params(ModelFolder&, model::ParamStore&);
void save_params(const std::filesystem::path& file, const model::ParamStore&,
                 const std::map<std::string, std::string>& metadata);

struct SaveOptions {
  size_t max_shard_bytes = size_t{5} << 30;  // larger models are cut into shards; a tensor is never cut
};
// Writes config.json and the weights into an existing folder, each file atomically.
void save_model(const std::filesystem::path& dir, const model::ModelSpec&, const model::ParamStore&,
                const SaveOptions& = {});

}  // namespace coca::formats
