// coca/io/mmap.h - a read-only view of a whole file. Replace files by rename, never in place: shrinking a
// mapped file kills its readers with SIGBUS.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <filesystem>
#include <span>

namespace coca::io {

class MappedFile {
 public:
  MappedFile() = default;
  explicit MappedFile(const std::filesystem::path& file);
  ~MappedFile();
  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&& other) noexcept;

  std::span<const std::byte> bytes() const { return bytes_; }  // empty for an empty file
  // Releases the memory of whole pages in `part`; the next read loads them from the file again. A part that is not of
  // this file is left alone.
  void release(std::span<const std::byte> part) const;

 private:
  std::span<const std::byte> bytes_;
};

}  // namespace coca::io
