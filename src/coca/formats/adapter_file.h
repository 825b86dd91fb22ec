// coca/formats/adapter_file.h - a LoRA adapter as a folder in PEFT's layout: adapter_config.json,
// adapter_model.safetensors (docs/formats.md).
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <filesystem>
#include <memory>

#include "coca/model/adapter.h"

namespace coca::formats {

// Into an existing folder; from one. What changes the meaning of the tensors and is not supported (DoRA, biases, whole
// modules, other initialisations that change the base, ...) is an Error naming the field, and so are tensors that do
// not fit. The fields coca_attention and coca_base_fingerprint, which PEFT does not write, say for which model the
// adapter was trained: another attention kind is an Error, another fingerprint a warning. `fingerprint` is that of the
// model's folder; the adapter returned has it. Empty: not compared.
void save_adapter(const std::filesystem::path& dir, const model::Adapter&);
// Errors name the folder, the file, and the field or the tensor: missing, of another shape, or not finite.
std::unique_ptr<model::Adapter> load_adapter(const std::filesystem::path& dir, const model::ModelSpec&,
                                             const std::string& fingerprint = "");
// Values into an adapter of the same targets, bit for bit (F32).
void load_adapter_tensors(const std::filesystem::path& dir, model::Adapter&);

}  // namespace coca::formats
