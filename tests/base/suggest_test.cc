// Suggestions for misspelt names.
// SPDX-License-Identifier: Apache-2.0
#include "coca/base/suggest.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace coca::suggest_test {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

const std::vector<std::string> kFlags = {"layers",       "learning-rate", "length",       "steps",
                                         "warmup-steps", "batch",         "batch-tokens", "out",
                                         "rope-scaling", "attention",     "model"};

TEST(NearestNames, LettersChangedLostAddedAndSwapped) {
  EXPECT_THAT(nearest_names("stepz", kFlags), ElementsAre("steps"));
  EXPECT_THAT(nearest_names("step", kFlags), ElementsAre("steps"));
  EXPECT_THAT(nearest_names("layerss", kFlags), ElementsAre("layers"));
  EXPECT_THAT(nearest_names("atentoin", kFlags), ElementsAre("attention"));
  EXPECT_THAT(nearest_names("modle", kFlags), ElementsAre("model"));
  EXPECT_THAT(nearest_names("uot", kFlags), ElementsAre("out")) << "neighbours swapped count once";
}

TEST(NearestNames, CapitalsDashesAndUnderscoresMakeNoDifference) {
  EXPECT_THAT(nearest_names("Learning_Rate", kFlags), ElementsAre("learning-rate"));
  EXPECT_THAT(nearest_names("--warmup_steps", kFlags), ElementsAre("warmup-steps"));
  const std::vector<std::string> with_dashes = {"--layers", "--steps"};
  EXPECT_THAT(nearest_names("--step", with_dashes), ElementsAre("--steps"));
}

TEST(NearestNames, BeginningsInitialsAndWords) {
  EXPECT_THAT(nearest_names("lr", kFlags), ElementsAre("learning-rate"));
  EXPECT_THAT(nearest_names("learn", kFlags), ElementsAre("learning-rate"));
  EXPECT_THAT(nearest_names("num-layers", kFlags), ElementsAre("layers"));
  EXPECT_THAT(nearest_names("rate", kFlags), ElementsAre("learning-rate"));
  EXPECT_THAT(nearest_names("max-length", kFlags), ElementsAre("length"));
}

TEST(NearestNames, Abbreviations) {
  EXPECT_THAT(nearest_names("attn", kFlags), ElementsAre("attention"));
  const std::vector<std::string> evaluations = {"ppl", "passkey"};
  EXPECT_THAT(nearest_names("perplexity", evaluations), ElementsAre("ppl"));
  EXPECT_THAT(nearest_names("lyrs", kFlags), ElementsAre("layers"));
  EXPECT_THAT(nearest_names("ttnn", kFlags), IsEmpty()) << "the first letter is another one";
  EXPECT_THAT(nearest_names("attx", kFlags), IsEmpty());
}

TEST(NearestNames, SeveralEquallyNearOnesShortestFirst) {
  const std::vector<std::string> kinds = {"rope", "coca-slack", "coca-strict", "coca-tied", "coca-slack-xpos"};
  EXPECT_THAT(nearest_names("coca", kinds), ElementsAre("coca-tied", "coca-slack", "coca-strict"));
  EXPECT_THAT(nearest_names("coca-slak", kinds), ElementsAre("coca-slack"));
  EXPECT_THAT(nearest_names("copa", kinds), ElementsAre("coca-tied", "coca-slack", "coca-strict"))
      << "a misspelt beginning";
  EXPECT_THAT(nearest_names("roep", kinds), ElementsAre("rope"));
}

TEST(NearestNames, NothingNearIsNothing) {
  EXPECT_THAT(nearest_names("zebra", kFlags), IsEmpty());
  EXPECT_THAT(nearest_names("x", kFlags), IsEmpty());
  EXPECT_THAT(nearest_names("", kFlags), IsEmpty());
  EXPECT_THAT(nearest_names("steps", {}), IsEmpty());
}

TEST(DidYouMean, IsASentence) {
  const std::vector<std::string> two = {"aa", "ab"}, three = {"aa", "ab", "ac"};
  EXPECT_EQ(did_you_mean("stepz", kFlags), "; did you mean steps?");
  EXPECT_EQ(did_you_mean("ad", two), "; did you mean aa or ab?");
  EXPECT_EQ(did_you_mean("ad", three), "; did you mean aa, ab or ac?");
  EXPECT_EQ(did_you_mean("zebra", kFlags), "");
}

}  // namespace
}  // namespace coca::suggest_test
