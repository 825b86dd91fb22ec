// SPDX-License-Identifier: Apache-2.0
#include "coca/data/token_file.h"

#include <limits>

#include "coca/base/rng.h"
#include "coca/base/stop.h"
#include "support/temp_dir.h"

namespace coca::data::token_file_test {
namespace {

using test::error_of;
using test::get_file;
using test::put_file;
using test::TempDir;
using ::testing::AllOf;
using ::testing::HasSubstr;

// A tokenizer with any vocabulary size: one id per byte, spread over the vocabulary.
class WideTokenizer final : public text::Tokenizer {
 public:
  explicit WideTokenizer(int32_t vocab) : vocab_(vocab) {}
  std::string kind() const override { return "wide"; }
  int32_t vocab_size() const override { return vocab_; }
  std::optional<int32_t> bos_id() const override { return std::nullopt; }
  std::optional<int32_t> eos_id() const override { return std::nullopt; }
  std::optional<int32_t> token_id(std::string_view) const override { return std::nullopt; }
  using Tokenizer::encode;
  std::vector<int32_t> encode(std::string_view text, text::SpecialTokens) const override {
    std::vector<int32_t> ids;
    for (const char c : text) ids.push_back(vocab_ - 1 - static_cast<unsigned char>(c));
    return ids;
  }
  void append_decoded(int32_t, text::DecodeState&, std::string&) const override {}
  void save(const std::filesystem::path&) const override {}
  std::string fingerprint() const override { return "wide-" + std::to_string(vocab_); }

 private:
  int32_t vocab_;
};

std::vector<int32_t> all_tokens(const TokenFile& file) {
  std::vector<int32_t> ids(static_cast<size_t>(file.size()));
  file.read(0, ids);
  return ids;
}

TEST(TokenFile, BuildAndRead) {
  TempDir dir;
  put_file(dir / "in/a.txt", "hello");
  put_file(dir / "in/b.txt", "");
  put_file(dir / "in/c.jsonl", "{\"text\":\"\xc3\xa9!\"}\n");
  const auto tokenizer = text::make_byte_tokenizer();
  std::vector<std::pair<int64_t, int64_t>> progress;
  const BuildReport report = build_token_file(
      *tokenizer, {.corpus = {.inputs = {(dir / "in").string()}},
                   .output = dir / "x.tokens",
                   .progress = [&](int64_t done, int64_t total) { progress.emplace_back(done, total); }});
  EXPECT_EQ(report.tokens, 5 + 1 + 3 + 1);
  EXPECT_EQ(report.documents, 2);
  EXPECT_DOUBLE_EQ(report.bytes_per_token, 0.8);
  EXPECT_EQ(report.corpus.empty_documents, 1);
  ASSERT_FALSE(progress.empty());
  EXPECT_EQ(progress.back().first, progress.back().second);
  const TokenFile file(dir / "x.tokens");
  EXPECT_EQ(file.size(), report.tokens);
  EXPECT_EQ(file.documents(), 2);
  EXPECT_EQ(file.vocab_size(), 257);
  EXPECT_EQ(file.tokenizer_kind(), "byte");
  EXPECT_EQ(file.tokenizer_fingerprint(), tokenizer->fingerprint());
  EXPECT_EQ(file.document(1), std::make_pair(int64_t{6}, int64_t{10}));
  EXPECT_EQ(tokenizer->decode(all_tokens(file)), "hello\xc3\xa9!");
  EXPECT_EQ(all_tokens(file)[5], 256);
  const std::string first = get_file(dir / "x.tokens");
  build_token_file(*tokenizer,
                   {.corpus = {.inputs = {(dir / "in").string()}}, .output = dir / "x.tokens", .add_eos = false});
  EXPECT_EQ(TokenFile(dir / "x.tokens").size(), 8);
  build_token_file(*tokenizer, {.corpus = {.inputs = {(dir / "in").string()}}, .output = dir / "x.tokens"});
  EXPECT_EQ(get_file(dir / "x.tokens"), first) << "equal inputs give equal files";
}

TEST(TokenFile, ALongDocumentInPiecesIsOneDocument) {
  TempDir dir;
  std::string text;
  for (int i = 0; text.size() < (size_t{5} << 19); ++i)
    text += std::to_string(i) + "\xe2\x82\xac";  // characters that cross the borders of pieces
  put_file(dir / "x.txt", text);
  const auto tokenizer = text::make_byte_tokenizer();
  build_token_file(*tokenizer, {.corpus = {.inputs = {(dir / "x.txt").string()}}, .output = dir / "x.tok"});
  const TokenFile file(dir / "x.tok");
  ASSERT_EQ(file.documents(), 1);
  std::vector<int32_t> ids(static_cast<size_t>(file.size()));
  file.read(0, ids);
  std::vector<int32_t> expected = tokenizer->encode(text);
  expected.push_back(*tokenizer->eos_id());
  EXPECT_EQ(ids, expected);
}

TEST(TokenFile, TwoAndFourBytesPerToken) {
  TempDir dir;
  put_file(dir / "a.txt", "abc");
  for (const int32_t vocab : {65536, 65537, 2000000000}) {
    const WideTokenizer tokenizer(vocab);
    build_token_file(tokenizer,
                     {.corpus = {.inputs = {(dir / "a.txt").string()}}, .output = dir / "x", .add_eos = false});
    const TokenFile file(dir / "x");
    EXPECT_EQ(static_cast<int>(get_file(dir / "x")[12]), vocab == 65536 ? 2 : 4);
    EXPECT_EQ(all_tokens(file), tokenizer.encode("abc"));
    EXPECT_THAT(error_of(ErrorKind::kInvalidArgument,
                         [&] {
                           build_token_file(tokenizer,
                                            {.corpus = {.inputs = {(dir / "a.txt").string()}}, .output = dir / "y"});
                         }),
                HasSubstr("eos"));
  }
}

TEST(TokenFile, FailedOrInterruptedBuildsLeaveNothing) {
  TempDir dir;
  put_file(dir / "in/a.txt", "x");
  put_file(dir / "in/b.jsonl", "{");
  const auto tokenizer = text::make_byte_tokenizer();
  const BuildOptions options{.corpus = {.inputs = {(dir / "in").string()}}, .output = dir / "out/x"};
  std::filesystem::create_directories(dir / "out");
  error_of(ErrorKind::kBadFile, [&] { build_token_file(*tokenizer, options); });
  request_stop();
  error_of(ErrorKind::kInterrupted, [&] { build_token_file(*tokenizer, options); });
  clear_stop();
  EXPECT_TRUE(std::filesystem::is_empty(dir / "out"));
}

TEST(TokenFile, InMemory) {
  const TokenFile file = TokenFile::from_tokens({1, 2, 3, 4}, {0, 3, 3, 4}, 5);
  EXPECT_EQ(file.documents(), 3);
  EXPECT_EQ(file.document(1), std::make_pair(int64_t{3}, int64_t{3}));
  std::vector<int32_t> two(2);
  file.read(1, two);
  EXPECT_EQ(two, (std::vector<int32_t>{2, 3}));
  const TokenFile moved = [] { return TokenFile::from_tokens({7}, {0, 1}, 8); }();
  EXPECT_EQ(all_tokens(moved), std::vector<int32_t>{7});
  EXPECT_THAT(error_of(ErrorKind::kInvalidArgument, [&] { file.read(3, two); }), HasSubstr("2 tokens from 3 on, of 4"));
  error_of(ErrorKind::kInvalidArgument, [&] { file.read(-1, two); });
  error_of(ErrorKind::kInvalidArgument, [&] { file.read(std::numeric_limits<int64_t>::max(), two); });
  error_of(ErrorKind::kInvalidArgument, [&] { file.document(3); });
  error_of(ErrorKind::kBadFile, [] { TokenFile::from_tokens({1}, {0}, 5); });
  error_of(ErrorKind::kBadFile, [] { TokenFile::from_tokens({1, 2}, {0, 2, 1, 2}, 5); });
  error_of(ErrorKind::kBadFile, [] { TokenFile::from_tokens({1}, {}, 5); });
  for (const int32_t bad : {-1, 5})
    EXPECT_THAT(error_of(ErrorKind::kBadFile,
                         [&] {
                           all_tokens(TokenFile::from_tokens({0, bad}, {0, 2}, 5));
                         }),
                AllOf(HasSubstr("token 1"), HasSubstr("0 to 4")));
}

std::string small_file(const TempDir& dir) {
  put_file(dir / "a.txt", "hello world");
  build_token_file(*text::make_byte_tokenizer(),
                   {.corpus = {.inputs = {(dir / "a.txt").string()}}, .output = dir / "good"});
  return get_file(dir / "good");
}

TEST(TokenFile, RefusesDamage) {
  TempDir dir;
  const std::string good = small_file(dir);
  const auto refused = [&](const std::string& bytes) {
    put_file(dir / "bad", bytes);
    return error_of(ErrorKind::kBadFile, [&] { TokenFile file(dir / "bad"); });
  };
  const auto changed = [&](size_t at, const std::string& bytes) {
    std::string bad = good;
    return bad.replace(at, bytes.size(), bytes);
  };
  const std::string huge(8, '\xff');
  EXPECT_THAT(refused(""), HasSubstr("not a token file"));
  EXPECT_THAT(refused(changed(0, "MMIDIDX")), HasSubstr("not a token file"));
  EXPECT_THAT(refused(changed(8, "\2")), HasSubstr("version 2"));
  EXPECT_THAT(refused(changed(12, "\3")), HasSubstr("3 bytes per token"));
  EXPECT_THAT(refused(changed(16, huge)), HasSubstr("cannot be"));
  EXPECT_THAT(refused(changed(24, huge)), HasSubstr("cannot be"));
  EXPECT_THAT(refused(changed(16, "\x7f")), AllOf(HasSubstr("truncated"), HasSubstr("127 tokens")));
  EXPECT_THAT(refused(changed(32, huge)), HasSubstr("vocabulary"));
  EXPECT_THAT(refused(changed(41, "x")), HasSubstr("checksum"));
  EXPECT_THAT(refused(good + "x"), HasSubstr("take"));
  for (size_t n = 0; n < good.size(); ++n) refused(good.substr(0, n));
  for (size_t at = 0; at < good.size(); ++at) {  // one flipped bit anywhere except in the payload and the padding
    const bool payload = at >= 192 && at < 192 + 24, trailing_zeros = at >= good.size() - 4;
    if (!payload && !trailing_zeros) refused(changed(at, std::string(1, static_cast<char>(good[at] ^ 4))));
  }
}

TEST(TokenFile, IdsBeyondTheVocabularyAreNamedOnReading) {
  TempDir dir;
  std::string bad = small_file(dir);
  bad[192 + 6] = '\x01';
  bad[192 + 7] = '\x01';  // token 3 becomes 257, the vocabulary size
  put_file(dir / "bad", bad);
  const TokenFile file(dir / "bad");
  EXPECT_THAT(error_of(ErrorKind::kBadFile, [&] { all_tokens(file); }),
              AllOf(HasSubstr("bad"), HasSubstr("token 3 is 257")));
}

TEST(TokenFile, ContentFingerprintDependsOnlyOnTheIds) {
  TempDir dir;
  put_file(dir / "small", small_file(dir));
  const TokenFile file(dir / "small");
  const std::vector<int32_t> ids = all_tokens(file);
  const auto in_memory = [](std::vector<int32_t> tokens) {
    const auto n = static_cast<int64_t>(tokens.size());
    return TokenFile::from_tokens(std::move(tokens), {0, n}, 1000).content_fingerprint();
  };
  EXPECT_EQ(file.content_fingerprint(), in_memory(ids));
  for (size_t i = 0; i < ids.size(); ++i) {  // a file this small is read completely
    std::vector<int32_t> other = ids;
    other[i] ^= 1;
    EXPECT_NE(in_memory(other), in_memory(ids)) << i;
  }
  std::vector<int32_t> longer = ids;
  longer.push_back(0);
  EXPECT_NE(in_memory(longer), in_memory(ids));
  EXPECT_NE(in_memory({}), in_memory({0}));
}

TEST(TokenFile, ContentFingerprintOfALongFileCoversEndsAndBlocks) {
  const auto fingerprint = [](const std::vector<int32_t>& tokens) {
    return TokenFile::from_tokens(tokens, {0, static_cast<int64_t>(tokens.size())}, 1000).content_fingerprint();
  };
  std::vector<int32_t> tokens(5'000'011);  // more than the 1024 blocks of 4096 tokens that are read
  for (size_t i = 0; i < tokens.size(); ++i) tokens[i] = static_cast<int32_t>(i % 997);
  const std::string before = fingerprint(tokens);
  EXPECT_EQ(before, fingerprint(tokens));
  for (const size_t at : {size_t{0}, size_t{4095}, tokens.size() - 4096, tokens.size() - 1}) {
    tokens[at] ^= 1;
    EXPECT_NE(fingerprint(tokens), before) << at;
    tokens[at] ^= 1;
  }
  // Any change of 1000 consecutive tokens is seen, as the gaps between blocks are shorter.
  for (const size_t at : {size_t{100'000}, size_t{2'345'678}, size_t{4'990'000}}) {
    for (size_t i = 0; i < 1000; ++i) tokens[at + i] ^= 1;
    EXPECT_NE(fingerprint(tokens), before) << at;
    for (size_t i = 0; i < 1000; ++i) tokens[at + i] ^= 1;
  }
}

}  // namespace
}  // namespace coca::data::token_file_test
