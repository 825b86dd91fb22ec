// SPDX-License-Identifier: Apache-2.0
#include <cmath>
#include <limits>

#include "coca/io/csv.h"
#include "coca/io/json_file.h"
#include "support/faults.h"
#include "support/temp_dir.h"

namespace coca::io::json_csv_test {
namespace {

using test::error_of;
using test::get_file;
using test::put_file;
using test::TempDir;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

TEST(Json, RoundTrip) {
  TempDir dir;
  const nlohmann::json value = {{"a", {1, 2.5, "x\n\xc3\xa9"}}, {"b", nullptr}, {"c", {{"d", true}}}};
  write_json(dir / "v.json", value);
  EXPECT_EQ(read_json(dir / "v.json"), value);
  EXPECT_EQ(get_file(dir / "v.json").back(), '\n');
  const nlohmann::ordered_json ordered = {{"z", 1}, {"a", 2}};
  write_json(dir / "o.json", ordered);
  EXPECT_LT(get_file(dir / "o.json").find("\"z\""), get_file(dir / "o.json").find("\"a\""));
  write_json(dir / "names.json", nlohmann::ordered_json{{"z", {{"caf\xe9", "\xff"}}}, {"a", "\\xe9"}});
  EXPECT_EQ(json_text(read_json(dir / "names.json"), -1), R"({"a":"\\xe9","z":{"caf\\xe9":"\\xff"}})");
}

TEST(Json, ErrorsNameFileAndPosition) {
  TempDir dir;
  put_file(dir / "cut.json", "{\"a\": [1, 2");
  EXPECT_THAT(error_of(ErrorKind::kBadFile, [&] { read_json(dir / "cut.json"); }),
              AllOf(HasSubstr("cut.json"), HasSubstr("it ends too early, after 11 bytes")));
  put_file(dir / "tail.json", "{} x");
  EXPECT_THAT(error_of(ErrorKind::kBadFile, [&] { read_json(dir / "tail.json"); }), HasSubstr("byte 4"));
  put_file(dir / "empty.json", "");
  EXPECT_THAT(error_of(ErrorKind::kBadFile, [&] { read_json(dir / "empty.json"); }), HasSubstr("empty.json"));
}

TEST(Json, RefusesDuplicatesDepthAndHugeNumbers) {
  EXPECT_THAT(error_of(ErrorKind::kBadFile, [] { parse_json(R"({"a":{"b":1,"c":2,"b":3}})", "x"); }),
              HasSubstr("\"b\""));
  EXPECT_NO_THROW(parse_json(R"({"a":{"b":1},"c":{"b":1},"d":[{"b":1},{"b":1}]})", "x"));
  const auto nested = [](size_t depth) { return std::string(depth, '[') + std::string(depth, ']'); };
  EXPECT_NO_THROW(parse_json(nested(kMaxJsonDepth), "x"));
  EXPECT_THAT(error_of(ErrorKind::kBadFile, [&] { parse_json(nested(kMaxJsonDepth + 1), "x"); }), HasSubstr("deeper"));
  EXPECT_THAT(error_of(ErrorKind::kBadFile, [] { parse_json(std::string(1 << 20, '['), "x"); }), HasSubstr("deeper"));
  error_of(ErrorKind::kBadFile, [] { parse_json("1e999", "x"); });
  error_of(ErrorKind::kBadFile, [] { parse_json("\"\xff\"", "x"); });
}

TEST(Csv, Quoting) {
  EXPECT_EQ(csv_line({"a", "b c", ""}), "a,b c,\n");
  EXPECT_EQ(csv_line({"a,b", "say \"x\"", "l1\nl2"}), "\"a,b\",\"say \"\"x\"\"\",\"l1\nl2\"\n");
  const std::vector<std::string> fields = {"", "\"", ",", "\r\n", "plain", "\"\"x"};
  EXPECT_EQ(parse_csv(csv_line(fields)), std::vector<std::vector<std::string>>{fields});
  EXPECT_EQ(parse_csv(csv_line({""})), (std::vector<std::vector<std::string>>{{""}}));
  EXPECT_EQ(parse_csv("a,b\r\n1,\r\n"), (std::vector<std::vector<std::string>>{{"a", "b"}, {"1", ""}}));
  EXPECT_EQ(parse_csv("\xef\xbb\xbf"
                      "7,x\n"),
            (std::vector<std::vector<std::string>>{{"7", "x"}}))
      << "a byte order mark is no text";
}

TEST(Csv, Numbers) {
  EXPECT_EQ(csv_number(0.1), "0.1");
  EXPECT_EQ(csv_number(3), "3");
  EXPECT_EQ(csv_number(-std::numeric_limits<double>::infinity()), "-inf");
  EXPECT_EQ(csv_number(-std::nan("")), "nan");
  for (const double x : {1.0 / 3, 1e300, 5e-324, -123456.789})
    EXPECT_EQ(std::strtod(csv_number(x).c_str(), nullptr), x);
}

TEST(Csv, TruncateAndAppend) {
  TempDir dir;
  using Mode = CsvWriter::Mode;
  put_file(dir / "t.csv", "junk");
  { CsvWriter(dir / "t.csv", {"step", "loss"}, Mode::kTruncate).row({"1", "2,5"}); }
  EXPECT_EQ(get_file(dir / "t.csv"), "step,loss\n1,\"2,5\"\n");
  { CsvWriter(dir / "t.csv", {"step", "loss"}, Mode::kAppend).row({"2", "3"}); }
  EXPECT_EQ(get_file(dir / "t.csv"), "step,loss\n1,\"2,5\"\n2,3\n");
  EXPECT_THAT(error_of(ErrorKind::kBadFile,
                       [&] {
                         CsvWriter w(dir / "t.csv", {"step", "ppl"}, Mode::kAppend);
                       }),
              AllOf(HasSubstr("step,loss"), HasSubstr("step,ppl")));
  { CsvWriter(dir / "new.csv", {"a"}, Mode::kAppend).row({""}); }
  EXPECT_EQ(get_file(dir / "new.csv"), "a\n\"\"\n");
  CsvWriter w(dir / "t.csv", {"a", "b"}, Mode::kTruncate);
  error_of(ErrorKind::kInvalidArgument, [&] { w.row({"1"}); });
  w.row({"1", "2"});
  w.flush();
  EXPECT_EQ(get_file(dir / "t.csv"), "a,b\n1,2\n");
}

TEST(Csv, AppendCutsATornRow) {
  TempDir dir;
  for (const char* torn : {"3,", "3,\"un", "3,\"two\nlines", "3"}) {
    put_file(dir / "t.csv", "a,b\n1,\"x\ny\"\n" + std::string(torn));
    { CsvWriter(dir / "t.csv", {"a", "b"}, CsvWriter::Mode::kAppend).row({"4", "5"}); }
    EXPECT_EQ(get_file(dir / "t.csv"), "a,b\n1,\"x\ny\"\n4,5\n") << torn;
  }
  put_file(dir / "t.csv", "a,");  // the header itself
  { CsvWriter w(dir / "t.csv", {"a", "b"}, CsvWriter::Mode::kAppend); }
  EXPECT_EQ(get_file(dir / "t.csv"), "a,b\n");
}

TEST(Csv, ErrorsNameTheFile) {
  TempDir dir;
  using Mode = CsvWriter::Mode;
  EXPECT_THAT(error_of(ErrorKind::kInvalidArgument, [&] { CsvWriter(dir / "none.csv", {}, Mode::kTruncate); }),
              HasSubstr("none.csv"));
  EXPECT_FALSE(std::filesystem::exists(dir / "none.csv"));
  EXPECT_THAT(error_of(ErrorKind::kIo, [&] { CsvWriter(dir / "no/such/t.csv", {"a"}, Mode::kTruncate); }),
              AllOf(HasSubstr("no/such/t.csv"), HasSubstr("No such file")));
  EXPECT_THAT(error_of(ErrorKind::kIo, [] { CsvWriter("/dev/full", {"a"}, Mode::kTruncate).flush(); }),
              HasSubstr("/dev/full"));
}

// A disk that is full for a while loses no rows: the next flush writes what could not be written.
TEST(Csv, AFlushThatFailsKeepsTheRows) {
  TempDir dir;
  CsvWriter w(dir / "t.csv", {"a", "b"}, CsvWriter::Mode::kTruncate);
  w.row({"1", "2"});
  w.row({"3", "4"});
  {
    const test::FileSizeLimit full(6);  // space for the header and half a row
    EXPECT_THAT(error_of(ErrorKind::kIo, [&] { w.flush(); }), AllOf(HasSubstr("t.csv"), HasSubstr("cannot write")));
  }
  EXPECT_EQ(get_file(dir / "t.csv"), "a,b\n1,");
  w.flush();
  EXPECT_EQ(get_file(dir / "t.csv"), "a,b\n1,2\n3,4\n");
}

}  // namespace
}  // namespace coca::io::json_csv_test
