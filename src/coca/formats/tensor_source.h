// coca/formats/tensor_source.h - the tensors of a model under Hugging Face's names, whatever layout they are stored in.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "coca/formats/convert.h"
#include "coca/model/params.h"

namespace coca::formats {

class TensorSource {
 public:
  virtual ~TensorSource() = default;
  virtual Layout layout() const = 0;
  virtual const model::ModelSpec& spec() const = 0;
  virtual DType stored_type(const model::ParamInfo&) const = 0;
  // Values in the order of the shape; Error naming the tensor when it is missing, of another shape or not finite.
  virtual std::vector<float> read(const model::ParamInfo&) const = 0;
};

// By what the folder holds: params.json (and no config.json) is Meta's. attention replaces what config.json says; meta
// adds to params.json and must be empty for another layout.
std::unique_ptr<TensorSource> open_source(const std::filesystem::path& dir,
                                          std::optional<model::AttentionKind> attention, const MetaSettings& meta = {});

// Meta's rows of a rotary projection [heads * D, C], pairs side by side, in half-split order.
std::vector<float> half_split_rows(const std::vector<float>& interleaved, int64_t heads, int64_t D, int64_t C);

}  // namespace coca::formats
