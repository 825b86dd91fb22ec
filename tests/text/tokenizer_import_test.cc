// Tokenizers in vendors' own formats: tiktoken's, tekken.json, vocab.json with merges.txt. Ids are compared with stored
// results of the tokenizers package if it has the same tokenizer.
// SPDX-License-Identifier: Apache-2.0
#include "coca/text/tokenizer_import.h"

#include "coca/io/json_file.h"
#include "support/temp_dir.h"

namespace coca::text::tokenizer_import_test {
namespace {

using nlohmann::json;
using test::error_of;
using test::get_file;
using test::put_file;
using test::TempDir;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using Ids = std::vector<int32_t>;

std::string base64(std::string_view bytes) {
  constexpr std::string_view kDigits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string out;
  for (size_t i = 0; i < bytes.size(); i += 3) {
    uint32_t bits = 0;
    for (size_t k = 0; k < 3; ++k)
      bits = bits << 8 | (i + k < bytes.size() ? static_cast<unsigned char>(bytes[i + k]) : 0);
    for (size_t k = 0; k < 4; ++k) out += i + k <= bytes.size() ? kDigits[bits >> (18 - 6 * k) & 63] : '=';
  }
  return out;
}

// All bytes, then "ab", "abc", " a", and "xyz", which no merge produces.
std::vector<std::string> small_ranks() {
  std::vector<std::string> tokens;
  for (int b = 0; b < 256; ++b) tokens.emplace_back(1, static_cast<char>(b));
  for (const char* token : {"ab", "abc", " a", "xyz"}) tokens.emplace_back(token);
  return tokens;
}

std::string tiktoken_file(const std::vector<std::string>& tokens) {
  std::string text;
  for (size_t i = 0; i < tokens.size(); ++i) text += base64(tokens[i]) + " " + std::to_string(i) + "\n";
  return text;
}

TEST(Tiktoken, EncodesLikeMetasCode) {
  TempDir dir;
  put_file(dir / "tokenizer.model", tiktoken_file(small_ranks()));
  EXPECT_TRUE(is_imported(dir.path()));
  const auto tokenizer = load_tokenizer(dir.path());
  EXPECT_EQ(tokenizer->vocab_size(), 260 + 256);
  EXPECT_EQ(tokenizer->bos_id(), 260);
  EXPECT_EQ(tokenizer->eos_id(), 261);
  EXPECT_EQ(tokenizer->token_id("<|eot_id|>"), 269);
  EXPECT_EQ(tokenizer->token_id("<|reserved_special_token_247|>"), 515);
  EXPECT_THAT(tokenizer->frame().before, ElementsAre(260));
  EXPECT_THAT(tokenizer->encode("abcab aabc"), ElementsAre(257, 256, 258, 257))
      << "ab comes before \" a\" in no word here";
  EXPECT_THAT(tokenizer->encode("xyz"), ElementsAre(259)) << "a whole word needs no merges";
  EXPECT_THAT(tokenizer->encode("xyzz"), ElementsAre('x', 'y', 'z', 'z'));
  EXPECT_THAT(tokenizer->encode("1234"), ElementsAre('1', '2', '3', '4'));
  EXPECT_THAT(tokenizer->encode("<|eot_id|>ab", SpecialTokens::kParse), ElementsAre(269, 256));
  for (const std::string text : {"\xff\xfe a", "caf\xc3\xa9 \xf0\x9f\x98\x80\n"})
    EXPECT_EQ(tokenizer->decode(tokenizer->encode(text)), text);
  std::filesystem::create_directories(dir / "saved");
  tokenizer->save(dir / "saved");
  EXPECT_FALSE(is_imported(dir / "saved"));
  const auto saved = load_tokenizer(dir / "saved");
  EXPECT_EQ(saved->fingerprint(), tokenizer->fingerprint());
  EXPECT_EQ(saved->bos_id(), 260);
  EXPECT_EQ(load_tokenizer(dir / "tokenizer.model")->encode("abc"), tokenizer->encode("abc")) << "the file on its own";
}

// A stored tokenizer of LLaMA 3 has the same tokens in the order of their merges.
TEST(Tiktoken, AgreesWithTheEquivalentFile) {
  const std::filesystem::path folder = std::filesystem::path(COCA_SOURCE_DIR) / "tests/stored/tokenizers";
  const json texts = io::read_json(folder / "texts.json");
  const auto whole = load_tokenizer(folder / "llama_3" / "tokenizer.json");
  std::vector<std::string> tokens;
  for (int32_t id = 0; id < *whole->token_id("<|begin_of_text|>"); ++id) tokens.push_back(whole->decode(Ids{id}));
  TempDir dir;
  put_file(dir / "tokenizer.model", tiktoken_file(tokens));
  const auto tokenizer = load_tokenizer(dir.path());
  for (const std::string text : texts) {
    const Ids ids = tokenizer->encode(text);
    EXPECT_EQ(tokenizer->decode(ids), text);
    for (const int32_t id : ids) ASSERT_LT(id, std::ssize(tokens));
  }
}

TEST(Tiktoken, MistakesAreNamed) {
  const auto refused = [](const std::string& content) {
    return error_of(ErrorKind::kBadFile, [&] { import_tiktoken(content, "t.model"); });
  };
  const std::string good = tiktoken_file(small_ranks());
  EXPECT_THAT(refused(good + "YQ== 262\n"), AllOf(HasSubstr("t.model"), HasSubstr("rank 262 after 260 tokens")));
  EXPECT_THAT(refused(good + "YQ== 260\n"), HasSubstr("ranks 97 and 260 are the same token"));
  EXPECT_THAT(refused(good + "!! 260\n"), HasSubstr("t.model:261: the token \"!!\" is not base64"));
  for (const char* line : {"YQ==", "YQ== ", " 260", "YQ== x", "YQ== 260 1", "YQ== -1", "YQ== 99999999999999999999"})
    EXPECT_THAT(refused(good + line + "\r\n"),
                HasSubstr(std::string("t.model:261: \"") + line + "\"; expected a token"));
  EXPECT_THAT(refused(good + "\n" + std::string(99, 'a')),
              HasSubstr("t.model:262: \"" + std::string(60, 'a') + "\"...; expected"));
  EXPECT_THAT(refused(good + base64(std::string(513, 'a')) + " 260\n"), HasSubstr("513 bytes"));
  EXPECT_THAT(refused("YQ== 0\n"), HasSubstr("byte 0 has no token"));
  std::string many = tiktoken_file(small_ranks());
  for (int i = 260; i <= 128'000; ++i) many += base64("t" + std::to_string(i)) + " " + std::to_string(i) + "\n";
  EXPECT_THAT(refused(many), AllOf(HasSubstr("128000 ranks of LLaMA 3"), HasSubstr("tokenizer.json")));
  for (const char* other : {"", "abc", "YQ==", "YQ== x", "YQ 0", "not a model at all", "\x0a\x0e\x0a\x05<unk>"})
    EXPECT_FALSE(is_tiktoken(other)) << other;
}

json tekken() {
  json file = {{"config",
                {{"pattern", "\\p{L}+|\\s+|[^\\p{L}\\s]+"},
                 {"num_vocab_tokens", 260},
                 {"default_vocab_size", 268},
                 {"default_num_special_tokens", 10},
                 {"version", "v3"}}}};
  const std::vector<std::string> tokens = small_ranks();
  for (size_t i = 0; i < tokens.size(); ++i)
    file["vocab"].push_back({{"rank", i}, {"token_bytes", base64(tokens[i])}, {"token_str", nullptr}});
  return file;
}

TEST(Tekken, SpecialTokensComeFirst) {
  TempDir dir;
  put_file(dir / "tekken.json", tekken().dump());
  const auto tokenizer = load_tokenizer(dir.path());
  EXPECT_TRUE(is_imported(dir.path()));
  EXPECT_EQ(tokenizer->vocab_size(), 268) << "the size that the file names: the last two tokens are not used";
  EXPECT_EQ(tokenizer->bos_id(), 1);
  EXPECT_EQ(tokenizer->eos_id(), 2);
  EXPECT_EQ(tokenizer->token_id("[INST]"), 3);
  EXPECT_THAT(tokenizer->encode("[INST]abcab", SpecialTokens::kParse), ElementsAre(3, 267, 266));
  EXPECT_THAT(tokenizer->encode("xyz"), ElementsAre(10 + 'x', 10 + 'y', 10 + 'z'));
  EXPECT_EQ(load_tokenizer(dir / "tekken.json")->fingerprint(), tokenizer->fingerprint());
  json named = tekken();
  named["special_tokens"] = json::array(
      {{{"rank", 0}, {"token_str", "<unk>"}, {"is_control", true}}, {{"rank", 7}, {"token_str", "[SEVEN]"}}});
  put_file(dir / "tekken.json", named.dump());
  EXPECT_EQ(load_tokenizer(dir.path())->token_id("[SEVEN]"), 7);
  EXPECT_EQ(load_tokenizer(dir.path())->token_id("<SPECIAL_1>"), 1);
}

TEST(Tekken, MistakesAreNamed) {
  const auto refused = [](const auto& change) {
    json file = tekken();
    change(file);
    return error_of(ErrorKind::kBadFile, [&] { import_tekken(file.dump(), "tekken.json"); });
  };
  EXPECT_THAT(refused([](json& f) { f.erase("config"); }), HasSubstr("has no \"config\""));
  EXPECT_THAT(refused([](json& f) { f["config"]["default_vocab_size"] = 2000; }),
              HasSubstr("default_vocab_size: 2000"));
  EXPECT_THAT(refused([](json& f) { f["config"]["default_num_special_tokens"] = 1; }),
              HasSubstr("default_num_special_tokens: 1"));
  EXPECT_THAT(refused([](json& f) { f["vocab"][3]["rank"] = 9; }),
              HasSubstr("tekken.json: vocab[3]: rank 9 after 3 tokens"));
  EXPECT_THAT(refused([](json& f) { f["vocab"][3]["token_bytes"] = "?"; }),
              HasSubstr("vocab[3]: the token \"?\" is not base64"));
  EXPECT_THAT(refused([](json& f) {
                f["special_tokens"] = json::array({{{"rank", 99}, {"token_str", "x"}}});
              }),
              HasSubstr("rank: 99"));
}

// vocab.json and merges.txt from a stored tokenizer.json; the tokenizer class determines the rest.
TEST(VocabAndMerges, AgreeWithThePackage) {
  const std::filesystem::path stored = std::filesystem::path(COCA_SOURCE_DIR) / "tests/stored/tokenizers";
  const json texts = io::read_json(stored / "texts.json");
  const json file = io::read_json(stored / "qwen2" / "tokenizer.json"),
             rows = io::read_json(stored / "qwen2" / "golden.json");
  TempDir dir;
  put_file(dir / "vocab.json", file["model"]["vocab"].dump());
  std::string merges = "\xef\xbb\xbf#version: 0.2\n";
  for (const json& merge : file["model"]["merges"])
    merges += (merge.is_string() ? merge.get<std::string>()
                                 : merge[0].get<std::string>() + " " + merge[1].get<std::string>()) +
              "\n";
  put_file(dir / "merges.txt", merges);
  json config = {{"tokenizer_class", "Qwen2Tokenizer"}, {"eos_token", "<|im_end|>"}};
  for (json token : file["added_tokens"]) {
    const std::string id = std::to_string(token["id"].get<int>());
    token.erase("id");
    config["added_tokens_decoder"][id] = token;
  }
  put_file(dir / "tokenizer_config.json", config.dump());
  const auto tokenizer = load_tokenizer(dir.path());
  EXPECT_EQ(tokenizer->eos_id(), tokenizer->token_id("<|im_end|>"));
  for (size_t i = 0; i < rows.size(); ++i) {
    const std::string text = texts[i];
    const Ids plain = rows[i][0], parsed = rows[i][1].is_null() ? plain : rows[i][1].get<Ids>();
    EXPECT_EQ(tokenizer->encode(text), plain) << text;
    EXPECT_EQ(tokenizer->encode(text, SpecialTokens::kParse), parsed) << text;
  }
  config["tokenizer_class"] = "OddTokenizer";
  put_file(dir / "tokenizer_config.json", config.dump());
  EXPECT_THAT(error_of(ErrorKind::kBadFile, [&] { load_tokenizer(dir.path()); }),
              AllOf(HasSubstr("OddTokenizer"), HasSubstr("tokenizer_config.json"),
                    HasSubstr("save the tokenizer with transformers")));
  config["tokenizer_class"] = "GPT2Tokenizer";
  put_file(dir / "tokenizer_config.json", config.dump());
  put_file(dir / "merges.txt", "a b c\n");
  EXPECT_THAT(error_of(ErrorKind::kBadFile, [&] { load_tokenizer(dir.path()); }), HasSubstr("merges.txt:1"));
}

}  // namespace
}  // namespace coca::text::tokenizer_import_test
