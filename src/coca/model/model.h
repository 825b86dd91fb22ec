// coca/model/model.h - a model as a folder: config.json and model.safetensors, in Hugging Face's layout.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <filesystem>
#include <map>
#include <memory>
#include <string>

#include "coca/model/params.h"
#include "coca/model/spec.h"

namespace coca::model {

struct Model {
  ModelSpec spec;
  std::unique_ptr<ParamStore> params;
};

// Errors name the folder, the file and the tensor: missing, unexpected, of another shape, or not finite.
Model load_model(const std::filesystem::path& dir, Precision = Precision::kF32);
// Only config.json.
ModelSpec load_spec(const std::filesystem::path& dir);

// Tensors of one file into a store of the same spec; F32, F16, BF16 and F64 are converted to the
// store's precision, through fp32, a block at a time.
void load_params(const std::filesystem::path& file, const ModelSpec&, ParamStore&);
void save_params(const std::filesystem::path& file, const ParamStore&, const std::map<std::string, std::string>& metadata);

// Writes config.json and model.safetensors into an existing folder, each atomically.
void save_model(const std::filesystem::path& dir, const ModelSpec&, const ParamStore&);

}  // namespace coca::model
