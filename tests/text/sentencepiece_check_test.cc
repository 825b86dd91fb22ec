// Models with the usual normalizer tables, and tables that refer beyond their end.
// SPDX-License-Identifier: Apache-2.0
#include "coca/text/sentencepiece_check.h"

#include <sentencepiece_trainer.h>

#include "coca/text/tokenizer.h"
#include "support/temp_dir.h"

namespace coca::text::sentencepiece_check_test {
namespace {

using test::error_of;
using test::get_file;
using test::put_file;
using test::TempDir;
using ::testing::AllOf;
using ::testing::HasSubstr;

std::string field(uint32_t number, const std::string& content) {
  std::string out(1, static_cast<char>(number << 3 | 2));
  size_t length = content.size();
  for (; length >= 128; length >>= 7) out += static_cast<char>(length | 128);
  return out + static_cast<char>(length) + content;
}

std::string little(uint32_t value) {
  std::string out;
  for (int i = 0; i < 4; ++i) out += static_cast<char>(value >> (8 * i));
  return out;
}

// A model of two pieces with this normalizer table.
std::string model_with(const std::string& charsmap) {
  return field(1, field(1, "<unk>") + "\x18\x02") + field(1, field(1, "a")) + field(3, field(2, charsmap));
}
std::string map_of(const std::vector<uint32_t>& units, const std::string& text) {
  std::string table;
  for (const uint32_t unit : units) table += little(unit);
  return little(static_cast<uint32_t>(table.size())) + table + text;
}
// The root's children are in the second block of 256 units. 'A' has a leaf there, which holds the start of its text.
std::vector<uint32_t> units_with(uint32_t value) {
  std::vector<uint32_t> units(512);
  units[0] = 256 << 10;
  units[256 ^ 'A'] = (256u ^ 'A' ^ 256u) << 10 | 1u << 8 | 'A';
  units[256] = 1u << 31 | value;
  return units;
}

std::string refusal(const std::string& model) {
  TempDir dir;
  put_file(dir / "m.model", model);
  return error_of(ErrorKind::kBadFile, [&] { load_sentencepiece(dir / "m.model"); });
}

TEST(SentencePieceCheck, TablesOfTheLibraryAreAccepted) {
  TempDir dir;
  std::string text;
  for (int i = 0; i < 50; ++i) text += "the quick brown fox jumps over the lazy dog\n";
  put_file(dir / "in.txt", text);
  for (const char* rule : {"nmt_nfkc", "nmt_nfkc_cf", "identity"}) {
    const std::string prefix = (dir / rule).string();
    const auto status = sentencepiece::SentencePieceTrainer::Train(
        fmt::format("--input={} --model_prefix={} --vocab_size=40 --model_type=bpe --normalization_rule_name={} "
                    "--hard_vocab_limit=false "
                    "--minloglevel=2",
                    (dir / "in.txt").string(), prefix, rule));
    ASSERT_TRUE(status.ok()) << status.ToString();
    EXPECT_NO_THROW(check_sentencepiece(get_file(prefix + ".model"), "m"));
    EXPECT_NO_THROW(load_sentencepiece(prefix + ".model"));
  }
}

TEST(SentencePieceCheck, AHandMadeTableNormalizes) {
  TempDir dir;
  put_file(dir / "m.model", model_with(map_of(units_with(0), std::string("a\0", 2))));
  const auto tokenizer = load_sentencepiece(dir / "m.model");
  EXPECT_EQ(tokenizer->encode("A").back(), 1);  // 'A' becomes 'a'
}

TEST(SentencePieceCheck, TablesThatReferBeyondTheirEnd) {
  const std::string text("a\0", 2);
  EXPECT_THAT(refusal(model_with(map_of(units_with(2), text))),
              HasSubstr("unit 321 of 512 leads out"));  // beyond the text
  EXPECT_THAT(refusal(model_with(map_of(units_with(0x7fffffff), text))),
              HasSubstr("leads out of the table or its 2 bytes"));
  std::vector<uint32_t> units = units_with(0);
  units[0] = 0x1fffff << 10 | 1u << 9;  // two gigabytes away
  EXPECT_THAT(refusal(model_with(map_of(units, text))), HasSubstr("unit 0 of 512"));
  units = units_with(0);
  units[256 ^ 'A'] |= 0x1000 << 10;
  EXPECT_THAT(refusal(model_with(map_of(units, text))), HasSubstr("unit 321 of 512"));
  units = units_with(0);
  units.resize(500);  // an incomplete block
  EXPECT_THAT(refusal(model_with(map_of(units, text))), HasSubstr("unit 0 of 500"));
}

// A piece that is a single zero byte, for which the library throws its own exception.
TEST(SentencePieceCheck, APieceOfOneZeroByte) {
  const std::string pieces = field(1, field(1, "<unk>") + "\x18\x02") + field(1, field(1, std::string(1, '\0')));
  EXPECT_THAT(refusal(pieces), HasSubstr("not a sentencepiece model"));
}

TEST(SentencePieceCheck, InvalidTables) {
  EXPECT_THAT(refusal(model_with("abc")), HasSubstr("precompiled_charsmap: a table of"));
  EXPECT_THAT(refusal(model_with(little(0xfffffffc) + std::string(64, '\0'))),
              HasSubstr("a table of 4,294,967,292 bytes within 68"));
  EXPECT_THAT(refusal(model_with(map_of(units_with(0), "a"))), HasSubstr("a zero at the end"));
  EXPECT_THAT(refusal(model_with(map_of({}, std::string("a\0", 2)))), HasSubstr("unit 0 of 0"));
  EXPECT_THAT(refusal("\x1b\x0c"), HasSubstr("wire type 3"));
  EXPECT_THAT(refusal("\x1a\x7f"), HasSubstr("a field of 127 bytes where 0 are left"));
  EXPECT_THAT(refusal(std::string(11, '\xff')), HasSubstr("more than 10 bytes"));
}

}  // namespace
}  // namespace coca::text::sentencepiece_check_test
