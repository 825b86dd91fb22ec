// coca/formats/weight_files.h - the tensors of a model folder: model.safetensors, or shards named by
// model.safetensors.index.json. Files are mapped, not read.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <filesystem>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "coca/io/safetensors.h"

namespace coca::formats {

class WeightFiles {
 public:
  // A folder, or one .safetensors file. Where a folder holds both forms model.safetensors is taken, as by transformers.
  // Error for folders without weights (naming other formats found there), shards that are missing or lie elsewhere, and
  // an index that does not agree with its shards.
  explicit WeightFiles(const std::filesystem::path& folder_or_file);

  static bool are_in(const std::filesystem::path& folder);

  struct Entry {
    const io::SafetensorsFile* file;
    const io::StoredTensor* tensor;
  };
  // Null tensor when absent.
  Entry find(std::string_view name) const;
  Entry at(std::string_view name) const;  // Error naming the tensor and where it was looked for
  const std::map<std::string, Entry, std::less<>>& entries() const { return entries_; }
  std::string where() const { return where_.string(); }  // the file, or the index
  size_t bytes() const;                                  // of all tensors

 private:
  void add_file(const std::filesystem::path& file);
  void open_shards(const std::filesystem::path& index);

  std::filesystem::path where_;
  std::vector<std::unique_ptr<io::SafetensorsFile>> files_;
  std::map<std::string, Entry, std::less<>> entries_;
};

// Error naming the file or folder, the tensor, its first value that is not finite and that value's place.
void check_finite(std::span<const float> values, const std::string& where, std::string_view tensor);

}  // namespace coca::formats
