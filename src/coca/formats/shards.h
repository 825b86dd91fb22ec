// coca/formats/shards.h - how the tensors of a model are spread over weight files: model.safetensors, or
// model-00001-of-00003.safetensors, ... and an index.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <filesystem>
#include <string>
#include <utility>
#include <vector>

#include "coca/io/safetensors.h"

namespace coca::formats {

// Tensors by their bytes, in order, into as few files as max_bytes allows; a tensor is never cut. Returns the tensors
// of each file.
std::vector<std::vector<size_t>> plan_shards(const std::vector<size_t>& tensor_bytes, size_t max_bytes);

// Writes the files one after the other, so that one of them at a time need be in memory.
class ShardWriter {
 public:
  ShardWriter(std::filesystem::path dir, size_t files) : dir_(std::move(dir)), files_(files) {}
  void write(const std::vector<io::TensorToSave>& tensors);  // the next file, atomically; after the last one the index

 private:
  std::filesystem::path dir_;
  size_t files_, written_ = 0, bytes_ = 0;
  std::vector<std::pair<std::string, std::string>> file_of_;  // tensor, file
};

}  // namespace coca::formats
