// Token files from the command line: importing files of trainers in the Megatron-LM family, describing them and
// training on them.
// SPDX-License-Identifier: Apache-2.0
#include <nlohmann/json.hpp>

#include "e2e/cli_fixture.h"

namespace coca::data_test {
namespace {

using test::Args;
using testing::HasSubstr;

class DataCommand : public test::CliFixture {
 protected:
  template <typename T>
  static std::string little(T value) {
    return {reinterpret_cast<const char*>(&value), sizeof value};
  }
  // Two documents of 16-bit ids of the byte tokenizer, each ending with its end-of-text.
  void put_dataset(const std::string& prefix, uint16_t first_id = 't') {
    std::vector<std::string> documents = {cats_and_dogs(40), "the dog sat. " + cats_and_dogs(2)};
    std::string data, index("MMIDIDX\0\0", 9);
    index += little<uint64_t>(1) + little<uint8_t>(8) + little<uint64_t>(2) + little<uint64_t>(3);
    std::vector<int64_t> pointers;
    for (const std::string& text : documents) {
      pointers.push_back(static_cast<int64_t>(data.size()));
      for (size_t i = 0; i < text.size(); ++i)
        data += little<uint16_t>(data.empty() ? first_id : static_cast<uint8_t>(text[i]));
      data += little<uint16_t>(256);
    }
    for (const std::string& text : documents) index += little(static_cast<int32_t>(text.size() + 1));
    for (const int64_t pointer : pointers) index += little(pointer);
    for (const int64_t document : {0, 1, 2}) index += little(document);
    put(prefix + ".idx", index);
    put(prefix + ".bin", data);
  }
};

TEST_F(DataCommand, AnImportedDatasetTrainsLikeItsText) {
  put_dataset("corpus");
  const test::Outcome imported =
      coca({"data", "import", "--dataset", at("corpus"), "--tokenizer", "byte", "--out", at("corpus.tok")});
  ASSERT_EQ(imported.code, 0) << imported.err;
  EXPECT_THAT(imported.out, HasSubstr("documents"));
  const test::Outcome info = coca({"data", "info", at("corpus.tok"), "--json", "-"});
  ASSERT_EQ(info.code, 0) << info.err;
  const auto json = nlohmann::json::parse(info.out);
  EXPECT_EQ(json["documents"], 2);
  EXPECT_EQ(json["tokens"],
            cats_and_dogs(40).size() + 1 + std::string("the dog sat. ").size() + cats_and_dogs(2).size() + 1);
  put("text/a.txt", cats_and_dogs(40));
  put("text/b.txt", "the dog sat. " + cats_and_dogs(2));
  const auto train = [&](const std::string& text, const std::string& out) {
    return Args{"train",   "--text", text,       "--out", at(out),   "--layers", "1",       "--width", "32",
                "--heads", "2",      "--length", "24",    "--batch", "4",        "--steps", "5"};
  };
  ASSERT_EQ(coca(train(at("corpus.tok"), "imported")).code, 0);
  ASSERT_EQ(coca(train(at("text"), "tokenized")).code, 0);
  EXPECT_TRUE(io::read_file(dir_ / "imported" / "model" / "model.safetensors") ==
              io::read_file(dir_ / "tokenized" / "model" / "model.safetensors"));
}

TEST_F(DataCommand, DocumentsInTrainingAndValidationTextAreNamed) {
  put("books/a.txt", cats_and_dogs(20));
  put("books/c.txt", "Something else. " + cats_and_dogs(3));
  put("held/b.txt", "\n\n" + cats_and_dogs(20));
  put("held/d.txt", "New: " + cats_and_dogs(3));
  const std::string sentence = fmt::format("warning: {} (training) and {} (validation) are the same document",
                                           at("books/a.txt"), at("held/b.txt"));
  const Args train = {"train",   "--text",   at("books"), "--validation-text", at("held"), "--out",
                      at("out"), "--layers", "1",         "--width",           "16",       "--heads",
                      "2",       "--length", "16",        "--batch",           "2",        "--steps",
                      "2"};
  for (const char* run : {"first", "from the cache"}) {
    SCOPED_TRACE(run);
    const test::Outcome o = coca(train);
    ASSERT_EQ(o.code, 0) << o.err;
    EXPECT_THAT(o.err, HasSubstr(sentence));
    EXPECT_THAT(o.err, testing::Not(HasSubstr("d.txt")));
    EXPECT_THAT(o.out, testing::ContainsRegex("validation documents also trained on +1\n"));
    std::filesystem::remove_all(at("out/checkpoints"));
    std::filesystem::remove_all(at("out/model"));
    std::filesystem::remove(at("out/metrics.csv"));
  }
  // The documents of a token file are compared as they decode.
  ASSERT_EQ(coca({"data", "build", "--text", at("held"), "--tokenizer", "byte", "--out", at("held.tok")}).code, 0);
  const test::Outcome o = coca(with(train, {"--validation-text", at("held.tok"), "--out", at("other")}));
  ASSERT_EQ(o.code, 0) << o.err;
  EXPECT_THAT(o.err, HasSubstr(fmt::format("{} (training) and {}: document 1 (validation) are the same document",
                                           at("books/a.txt"), at("held.tok"))));
}

TEST_F(DataCommand, TrainingOnAPg19FolderTakesItsSplits) {
  put("pg/metadata.csv", "1,T,1900\n");
  put("pg/train/1.txt", cats_and_dogs(20));
  put("pg/validation/2.txt", "Held. " + cats_and_dogs(6));
  put("pg/test/3.txt", "Test. " + cats_and_dogs(60));
  const Args train = {"train",   "--text", at("pg"),   "--out", at("out"), "--layers", "1",       "--width", "16",
                      "--heads", "2",      "--length", "16",    "--batch", "2",        "--steps", "2"};
  const std::string said = "validation text: " + at("pg/validation") + " (--validation-text chooses another)\n";
  const auto documents = [&](const std::string& run, const std::string& file) {
    return io::read_file(at(run + "/data/" + file + ".tok.documents"));
  };
  const test::Outcome first = coca(train);
  ASSERT_EQ(first.code, 0) << first.err;
  EXPECT_THAT(first.out, testing::AllOf(HasSubstr(said), testing::ContainsRegex("validation loss +[0-9]")));
  EXPECT_THAT(documents("out", "train"), HasSubstr("train/1.txt"));
  EXPECT_THAT(documents("out", "validation"), HasSubstr("validation/2.txt"));
  const test::Outcome resumed = coca({"train", "--resume", "--out", at("out"), "--steps", "4"});
  ASSERT_EQ(resumed.code, 0) << resumed.err;
  EXPECT_THAT(resumed.out, testing::AllOf(HasSubstr(said), HasSubstr("resuming at step 2")));

  const test::Outcome chosen = coca(with(train, {"--split", "test", "--out", at("chosen")}));
  ASSERT_EQ(chosen.code, 0) << chosen.err;
  EXPECT_THAT(documents("chosen", "train"),
              testing::AllOf(HasSubstr("test/3.txt"), testing::Not(HasSubstr("train/1.txt"))));
  const test::Outcome validation = coca(with(train, {"--split", "validation", "--out", at("validation")}));
  ASSERT_EQ(validation.code, 0) << validation.err;
  EXPECT_THAT(validation.out, testing::Not(HasSubstr(said))) << "it is trained on";
  for (const Args& command :
       {train, Args{"finetune", "--model", at("out/model"), "--out", at("none")}, Args{"study", "--out", at("none")}}) {
    const test::Outcome refused =
        coca(with(command, {"--text", at("pg/train"), "--split", "train", "--out", at("none")}));
    EXPECT_NE(refused.code, 0) << command[0];
    EXPECT_THAT(refused.err, HasSubstr("split train: " + at("pg/train/train") + " is not a folder"));
  }
  EXPECT_THAT(coca({"study", "--split", "train", "--out", at("none")}).err, HasSubstr("split: needs text"));

  const Args tune = {"finetune", "--model", at("out/model"), "--text", at("pg"), "--out", at("tuned"),
                     "--batch",  "2",       "--epochs",      "1"};
  const test::Outcome tuned = coca(with(tune, {"--steps", "1"}));
  ASSERT_EQ(tuned.code, 0) << tuned.err;
  EXPECT_THAT(tuned.out, testing::AllOf(HasSubstr(said), testing::ContainsRegex("validation loss +[0-9]")));

  put("pg/validation/2.txt", "short");
  for (const Args& command :
       {with(train, {"--out", at("short")}), with(tune, {"--steps", "1", "--out", at("short-tuned")})}) {
    const test::Outcome o = coca(command);
    ASSERT_EQ(o.code, 0) << o.err;
    EXPECT_THAT(o.err,
                HasSubstr("warning: the split validation has 6 tokens; a window needs 17: there is no validation"));
  }
  const auto estimate = [&](const Args& more) {  // the line about steps; the others contain times and file names
    const std::string out = coca(with(with(tune, more), {"--out", at("planned"), "--dry-run"})).out;
    const size_t at = out.find(": a model of");
    EXPECT_NE(at, std::string::npos) << out;
    return out.substr(std::min(at, out.size()), out.find('\n', at) - at);
  };
  const std::string root = estimate({});
  EXPECT_THAT(root, HasSubstr("steps of"));
  EXPECT_EQ(root, estimate({"--text", at("pg/train")}));
  EXPECT_EQ(estimate({"--split", "test"}), estimate({"--text", at("pg/test")}));
  EXPECT_NE(root, estimate({"--split", "test"}));
}

TEST_F(DataCommand, AnImportThatFailsLeavesNoFile) {
  put_dataset("corpus", 700);  // the byte tokenizer has no such id
  const test::Outcome o =
      coca({"data", "import", "--dataset", at("corpus"), "--tokenizer", "byte", "--out", at("corpus.tok")});
  EXPECT_EQ(o.code, 1) << o.err;
  EXPECT_THAT(o.err, HasSubstr("700"));
  EXPECT_FALSE(std::filesystem::exists(at("corpus.tok")));
}

}  // namespace
}  // namespace coca::data_test
