// SPDX-License-Identifier: Apache-2.0
#include "coca/formats/shards.h"

#include "coca/io/json_file.h"

namespace coca::formats {

std::vector<std::vector<size_t>> plan_shards(const std::vector<size_t>& tensor_bytes, size_t max_bytes) {
  std::vector<std::vector<size_t>> shards(1);
  size_t bytes = 0;
  for (size_t i = 0; i < tensor_bytes.size(); ++i) {
    if (!shards.back().empty() && bytes + tensor_bytes[i] > max_bytes) {
      shards.emplace_back();
      bytes = 0;
    }
    shards.back().push_back(i);
    bytes += tensor_bytes[i];
  }
  return shards;
}

void ShardWriter::write(const std::vector<io::TensorToSave>& tensors) {
  ++written_;
  const std::string name =
      files_ == 1 ? "model.safetensors" : fmt::format("model-{:05d}-of-{:05d}.safetensors", written_, files_);
  io::save_safetensors(dir_ / name, tensors, {{"format", "pt"}});
  for (const io::TensorToSave& tensor : tensors) {
    file_of_.emplace_back(tensor.name, name);
    bytes_ += tensor.value.bytes();
  }
  if (files_ == 1 || written_ < files_) return;
  nlohmann::ordered_json index;
  for (const auto& [tensor, file] : file_of_) index["weight_map"][tensor] = file;
  index["metadata"] = {{"total_size", bytes_}};
  io::write_json(dir_ / "model.safetensors.index.json", index);
}

}  // namespace coca::formats
