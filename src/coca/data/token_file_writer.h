// coca/data/token_file_writer.h - writes token files, document by document. Layout: docs/formats.md.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstdint>
#include <filesystem>
#include <span>
#include <vector>

#include "coca/data/token_layout.h"
#include "coca/io/fs.h"
#include "coca/text/tokenizer.h"

namespace coca::data {

// The file appears under its name at finish(), or not at all. Error kIo if another process is writing it.
class TokenFileWriter {
 public:
  TokenFileWriter(const std::filesystem::path& output, const text::Tokenizer& tokenizer);

  void append(std::span<const int32_t> ids);  // to the document that is being written
  void end_document();
  void finish();

  uint64_t tokens() const { return tokens_; }
  int64_t documents() const { return static_cast<int64_t>(offsets_.size()) - 1; }

 private:
  io::AtomicFile file_;
  int64_t vocab_size_;
  size_t token_bytes_;
  std::array<std::byte, layout::kHeaderBytes> header_{};
  uint64_t tokens_ = 0;
  std::vector<uint64_t> offsets_{0};
};

}  // namespace coca::data
