// SPDX-License-Identifier: Apache-2.0
#include "coca/text/tokenizer.h"

#include <sentencepiece_trainer.h>

#include <algorithm>
#include <numeric>
#include <sstream>

#include "coca/base/memory.h"
#include "coca/base/rng.h"
#include "coca/text/utf8.h"
#include "support/faults.h"
#include "support/temp_dir.h"

namespace coca::text::tokenizer_test {
namespace {

using test::error_of;
using test::get_file;
using test::put_file;
using test::TempDir;
using ::testing::AllOf;
using ::testing::HasSubstr;

std::string sample_text() {
  std::string text;
  for (int i = 0; i < 40; ++i)
    text += "The grass is green. The sky is blue, " + std::to_string(i * 37) +
            " times.\nHere we go: there  and   back again.\n\n\tCaf\xc3\xa9 na\xc3\xafve "
            "\xe2\x80\x9cquote\xe2\x80\x9d\n";
  return text;
}

struct Trained {
  TempDir dir;
  std::unique_ptr<Tokenizer> tokenizer;
};

SentencePieceTraining small_training(const std::filesystem::path& input, const std::filesystem::path& prefix) {
  return {.inputs = {input}, .model_prefix = prefix, .vocab_size = 360};
}

const Tokenizer& trained() {
  static const Trained* const kept = [] {
    auto* made = new Trained;
    put_file(made->dir / "in.txt", sample_text());
    train_sentencepiece(small_training(made->dir / "in.txt", made->dir / "tokenizer"));
    made->tokenizer = load_tokenizer(made->dir.path());
    return made;
  }();
  return *kept->tokenizer;
}

// Random valid UTF-8 of all lengths with blanks and newlines, but without U+2581, which sentencepiece treats as a
// blank.
std::string random_text(Rng& rng, size_t characters) {
  const uint32_t ranges[][2] = {{0x20, 0x7e},  {0x20, 0x20},     {0x0a, 0x0a},
                                {0xa1, 0x7ff}, {0x4e00, 0x9fff}, {0x1f300, 0x1f6ff}};
  std::string text;
  for (size_t i = 0; i < characters; ++i) {
    const auto& range = ranges[rng.below(6)];
    const uint32_t c = range[0] + static_cast<uint32_t>(rng.below(range[1] - range[0] + 1));
    const auto put = [&](uint32_t byte) { text += static_cast<char>(byte); };
    if (c < 0x80)
      put(c);
    else if (c < 0x800) {
      put(0xc0 | c >> 6);
      put(0x80 | (c & 63));
    } else if (c < 0x10000) {
      put(0xe0 | c >> 12);
      put(0x80 | (c >> 6 & 63));
      put(0x80 | (c & 63));
    } else {
      put(0xf0 | c >> 18);
      put(0x80 | (c >> 12 & 63));
      put(0x80 | (c >> 6 & 63));
      put(0x80 | (c & 63));
    }
  }
  return text;
}

void expect_stream_equals_decode(const Tokenizer& tokenizer, const std::vector<int32_t>& ids, bool valid_text) {
  StreamDecoder stream(tokenizer);
  std::string text;
  for (const int32_t id : ids) {
    const std::string part = stream.push(id);
    if (valid_text) {
      ASSERT_TRUE(is_valid_utf8(part)) << "half a character was emitted";
    }
    text += part;
  }
  text += stream.finish();
  ASSERT_EQ(text, tokenizer.decode(ids));
}

TEST(ByteTokenizer, EncodesAnyBytes) {
  const auto tokenizer = make_byte_tokenizer();
  std::string all(256, '\0');
  std::iota(all.begin(), all.end(), '\0');
  std::vector<int32_t> ids = tokenizer->encode(all);
  ASSERT_EQ(ids.size(), 256u);
  EXPECT_EQ(ids[200], 200);
  EXPECT_EQ(tokenizer->decode(ids), all);
  ids.insert(ids.begin() + 5, 256);
  EXPECT_EQ(tokenizer->decode(ids), all) << "end of text decodes to nothing";
  EXPECT_EQ(tokenizer->vocab_size(), 257);
  EXPECT_EQ(tokenizer->bos_id(), 256);
  EXPECT_EQ(tokenizer->eos_id(), 256);
  EXPECT_EQ(tokenizer->encode("<|endoftext|>").size(), 13u) << "text never becomes a control id";
  for (const int32_t bad : {-1, 257})
    EXPECT_THAT(error_of(ErrorKind::kInvalidArgument, [&] { tokenizer->decode(std::vector<int32_t>{bad}); }),
                HasSubstr(std::to_string(bad)));
}

TEST(SentencePiece, AnyTextRoundTrips) {
  const Tokenizer& tokenizer = trained();
  EXPECT_EQ(tokenizer.kind(), "sentencepiece");
  EXPECT_EQ(tokenizer.vocab_size(), 360);
  EXPECT_EQ(tokenizer.bos_id(), 1);
  EXPECT_EQ(tokenizer.eos_id(), 2);
  for (const char* text :
       {"", " ", "  ", "\n", "\n\n \n", " leading", "trailing ", "a  b   c", "\t", "The grass is green.",
        "\xe4\xb8\xad\xe6\x96\x87", "\xf0\x9f\x98\x80", "\r\n", "<s>", "</s>", "<unk>", "<0x41>"})
    EXPECT_EQ(tokenizer.decode(tokenizer.encode(text)), text) << "\"" << text << "\"";
  EXPECT_EQ(tokenizer.decode(tokenizer.encode(sample_text())), sample_text());
  Rng rng(3);
  for (int i = 0; i < 200; ++i) {
    const std::string text = random_text(rng, 1 + rng.below(40));
    ASSERT_EQ(tokenizer.decode(tokenizer.encode(text)), text);
  }
  const std::vector<int32_t> ids = tokenizer.encode(sample_text());
  EXPECT_LT(ids.size() * 2, sample_text().size()) << "training must have found words";
  for (const char* text : {"<s>a</s>", "<unk>"})
    for (const int32_t id : tokenizer.encode(text)) EXPECT_GT(id, 2) << "text became a control id";
}

TEST(SentencePiece, PiecesJoinAndControlIdsAreSilent) {
  const Tokenizer& tokenizer = trained();
  const std::vector<int32_t> joined = tokenizer.encode("The pass key is 73914");
  std::vector<int32_t> parts = tokenizer.encode("The pass key is");
  const std::vector<int32_t> answer = tokenizer.encode(" 73914");
  parts.insert(parts.end(), answer.begin(), answer.end());
  EXPECT_EQ(parts, joined);
  parts.insert(parts.begin(), *tokenizer.bos_id());
  parts.push_back(*tokenizer.eos_id());
  EXPECT_EQ(tokenizer.decode(parts), "The pass key is 73914");
}

TEST(SentencePiece, ControlTokensAreParsedOnRequest) {
  const Tokenizer& tokenizer = trained();
  const std::vector<int32_t> ids = tokenizer.encode("<s>green</s>", SpecialTokens::kParse);
  std::vector<int32_t> expected = {1};
  for (const int32_t id : tokenizer.encode("green")) expected.push_back(id);
  expected.push_back(2);
  EXPECT_EQ(ids, expected);
  EXPECT_EQ(tokenizer.token_id("</s>"), 2);
  EXPECT_FALSE(tokenizer.token_id("no such piece"));
}

// A model that adds a blank before the text, and the files beside it.
class BesideAModel : public testing::Test {
 protected:
  BesideAModel() {
    put_file(dir / "in.txt", sample_text());
    std::string model;
    std::istringstream lines(sample_text());
    const auto status = sentencepiece::SentencePieceTrainer::Train({{"input", (dir / "in.txt").string()},
                                                                    {"vocab_size", "340"},
                                                                    {"model_type", "bpe"},
                                                                    {"byte_fallback", "true"},
                                                                    {"character_coverage", "1"},
                                                                    {"add_dummy_prefix", "true"},
                                                                    {"remove_extra_whitespaces", "false"},
                                                                    {"minloglevel", "2"}},
                                                                   nullptr, &model);
    EXPECT_TRUE(status.ok()) << status.ToString();
    put_file(dir / "f/tokenizer.model", model);
    EXPECT_TRUE(library.LoadFromSerializedProto(model).ok());
  }
  std::vector<int32_t> plain(std::string_view text) const { return library.EncodeAsIds(std::string(text)); }
  std::unique_ptr<Tokenizer> load() const { return load_tokenizer(dir / "f"); }
  std::string refused() const {
    return error_of(ErrorKind::kBadFile, [&] { load(); });
  }
  std::vector<int32_t> parsed(std::string_view text) const { return load()->encode(text, SpecialTokens::kParse); }
  static std::vector<int32_t> joined(std::initializer_list<std::vector<int32_t>> parts) {
    std::vector<int32_t> all;
    for (const auto& part : parts) all.insert(all.end(), part.begin(), part.end());
    return all;
  }
  void put(const std::string& name, std::string_view content) const { put_file(dir / ("f/" + name), content); }

  TempDir dir;
  sentencepiece::SentencePieceProcessor library;
};

TEST_F(BesideAModel, AddedTokensJsonCounts) {
  const std::string bare = load()->fingerprint();
  put("added_tokens.json", R"({"<|im_end|>": 340, "<|im_start|>": 341, "<tool>": 342})");
  put("tokenizer_config.json",
      R"({"eos_token": "<|im_end|>", "additional_special_tokens": ["<|im_start|>"], "add_bos_token": false, "legacy": true})");
  const auto tokenizer = load();
  EXPECT_EQ(tokenizer->vocab_size(), 343);
  EXPECT_EQ(tokenizer->eos_id(), 340);
  EXPECT_EQ(tokenizer->bos_id(), 1) << "the model's own";
  EXPECT_TRUE(tokenizer->has_frame());
  EXPECT_TRUE(tokenizer->frame().before.empty());
  EXPECT_NE(tokenizer->fingerprint(), bare);
  EXPECT_EQ(tokenizer->token_id("<tool>"), 342);
  EXPECT_EQ(parsed("<|im_start|>sky\n<|im_end|>"), joined({{341}, plain("sky\n"), {340}}))
      << "each part has its blank in front";
  EXPECT_EQ(tokenizer->encode("<|im_start|>"), plain("<|im_start|>")) << "text never becomes a control id";
  EXPECT_EQ(tokenizer->encode("is<tool>sky"), joined({plain("is"), {342}, plain("sky")}))
      << "a token that is not special is always found";
  EXPECT_EQ(tokenizer->decode(parsed("<|im_start|>sky<|im_end|>")), "sky");
  EXPECT_EQ(tokenizer->decode(std::vector<int32_t>{342}), "<tool>");
  const std::filesystem::path saved = dir / "saved";
  std::filesystem::create_directories(saved);
  tokenizer->save(saved);
  EXPECT_EQ(load_tokenizer(saved)->eos_id(), 340);
  EXPECT_EQ(load_tokenizer(saved)->fingerprint(), tokenizer->fingerprint());
  EXPECT_EQ(load_tokenizer(dir / "f/tokenizer.model")->vocab_size(), 340) << "the file on its own";
}

TEST_F(BesideAModel, TheDecoderOfTheConfigCounts) {
  put("tokenizer_config.json", R"({"added_tokens_decoder": {
    "2": {"content": "</s>", "special": true, "lstrip": false, "rstrip": false, "normalized": false, "single_word": false},
    "340": {"content": "<a>", "special": true, "lstrip": true, "rstrip": true},
    "342": {"content": "<b>", "special": false, "single_word": true}}, "eos_token": {"content": "<a>"}, "tokenizer_class": "LlamaTokenizer"})");
  const auto tokenizer = load();
  EXPECT_EQ(tokenizer->vocab_size(), 343);
  EXPECT_EQ(tokenizer->eos_id(), 340);
  EXPECT_EQ(parsed("<a>"), std::vector<int32_t>{340});
  EXPECT_EQ(parsed("is  <a>  "), joined({plain("is"), {340}})) << "blanks belong to it";
  EXPECT_EQ(parsed("x<b>"), plain("x<b>"));
  EXPECT_EQ(tokenizer->encode("<b>"), std::vector<int32_t>{342});
  EXPECT_THAT(error_of(ErrorKind::kInvalidArgument, [&] { tokenizer->decode(std::vector<int32_t>{341}); }),
              HasSubstr("341"));
  // LLaMA's tokenizer class without "legacy" adds the blank only before the text.
  EXPECT_EQ(parsed("</s> sky"), joined({{2}, plain("sky")}));
  EXPECT_NE(parsed("</s>sky"), joined({{2}, plain("sky")}));
  EXPECT_EQ(tokenizer->decode(parsed("</s>sky")), "sky");
}

TEST_F(BesideAModel, NamedTokensWithoutAnIdGetTheNext) {
  put("special_tokens_map.json",
      R"({"eos_token": {"content": "<end>"}, "pad_token": "[PAD]", "additional_special_tokens": ["<x>"]})");
  EXPECT_EQ(load()->eos_id(), 340);
  EXPECT_EQ(load()->token_id("[PAD]"), 341);
  EXPECT_EQ(load()->token_id("<x>"), 342);
  put("special_tokens_map.json", R"({"eos_token": "</s>", "pad_token": "[PAD]"})");
  EXPECT_EQ(load()->vocab_size(), 340) << "nothing here is padded";
  EXPECT_EQ(load()->eos_id(), 2);
}

TEST_F(BesideAModel, AControlPieceIsRenamedByARoleOnly) {
  put("tokenizer_config.json",
      R"({"added_tokens_decoder": {"2": {"content": "<|end|>", "special": true}}, "eos_token": "<|end|>"})");
  EXPECT_EQ(load()->eos_id(), 2);
  EXPECT_EQ(parsed("<|end|>"), std::vector<int32_t>{2});
  put("tokenizer_config.json", R"({"added_tokens_decoder": {"2": {"content": "<|end|>", "special": true}}})");
  EXPECT_THAT(refused(), HasSubstr("which is \"</s>\" in tokenizer.model"));
  put("special_tokens_map.json", R"({"additional_special_tokens": ["<|end|>"]})");
  EXPECT_EQ(load()->token_id("<|end|>"), 2);
}

TEST_F(BesideAModel, IgnoredTokensAndNewIdsAreNamed) {
  const test::Warnings notes;
  put("added_tokens.json", R"({"": 300})");
  put("tokenizer_config.json", R"({"eos_token": "<|nope|>"})");
  for (int time = 0; time < 2; ++time) EXPECT_EQ(load()->eos_id(), 340);
  EXPECT_THAT(
      notes.texts(),
      testing::ElementsAre(AllOf(HasSubstr("added_tokens.json"), HasSubstr("without text, id 300")),
                           AllOf(HasSubstr("tokenizer_config.json"), HasSubstr("\"<|nope|>\""), HasSubstr("340"))));
}

TEST_F(BesideAModel, UnsupportedTokensNameTheFile) {
  const auto with = [&](const char* file, const char* content) {
    put(file, content);
    const std::string message = refused();
    std::filesystem::remove(dir / (std::string("f/") + file));
    return message;
  };
  EXPECT_THAT(with("added_tokens.json", R"({"<s>": 340})"),
              AllOf(HasSubstr("added_tokens.json"), HasSubstr("in tokenizer.model 1")));
  EXPECT_THAT(with("added_tokens.json", R"({"<a>": 340, "<b>": 340})"),
              AllOf(HasSubstr("added_tokens.json"), HasSubstr("as \"<a>\" has")));
  EXPECT_THAT(with("added_tokens.json", R"({"<a>": 300})"), HasSubstr("in tokenizer.model"));
  EXPECT_THAT(with("added_tokens.json", R"({"<a>": 2000000000})"), HasSubstr("expected less than"));
  EXPECT_THAT(with("added_tokens.json", R"({"<a>": "x"})"), HasSubstr("added_tokens.json"));
  EXPECT_THAT(with("tokenizer_config.json", R"({"added_tokens_decoder": {"x": {"content": "<a>"}}})"),
              HasSubstr("added_tokens_decoder.x"));
  for (const char* id : {"1", "2", "300"})  // </s> is a control piece, which only a token with a role may replace
    EXPECT_THAT(
        with("tokenizer_config.json",
             fmt::format(R"({{"added_tokens_decoder": {{"{}": {{"content": "<a>", "special": true}}}}}})", id).c_str()),
        AllOf(HasSubstr("tokenizer_config.json"), HasSubstr("\"<a>\" has id " + std::string(id)),
              HasSubstr("in tokenizer.model")));
  EXPECT_THAT(with("added_tokens.json", R"({"<a>": 2})"),
              AllOf(HasSubstr("added_tokens.json"), HasSubstr("which is \"</s>\"")));
  put("added_tokens.json", R"({"<a>": 341})");
  EXPECT_THAT(with("tokenizer_config.json", R"({"added_tokens_decoder": {"340": {"content": "<a>"}}})"),
              AllOf(HasSubstr("added_tokens.json"), HasSubstr("340, as"), HasSubstr("tokenizer_config.json says")));
}

TEST(SentencePiece, LineByLineEncodingIsTheLibrarys) {
  TempDir dir;
  trained().save(dir.path());
  sentencepiece::SentencePieceProcessor library;
  ASSERT_TRUE(library.LoadFromSerializedProto(get_file(dir / "tokenizer.model")).ok());
  Rng rng(6);
  for (int i = 0; i < 300; ++i) {
    const std::string text = i == 0 ? sample_text() : random_text(rng, rng.below(80));
    ASSERT_EQ(trained().encode(text), std::vector<int32_t>(library.EncodeAsIds(text))) << text;
  }
}

TEST(SentencePiece, AgreesWithTheLibraryOnBothSpaceRules) {
  TempDir dir;
  put_file(dir / "in.txt", sample_text());
  for (const char* dummy : {"true", "false"})
    for (const char* remove : {"true", "false"}) {
      std::string model;
      std::istringstream lines(sample_text());
      const auto status = sentencepiece::SentencePieceTrainer::Train({{"input", (dir / "in.txt").string()},
                                                                      {"vocab_size", "340"},
                                                                      {"model_type", "bpe"},
                                                                      {"byte_fallback", "true"},
                                                                      {"add_dummy_prefix", dummy},
                                                                      {"remove_extra_whitespaces", remove},
                                                                      {"minloglevel", "3"}},
                                                                     nullptr, &model);
      ASSERT_TRUE(status.ok()) << status.ToString();
      put_file(dir / "x.model", model);
      const auto tokenizer = load_sentencepiece(dir / "x.model");
      sentencepiece::SentencePieceProcessor library;
      ASSERT_TRUE(library.LoadFromSerializedProto(model).ok());
      for (const char* text : {"green", " green", "  two blanks", "a  b", "sky \xf0\x9f\x98\x80 is", "\xc3\xa9 x", " ",
                               "\n a", "a \n a\n\na", " \n"}) {
        const std::vector<int32_t> ids = tokenizer->encode(text);
        EXPECT_EQ(ids, std::vector<int32_t>(library.EncodeAsIds(text)));
        EXPECT_EQ(tokenizer->decode(ids), library.DecodeIds(ids)) << text << " dummy " << dummy << " remove " << remove;
        expect_stream_equals_decode(*tokenizer, ids, true);
      }
      Rng rng(5);
      for (int i = 0; i < 300; ++i) {  // any ids except bytes, which the library repairs differently
        std::vector<int32_t> ids;
        for (int j = 0; j < 6; ++j) {
          const int32_t id = static_cast<int32_t>(rng.below(340));
          if (!library.IsByte(id)) ids.push_back(id);
        }
        ASSERT_EQ(tokenizer->decode(ids), library.DecodeIds(ids)) << "dummy " << dummy << " remove " << remove;
      }
    }
}

// Long lines are split between words wherever the library gives the same ids, whatever it does with blanks. This avoids
// its use of about 120 bytes of memory per byte of text.
TEST(SentencePiece, LongLinesInPartsEqualTheLibrarys) {
  TempDir dir;
  put_file(dir / "in.txt", sample_text());
  Rng rng(8);
  std::string line;
  while (line.size() < 400'000) {
    line += random_text(rng, rng.below(40));
    line += rng.below(2) == 0 ? "grass is green. The sky" : "back  again 37 na\xc3\xafve";
    line.append(static_cast<size_t>(rng.below(3)), ' ');
  }
  std::ranges::replace(line, '\n', 'n');
  for (const char* type : {"bpe", "unigram"})
    for (const char* rule : {"identity", "nmt_nfkc"})
      for (const char* dummy : {"true", "false"})
        for (const char* remove : {"true", "false"}) {
          std::string model;
          const auto status = sentencepiece::SentencePieceTrainer::Train({{"input", (dir / "in.txt").string()},
                                                                          {"vocab_size", "340"},
                                                                          {"hard_vocab_limit", "false"},
                                                                          {"model_type", type},
                                                                          {"byte_fallback", "true"},
                                                                          {"normalization_rule_name", rule},
                                                                          {"add_dummy_prefix", dummy},
                                                                          {"remove_extra_whitespaces", remove},
                                                                          {"minloglevel", "3"}},
                                                                         nullptr, &model);
          ASSERT_TRUE(status.ok()) << status.ToString();
          put_file(dir / "x.model", model);
          sentencepiece::SentencePieceProcessor library;
          ASSERT_TRUE(library.LoadFromSerializedProto(model).ok());
          EXPECT_EQ(load_sentencepiece(dir / "x.model")->encode(line), std::vector<int32_t>(library.EncodeAsIds(line)))
              << type << " " << rule << " dummy " << dummy << " remove " << remove;
        }
  std::string words;
  while (words.size() < 4'000'000) words += "grass is green and blue ";
  reset_peak_resident();
  const int64_t before = peak_resident_bytes();
  trained().encode(words);
  EXPECT_LT(peak_resident_bytes() - before, 30 * static_cast<int64_t>(words.size()));
}

TEST(SentencePiece, TrainingIsDeterministicAndLeavesOneFile) {
  TempDir dir;
  put_file(dir / "in.txt", sample_text());
  for (const char* type : {"bpe", "unigram"}) {
    std::string models[2];
    for (std::string& model : models) {
      SentencePieceTraining training = small_training(dir / "in.txt", dir / "out/m");
      std::filesystem::remove_all(dir / "out");
      std::filesystem::create_directories(dir / "out");
      training.model_type = type;
      training.vocab_size = 310;
      testing::internal::CaptureStderr();
      testing::internal::CaptureStdout();
      train_sentencepiece(training);
      EXPECT_EQ(testing::internal::GetCapturedStderr() + testing::internal::GetCapturedStdout(), "");
      model = get_file(dir / "out/m.model");
      EXPECT_EQ(std::distance(std::filesystem::directory_iterator(dir / "out"), {}), 1);
    }
    EXPECT_EQ(models[0], models[1]) << type;
    const auto tokenizer = load_sentencepiece(dir / "out/m.model");
    EXPECT_EQ(tokenizer->decode(tokenizer->encode(sample_text())), sample_text()) << type;
  }
}

TEST(SentencePiece, TrainingVariants) {
  TempDir dir;
  put_file(dir / "in.txt", sample_text() + std::string(20000, 'a') + "\xff\n");  // one long line, invalid UTF-8
  SentencePieceTraining training = small_training(dir / "in.txt", dir / "m");
  training.byte_fallback = false;
  training.vocab_size = 100;
  training.character_coverage = 1.0;
  train_sentencepiece(training);
  const auto plain = load_sentencepiece(dir / "m.model");
  EXPECT_EQ(plain->decode(plain->encode("sky\nblue  go")), "sky\nblue  go") << "newlines need a piece without bytes";
  training = small_training(dir / "in.txt", dir / "m2");
  training.max_sentences = 30;
  training.vocab_size = 310;
  train_sentencepiece(training);
  const auto sampled = load_sentencepiece(dir / "m2.model");
  EXPECT_EQ(sampled->decode(sampled->encode("green\n\nsky")), "green\n\nsky");
  EXPECT_NE(sampled->fingerprint(), plain->fingerprint());
}

TEST(SentencePiece, TrainingErrors) {
  TempDir dir;
  put_file(dir / "in.txt", "one two\n");
  put_file(dir / "empty.txt", "\n\n");
  const auto refused = [&](auto change, ErrorKind kind = ErrorKind::kInvalidArgument) {
    SentencePieceTraining training = small_training(dir / "in.txt", dir / "m");
    change(training);
    return error_of(kind, [&] { train_sentencepiece(training); });
  };
  EXPECT_THAT(refused([](auto& t) { t.vocab_size = 100000; }),
              AllOf(HasSubstr("100000"), HasSubstr("value <="), testing::Not(HasSubstr(".cc("))));
  EXPECT_THAT(refused([](auto& t) { t.vocab_size = 259; }), HasSubstr("259"));
  EXPECT_THAT(refused([](auto& t) { t.vocab_size = 262; }), HasSubstr("262"));
  EXPECT_THAT(refused([](auto& t) { t.model_type = "word"; }), HasSubstr("word"));
  EXPECT_THAT(refused([](auto& t) { t.character_coverage = 0.5; }), HasSubstr("0.5"));
  put_file(dir / "old.model", "old");
  EXPECT_THAT(refused([&](auto& t) { t.model_prefix = dir / "old"; }, ErrorKind::kIo), HasSubstr("exists already"));
  EXPECT_EQ(get_file(dir / "old.model"), "old");
  EXPECT_THAT(refused([](auto& t) { t.inputs.clear(); }), HasSubstr("no input"));
  EXPECT_THAT(refused([&](auto& t) { t.inputs = {dir / "empty.txt"}; }, ErrorKind::kBadFile),
              HasSubstr("there is none in 1 input file"));
  EXPECT_THAT(refused([&](auto& t) { t.inputs = {dir / "none.txt"}; }, ErrorKind::kIo), HasSubstr("none.txt"));
  EXPECT_FALSE(std::filesystem::exists(dir / "m.model"));
}

TEST(Tokenizer, SaveAndLoad) {
  TempDir dir;
  const Tokenizer& pieces = trained();
  std::filesystem::create_directories(dir / "sp");
  pieces.save(dir / "sp");
  EXPECT_EQ(load_tokenizer(dir / "sp")->fingerprint(), pieces.fingerprint());
  EXPECT_EQ(load_tokenizer(dir / "sp/tokenizer.model")->encode("sky"), pieces.encode("sky"));
  std::filesystem::create_directories(dir / "byte");
  const auto bytes = load_tokenizer("byte");
  bytes->save(dir / "byte");
  EXPECT_EQ(load_tokenizer(dir / "byte")->fingerprint(), bytes->fingerprint());
  EXPECT_EQ(load_tokenizer(dir / "byte/coca_tokenizer.json")->kind(), "byte");
  EXPECT_NE(bytes->fingerprint(), pieces.fingerprint());
  std::filesystem::create_directories(dir / "symbols");
  make_symbol_tokenizer(300)->save(dir / "symbols");
  const auto symbols = load_tokenizer(dir / "symbols");
  EXPECT_EQ(symbols->kind(), kSymbolsKind);
  EXPECT_EQ(symbols->vocab_size(), 300);
  EXPECT_NE(symbols->fingerprint(), make_symbol_tokenizer(301)->fingerprint());
}

TEST(SymbolTokenizer, ReadsAndWritesNumbers) {
  const auto symbols = make_symbol_tokenizer(300);
  EXPECT_EQ(symbols->encode(" 17 203\n4\t299"), (std::vector<int32_t>{17, 203, 4, 299}));
  EXPECT_EQ(symbols->encode(""), std::vector<int32_t>());
  EXPECT_EQ(symbols->decode(std::vector<int32_t>{17, 203, 4, 299}), "17 203 4 299");
  EXPECT_FALSE(symbols->bos_id());
  for (const char* wrong : {"300", "-1", "1.5", "abc", "7x", "99999999999999999999"})
    EXPECT_THAT(error_of(ErrorKind::kInvalidArgument, [&] { symbols->encode(std::string("3 ") + wrong); }),
                AllOf(HasSubstr(wrong), HasSubstr("numbers from 0 to 299")));
}

TEST(Tokenizer, LoadErrorsSayWhatWasLookedFor) {
  TempDir dir;
  std::filesystem::create_directories(dir / "empty");
  EXPECT_THAT(error_of(ErrorKind::kIo, [&] { load_tokenizer(dir / "empty"); }),
              AllOf(HasSubstr("tokenizer.model"), HasSubstr("coca_tokenizer.json")));
  put_file(dir / "hf/tokenizer.json", "{}");
  for (const char* place : {"hf", "hf/tokenizer.json"})
    EXPECT_THAT(error_of(ErrorKind::kBadFile, [&] { load_tokenizer(dir / place); }), HasSubstr("has no \"model\""));
  EXPECT_THAT(error_of(ErrorKind::kIo, [&] { load_tokenizer("bytes"); }),
              AllOf(HasSubstr("\"bytes\""), HasSubstr("\"byte\"")));
  put_file(dir / "both/tokenizer.model", "x");
  put_file(dir / "both/coca_tokenizer.json", R"({"type": "byte"})");
  EXPECT_THAT(error_of(ErrorKind::kBadFile, [&] { load_tokenizer(dir / "both"); }), HasSubstr("both"));
  put_file(dir / "odd/coca_tokenizer.json", R"({"type": "wordpiece"})");
  error_of(ErrorKind::kBadFile, [&] { load_tokenizer(dir / "odd"); });
  for (const char* symbols : {"0", "-3", "1.5", "\"9\"", "9e99", "4294967297", "null"}) {
    put_file(dir / "odd/coca_tokenizer.json", fmt::format(R"({{"type": "symbols", "symbols": {}}})", symbols));
    EXPECT_THAT(error_of(ErrorKind::kBadFile, [&] { load_tokenizer(dir / "odd"); }), HasSubstr("\"symbols\""));
  }
}

TEST(SentencePiece, RefusesFilesThatAreNoModel) {
  TempDir dir;
  for (const std::string& content :
       {std::string(), std::string("not a model at all"), std::string(100, '\xff'), std::string(100, '\0')}) {
    put_file(dir / "x.model", content);
    EXPECT_THAT(error_of(ErrorKind::kBadFile, [&] { load_sentencepiece(dir / "x.model"); }), HasSubstr("x.model"));
  }
}

TEST(StreamDecoder, EqualsDecodeOnRandomText) {
  Rng rng(7);
  const auto bytes = make_byte_tokenizer();
  for (const Tokenizer* tokenizer : {static_cast<const Tokenizer*>(bytes.get()), &trained()})
    for (int i = 0; i < 200; ++i) {
      const std::vector<int32_t> ids = tokenizer->encode(random_text(rng, 1 + rng.below(30)));
      expect_stream_equals_decode(*tokenizer, ids, true);
    }
}

TEST(StreamDecoder, EqualsDecodeOnRandomIds) {
  Rng rng(8);
  const auto bytes = make_byte_tokenizer();
  for (const Tokenizer* tokenizer : {static_cast<const Tokenizer*>(bytes.get()), &trained()})
    for (int i = 0; i < 500; ++i) {
      std::vector<int32_t> ids(rng.below(20));
      for (int32_t& id : ids) id = static_cast<int32_t>(rng.below(static_cast<uint64_t>(tokenizer->vocab_size())));
      expect_stream_equals_decode(*tokenizer, ids, false);
    }
}

TEST(StreamDecoder, HoldsBackPartialCharactersAndRestarts) {
  const auto tokenizer = make_byte_tokenizer();
  StreamDecoder stream(*tokenizer);
  EXPECT_EQ(stream.push('a'), "a");
  EXPECT_EQ(stream.push(0xe2), "");
  EXPECT_EQ(stream.push(0x82), "");
  EXPECT_EQ(stream.push(0xac), "\xe2\x82\xac");
  EXPECT_EQ(stream.push(0xf0), "");
  EXPECT_EQ(stream.push('x'), "\xf0x") << "can never become a character: passed through";
  EXPECT_EQ(stream.push(0xc3), "");
  EXPECT_EQ(stream.finish(), "\xc3");
  EXPECT_EQ(stream.finish(), "");
  EXPECT_EQ(stream.push('b'), "b");
}

}  // namespace
}  // namespace coca::text::tokenizer_test
