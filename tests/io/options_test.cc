// SPDX-License-Identifier: Apache-2.0
#include "coca/io/options.h"

#include <cmath>
#include <limits>

#include "support/temp_dir.h"

namespace coca::io::options_test {
enum class Colour { kRed, kGreen };
}
COCA_ENUM_NAMES(coca::io::options_test::Colour, "colour", {coca::io::options_test::Colour::kRed, "red"},
                {coca::io::options_test::Colour::kGreen, "green"})

namespace coca::io::options_test {
namespace {

using test::error_of;
using ::testing::AllOf;
using ::testing::HasSubstr;

struct Sample {
  int64_t layers = 2;
  double rate = 0.5;
  float scale = 0.1f;
  bool tied = false;
  std::string name = "x";
  std::vector<std::string> files;
  std::vector<int64_t> sizes = {1, 2};
  std::vector<double> weights;
  std::optional<int64_t> limit;
  std::optional<double> clip;
  std::optional<std::string> note;
  Colour colour = Colour::kRed;

  template <class V>
  void visit(V&& v) {
    v.group("Model");
    v("layers", "number of layers", layers);
    v("rate", "learning rate", rate);
    v("scale", "a float", scale);
    v("tied", "a bool", tied);
    v("name", "a string", name);
    v.group("Lists");
    v("files", "strings", files);
    v("sizes", "integers", sizes);
    v("weights", "doubles", weights);
    v("limit", "optional integer", limit);
    v("clip", "optional double", clip);
    v("note", "optional string", note);
    v("colour", "an enum", colour);
  }
};

TEST(Options, NamesThatAreNotUtf8ComeBack) {
  Sample a, b;
  a.name = "caf\xe9/\\xe9";
  a.files = {"\xff", "plain"};
  a.note = "\xc3";
  const nlohmann::ordered_json json = options_to_json(a);
  options_from_json(b, nlohmann::json::parse(json.dump()), "test");
  EXPECT_EQ(b.name, a.name);
  EXPECT_EQ(b.files, a.files);
  EXPECT_EQ(b.note, a.note);
  EXPECT_EQ(json["name"], "caf\\xe9/\\x5cxe9");
}

TEST(Options, JsonRoundTrip) {
  Sample a;
  a.layers = -(int64_t{1} << 60);
  a.rate = 1.0 / 3;
  a.scale = 1e-7f;
  a.tied = true;
  a.files = {"p", "q"};
  a.weights = {0.25, std::numeric_limits<double>::infinity()};
  a.limit = 7;
  a.note = "";
  a.colour = Colour::kGreen;
  const std::string text = options_to_json(a).dump();
  Sample b;
  b.clip = 3;
  options_from_json(b, nlohmann::json::parse(text), "test");
  EXPECT_EQ(options_to_json(b).dump(), text);
  EXPECT_EQ(b.rate, a.rate);
  EXPECT_EQ(b.scale, a.scale);
  EXPECT_FALSE(b.clip.has_value()) << "null must clear an optional";
  EXPECT_EQ(b.note, "");
  b.name = "x";
  options_from_json(b, {{"name", nullptr}}, "test");
  EXPECT_EQ(b.name, "");
}

TEST(Options, JsonIsReadableAndOrdered) {
  Sample a;
  const std::string text = options_to_json(a).dump();
  EXPECT_THAT(text, HasSubstr(R"({"layers":2,"rate":0.5,"scale":0.1,)"));
  EXPECT_THAT(text, AllOf(HasSubstr(R"("limit":null)"), HasSubstr(R"("colour":"red")"), HasSubstr(R"("sizes":[1,2])")));
  a.rate = std::nan("");
  EXPECT_EQ(options_to_json(a)["rate"], "nan");
  a.rate = 5e-324;
  EXPECT_EQ(options_to_json(a)["rate"].get<double>(), 5e-324);
}

TEST(Options, AbsentKeysKeepTheirValues) {
  Sample a;
  a.layers = 9;
  options_from_json(a, {{"rate", 1}}, "test");
  EXPECT_EQ(a.layers, 9);
  EXPECT_EQ(a.rate, 1.0);
}

std::string refused(const nlohmann::json& object) {
  Sample a;
  const std::string before = options_to_json(a).dump();
  const std::string message = error_of(ErrorKind::kInvalidArgument, [&] { options_from_json(a, object, "conf.json"); });
  EXPECT_EQ(options_to_json(a).dump(), before) << "a refused object must change nothing";
  EXPECT_THAT(message, HasSubstr("conf.json"));
  return message;
}

TEST(Options, NumbersThatJsonHasNoNameFor) {
  for (const auto& [text, holds] :
       {std::pair<const char*, bool (*)(double)>{"nan", [](double x) { return std::isnan(x); }},
        {"inf", [](double x) { return std::isinf(x) && x > 0; }},
        {"-inf", [](double x) { return std::isinf(x) && x < 0; }}}) {
    Sample s;
    options_from_json(s, {{"rate", text}}, "file");
    EXPECT_TRUE(holds(s.rate)) << text;
  }
}

TEST(Options, UnknownKeysNameTheNearest) {
  EXPECT_THAT(refused({{"rate", 3}, {"layer", 3}}),
              AllOf(HasSubstr("\"layer\""), HasSubstr("; did you mean \"layers\"?")));
  EXPECT_THAT(refused({{"color", "red"}}), HasSubstr("\"colour\""));
  EXPECT_THAT(refused(nlohmann::json::array()), HasSubstr("object"));
}

TEST(Options, OneValueStandsForAList) {
  Sample s;
  options_from_json(s, {{"files", "a.txt"}, {"sizes", 512}, {"weights", 0.5}}, "config.json");
  EXPECT_EQ(s.files, std::vector<std::string>{"a.txt"});
  EXPECT_EQ(s.sizes, std::vector<int64_t>{512});
  EXPECT_EQ(s.weights, std::vector<double>{0.5});
}

TEST(Options, TypeErrorsNameKeyValueAndType) {
  EXPECT_THAT(refused({{"layers", 2.5}}), AllOf(HasSubstr("layers"), HasSubstr("2.5"), HasSubstr("whole number")));
  EXPECT_THAT(refused({{"layers", "3"}}), HasSubstr("\"3\""));
  EXPECT_THAT(refused({{"layers", uint64_t{1} << 63}}), HasSubstr("9223372036854775808"));
  EXPECT_THAT(refused({{"layers", nullptr}}), HasSubstr("null"));
  EXPECT_THAT(refused({{"rate", "fast"}}), HasSubstr("a number"));
  EXPECT_THAT(refused({{"scale", 1e300}}), HasSubstr("float"));
  EXPECT_THAT(refused({{"tied", 1}}), HasSubstr("true or false"));
  EXPECT_THAT(refused({{"name", 1}}), HasSubstr("text"));
  EXPECT_THAT(refused({{"sizes", {{"a", 1}}}}), HasSubstr("list"));
  EXPECT_THAT(refused({{"sizes", nullptr}}), HasSubstr("list"));
  EXPECT_THAT(refused({{"sizes", "1"}}), AllOf(HasSubstr("sizes"), HasSubstr("\"1\""), HasSubstr("whole number")));
  EXPECT_THAT(refused({{"rate", 9}, {"sizes", {1, "x"}}}), AllOf(HasSubstr("sizes"), HasSubstr("\"x\"")));
  EXPECT_THAT(refused({{"colour", "blue"}}), AllOf(HasSubstr("blue"), HasSubstr("red, green")));
}

}  // namespace
}  // namespace coca::io::options_test
