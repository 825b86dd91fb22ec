// tokenizer.json: stored results of the tokenizers package, its rules one by one, and invalid files.
// SPDX-License-Identifier: Apache-2.0
#include <thread>

#include "coca/base/rng.h"
#include "coca/io/json_file.h"
#include "coca/text/tokenizer.h"
#include "coca/text/utf8.h"
#include "support/temp_dir.h"

namespace coca::text::json_tokenizer_test {
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

const char* const kNames[] = {"gpt_neox", "llama_3", "qwen2",  "gpt_4o", "starcoder", "llama_2",
                              "mistral",  "words",   "falcon", "kimi",   "clip"};

std::filesystem::path folder(const std::string& name) {
  return std::filesystem::path(COCA_SOURCE_DIR) / "tests/stored/tokenizers" / name;
}

std::string stream_of(const Tokenizer& tokenizer, const Ids& ids) {
  StreamDecoder stream(tokenizer);
  std::string text;
  for (const int32_t id : ids) text += stream.push(id);
  return text + stream.finish();
}

class Golden : public testing::TestWithParam<const char*> {};

TEST_P(Golden, AgreesWithThePackage) {
  const auto tokenizer = load_tokenizer(folder(GetParam()));
  EXPECT_EQ(tokenizer->kind(), "bpe");
  const json texts = io::read_json(folder("texts.json")), rows = io::read_json(folder(GetParam()) / "golden.json");
  ASSERT_EQ(texts.size(), rows.size());
  for (size_t i = 0; i < rows.size(); ++i) {
    const std::string text = texts[i];
    const Ids plain = rows[i][0], parsed = rows[i][1].is_null() ? plain : rows[i][1].get<Ids>();
    EXPECT_EQ(tokenizer->encode(text), plain) << text;
    EXPECT_EQ(tokenizer->encode(text, SpecialTokens::kParse), parsed) << text;
    EXPECT_EQ(tokenizer->decode(plain), rows[i][2].is_null() ? text : rows[i][2].get<std::string>()) << text;
    EXPECT_EQ(stream_of(*tokenizer, plain), tokenizer->decode(plain));
  }
}

TEST_P(Golden, AnyBytesAndAnyIds) {
  const auto tokenizer = load_tokenizer(folder(GetParam()));
  Rng rng(4);
  for (int i = 0; i < 300; ++i) {
    std::string text;
    for (size_t n = rng.below(30); text.size() < n;)
      text += static_cast<char>(rng.below(2) ? rng.below(256) : 'a' + rng.below(4));
    for (const int32_t id : tokenizer->encode(text)) ASSERT_LT(id, tokenizer->vocab_size());
    Ids ids(rng.below(10));
    for (int32_t& id : ids) id = static_cast<int32_t>(rng.below(static_cast<uint64_t>(tokenizer->vocab_size())));
    ASSERT_EQ(stream_of(*tokenizer, ids), tokenizer->decode(ids));
  }
}

TEST_P(Golden, SavesTheSameFiles) {
  TempDir dir;
  const auto tokenizer = load_tokenizer(folder(GetParam()));
  tokenizer->save(dir.path());
  EXPECT_EQ(get_file(dir / "tokenizer.json"), get_file(folder(GetParam()) / "tokenizer.json"));
  const auto again = load_tokenizer(dir.path());
  EXPECT_EQ(again->fingerprint(), tokenizer->fingerprint());
  EXPECT_EQ(again->eos_ids(), tokenizer->eos_ids());
}

INSTANTIATE_TEST_SUITE_P(Package, Golden, testing::ValuesIn(kNames), [](const auto& test) { return test.param; });

TEST(JsonTokenizer, ByteLevelKeepsBytesThatAreNoText) {
  const auto tokenizer = load_tokenizer(folder("qwen2"));
  for (const std::string text : {"\xff", "a\xc3", "\xe4\xb8x\xef\xbf\xbd\x80", " \xf0\x9f\x98 b\xed\xa0\x80"})
    EXPECT_EQ(tokenizer->decode(tokenizer->encode(text)), text);
  const auto characters = load_tokenizer(folder("llama_2"));
  EXPECT_EQ(characters->decode(characters->encode("a\xff z")), "a\xef\xbf\xbd z") << "as the package reads it";
}

TEST(JsonTokenizer, ThreadsShareOneTokenizer) {
  const auto tokenizer = load_tokenizer(folder("llama_3"));
  const std::string text = get_file(folder("texts.json"));
  const Ids expected = tokenizer->encode(text);
  std::vector<std::thread> threads;
  std::vector<Ids> got(4);
  for (Ids& ids : got) threads.emplace_back([&] { ids = tokenizer->encode(text); });
  for (std::thread& thread : threads) thread.join();
  for (const Ids& ids : got) EXPECT_EQ(ids, expected);
}

TEST(JsonTokenizer, LongWords) {
  const auto bytes = load_tokenizer(folder("gpt_neox")), characters = load_tokenizer(folder("llama_2"));
  for (const std::string& text : {std::string(300'000, 'a'), std::string(100'000, ' ')})
    for (const Tokenizer* tokenizer : {bytes.get(), characters.get()})
      EXPECT_EQ(tokenizer->decode(tokenizer->encode(text)), text);
}

TEST(JsonTokenizer, ControlIdsOfTheFolder) {
  const auto llama3 = load_tokenizer(folder("llama_3"));
  EXPECT_EQ(llama3->bos_id(), llama3->token_id("<|begin_of_text|>"));
  EXPECT_EQ(llama3->eos_id(), llama3->token_id("<|eot_id|>"));
  EXPECT_THAT(llama3->frame().before, ElementsAre(*llama3->bos_id()));
  EXPECT_TRUE(llama3->frame().after.empty());
  EXPECT_FALSE(load_tokenizer(folder("qwen2"))->bos_id());
  const auto bare = load_tokenizer(folder("llama_3") / "tokenizer.json");
  EXPECT_FALSE(bare->bos_id()) << "a file on its own says nothing of them";
  EXPECT_FALSE(bare->token_id("no such token"));
}

// A small tokenizer of letters that tests modify.
json small() {
  return json::parse(R"({"version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": null,
    "pre_tokenizer": null, "post_processor": null, "decoder": null,
    "model": {"type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
      "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "ignore_merges": false,
      "vocab": {"a": 0, "b": 1, "c": 2, "ab": 3, "▁": 4}, "merges": ["a b"]}})");
}
json added(int id, const std::string& content, const json& more = json::object()) {
  json token = {{"id", id},        {"content", content},  {"single_word", false}, {"lstrip", false},
                {"rstrip", false}, {"normalized", false}, {"special", true}};
  token.update(more);
  return token;
}

class SmallFile : public testing::Test {
 protected:
  std::unique_ptr<Tokenizer> load(const json& file) { return load_text(file.dump()); }
  std::unique_ptr<Tokenizer> load_text(const std::string& text) {
    put_file(dir_ / "tokenizer.json", text);
    return load_tokenizer(dir_.path());
  }
  Ids ids(const json& file, const std::string& text) { return load(file)->encode(text, SpecialTokens::kParse); }
  std::string refused(const json& file) { return refused_text(file.dump()); }
  std::string refused_text(const std::string& text) {
    const std::string message = error_of(ErrorKind::kBadFile, [&] { load_text(text); });
    EXPECT_THAT(message, HasSubstr("tokenizer.json"));
    return message;
  }
  TempDir dir_;
};

TEST_F(SmallFile, AddedTokens) {
  json file = small();
  file["added_tokens"] =
      json::array({added(5, "<x>"), added(6, "x", {{"special", false}}), added(7, "<xx", {{"special", false}})});
  EXPECT_THAT(load(file)->encode("<x>x<xx<x>"), ElementsAre(6, 7)) << "a special token's text hides what is in it";
  EXPECT_THAT(ids(file, "a<x>b"), ElementsAre(0, 5, 1));
  file["added_tokens"] = json::array({added(5, "<x>", {{"single_word", true}})});
  EXPECT_THAT(ids(file, "a<x>b <x> <x>b"), ElementsAre(3, 5, 1)) << "the rest is one word, its signs unknown";
  file["added_tokens"] = {added(5, "<x>", {{"lstrip", true}, {"rstrip", true}}), added(6, "<y>", {{"lstrip", true}})};
  EXPECT_THAT(ids(file, "a  <x>  <y> b\n<y>"), ElementsAre(0, 5, 6, 1, 6));
  file["added_tokens"] = json::array({added(5, "<N>", {{"normalized", true}})});
  file["normalizer"] = {{"type", "Lowercase"}};
  EXPECT_THAT(ids(file, "<n>A"), ElementsAre(5, 0));
}

TEST_F(SmallFile, RobertasFrame) {
  json file = small();
  file["post_processor"] = json::parse(
      R"({"type": "RobertaProcessing", "sep": ["b", 1], "cls": ["a", 0], "trim_offsets": true, "add_prefix_space": false})");
  EXPECT_THAT(load(file)->frame().before, ElementsAre(0));
  EXPECT_THAT(load(file)->frame().after, ElementsAre(1));
  file["post_processor"]["sep"] = {"b"};
  EXPECT_THAT(refused(file), AllOf(HasSubstr("post_processor.sep"), HasSubstr("a token and its id")));
}

// "cb" becomes c, b</w>; a b within a word is a different symbol.
TEST_F(SmallFile, EndOfWordSuffix) {
  json file = small();
  file["model"]["end_of_word_suffix"] = "!";
  file["model"]["vocab"].update({{"b!", 5}, {"ab!", 6}});
  file["model"]["merges"] = {"a b", "a b!"};
  EXPECT_THAT(ids(file, "ab"), ElementsAre(6));
  EXPECT_THAT(ids(file, "abcb"), ElementsAre(3, 2, 5));
  file["model"]["byte_fallback"] = true;
  EXPECT_THAT(refused(file), HasSubstr("model.byte_fallback"));
  file["model"]["byte_fallback"] = false;
  file["model"]["continuing_subword_prefix"] = "##";
  EXPECT_THAT(refused(file), HasSubstr("model.continuing_subword_prefix"));
}

TEST_F(SmallFile, UnknownCharacters) {
  json file = small();
  EXPECT_THAT(ids(file, "azb"), ElementsAre(3)) << "without unk_token they are dropped";
  file["model"]["unk_token"] = "c";
  EXPECT_THAT(ids(file, "azzb"), ElementsAre(0, 2, 2, 1));
  file["model"]["fuse_unk"] = true;
  EXPECT_THAT(ids(file, "azzb"), ElementsAre(0, 2, 1));
  file["model"]["byte_fallback"] = true;
  file["model"]["vocab"].update({{"<0xC3>", 5}, {"<0xA9>", 6}});
  EXPECT_THAT(ids(file, "z\xc3\xa9za"), ElementsAre(5, 6, 2, 0)) << "the package's order";
}

TEST_F(SmallFile, MetaspaceAndDecoders) {
  json file = small();
  file["added_tokens"] = json::array({added(5, "<x>")});
  file["pre_tokenizer"] = {{"type", "Metaspace"}, {"replacement", "▁"}, {"prepend_scheme", "first"}, {"split", false}};
  EXPECT_THAT(ids(file, "a<x>a"), ElementsAre(4, 0, 5, 0));
  EXPECT_THAT(ids(file, "<x>a"), ElementsAre(5, 0));
  file["normalizer"] = {{"type", "Strip"}, {"strip_left", true}, {"strip_right", false}};
  EXPECT_THAT(ids(file, " a"), ElementsAre(0)) << "what was in front is gone, so it is not the start";
  file["decoder"] = {{"type", "Metaspace"}, {"replacement", "▁"}, {"prepend_scheme", "always"}};
  EXPECT_EQ(load(file)->decode(Ids{4, 0, 4, 5, 1}), "a b");
  file["decoder"]["prepend_scheme"] = "never";
  EXPECT_EQ(load(file)->decode(Ids{4, 0}), " a");
  file["decoder"] = nullptr;
  EXPECT_EQ(load(file)->decode(Ids{0, 1}), "a b");
}

// As the package does, tried character by character.
TEST_F(SmallFile, StripAccents) {
  json file = small();
  file["normalizer"] = {{"type", "StripAccents"}};
  EXPECT_THAT(ids(file, "a\u0301b\u0903"), ElementsAre(3)) << "U+0301 and U+0903 are marks";
  EXPECT_THAT(ids(file, "a\u1cf2b"), ElementsAre(3)) << "a letter since Unicode 12";
  file["model"]["vocab"].update({{"\u00e9", 5}, {"\u0898", 6}});
  EXPECT_THAT(ids(file, "\u00e9\u0898"), ElementsAre(5, 6)) << "é is one letter, and U+0898 a mark since Unicode 14";
  file["model"]["vocab"].update({{"e", 7}});
  file["normalizer"] = {{"type", "Sequence"}, {"normalizers", {{{"type", "NFD"}}, {{"type", "StripAccents"}}}}};
  EXPECT_THAT(ids(file, "\u00e9"), ElementsAre(7));
}

// A token of blanks that takes those around it takes other matches with it.
TEST_F(SmallFile, BlanksThatTakeTheirNeighbours) {
  json file = small();
  const auto blanks = [&](bool lstrip, bool rstrip) {
    file["added_tokens"] = json::array({added(5, "  ", {{"special", false}, {"lstrip", lstrip}, {"rstrip", rstrip}})});
    return ids(file, "a    b");
  };
  EXPECT_THAT(blanks(true, true), ElementsAre(0, 5, 1));
  EXPECT_THAT(blanks(false, true), ElementsAre(0, 5, 5, 1));
  EXPECT_THAT(blanks(true, false), ElementsAre(0, 5, 5, 1));
  EXPECT_THAT(blanks(false, false), ElementsAre(0, 5, 5, 1));
}

TEST_F(SmallFile, HolesAreNamed) {
  json file = small();
  file["model"]["vocab"]["hole"] = 9;
  const auto tokenizer = load(file);
  EXPECT_EQ(tokenizer->vocab_size(), 10);
  EXPECT_EQ(tokenizer->decode(Ids{9}), "hole");
  EXPECT_THAT(error_of(ErrorKind::kInvalidArgument, [&] { tokenizer->decode(Ids{7}); }), HasSubstr("id 7"));
  EXPECT_THAT(error_of(ErrorKind::kInvalidArgument, [&] { tokenizer->decode(Ids{10}); }), HasSubstr("10"));
}

TEST_F(SmallFile, InvalidModels) {
  const auto changed = [&](const char* pointer, const json& value) {
    json file = small();
    file[json::json_pointer(pointer)] = value;
    return refused(file);
  };
  EXPECT_THAT(changed("/model/type", "WordPiece"),
              AllOf(HasSubstr("model.type"), HasSubstr("WordPiece"), HasSubstr("BPE")));
  EXPECT_THAT(changed("/model/vocab", json::object()), HasSubstr("model.vocab is empty"));
  EXPECT_THAT(changed("/model/vocab", json::array({json::array({"a", 0.5})})), HasSubstr("model.vocab: an array"));
  EXPECT_THAT(changed("/model/vocab/b", 0), AllOf(HasSubstr("\"a\" and \"b\""), HasSubstr("id 0")));
  EXPECT_THAT(changed("/model/vocab/b", -1), HasSubstr("\"b\" has -1"));
  EXPECT_THAT(changed("/model/vocab/b", 2147483648u), HasSubstr("2147483648"));
  EXPECT_THAT(changed("/model/vocab/b", 2147483647), AllOf(HasSubstr("2147483647"), HasSubstr("less than")));
  EXPECT_THAT(changed("/model/vocab/b", "1"), HasSubstr("a string"));
  EXPECT_THAT(changed("/model/vocab/b", json::object()), HasSubstr("an object"));
  EXPECT_THAT(changed("/model/merges", {"a b", "a z"}), AllOf(HasSubstr("merges[1]"), HasSubstr("\"z\"")));
  EXPECT_THAT(changed("/model/merges", {"b a"}), AllOf(HasSubstr("merges[0]"), HasSubstr("\"ba\"")));
  for (const json& merge : {json("ab"), json("a b c"), json(" b"), json("a "), json(""), json(7), json({"a"}),
                            json({"a", "b", "c"}), json({"a", 1}), json::array(), json({{"a", "b"}}), json({"", "a"})})
    EXPECT_THAT(changed("/model/merges", json::array({merge})), HasSubstr("model.merges[0]")) << merge;
  EXPECT_THAT(changed("/model/dropout", 0.1), HasSubstr("dropout"));
  EXPECT_THAT(changed("/model/continuing_subword_prefix", "##"), HasSubstr("continuing_subword_prefix"));
  EXPECT_THAT(changed("/model/unk_token", "zz"), HasSubstr("unk_token"));
  EXPECT_THAT(changed("/model/new_option", true), HasSubstr("new_option"));
  EXPECT_THAT(changed("/another", true), HasSubstr("another"));
  json file = small();
  file.erase("model");
  EXPECT_THAT(refused(file), HasSubstr("\"model\""));
}

TEST_F(SmallFile, InvalidAddedTokens) {
  const auto with = [&](const json& tokens) {
    json file = small();
    file["added_tokens"] = tokens;
    return refused(file);
  };
  EXPECT_THAT(with(json::array({added(5, "<x>"), added(5, "<y>")})), AllOf(HasSubstr("<y>"), HasSubstr("id 5")));
  EXPECT_THAT(with(json::array({added(5, "<x>"), added(6, "<x>")})), HasSubstr("occurs twice"));
  EXPECT_THAT(with(json::array({added(1, "<x>")})), AllOf(HasSubstr("<x>"), HasSubstr("\"b\"")));
  EXPECT_THAT(with(json::array({added(2, "a")})), AllOf(HasSubstr("\"a\" has id 2"), HasSubstr("0")));
  EXPECT_THAT(with(json::array({added(2'000'000'000, "<x>")})), HasSubstr("2000000000"));
  EXPECT_THAT(with(json::array({added(-1, "<x>")})), HasSubstr("added_tokens[0].id"));
  EXPECT_THAT(with(json::array({added(5, "<x>", {{"special", 1}})})), HasSubstr("added_tokens[0].special"));
  EXPECT_THAT(with(json::array({{{"id", 5}}})), HasSubstr("content"));
  EXPECT_THAT(with("none"), HasSubstr("added_tokens: \"none\"; expected an array"));
}

TEST_F(SmallFile, PartsThatAreNotSupported) {
  const auto with = [&](const char* part, const char* text) {
    json file = small();
    file[part] = json::parse(text);
    return refused(file);
  };
  EXPECT_THAT(with("normalizer", R"({"type": "BertNormalizer"})"),
              AllOf(HasSubstr("normalizer.type"), HasSubstr("BertNormalizer")));
  EXPECT_THAT(with("normalizer", R"({"type": "Sequence", "normalizers": [{"type": "NFC"}, {"type": "Nmt"}]})"),
              HasSubstr("normalizer.normalizers[1].type"));
  EXPECT_THAT(with("normalizer", R"({"type": "Replace", "pattern": {"String": ""}, "content": "x"})"),
              HasSubstr("not empty"));
  EXPECT_THAT(with("pre_tokenizer", R"({"type": "BertPreTokenizer"})"), HasSubstr("BertPreTokenizer"));
  EXPECT_THAT(
      with("pre_tokenizer", R"({"type": "Sequence", "pretokenizers": [{"type": "ByteLevel"}, {"type": "ByteLevel"}]})"),
      HasSubstr("behind ByteLevel"));
  EXPECT_THAT(with("pre_tokenizer", R"({"type": "Split", "pattern": {"Regex": "(a"}, "behavior": "Isolated"})"),
              AllOf(HasSubstr("pre_tokenizer.pattern.Regex"), HasSubstr("(a")));
  EXPECT_THAT(with("pre_tokenizer", R"({"type": "Split", "pattern": {"Regex": "a"}, "behavior": "Odd"})"),
              HasSubstr("Odd"));
  EXPECT_THAT(with("pre_tokenizer", R"({"type": "Metaspace", "replacement": "ab"})"), HasSubstr("one character"));
  EXPECT_THAT(with("decoder", R"({"type": "WordPiece"})"), HasSubstr("decoder.type"));
  EXPECT_THAT(
      with(
          "decoder",
          R"({"type": "Sequence", "decoders": [{"type": "Fuse"}, {"type": "Strip", "content": " ", "start": 0, "stop": 1}]})"),
      HasSubstr("stop"));
  EXPECT_THAT(with("post_processor", R"({"type": "OddProcessing"})"), HasSubstr("post_processor.type"));
  EXPECT_THAT(
      with("post_processor", R"({"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "q", "type_id": 0}},
              {"Sequence": {"id": "A", "type_id": 0}}], "special_tokens": {"q": {"id": "q", "ids": [77]}}})"),
      HasSubstr("77"));
}

TEST_F(SmallFile, InvalidJson) {
  const std::string good = small().dump();
  for (size_t size : {size_t{0}, size_t{1}, good.size() / 2, good.size() - 1})
    EXPECT_THAT(refused_text(good.substr(0, size)), HasSubstr("not valid JSON"));
  EXPECT_THAT(refused_text(std::string(100'000, '[')), HasSubstr("deeper than"));
  EXPECT_THAT(refused_text("[1, 2]"), HasSubstr("expected an object"));
  EXPECT_THAT(refused_text("{\"model\": 3, \"model\": 4}"), HasSubstr("occurs twice"));
  EXPECT_THAT(refused_text(R"({"model": {"vocab": {"a": 0, "a": 1}, "merges": []}})"), HasSubstr("\"a\" occurs twice"));
  EXPECT_THAT(refused_text(R"({"model": {"vocab": {"a": 0}, "vocab": {"b": 1}}})"),
              HasSubstr("\"vocab\" occurs twice"));
  EXPECT_THAT(refused_text("{\"a\": \"\xff\"}"), HasSubstr("not valid JSON"));
  EXPECT_THAT(refused_text(R"({"x": [)" + std::string(3'000'000, '0').replace(1, 0, "") + "]}"),
              HasSubstr("not valid JSON"));
}

TEST_F(SmallFile, FilesBesideIt) {
  put_file(dir_ / "tokenizer_config.json", R"({"bos_token": {"content": "a"}, "eos_token": null})");
  put_file(dir_ / "special_tokens_map.json", R"({"bos_token": "b", "eos_token": "c"})");
  put_file(dir_ / "generation_config.json", R"({"bos_token_id": 4, "eos_token_id": [2, 3]})");
  const auto tokenizer = load(small());
  EXPECT_EQ(tokenizer->bos_id(), 0) << "the first file that names one";
  EXPECT_EQ(tokenizer->eos_id(), 2);
  EXPECT_THAT(tokenizer->eos_ids(), ElementsAre(2, 3));
  put_file(dir_ / "tokenizer_config.json", R"({"bos_token": "<none>"})");
  EXPECT_THAT(error_of(ErrorKind::kBadFile, [&] { load(small()); }),
              AllOf(HasSubstr("tokenizer_config.json: bos_token"), HasSubstr("<none>")));
}

TEST_F(SmallFile, ChosenBeforeASentencepieceModel) {
  put_file(dir_ / "tokenizer.model", "anything");
  EXPECT_EQ(load(small())->kind(), "bpe");
}

TEST(SpecialTokens, OfTheOtherTokenizers) {
  const auto bytes = make_byte_tokenizer();
  EXPECT_THAT(bytes->encode("a<|endoftext|>", SpecialTokens::kParse), ElementsAre('a', 256));
  EXPECT_EQ(bytes->token_id("<|endoftext|>"), 256);
  EXPECT_THAT(bytes->eos_ids(), ElementsAre(256));
}

}  // namespace
}  // namespace coca::text::json_tokenizer_test
