// SPDX-License-Identifier: Apache-2.0
#include "coca/data/token_file_writer.h"

#include <algorithm>
#include <string>

#include "coca/base/count.h"
#include "coca/base/error.h"
#include "coca/io/hash.h"

namespace coca::data {

namespace {

void put_text(std::byte* p, size_t bytes, const std::string& text, const char* what) {
  COCA_CHECK_AS(kInternal, text.size() < bytes, "token file: {} \"{}\" has more than {}", what, text,
                counted(bytes - 1, "byte"));
  std::transform(text.begin(), text.end(), p, [](char c) { return static_cast<std::byte>(c); });
}

}  // namespace

TokenFileWriter::TokenFileWriter(const std::filesystem::path& output, const text::Tokenizer& tokenizer)
    : file_(output, io::AtomicFile::Writers::kOne),
      vocab_size_(tokenizer.vocab_size()),
      token_bytes_(vocab_size_ <= 65536 ? 2 : 4) {
  put_text(header_.data() + layout::kKindAt, layout::kKindBytes, tokenizer.kind(), "tokenizer kind");
  put_text(header_.data() + layout::kFingerprintAt, layout::kFingerprintBytes, tokenizer.fingerprint(),
           "tokenizer fingerprint");
  file_.write(header_.data(), header_.size());  // counts follow in finish()
}

void TokenFileWriter::append(std::span<const int32_t> ids) {
  constexpr size_t kBlock = size_t{1} << 18;  // ids turned into bytes at once
  while (ids.size() > kBlock) {
    append(ids.first(kBlock));
    ids = ids.subspan(kBlock);
  }
  std::vector<std::byte> bytes(ids.size() * token_bytes_);
  for (size_t i = 0; i < ids.size(); ++i) {
    COCA_CHECK_AS(kInternal, ids[i] >= 0 && ids[i] < vocab_size_, "tokenizer gave id {} of a vocabulary of {}", ids[i],
                  vocab_size_);
    if (token_bytes_ == 2)
      layout::put(&bytes[2 * i], static_cast<uint16_t>(ids[i]));
    else
      layout::put(&bytes[4 * i], static_cast<uint32_t>(ids[i]));
  }
  file_.write(bytes.data(), bytes.size());
  tokens_ += ids.size();
}

void TokenFileWriter::end_document() { offsets_.push_back(tokens_); }

void TokenFileWriter::finish() {
  using namespace layout;
  COCA_CHECK_AS(kInternal, offsets_.back() == tokens_, "token file: the last document was not ended");
  const std::array<std::byte, 8> zeros{};
  file_.write(zeros.data(), padded8(file_.size()) - file_.size());
  std::transform(kMagic.begin(), kMagic.end(), header_.begin(), [](char c) { return static_cast<std::byte>(c); });
  put(&header_[kVersionAt], kVersion);
  put(&header_[kTokenBytesAt], static_cast<uint32_t>(token_bytes_));
  put(&header_[kTokensAt], tokens());
  put(&header_[kDocumentsAt], static_cast<uint64_t>(offsets_.size() - 1));
  put(&header_[kVocabAt], static_cast<uint64_t>(vocab_size_));
  std::vector<std::byte> table(offsets_.size() * 8 + kTrailerBytes);
  for (size_t i = 0; i < offsets_.size(); ++i) put(&table[8 * i], offsets_[i]);
  const size_t table_bytes = offsets_.size() * 8;
  put(&table[table_bytes], io::crc32c(table.data(), table_bytes, io::crc32c(header_.data(), header_.size())));
  file_.write(table.data(), table.size());
  file_.write_at(0, header_.data(), header_.size());
  file_.commit();
}

}  // namespace coca::data
