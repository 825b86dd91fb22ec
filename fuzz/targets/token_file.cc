// A token file, both unchanged and with a corrected checksum, so that the checks after the checksum are reached too.
// SPDX-License-Identifier: Apache-2.0
#include "coca/data/token_file.h"
#include "coca/data/token_layout.h"
#include "coca/io/hash.h"
#include "support/harness.h"

using namespace coca;

static std::string with_checksum(std::string file) {
  namespace layout = data::layout;
  if (file.size() < layout::kHeaderBytes + layout::kTrailerBytes) return file;
  auto* const bytes = reinterpret_cast<std::byte*>(file.data());
  const uint64_t payload = layout::padded8(layout::get<uint64_t>(bytes + layout::kTokensAt) *
                                           layout::get<uint32_t>(bytes + layout::kTokenBytesAt));
  const uint64_t end = file.size() - layout::kTrailerBytes;
  if (payload > end - layout::kHeaderBytes) return file;
  const uint64_t table = layout::kHeaderBytes + payload;
  layout::put(bytes + end, io::crc32c(bytes + table, end - table, io::crc32c(bytes, layout::kHeaderBytes)));
  return file;
}

static void use(std::string_view content) {
  const fuzz::MemoryFile memory(content);
  const data::TokenFile file(memory.path());
  std::vector<int32_t> ids(static_cast<size_t>(file.size()));
  for (int64_t i = 0; i < file.documents(); ++i) {
    const auto [begin, end] = file.document(i);
    fuzz::require(0 <= begin && begin <= end && end <= file.size(), "a document outside the file");
  }
  fuzz::attempt([&] {
    file.read(0, ids);
    for (const int32_t id : ids) fuzz::require(id >= 0 && id < file.vocab_size(), "an id beyond the vocabulary");
  });
  file.content_fingerprint();
}

COCA_FUZZ_TARGET({.per_byte = 16}) {
  fuzz::attempt([&] { use(input); });
  use(with_checksum(std::string(input)));
}
