// Small tokenizer.json files and chat templates that ask for excessive memory or time, or for impossible computations.
// SPDX-License-Identifier: Apache-2.0
#include <nlohmann/json.hpp>

#include "coca/text/chat_template.h"
#include "coca/text/tokenizer.h"
#include "support/temp_dir.h"

namespace coca::text::hostile_files_test {
namespace {

using nlohmann::json;
using test::error_of;
using test::put_file;
using test::TempDir;
using ::testing::HasSubstr;

json small_tokenizer() {
  return {{"model", {{"type", "BPE"}, {"vocab", {{"a", 0}, {"b", 1}, {"ab", 2}}}, {"merges", json::array({"a b"})}}},
          {"added_tokens", json::array({{{"id", 3}, {"content", "</s>"}, {"special", true}, {"normalized", false}}})}};
}

class HostileTokenizer : public testing::Test {
 protected:
  TempDir dir;

  std::unique_ptr<Tokenizer> load(const json& changes) const {
    json file = small_tokenizer();
    file.update(changes);
    put_file(dir / "tokenizer.json", file.dump());
    return load_tokenizer_json(dir.path());
  }
  std::string refusal(const json& changes) const {
    return error_of(ErrorKind::kBadFile, [&] { load(changes); });
  }
};

json sequence(const char* type, const char* field, const json& item, size_t times) {
  json list = json::array();
  for (size_t i = 0; i < times; ++i) list.push_back(item);
  return {{"type", type}, {field, list}};
}

TEST_F(HostileTokenizer, NormalizersThatMultiplyTheText) {
  for (const char* kind : {"String", "Regex"}) {
    const json grows = {{"type", "Replace"}, {"pattern", {{kind, "a"}}}, {"content", std::string(256, 'a')}};
    const auto tokenizer = load({{"normalizer", sequence("Sequence", "normalizers", grows, 8)}});  // 256^8
    EXPECT_THAT(error_of(ErrorKind::kBadFile, [&] { tokenizer->encode("ba"); }),
                HasSubstr("normalizer: makes a text of"));
    EXPECT_EQ(tokenizer->encode("b").size(), 1u);
  }
  // The expansion of Unicode normalization forms is within the limit.
  const auto tokenizer = load({{"normalizer", {{"type", "NFKD"}}}});
  std::string ligatures;
  for (int i = 0; i < 2000; ++i) ligatures += "\xef\xb7\xba";
  EXPECT_NO_THROW(tokenizer->encode(ligatures));
}

TEST_F(HostileTokenizer, DecodersThatMultiplyTheText) {
  const json grows = {{"type", "Replace"}, {"pattern", {{"String", "a"}}}, {"content", std::string(256, 'a')}};
  const auto tokenizer = load({{"decoder", sequence("Sequence", "decoders", grows, 8)}});
  EXPECT_THAT(error_of(ErrorKind::kBadFile, [&] { tokenizer->decode(std::vector<int32_t>{0}); }),
              HasSubstr("decoder: makes a token of"));
  EXPECT_EQ(tokenizer->decode(std::vector<int32_t>{1}), "b");
}

TEST_F(HostileTokenizer, StepsWithoutEnd) {
  EXPECT_THAT(refusal({{"normalizer", sequence("Sequence", "normalizers", {{"type", "NFC"}}, 100)}}),
              HasSubstr("at most 64 steps"));
  EXPECT_THAT(refusal({{"pre_tokenizer", sequence("Sequence", "pretokenizers", {{"type", "WhitespaceSplit"}}, 100)}}),
              HasSubstr("at most 64 steps"));
  EXPECT_THAT(refusal({{"decoder", sequence("Sequence", "decoders", {{"type", "ByteFallback"}}, 100)}}),
              HasSubstr("at most 64 steps"));
}

TEST_F(HostileTokenizer, ATemplateOfTooManyIds) {
  json single = json::array({{{"Sequence", {{"id", "A"}}}}});
  for (int i = 0; i < 500; ++i) single.push_back({{"SpecialToken", {{"id", "x"}}}});
  const json processor = {
      {"type", "TemplateProcessing"},
      {"single", single},
      {"pair", json::array()},
      {"special_tokens", {{"x", {{"id", "x"}, {"ids", std::vector<int>(500, 1)}, {"tokens", json::array()}}}}}};
  EXPECT_THAT(refusal({{"post_processor", processor}}), HasSubstr("at most 1024 ids around a text"));
}

TEST_F(HostileTokenizer, SpecialIdsOfNoToken) {
  put_file(dir / "generation_config.json", R"({"eos_token_id": [3, 77]})");
  EXPECT_THAT(refusal(json::object()), HasSubstr("generation_config.json beside it names id 77; expected 0 to 3"));
  put_file(dir / "generation_config.json", R"({"bos_token_id": 2147483647})");
  EXPECT_THAT(refusal(json::object()), HasSubstr("names id 2147483647"));
}

std::string render(const std::string& source) {
  const std::vector<ChatMessage> messages = {{"user", "hi"}};
  return ChatTemplate::from_source(source, "t.jinja").render(messages);
}
std::string refused(const std::string& source) {
  return error_of(ErrorKind::kBadFile, [&] { render(source); });
}

// t has two million letters.
const std::string kLongText =
    "{% set ns = namespace(t='aaaaaaaa') %}{% for i in range(18) %}{% set ns.t = ns.t ~ ns.t %}{% endfor %}{% set t = "
    "ns.t %}";

TEST(HostileTemplate, TextsThatGrowInOneStep) {
  EXPECT_EQ(render(kLongText + "{{ t|length }}"), "2097152");
  EXPECT_THAT(refused(kLongText + "{{ t|replace('a', t)|length }}"), HasSubstr("makes a text of"));
  EXPECT_THAT(refused(kLongText + "{{ range(100000)|join(t)|length }}"), HasSubstr("makes a text of"));
  EXPECT_THAT(refused(kLongText + "{{ t|replace('aa', '\\n')|replace('\\n', 'b\\n')|indent(100)|length }}"),
              HasSubstr("makes a text of"));
  EXPECT_THAT(refused("{% set x = range(100000)|list %}{% set y = [x, x, x, x, x, x, x, x, x, x] %}{{ [y, y, "
                      "y]|tojson(indent=16)|length }}"),
              HasSubstr("makes a text of"));
  EXPECT_THAT(refused(kLongText + "{% for c in t %}{% endfor %}"), HasSubstr("as a list of characters"));
}

TEST(HostileTemplate, ComparisonsWithoutEnd) {
  EXPECT_THAT(refused("{{ range(100000)|unique|list|length }}"), HasSubstr("compares more than"));
  EXPECT_EQ(render("{{ [1, 2, 1, 3]|unique|list|length }}"), "3");
  // Searches that would take too long with a naive algorithm.
  EXPECT_EQ(
      render(kLongText + "{% set half = t[:1000000] ~ 'b' %}{{ half in t }}{{ t.find(half) }}{{ t.count(half) }}"),
      "False-10");
}

TEST(HostileTemplate, NumbersAtTheEndOfTheirRange) {
  EXPECT_EQ(render("{{ (-9223372036854775807 - 1) is divisibleby(-1) }}"), "True");
  EXPECT_THAT(refused("{{ (-9223372036854775807 - 1)|abs }}"), HasSubstr("too large"));
  EXPECT_THAT(refused("{{ (-9223372036854775807 - 1) // -1 }}"), HasSubstr("too large"));
}

TEST(HostileTemplate, DeepCalls) {
  const std::string open(90, '['), close(90, ']');
  EXPECT_THAT(refused("{% macro m() %}{{ " + open + "m()" + close + " }}{% endmacro %}{{ m() }}"), HasSubstr("deep"));
}

}  // namespace
}  // namespace coca::text::hostile_files_test
