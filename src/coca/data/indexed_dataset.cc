// SPDX-License-Identifier: Apache-2.0
#include "coca/data/indexed_dataset.h"

#include <algorithm>
#include <string_view>
#include <vector>

#include "coca/base/count.h"
#include "coca/base/error.h"
#include "coca/base/stop.h"
#include "coca/data/token_file_writer.h"
#include "coca/data/token_layout.h"

namespace coca::data {

namespace fs = std::filesystem;
using layout::get;

namespace {

constexpr std::string_view kMagic("MMIDIDX\0\0", 9), kOldMagic("TNTIDX\0\0", 8);
constexpr size_t kVersionAt = 9, kTypeAt = 17, kSequencesAt = 18, kDocumentsAt = 26, kHeaderBytes = 34;

// Bytes of a token, 0 for types that hold no ids. Which of 6 and 7 is the float and which the double differs between
// programs.
int64_t bytes_of_type(uint8_t type) {
  constexpr int64_t kBytes[] = {0, 1, 1, 2, 4, 8, 0, 0, 2};
  return type < std::size(kBytes) ? kBytes[type] : 0;
}

fs::path with_ending(const fs::path& prefix, const char* ending) {
  const fs::path given = prefix.extension();
  return (given == ".idx" || given == ".bin" ? fs::path(prefix).replace_extension() : prefix).string() + ending;
}

std::string_view text_of(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

}  // namespace

IndexedDataset::IndexedDataset(const fs::path& prefix)
    : name_(with_ending(prefix, ".idx").string()),
      data_name_(with_ending(prefix, ".bin").string()),
      index_(name_),
      data_(data_name_) {
  parse();
  check_sequences();
  check_documents();
}

void IndexedDataset::parse() {
  const std::span<const std::byte> bytes = index_.bytes();
  COCA_CHECK_AS(kBadFile, !text_of(bytes).starts_with(kOldMagic),
                "{}: an index of the old form \"TNTIDX\", which is not read; expected \"MMIDIDX\"", name_);
  COCA_CHECK_AS(kBadFile, text_of(bytes).starts_with(kMagic),
                "{}: not an index of a dataset: does not begin with \"MMIDIDX\"", name_);
  COCA_CHECK_AS(kBadFile, bytes.size() >= kHeaderBytes, "{}: truncated index of {}; its header has {}", name_,
                counted(bytes.size(), "byte"), kHeaderBytes);
  const std::byte* p = bytes.data();
  const uint64_t version = get<uint64_t>(p + kVersionAt);
  COCA_CHECK_AS(kBadFile, version == 1, "{}: version {} of the index; expected 1", name_, version);
  type_ = get<uint8_t>(p + kTypeAt);
  token_bytes_ = bytes_of_type(type_);
  COCA_CHECK_AS(kBadFile, token_bytes_ > 0, "{}: type {} of tokens; expected an integer: 1 to 5 or 8", name_, type_);
  const uint64_t sequences = get<uint64_t>(p + kSequencesAt), borders = get<uint64_t>(p + kDocumentsAt);
  const uint64_t rest = bytes.size() - kHeaderBytes;
  COCA_CHECK_AS(kBadFile, sequences <= rest / 12 && borders <= rest / 8 && sequences * 12 + borders * 8 == rest,
                "{}: {} after the header; {} of 12 bytes and {} document borders of 8 do not add up to that", name_,
                counted(rest, "byte"), counted(sequences, "sequence"), borders);
  COCA_CHECK_AS(kBadFile, borders >= 1, "{}: no document borders; expected at least the first, which is 0", name_);
  sequences_ = static_cast<int64_t>(sequences);
  documents_ = static_cast<int64_t>(borders) - 1;
}

// Sequences lie back to back, as every writer of the format lays them: no byte belongs to two, and none to none.
void IndexedDataset::check_sequences() {
  const auto data_bytes = static_cast<int64_t>(data_.bytes().size());
  int64_t expected = 0;
  for (int64_t i = 0; i < sequences_; ++i) {
    const int64_t size = size_of(i), pointer = pointer_of(i);
    COCA_CHECK_AS(kBadFile, size >= 0, "{}: sequence {} has {}; expected 0 or more", name_, i, counted(size, "token"));
    COCA_CHECK_AS(kBadFile, pointer == expected, "{}: sequence {} begins at byte {} of the data; expected {}", name_, i,
                  pointer, expected);
    COCA_CHECK_AS(kBadFile, size <= (data_bytes - expected) / token_bytes_,
                  "{}: sequence {} of {} ends beyond the {} of {}", name_, i, counted(size, "token"),
                  counted(data_bytes, "byte"), data_name_);
    expected += size * token_bytes_;
  }
  COCA_CHECK_AS(kBadFile, expected == data_bytes, "{}: sequences of {}; {} has {}", name_, counted(expected, "byte"),
                data_name_, grouped(data_bytes));
  tokens_ = expected / token_bytes_;
}

void IndexedDataset::check_documents() const {
  for (int64_t i = 0; i <= documents_; ++i) {
    const int64_t border = first_sequence(i), least = i == 0 ? 0 : first_sequence(i - 1);
    COCA_CHECK_AS(kBadFile, border >= least && border <= sequences_ && (i > 0 || border == 0),
                  "{}: document {} begins with sequence {}; expected {} to {}", name_, i, border, least,
                  i == 0 ? 0 : sequences_);
  }
  COCA_CHECK_AS(kBadFile, first_sequence(documents_) == sequences_,
                "{}: the last document ends before sequence {}; expected {}, all of them", name_,
                first_sequence(documents_), sequences_);
}

int64_t IndexedDataset::size_of(int64_t sequence) const {
  return get<int32_t>(index_.bytes().data() + kHeaderBytes + 4 * sequence);
}

int64_t IndexedDataset::pointer_of(int64_t sequence) const {
  return get<int64_t>(index_.bytes().data() + kHeaderBytes + 4 * sequences_ + 8 * sequence);
}

int64_t IndexedDataset::first_sequence(int64_t document) const {
  return get<int64_t>(index_.bytes().data() + kHeaderBytes + 12 * sequences_ + 8 * document);
}

int64_t IndexedDataset::first_token(int64_t document) const {
  const int64_t sequence = first_sequence(document);
  return sequence == sequences_ ? tokens_ : pointer_of(sequence) / token_bytes_;
}

std::pair<int64_t, int64_t> IndexedDataset::document(int64_t i) const {
  COCA_CHECK(i >= 0 && i < documents_, "{}: document {} of {}", name_, i, documents_);
  return {first_token(i), first_token(i + 1)};
}

template <typename Stored>
void IndexedDataset::read_as(int64_t start, std::span<int32_t> out, int64_t vocab_size) const {
  const std::byte* from = data_.bytes().data() + static_cast<size_t>(start) * sizeof(Stored);
  for (size_t i = 0; i < out.size(); ++i, from += sizeof(Stored)) {
    const auto id =
        static_cast<int64_t>(get<Stored>(from));  // NOLINT(bugprone-signed-char-misuse): int8 ids are signed
    COCA_CHECK_AS(kBadFile, id >= 0 && id < vocab_size, "{}: token {} is {}; expected 0 to {}", data_name_,
                  start + static_cast<int64_t>(i), id, vocab_size - 1);
    out[i] = static_cast<int32_t>(id);
  }
}

void IndexedDataset::read(int64_t start, std::span<int32_t> out, int64_t vocab_size) const {
  const auto count = static_cast<int64_t>(out.size());
  COCA_CHECK(start >= 0 && count <= tokens_ && start <= tokens_ - count, "{}: {} from {} on, of {}", data_name_,
             counted(count, "token"), start, grouped(tokens_));
  COCA_CHECK(vocab_size >= 1 && vocab_size <= INT32_MAX, "{}: read for a vocabulary of {}", data_name_,
             counted(vocab_size, "id"));
  switch (type_) {
    case 1: return read_as<uint8_t>(start, out, vocab_size);
    case 2: return read_as<int8_t>(start, out, vocab_size);
    case 3: return read_as<int16_t>(start, out, vocab_size);
    case 4: return read_as<int32_t>(start, out, vocab_size);
    case 5: return read_as<int64_t>(start, out, vocab_size);
    default: return read_as<uint16_t>(start, out, vocab_size);
  }
}

ImportReport import_indexed(const IndexedDataset& from, const text::Tokenizer& tokenizer,
                            const ImportOptions& options) {
  constexpr int64_t kBlock = 1 << 20;
  COCA_CHECK_AS(kBadFile, from.documents() > 0, "{}: no documents", from.name());
  const std::optional<int32_t> eos = tokenizer.eos_id();
  TokenFileWriter writer(options.output, tokenizer);
  ImportReport report{.documents = from.documents(), .sequences = from.sequences(), .tokens = from.tokens()};
  std::vector<int32_t> ids;
  for (int64_t i = 0; i < from.documents(); ++i) {
    const auto [begin, end] = from.document(i);
    for (int64_t at = begin; at < end; at += kBlock) {
      COCA_CHECK_AS(kInterrupted, !stop_requested(), "{}: stopped before document {}; nothing was written", from.name(),
                    i);
      ids.resize(static_cast<size_t>(std::min(kBlock, end - at)));
      from.read(at, ids, tokenizer.vocab_size());
      writer.append(ids);
      if (options.progress) options.progress(at + std::ssize(ids), from.tokens());
    }
    report.closed_documents += begin < end && ids.back() == eos;
    writer.end_document();
  }
  writer.finish();
  return report;
}

}  // namespace coca::data
