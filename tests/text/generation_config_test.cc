// generation_config.json: settings that are applied, named in a note, or refused.
// SPDX-License-Identifier: Apache-2.0
#include "coca/text/generation_config.h"

#include <nlohmann/json.hpp>

#include "support/temp_dir.h"

namespace coca::text::generation_config_test {
namespace {

using nlohmann::json;
using test::error_of;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::UnorderedElementsAre;

GenerationConfig read(const char* text) { return generation_config_from_json(json::parse(text), "here"); }

std::string refusal(const char* text) {
  return error_of(ErrorKind::kBadFile, [&] { read(text); });
}

TEST(GenerationConfig, IsRead) {
  const GenerationConfig c = read(R"({"eos_token_id": [3, 5], "bos_token_id": 1, "do_sample": true, "temperature": 0.6,
      "top_p": 0.9, "top_k": 20, "min_p": 0.1, "repetition_penalty": 1.1, "max_new_tokens": 7, "max_length": 99,
      "stop_strings": ["END", "##"], "transformers_version": "4.40.0", "num_beams": 3})");
  EXPECT_EQ(c.ids.eos, (std::vector<int32_t>{3, 5}));
  EXPECT_EQ(c.ids.bos, 1);
  EXPECT_EQ(c.do_sample, true);
  EXPECT_EQ(c.temperature, 0.6);
  EXPECT_EQ(c.top_p, 0.9);
  EXPECT_EQ(c.top_k, 20);
  EXPECT_EQ(c.min_p, 0.1);
  EXPECT_EQ(c.repetition_penalty, 1.1);
  EXPECT_EQ(c.max_new_tokens, 7);
  EXPECT_EQ(c.max_length, 99);
  EXPECT_THAT(c.stop_strings, ElementsAre("END", "##"));
  EXPECT_THAT(c.lacking, ElementsAre("num_beams (3)"));
  EXPECT_THAT(read(R"({"stop_strings": "END"})").stop_strings, ElementsAre("END"));
  EXPECT_EQ(read("{}").temperature, std::nullopt);
  EXPECT_EQ(read("{}").do_sample, false) << "as in transformers";
  const test::TempDir temp;
  EXPECT_TRUE(load_generation_config(temp).ids.eos.empty());
  EXPECT_EQ(load_generation_config(temp).do_sample, std::nullopt);
}

TEST(GenerationConfig, NamesUnsupportedSettings) {
  EXPECT_THAT(
      read(R"({"num_beams": 1, "no_repeat_ngram_size": 0, "typical_p": 1.0, "suppress_tokens": [], "max_time": null,
                       "min_length": 0, "pad_token_id": 2, "use_cache": true, "early_stopping": true, "_from_model_config": true,
                       "output_attentions": true, "cache_implementation": "static", "transformers_version": "4.40.0"})")
          .lacking,
      ElementsAre());
  EXPECT_THAT(read(R"({"no_repeat_ngram_size": 3, "penalty_alpha": 0.6, "bad_words_ids": [[5]], "min_new_tokens": 4,
                       "cache_implementation": "quantized", "guidance_scale": 0, "chat_format": "chatml"})")
                  .lacking,
              UnorderedElementsAre("no_repeat_ngram_size (3)", "penalty_alpha (0.6)", "bad_words_ids ([[5]])",
                                   "min_new_tokens (4)", "cache_implementation (\"quantized\")", "guidance_scale (0)",
                                   "chat_format (\"chatml\")"))
      << "unknown settings may change the text";
  EXPECT_THAT(read(R"({"x": "0123456789012345678901234567890123456789"})").lacking, ElementsAre(HasSubstr("...)")));
}

TEST(GenerationConfig, IdsAreOfTheVocabulary) {
  const auto check = [](const char* source) { check_ids(read(source).ids, 272, "here"); };
  EXPECT_NO_THROW(check(R"({"bos_token_id": 0, "eos_token_id": [1, 271]})"));
  EXPECT_THAT(error_of(ErrorKind::kBadFile, [&] { check(R"({"eos_token_id": [1, 99999]})"); }),
              HasSubstr("here: eos_token_id 99999 is outside the vocabulary of 272"));
  EXPECT_THAT(error_of(ErrorKind::kBadFile, [&] { check(R"({"bos_token_id": 272})"); }),
              HasSubstr("here: bos_token_id 272 is outside"));
}

TEST(GenerationConfig, LengthsAreThoseOfTransformers) {
  EXPECT_EQ(new_tokens_after(10, read("{}"), "here"), std::nullopt);
  EXPECT_EQ(new_tokens_after(10, read(R"({"max_length": 12})"), "here"), 2) << "the prompt counts";
  EXPECT_EQ(new_tokens_after(10, read(R"({"max_length": 12, "max_new_tokens": 5})"), "here"), 5);
  EXPECT_THAT(
      error_of(ErrorKind::kInvalidArgument, [] { new_tokens_after(12, read(R"({"max_length": 12})"), "here"); }),
      HasSubstr("here: max_length is 12 tokens, and the prompt alone has 12; give --max-new-tokens"));
}

TEST(GenerationConfig, RefusesInvalidValues) {
  EXPECT_THAT(refusal(R"({"temperature": "warm"})"), HasSubstr("here: temperature: \"warm\"; expected a number"));
  EXPECT_THAT(refusal(R"({"temperature": -1})"), HasSubstr("here: temperature: -1; expected a number from 0 to 1e6"));
  EXPECT_THAT(refusal(R"({"temperature": 1e308})"), HasSubstr("here: temperature: 1e+308; expected a number from 0"));
  EXPECT_THAT(refusal(R"({"repetition_penalty": 1e-320})"), HasSubstr("; expected a number from 1e-6 to 1e6"));
  EXPECT_THAT(refusal(R"({"top_p": 0})"), HasSubstr("here: top_p: 0; expected a number above 0 and at most 1"));
  EXPECT_THAT(refusal(R"({"min_p": 1.5})"), HasSubstr("here: min_p: 1.5; expected a number from 0 to 1"));
  EXPECT_THAT(refusal(R"({"repetition_penalty": 0})"),
              HasSubstr("here: repetition_penalty: 0; expected a number from 1e-6 to 1e6"));
  EXPECT_THAT(refusal(R"({"top_k": -1})"), HasSubstr("here: top_k: -1; expected an integer of at least 0"));
  EXPECT_THAT(refusal(R"({"max_length": 0})"), HasSubstr("here: max_length: 0; expected an integer of at least 1"));
  EXPECT_THAT(refusal(R"({"max_new_tokens": -3})"),
              HasSubstr("here: max_new_tokens: -3; expected an integer of at least 0"));
  EXPECT_THAT(refusal(R"({"stop_strings": ["a", ""]})"),
              HasSubstr("here: stop_strings[1]: \"\"; expected a string that is not empty"));
  EXPECT_THAT(refusal(R"({"eos_token_id": [1, 18446744073709551615]})"),
              HasSubstr("here: eos_token_id[1]: 18446744073709551615"));
  EXPECT_THAT(refusal("[]"), HasSubstr("here: an array; expected an object"));
}

}  // namespace
}  // namespace coca::text::generation_config_test
