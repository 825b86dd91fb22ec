// Writes the format by hand, byte by byte, and then corrupts it in every way.
// SPDX-License-Identifier: Apache-2.0
#include "coca/data/indexed_dataset.h"

#include <limits>

#include "coca/data/token_file.h"
#include "support/temp_dir.h"

namespace coca::data::indexed_dataset_test {
namespace {

using test::error_of;
using test::put_file;
using test::TempDir;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

template <typename T>
std::string little(T value) {
  std::string bytes;
  for (size_t i = 0; i < sizeof(T); ++i) bytes += static_cast<char>(static_cast<uint64_t>(value) >> (8 * i) & 0xff);
  return bytes;
}

template <typename T>
std::string data_of(const std::vector<int64_t>& ids) {
  std::string bytes;
  for (const int64_t id : ids) bytes += little(static_cast<T>(id));
  return bytes;
}

struct Index {
  std::string magic{"MMIDIDX\0\0", 9};
  uint64_t version = 1;
  uint8_t type = 8;
  std::vector<int32_t> sizes;
  std::vector<int64_t> pointers, documents;
  std::optional<uint64_t> sequence_count, document_count;  // replace the true counts

  std::string bytes() const {
    std::string out = magic + little(version) + little(type) + little(sequence_count.value_or(sizes.size())) +
                      little(document_count.value_or(documents.size()));
    for (const int32_t size : sizes) out += little(size);
    for (const int64_t pointer : pointers) out += little(pointer);
    for (const int64_t document : documents) out += little(document);
    return out;
  }
};

// Three documents in four sequences; the second document is empty.
Index good_index() { return {.sizes = {2, 1, 0, 3}, .pointers = {0, 4, 6, 6}, .documents = {0, 2, 3, 4}}; }
const std::vector<int64_t> kIds = {104, 105, 256, 97, 98, 256};

class Indexed : public testing::Test {
 protected:
  TempDir dir;
  std::filesystem::path prefix = dir / "corpus_input_ids";

  void put(const std::string& index, const std::string& data) const {
    put_file(prefix.string() + ".idx", index);
    put_file(prefix.string() + ".bin", data);
  }
  void expect_bad(const Index& index, const std::string& text) const {
    expect_bad(index.bytes(), data_of<uint16_t>(kIds), text);
  }
  void expect_bad(const std::string& index, const std::string& data, const std::string& text) const {
    put(index, data);
    EXPECT_THAT(error_of(ErrorKind::kBadFile, [&] { IndexedDataset dataset(prefix); }),
                AllOf(HasSubstr("corpus_input_ids"), HasSubstr(text)));
  }
};

TEST_F(Indexed, DocumentsAreReadAndImported) {
  put(good_index().bytes(), data_of<uint16_t>(kIds));
  for (const std::string ending : {"", ".idx", ".bin"}) {
    const IndexedDataset dataset(prefix.string() + ending);
    EXPECT_EQ(dataset.tokens(), 6);
    EXPECT_EQ(dataset.sequences(), 4);
    ASSERT_EQ(dataset.documents(), 3);
    EXPECT_EQ(dataset.document(0), std::pair(int64_t{0}, int64_t{3}));
    EXPECT_EQ(dataset.document(1), std::pair(int64_t{3}, int64_t{3}));
    EXPECT_EQ(dataset.document(2), std::pair(int64_t{3}, int64_t{6}));
  }
  const auto tokenizer = text::make_byte_tokenizer();
  std::vector<int64_t> progress;
  const ImportReport report =
      import_indexed(IndexedDataset(prefix), *tokenizer,
                     {.output = dir / "x.tok", .progress = [&](int64_t done, int64_t) { progress.push_back(done); }});
  EXPECT_EQ(report.documents, 3);
  EXPECT_EQ(report.sequences, 4);
  EXPECT_EQ(report.tokens, 6);
  EXPECT_EQ(report.closed_documents, 2);
  EXPECT_THAT(progress, ElementsAre(3, 6));
  const TokenFile file(dir / "x.tok");
  EXPECT_EQ(file.tokenizer_fingerprint(), tokenizer->fingerprint());
  ASSERT_EQ(file.documents(), 3);
  EXPECT_EQ(file.document(1), std::pair(int64_t{3}, int64_t{3}));
  std::vector<int32_t> ids(6);
  file.read(0, ids);
  EXPECT_THAT(ids, ElementsAre(104, 105, 256, 97, 98, 256));
}

TEST_F(Indexed, EveryIntegerTypeIsRead) {
  const std::vector<int64_t> ids = {7, 0, 127};
  const auto expect = [&](uint8_t type, int64_t bytes, const std::string& data) {
    put(Index{.type = type, .sizes = {1, 2}, .pointers = {0, bytes}, .documents = {0, 2}}.bytes(), data);
    std::vector<int32_t> found(3);
    IndexedDataset(prefix).read(0, found, 128);
    EXPECT_THAT(found, ElementsAre(7, 0, 127)) << "type " << int{type};
  };
  expect(1, 1, data_of<uint8_t>(ids));
  expect(2, 1, data_of<int8_t>(ids));
  expect(3, 2, data_of<int16_t>(ids));
  expect(4, 4, data_of<int32_t>(ids));
  expect(5, 8, data_of<int64_t>(ids));
  expect(8, 2, data_of<uint16_t>(ids));
}

TEST_F(Indexed, NoDocuments) {
  put(Index{.documents = {0}}.bytes(), "");
  EXPECT_EQ(IndexedDataset(prefix).documents(), 0);
  const auto tokenizer = text::make_byte_tokenizer();
  EXPECT_THAT(error_of(ErrorKind::kBadFile,
                       [&] { import_indexed(IndexedDataset(prefix), *tokenizer, {.output = dir / "x.tok"}); }),
              HasSubstr("no documents"));
}

TEST_F(Indexed, InvalidHeaders) {
  expect_bad(Index{.magic = std::string("TNTIDX\0\0\0", 9)}, "old form");
  expect_bad(std::string("{\"a\": 1}"), "", "not an index");
  expect_bad(good_index().bytes().substr(0, 30), "", "truncated index of 30 bytes");
  const auto with = [](auto change) {
    Index index = good_index();
    change(index);
    return index;
  };
  expect_bad(with([](Index& i) { i.version = 2; }), "version 2");
  for (const uint8_t type : {uint8_t{0}, uint8_t{6}, uint8_t{7}, uint8_t{9}, uint8_t{255}})
    expect_bad(with([&](Index& i) { i.type = type; }), fmt::format("type {} of tokens", type));
  expect_bad(with([](Index& i) { i.sequence_count = 5; }), "do not add up to that");
  expect_bad(with([](Index& i) { i.document_count = 0; }), "do not add up to that");
  // 12 n overflows to the size of 4 sequences, and 8 n to that of 4 borders.
  expect_bad(with([](Index& i) { i.sequence_count = (uint64_t{1} << 62) + 4; }), "do not add up to that");
  expect_bad(with([](Index& i) { i.document_count = (uint64_t{1} << 61) + 4; }), "do not add up to that");
  expect_bad(with([](Index& i) { i.sequence_count = std::numeric_limits<uint64_t>::max(); }), "do not add up to that");
  expect_bad(good_index().bytes() + "x", data_of<uint16_t>(kIds), "do not add up to that");
  expect_bad(Index{}, "no document borders");
}

TEST_F(Indexed, InvalidSequences) {
  const auto with = [](auto change) {
    Index index = good_index();
    change(index);
    return index;
  };
  expect_bad(with([](Index& i) { i.sizes[1] = -1; }), "sequence 1 has -1 tokens");
  expect_bad(with([](Index& i) { i.sizes[3] = 4; }), "sequence 3 of 4 tokens ends beyond");
  expect_bad(with([](Index& i) { i.sizes[0] = std::numeric_limits<int32_t>::max(); }), "ends beyond");
  expect_bad(with([](Index& i) { i.sizes[3] = 2; }), "sequences of 10 bytes");
  expect_bad(with([](Index& i) { i.pointers[0] = -2; }), "sequence 0 begins at byte -2");
  expect_bad(with([](Index& i) { i.pointers[3] = 0; }), "sequence 3 begins at byte 0 of the data; expected 6");
  expect_bad(with([](Index& i) { i.pointers[3] = 7; }), "begins at byte 7");
  expect_bad(with([](Index& i) { i.pointers[3] = std::numeric_limits<int64_t>::max(); }), "expected 6");
  expect_bad(good_index().bytes(), data_of<uint16_t>(kIds) + "x", "has 13");
}

TEST_F(Indexed, InvalidDocuments) {
  const auto with = [](std::vector<int64_t> documents) {
    Index index = good_index();
    index.documents = std::move(documents);
    return index;
  };
  expect_bad(with({1, 2, 3, 4}), "document 0 begins with sequence 1");
  expect_bad(with({0, 3, 2, 4}), "document 2 begins with sequence 2; expected 3 to 4");
  expect_bad(with({0, 2, 5, 4}), "document 2 begins with sequence 5");
  expect_bad(with({0, 2, -1, 4}), "document 2 begins with sequence -1");
  expect_bad(with({0, 2, 3}), "ends before sequence 3; expected 4");
}

TEST_F(Indexed, IdsAreCheckedAsTheyAreRead) {
  const auto tokenizer = text::make_byte_tokenizer();
  const auto import = [&] { import_indexed(IndexedDataset(prefix), *tokenizer, {.output = dir / "x.tok"}); };
  put(Index{.type = 4, .sizes = {2}, .pointers = {0}, .documents = {0, 1}}.bytes(), data_of<int32_t>({1, -1}));
  EXPECT_THAT(error_of(ErrorKind::kBadFile, import), HasSubstr(".bin: token 1 is -1; expected 0 to 256"));
  put(Index{.type = 5, .sizes = {1}, .pointers = {0}, .documents = {0, 1}}.bytes(),
      data_of<int64_t>({(int64_t{1} << 32) + 1}));
  EXPECT_THAT(error_of(ErrorKind::kBadFile, import), HasSubstr("token 0 is 4294967297"));
  put(good_index().bytes(), data_of<uint16_t>({104, 105, 257, 97, 98, 256}));
  EXPECT_THAT(error_of(ErrorKind::kBadFile, import), HasSubstr("token 2 is 257"));
  EXPECT_FALSE(std::filesystem::exists(dir / "x.tok"));
  const IndexedDataset dataset(prefix);
  std::vector<int32_t> ids(3);
  EXPECT_THAT(error_of(ErrorKind::kInvalidArgument, [&] { dataset.read(4, ids, 300); }),
              HasSubstr("3 tokens from 4 on, of 6"));
  EXPECT_THAT(error_of(ErrorKind::kInvalidArgument, [&] { dataset.document(3); }), HasSubstr("document 3 of 3"));
}

}  // namespace
}  // namespace coca::data::indexed_dataset_test
