// coca eval from the command line, where it shows use of context: key tokens, the loss by position, names that occur
// again.
// SPDX-License-Identifier: Apache-2.0
#include <cmath>

#include "coca/io/json_file.h"
#include "e2e/cli_fixture.h"

namespace coca::context_use_test {
namespace {

using test::Args;
using test::Outcome;
using testing::HasSubstr;

class ContextUse : public test::CliFixture {
 protected:
  void SetUp() override {
    ASSERT_EQ(coca(tiny_train("a")).code, 0);
    ASSERT_EQ(coca(tiny_train("b", {"--attention", "rope"})).code, 0);
    put("texts/1.txt", cats_and_dogs(8));
    put("texts/2.txt", cats_and_dogs(5) + "a bird sat on the cat and the dog. ");
  }
  Args ppl(const Args& more = {}) const {
    return with({"eval", "ppl", "--text", at("texts"), "--lengths", "12,24", "--stride", "6", "--json", at("o.json")},
                more);
  }
};

TEST_F(ContextUse, KeyTokensAreTheSameForAllModels) {
  const Args both = ppl({"--csv", at("o.csv"), "--key-tokens", "true", "--key-short", "4", "--key-gain", "0.1"});
  Args args = both;
  for (const char* model : {"a/model", "b/model"}) args.insert(args.end(), {"--model", at(model)});
  const Outcome o = coca(args);
  ASSERT_EQ(o.code, 0) << o.err;
  EXPECT_THAT(o.out, HasSubstr("found by " + at("a/model") +
                               ": log p with 24 tokens of context is above -2.00 and by "
                               "more than 0.100 above log p with 4"));
  const auto r = io::read_json(at("o.json"));
  EXPECT_EQ(r["key_tokens"]["evaluator"], at("a/model"));
  const int64_t found = r["key_tokens"]["found"];
  EXPECT_GT(found, 10);
  EXPECT_LT(found, r["key_tokens"]["compared"].get<int64_t>());
  ASSERT_EQ(r["results"].size(), 4u);
  for (const auto& row : r["results"]) {  // every target is scored once, so that each has them all
    EXPECT_EQ(row["key_tokens"], found);
    EXPECT_EQ(row["key_documents"], 2);
    EXPECT_LE(row["long_perplexity_low"].get<double>(), row["long_perplexity"].get<double>());
    EXPECT_GE(row["long_perplexity_high"].get<double>(), row["long_perplexity"].get<double>());
    EXPECT_GE(row["long_perplexity_low"].get<double>(), 1);
  }
  EXPECT_NE(r["results"][0]["long_perplexity"], r["results"][2]["long_perplexity"]);
  EXPECT_THAT(io::read_file(at("o.csv")), HasSubstr(",key_tokens,key_share,key_documents,long_perplexity,"));
  // Another evaluator finds others.
  ASSERT_EQ(coca(with(args, {"--evaluator", at("b/model")})).code, 0);
  EXPECT_EQ(io::read_json(at("o.json"))["key_tokens"]["evaluator"], at("b/model"));
  ASSERT_EQ(coca(with(both, {"--model", at("a/model"), "--key-gain", "50"})).code, 0);
  const auto none = io::read_json(at("o.json"));
  EXPECT_EQ(none["results"][0]["key_tokens"], 0);
  EXPECT_TRUE(none["results"][0]["long_perplexity"].is_null());
}

TEST_F(ContextUse, PositionsOfAllLengthsAreWritten) {
  const Args args = ppl({"--model", at("a/model"), "--by-position", "true", "--position-csv", at("p.csv")});
  const Outcome o = coca(args);
  ASSERT_EQ(o.code, 0) << o.err;
  EXPECT_THAT(o.out, HasSubstr("by position, in windows of 24 tokens:"));
  const auto r = io::read_json(at("o.json"));
  ASSERT_EQ(r["positions"].size(), 6u + 8u);  // 1, 2, 3, 4-5, 6-7, 8-11; and 12-15, 16-23
  EXPECT_EQ(r["positions"][5]["to"], 11);
  EXPECT_EQ(r["positions"][13]["to"], 23);
  EXPECT_EQ(lines("p.csv"), 15);
  EXPECT_TRUE(io::read_file(at("p.csv"))
                  .starts_with("model,adapter,rope_scaling,pattern,length,from,to,targets,documents,nll,"));
  const double nll = r["results"][1]["nll"];
  ASSERT_EQ(coca(ppl({"--model", at("a/model")})).code, 0);
  const auto plain = io::read_json(at("o.json"));
  EXPECT_EQ(plain["results"][1]["nll"], nll);  // the same bits
  EXPECT_FALSE(plain.contains("positions") || plain["results"][0].contains("key_tokens"));
}

TEST_F(ContextUse, MistakesAreNamed) {
  const Args one = ppl({"--model", at("a/model")});
  expect_refused(with(one, {"--key-long", "8"}), 2, "add --key-tokens");
  expect_refused(with(one, {"--key-tokens", "true", "--key-short", "24"}), 2, "--key-long is 24 and --key-short 24;");
  expect_refused(with(one, {"--key-tokens", "true", "--key-short", "1"}), 2, "--key-short is 1;");
  expect_refused(with(one, {"--key-tokens", "true", "--key-gain", "nan"}), 2, "--key-gain");
  expect_refused(with(one, {"--key-tokens", "true", "--evaluator", at("none")}), 1, "none");
  expect_refused(with(one, {"--position-plot", at("p.json")}), 2, "--position-plot");
  expect_refused(with(one, {"--position-csv", at("a/model/config.json")}), 2, "would replace an input");
  EXPECT_EQ(coca(with(one, {"--key-tokens", "true", "--dry-run", "true"})).code, 0);
}

TEST_F(ContextUse, NamesAreRecalled) {
  std::string text = "so ";
  for (int i = 0; i < 4; ++i) text += "Adam sat on the mat and the dog lay. ";
  const Args recall = {"eval",   "recall",     "--model", at("a/model"), "--text", put("names.txt", text),
                       "--json", at("o.json"), "--csv",   at("o.csv")};
  const Outcome o = coca(with(recall, {"--lengths", "24,48", "--lead", "4", "--bos", "never"}));
  ASSERT_EQ(o.code, 0) << o.err;
  EXPECT_THAT(o.out, HasSubstr("length 24: the text has no such pair"));
  const auto r = io::read_json(at("o.json"));
  ASSERT_EQ(r["results"].size(), 1u);
  EXPECT_EQ(r["results"][0]["length"], 48);
  EXPECT_EQ(r["results"][0]["pairs"], 3);
  EXPECT_EQ(r["results"][0]["least_distance"], 37);
  EXPECT_EQ(r["results"][0]["scored_tokens"], 9);
  EXPECT_TRUE(r["results"][0]["gain_low"].is_null());  // one document
  EXPECT_EQ(lines("o.csv"), 2);
  EXPECT_EQ(coca(with(recall, {"--dry-run", "true"})).code, 0);
  const std::string twice = put("twice.txt", "a cat saw dog, and then the dog.");
  EXPECT_EQ(coca(with(recall, {"--words", "rare", "--given", "nothing", "--text", twice})).code, 0);
  EXPECT_EQ(io::read_json(at("o.json"))["results"][0]["scored_tokens"], 3);
  expect_refused(with(recall, {"--lengths", "4"}), 2, "--lengths is 4; expected at least 8");
  expect_refused(with(recall, {"--cut", "start"}), 2, "add --max-tokens");
  EXPECT_THAT(coca(with(recall, {"--lengths", "999"})).err, HasSubstr("no word that occurs twice at the distances"));
}

}  // namespace
}  // namespace coca::context_use_test
