// coca/data/token_file.cc - see token_file.h.
// SPDX-License-Identifier: Apache-2.0
#include "coca/data/token_file.h"

#include <algorithm>
#include <limits>

#include "coca/base/count.h"
#include "coca/base/error.h"
#include "coca/data/token_layout.h"
#include "coca/io/hash.h"

namespace coca::data {

namespace {

std::string padded_text(const std::byte* p, size_t bytes) {
  const char* text = reinterpret_cast<const char*>(p);
  return {text, std::find(text, text + bytes, '\0')};
}

}  // namespace

TokenFile::TokenFile(const std::filesystem::path& file) : name_(file.string()), file_(file) { parse(file_.bytes()); }

void TokenFile::parse(std::span<const std::byte> bytes) {
  using namespace layout;
  constexpr uint64_t kLimit = uint64_t{1} << 56;  // keeps the sums below from wrapping
  COCA_CHECK_AS(kBadFile, bytes.size() >= kMagic.size() && padded_text(bytes.data(), kMagic.size()) == kMagic,
                "{}: not a token file: does not begin with \"{}\"", name_, kMagic);
  COCA_CHECK_AS(kBadFile, bytes.size() >= kHeaderBytes + 8 + kTrailerBytes, "{}: truncated token file of {}", name_,
                counted(bytes.size(), "byte"));
  const std::byte* p = bytes.data();
  const uint32_t version = get<uint32_t>(p + kVersionAt), token_bytes = get<uint32_t>(p + kTokenBytesAt);
  const uint64_t tokens = get<uint64_t>(p + kTokensAt), documents = get<uint64_t>(p + kDocumentsAt);
  const uint64_t vocab = get<uint64_t>(p + kVocabAt);
  COCA_CHECK_AS(kBadFile, version == kVersion, "{}: token file version {}; expected {}", name_, version, kVersion);
  COCA_CHECK_AS(kBadFile, token_bytes == 2 || token_bytes == 4, "{}: {} per token; expected 2 or 4", name_,
                counted(token_bytes, "byte"));
  COCA_CHECK_AS(kBadFile, tokens < kLimit && documents < kLimit, "{}: {} in {} cannot be", name_,
                counted(tokens, "token"), counted(documents, "document"));
  COCA_CHECK_AS(kBadFile, vocab >= 1 && vocab <= uint64_t(std::numeric_limits<int32_t>::max()),
                "{}: vocabulary of {}; expected 1 to 2^31 - 1", name_, counted(vocab, "id"));
  const uint64_t payload = padded8(tokens * token_bytes), offsets = (documents + 1) * 8;
  const uint64_t expected = kHeaderBytes + payload + offsets + kTrailerBytes;
  COCA_CHECK_AS(kBadFile, bytes.size() == expected, "{}: {}; {} in {} take {}{}", name_, counted(bytes.size(), "byte"),
                counted(tokens, "token"), counted(documents, "document"), grouped(expected),
                bytes.size() < expected ? ": truncated?" : "");
  const std::byte* table = p + kHeaderBytes + payload;
  const uint32_t stored = get<uint32_t>(table + offsets);
  const uint32_t computed = io::crc32c(table, offsets, io::crc32c(p, kHeaderBytes));
  COCA_CHECK_AS(kBadFile, stored == computed, "{}: damaged: checksum {:08x}; expected {:08x}", name_, computed, stored);

  payload_ = p + kHeaderBytes;
  token_bytes_ = token_bytes;
  tokens_ = static_cast<int64_t>(tokens);
  vocab_size_ = static_cast<int64_t>(vocab);
  kind_ = padded_text(p + kKindAt, kKindBytes);
  fingerprint_ = padded_text(p + kFingerprintAt, kFingerprintBytes);
  offsets_.resize(documents + 1);
  for (size_t i = 0; i < offsets_.size(); ++i) offsets_[i] = static_cast<int64_t>(get<uint64_t>(table + 8 * i));
  check_offsets();
}

void TokenFile::check_offsets() const {
  COCA_CHECK_AS(kBadFile, !offsets_.empty() && offsets_.front() == 0 && offsets_.back() == tokens_,
                "{}: document offsets must go from 0 to {}", name_, tokens_);
  const auto down = std::adjacent_find(offsets_.begin(), offsets_.end(), std::greater<>());
  COCA_CHECK_AS(kBadFile, down == offsets_.end(), "{}: document {} ends before it begins", name_,
                down - offsets_.begin());
}

TokenFile TokenFile::from_tokens(std::vector<int32_t> tokens, std::vector<int64_t> doc_offsets, int64_t vocab_size) {
  TokenFile file;
  COCA_CHECK(vocab_size >= 1 && vocab_size <= std::numeric_limits<int32_t>::max(),
             "{}: vocabulary of {}; expected 1 to 2^31 - 1", file.name_, counted(vocab_size, "id"));
  file.tokens_ = static_cast<int64_t>(tokens.size());
  file.owned_ = std::move(tokens);
  file.offsets_ = std::move(doc_offsets);
  file.vocab_size_ = vocab_size;
  file.check_offsets();
  return file;
}

std::pair<int64_t, int64_t> TokenFile::document(int64_t i) const {
  COCA_CHECK(i >= 0 && i < documents(), "{}: document {} of {}", name_, i, documents());
  return {offsets_[static_cast<size_t>(i)], offsets_[static_cast<size_t>(i) + 1]};
}

std::string TokenFile::content_fingerprint() const {
  constexpr int64_t kBlock = 4096, kBlocks = 1024;
  const int64_t all = (tokens_ + kBlock - 1) / kBlock, blocks = std::min(all, kBlocks);
  std::vector<int32_t> ids(static_cast<size_t>(std::min(tokens_, kBlock)));
  std::vector<std::byte> bytes(ids.size() * 4);
  const int64_t last = tokens_ - static_cast<int64_t>(ids.size()),
                stride = all <= kBlocks ? kBlock : last / (blocks - 1);
  std::string digest = fmt::format("{}", tokens_);
  for (int64_t i = 0; i < blocks; ++i) {
    const int64_t start =
        i == blocks - 1 ? last : i * stride;  // blocks may overlap: all tokens of a short file are read
    read(start, ids);
    for (size_t k = 0; k < ids.size(); ++k) layout::put(&bytes[4 * k], static_cast<uint32_t>(ids[k]));
    digest += io::fingerprint64({reinterpret_cast<const char*>(bytes.data()), bytes.size()});
  }
  return io::fingerprint64(digest);
}

void TokenFile::read(int64_t start, std::span<int32_t> out) const {
  const int64_t count = static_cast<int64_t>(out.size());
  COCA_CHECK(start >= 0 && count <= tokens_ && start <= tokens_ - count, "{}: {} from {} on, of {}", name_,
             counted(count, "token"), start, grouped(tokens_));
  const size_t first = static_cast<size_t>(start);
  if (payload_ == nullptr) {
    std::copy_n(owned_.begin() + start, count, out.begin());
  } else if (token_bytes_ == 2) {
    for (size_t i = 0; i < out.size(); ++i) out[i] = layout::get<uint16_t>(payload_ + 2 * (first + i));
  } else {
    for (size_t i = 0; i < out.size(); ++i)
      out[i] = static_cast<int32_t>(layout::get<uint32_t>(payload_ + 4 * (first + i)));
  }
  const auto bad = std::find_if(out.begin(), out.end(), [&](int32_t id) { return id < 0 || id >= vocab_size_; });
  COCA_CHECK_AS(kBadFile, bad == out.end(), "{}: token {} is {}; expected 0 to {}", name_, start + (bad - out.begin()),
                *bad, vocab_size_ - 1);
}

}  // namespace coca::data
