// coca/io/safetensors.h - the safetensors format: 8 bytes header length (little endian), a JSON header, raw
// data. The reader accepts untrusted files: every violation of the format is Error kBadFile with file, tensor, found
// and expected.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <filesystem>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "coca/io/mmap.h"
#include "coca/tensor/tensor.h"

namespace coca::io {

struct StoredTensor {
  std::string name;
  DType dtype = DType::kF32;
  Dims shape;  // rank 0 is a scalar
  const std::byte* data = nullptr;
  size_t bytes = 0;

  TensorRef ref() const { return {data, dtype, shape, kHost}; }
};

// The tensors live as long as this object (moving it keeps them valid). Data points into the mapped file. The
// format does not promise aligned data: a tensor that is not aligned to its element size is copied on
// opening.
class SafetensorsFile {
 public:
  explicit SafetensorsFile(const std::filesystem::path& file);

  const std::vector<StoredTensor>& tensors() const { return tensors_; }  // in the order of their data
  const StoredTensor* find(std::string_view name) const;                 // null when absent
  const StoredTensor& at(std::string_view name) const;                   // Error naming file and tensor
  const std::map<std::string, std::string>& metadata() const { return metadata_; }
  const std::filesystem::path& path() const { return path_; }
  // Releases the memory of the tensor's pages; it can still be read, again from the file.
  void release(const StoredTensor&) const;

 private:
  std::filesystem::path path_;
  MappedFile file_;
  std::vector<Buffer> copies_;
  std::vector<StoredTensor> tensors_;
  std::map<std::string, size_t, std::less<>> index_;
  std::map<std::string, std::string> metadata_;
};

struct TensorToSave {
  std::string name;
  TensorRef value;  // contiguous
};

// Atomic and deterministic: tensors are ordered by element size (largest first), then name, so that each is
// aligned; the header is padded with spaces until the data starts at a multiple of 8.
void save_safetensors(const std::filesystem::path& file, const std::vector<TensorToSave>& tensors,
                      const std::map<std::string, std::string>& metadata = {});

// Values of an F32, F16, BF16 or F64 tensor; Error for other types. read_values: those from `first` on.
std::vector<float> to_f32(const StoredTensor& tensor);
void read_values(const StoredTensor& tensor, int64_t first, std::span<float> values);

}  // namespace coca::io
