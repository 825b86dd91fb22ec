// SPDX-License-Identifier: Apache-2.0
#include "coca/train/load_data.h"

#include "train/tiny_run.h"

namespace coca::train::load_data_test {
namespace {

namespace fs = std::filesystem;

class LoadTokens : public testing::Test {
 protected:
  void put(const std::string& name, const std::string& text) { io::write_file_atomic(dir_.path() / name, text); }
  // Loads the tokens. Returns whether the cache was rebuilt.
  bool load(const std::vector<std::string>& inputs, std::string* text = nullptr) {
    bool made = false;
    const data::TokenFile file = load_tokens(inputs, *tokenizer_, cache_, [&](int64_t, int64_t) { made = true; });
    std::vector<int32_t> ids(static_cast<size_t>(file.size()));
    file.read(0, ids);
    if (text) *text = tokenizer_->decode(ids);
    return made;
  }

  test::TempDir dir_;
  std::unique_ptr<text::Tokenizer> tokenizer_ = text::make_byte_tokenizer();
  fs::path cache_ = dir_.path() / "cache" / "train.tok";
};

TEST_F(LoadTokens, CachesUntilTheInputsChange) {
  put("a.txt", "first text");
  put("b.txt", "second");
  const std::string a = (dir_.path() / "a.txt").string(), b = (dir_.path() / "b.txt").string();
  std::string text;
  EXPECT_TRUE(load({a}, &text));
  EXPECT_EQ(text, "first text");
  EXPECT_FALSE(load({a}, &text));
  EXPECT_EQ(text, "first text");
  EXPECT_TRUE(load({a, b}, &text));  // with one more file
  EXPECT_EQ(text, "first textsecond");
  EXPECT_FALSE(load({a, b}));
  put("b.txt", "third!");  // the same size at another time
  fs::last_write_time(b, fs::last_write_time(b) + std::chrono::seconds(5));
  EXPECT_TRUE(load({a, b}, &text));
  EXPECT_EQ(text, "first textthird!");
  fs::remove(cache_);
  EXPECT_TRUE(load({a, b}));
}

TEST_F(LoadTokens, TakesOneSplitOfPg19) {
  put("metadata.csv", "1,T,1900\n");
  for (const char* split : {"train", "validation", "test"}) {
    fs::create_directories(dir_.path() / split);
    put(std::string(split) + "/1.txt", std::string("of ") + split);
  }
  std::string text;
  load({dir_.path().string()}, &text);
  EXPECT_EQ(text, "of train");
  const data::TokenFile validation =
      load_tokens({dir_.path().string()}, *tokenizer_, cache_, {}, std::nullopt, data::Split::kValidation);
  EXPECT_EQ(validation.size(), static_cast<int64_t>(std::string("of validation").size()) + 1);  // plus eos
  const data::TokenFile asked =
      load_tokens({dir_.path().string()}, *tokenizer_, cache_, {}, data::Split::kTest, data::Split::kTrain);
  EXPECT_EQ(asked.size(), static_cast<int64_t>(std::string("of test").size()) + 1);
  EXPECT_THAT([&] { load_tokens({(dir_.path() / "test").string()}, *tokenizer_, cache_, {}, data::Split::kTest); },
              testing::ThrowsMessage<Error>(testing::HasSubstr("test/test is not a folder")));
  EXPECT_THAT(data::validation_of({dir_.path().string(), (dir_.path() / "train").string()}),
              testing::ElementsAre((dir_.path() / "validation").string()));
  fs::remove(dir_.path() / "validation" / "1.txt");
  EXPECT_THAT(data::validation_of({dir_.path().string()}), testing::IsEmpty());
}

TEST_F(LoadTokens, MapsATokenFile) {
  put("a.txt", "some text");
  load({(dir_.path() / "a.txt").string()});
  const fs::path other = dir_.path() / "mine.tok";
  fs::copy_file(cache_, other);
  fs::remove_all(cache_.parent_path());
  std::string text;
  EXPECT_FALSE(load({other.string()}, &text));
  EXPECT_EQ(text, "some text");
  EXPECT_FALSE(fs::exists(cache_));
}

TEST_F(LoadTokens, DocumentsOfTokenFilesAreCompared) {
  put("a.txt", "  one\nbook");
  put("b.jsonl", "{\"text\": \"new\"}\n{\"text\": \"one book\"}\n");
  const auto list = [&](const std::string& name) {
    const std::string input = (dir_.path() / name).string();
    const data::TokenFile file = load_tokens({input}, *tokenizer_, cache_);
    const std::string all = document_list({input}, file, *tokenizer_, cache_);
    std::string sampled;
    sample_tokens({input}, *tokenizer_, {}, std::nullopt, data::Split::kTrain, &sampled);
    EXPECT_EQ(all, sampled) << name;
    return all;
  };
  for (const char* name : {"a", "b"}) {
    data::BuildOptions options;
    options.corpus.inputs = {(dir_.path() / name).string() + (name[0] == 'a' ? ".txt" : ".jsonl")};
    options.output = (dir_.path() / name).string() + ".tok";
    data::build_token_file(*tokenizer_, options);
  }
  for (const char* training : {"a.txt", "a.tok"})
    for (const char* validation : {"b.jsonl", "b.tok"}) {
      const data::Overlap overlap = data::find_overlap(list(training), list(validation));
      ASSERT_EQ(overlap.documents, 1) << training << " " << validation;
      const std::string suffix = validation == std::string("b.tok") ? ": document 2" : ":2";
      EXPECT_EQ(overlap.pairs[0].evaluation, (dir_.path() / validation).string() + suffix);
    }
}

TEST_F(LoadTokens, AnotherTokenizerIsNamed) {
  data::BuildOptions options;
  put("a.txt", "some text");
  options.corpus.inputs = {(dir_.path() / "a.txt").string()};
  options.output = dir_.path() / "a.tok";
  data::build_token_file(*tokenizer_, options);
  std::string bytes = io::read_file(options.output);
  struct Other : text::Tokenizer {
    std::unique_ptr<text::Tokenizer> bytes = text::make_byte_tokenizer();
    std::string kind() const override { return "byte"; }
    int32_t vocab_size() const override { return 257; }
    std::optional<int32_t> bos_id() const override { return 256; }
    std::optional<int32_t> eos_id() const override { return 256; }
    std::optional<int32_t> token_id(std::string_view) const override { return std::nullopt; }
    std::vector<int32_t> encode(std::string_view text, text::SpecialTokens) const override {
      return bytes->encode(text);
    }
    void append_decoded(int32_t, text::DecodeState&, std::string&) const override {}
    void save(const fs::path&) const override {}
    std::string fingerprint() const override { return "other"; }
  };
  test::expect_error([&] { load_tokens({options.output.string()}, Other(), cache_); }, ErrorKind::kInvalidArgument,
                     "given is other");
}

TEST_F(LoadTokens, MissingTextIsNamed) {
  test::expect_error([&] { load({}); }, ErrorKind::kInvalidArgument, "no text given");
  EXPECT_THAT([&] { load({"/nowhere/a.txt"}); }, testing::ThrowsMessage<Error>(testing::HasSubstr("/nowhere/a.txt")));
  EXPECT_FALSE(fs::exists(cache_));
}

}  // namespace
}  // namespace coca::train::load_data_test
