// SPDX-License-Identifier: Apache-2.0
#include "coca/io/safetensors.h"

#include <cmath>
#include <cstring>
#include <limits>

#include "coca/base/rng.h"
#include "support/temp_dir.h"

namespace coca::io::safetensors_test {
namespace {

using test::error_of;
using test::get_file;
using test::put_file;
using test::TempDir;
using ::testing::AllOf;
using ::testing::HasSubstr;

std::string raw_file(const std::string& header, size_t data_bytes) {
  std::string out;
  for (int i = 0; i < 8; ++i) out += static_cast<char>(header.size() >> (8 * i));
  return out + header + std::string(data_bytes, '\1');
}

std::string entry(const std::string& name, const std::string& dtype, const std::string& shape,
                  const std::string& offsets) {
  return "\"" + name + R"(":{"dtype":")" + dtype + R"(","shape":)" + shape + R"(,"data_offsets":)" + offsets + "}";
}

// Opens a file with this header and this many bytes of data, which must be refused. Returns the message.
std::string refused(const std::string& header, size_t data_bytes) {
  TempDir dir;
  put_file(dir / "bad.safetensors", raw_file(header, data_bytes));
  const std::string message = error_of(ErrorKind::kBadFile, [&] { SafetensorsFile file(dir / "bad.safetensors"); });
  EXPECT_THAT(message, HasSubstr("bad.safetensors"));
  return message;
}

TEST(Safetensors, RoundTripIsExactAlignedAndDeterministic) {
  TempDir dir;
  Tensor a({2, 3}), b({5}, DType::kBF16), c({2}, DType::kI64), d({3}, DType::kBool), e(Dims{}, DType::kF64), f({0, 4});
  for (float& v : a.values<float>()) v = static_cast<float>(&v - a.values<float>().data()) + 0.5f;
  for (BF16& v : b.values<BF16>()) v = BF16(1.25f);
  c.values<int64_t>()[1] = -7;
  e.values<double>()[0] = 0.1;
  const std::map<std::string, std::string> metadata = {{"format", "pt"}, {"quote\"", "line\n\xc3\xa9"}};
  std::vector<TensorToSave> list = {{"z", a.ref()}, {"b \"q\"", b.ref()}, {"c", c.ref()},
                                    {"d", d.ref()}, {"scalar", e.ref()},  {"none", f.ref()}};
  save_safetensors(dir / "one", list, metadata);
  std::reverse(list.begin(), list.end());
  save_safetensors(dir / "two", list, metadata);
  EXPECT_EQ(get_file(dir / "one"), get_file(dir / "two"));

  const SafetensorsFile opened(dir / "one");
  SafetensorsFile moved = SafetensorsFile(dir / "two");
  const SafetensorsFile file = std::move(moved);
  EXPECT_EQ(file.metadata(), metadata);
  ASSERT_EQ(file.tensors().size(), list.size());
  for (const TensorToSave& t : list) {
    const StoredTensor& stored = file.at(t.name);
    EXPECT_EQ(stored.dtype, t.value.dtype);
    EXPECT_EQ(stored.shape, t.value.shape) << t.name;
    ASSERT_EQ(stored.bytes, t.value.bytes());
    if (stored.bytes > 0) {
      EXPECT_EQ(std::memcmp(stored.data, t.value.data, stored.bytes), 0) << t.name;
    }
    EXPECT_EQ(reinterpret_cast<uintptr_t>(stored.data) % dtype_size(stored.dtype), 0u);
    EXPECT_EQ(stored.ref().numel(), t.value.numel());
  }
  EXPECT_EQ(file.find("nothing"), nullptr);
  EXPECT_THAT(error_of(ErrorKind::kBadFile, [&] { opened.at("nothing"); }),
              AllOf(HasSubstr("one"), HasSubstr("nothing")));
  const std::string bytes = get_file(dir / "one");
  EXPECT_EQ((8 + static_cast<unsigned char>(bytes[0]) + 256u * static_cast<unsigned char>(bytes[1])) % 8, 0u);
}

TEST(Safetensors, SaveRefusesWhatItCannotStore) {
  TempDir dir;
  Tensor a({4, 4});
  const auto save = [&](std::vector<TensorToSave> list, const std::map<std::string, std::string>& metadata = {}) {
    return error_of(ErrorKind::kInvalidArgument, [&] { save_safetensors(dir / "x", list, metadata); });
  };
  EXPECT_THAT(save({{"cut", a.ref().narrow(1, 0, 2)}}), AllOf(HasSubstr("cut"), HasSubstr("strided")));
  EXPECT_THAT(save({{"a", a.ref()}, {"b", a.ref()}, {"a", a.ref()}}), HasSubstr("twice"));
  EXPECT_THAT(save({{"__metadata__", a.ref()}}), HasSubstr("__metadata__"));
  EXPECT_THAT(save({{"\xff", a.ref()}}), HasSubstr("UTF-8"));
  EXPECT_THAT(save({{"void", TensorRef(nullptr, DType::kF32, {2}, kHost)}}), HasSubstr("void"));
  EXPECT_FALSE(std::filesystem::exists(dir / "x"));
}

TEST(Safetensors, ToF32) {
  TempDir dir;
  Tensor h({4}, DType::kF16), b({2}, DType::kBF16), d({2}, DType::kF64), i({1}, DType::kI32);
  const uint16_t halves[4] = {0x3c00, 0xc000, 0x0001, 0x7c00};
  std::memcpy(h.ref().data, halves, sizeof halves);
  b.values<BF16>()[1] = BF16(-2.5f);
  d.values<double>()[0] = 0.1;
  save_safetensors(dir / "x", {{"h", h.ref()}, {"b", b.ref()}, {"d", d.ref()}, {"i", i.ref()}});
  const SafetensorsFile file(dir / "x");
  EXPECT_EQ(to_f32(file.at("h")), (std::vector<float>{1, -2, 0x1p-24f, std::numeric_limits<float>::infinity()}));
  EXPECT_EQ(to_f32(file.at("b")), (std::vector<float>{0, -2.5f}));
  EXPECT_EQ(to_f32(file.at("d")), (std::vector<float>{0.1f, 0}));
  EXPECT_THAT(error_of(ErrorKind::kInvalidArgument, [&] { to_f32(file.at("i")); }),
              AllOf(HasSubstr("\"i\""), HasSubstr("I32")));
}

TEST(Safetensors, UnalignedDataIsCopied) {
  TempDir dir;
  std::string header = "{" + entry("b", "U8", "[1]", "[0,1]") + "," + entry("f", "F32", "[2]", "[1,9]") + "}";
  std::string bytes = raw_file(header, 9);
  const float values[2] = {1.5f, -3.0f};
  std::memcpy(&bytes[bytes.size() - 8], values, 8);
  put_file(dir / "x", bytes);
  const SafetensorsFile file(dir / "x");
  EXPECT_EQ(reinterpret_cast<uintptr_t>(file.at("f").data) % 4, 0u);
  EXPECT_EQ(file.at("f").ref().as<float>()[1], -3.0f);
  EXPECT_EQ(to_f32(file.at("f")), (std::vector<float>{1.5f, -3.0f}));
}

TEST(Safetensors, AcceptsWhatTheFormatAllows) {
  TempDir dir;
  put_file(dir / "empty", raw_file("{}", 0));
  EXPECT_TRUE(SafetensorsFile(dir / "empty").tensors().empty());
  put_file(dir / "padded", raw_file("{\"__metadata__\":{}," + entry("b", "F32", "[1]", "[4,8]") + "," +
                                        entry("a", "F32", "[]", "[0,4]") + "}   ",
                                    8));
  const SafetensorsFile file(dir / "padded");
  ASSERT_EQ(file.tensors().size(), 2u);
  EXPECT_EQ(file.tensors()[0].name, "a") << "in the order of data";
  EXPECT_EQ(file.at("a").ref().numel(), 1);
}

TEST(Safetensors, RefusesBadLengths) {
  TempDir dir;
  const auto open = [&](const std::string& bytes) {
    put_file(dir / "x", bytes);
    return error_of(ErrorKind::kBadFile, [&] { SafetensorsFile file(dir / "x"); });
  };
  EXPECT_THAT(open(""), HasSubstr("0 bytes"));
  EXPECT_THAT(open("1234567"), HasSubstr("7 bytes"));
  EXPECT_THAT(open(std::string(8, '\xff') + "{}"), HasSubstr("18,446,744,073,709,551,615"));
  EXPECT_THAT(open(std::string("\x01\xe1\xf5\x05\0\0\0\0{}", 10)),
              HasSubstr("header of 100,000,001 bytes; at most 100,000,000"));
  EXPECT_THAT(open(std::string("\x00\xe1\xf5\x05\0\0\0\0{}", 10)),
              HasSubstr("header of 100,000,000 bytes in a file of 10: truncated?"));
  EXPECT_THAT(open(std::string("\x03\0\0\0\0\0\0\0{}", 10)), HasSubstr("truncated"));
  EXPECT_THAT(open(std::string(8, '\0')), HasSubstr("begin with"));
  EXPECT_THAT(open(raw_file(" {}", 0)), HasSubstr("begin with"));
  const std::string good = raw_file("{" + entry("a", "F32", "[2]", "[0,8]") + "}", 8);
  for (size_t n = 0; n < good.size(); ++n) open(good.substr(0, n));  // every truncation
  open(good + "x");
}

TEST(Safetensors, RefusesBadJson) {
  EXPECT_THAT(refused("{\"a\":", 0), HasSubstr("not valid JSON"));
  EXPECT_THAT(refused("{} {}", 0), HasSubstr("not valid JSON"));
  EXPECT_THAT(refused("{\"a\":1}", 0), AllOf(HasSubstr("\"a\""), HasSubstr("an object")));
  EXPECT_THAT(refused("{\"a\":null}", 0), AllOf(HasSubstr("\"a\""), HasSubstr("null"), HasSubstr("an object")));
  EXPECT_THAT(refused("{\"a\":false}", 0), HasSubstr("false"));
  EXPECT_THAT(refused(R"({"a":{"dtype":null}})", 0),
              AllOf(HasSubstr("field \"dtype\""), HasSubstr("the name of a type")));
  EXPECT_THAT(refused(R"({"a":{"data_offsets":true}})", 0),
              AllOf(HasSubstr("field \"data_offsets\""), HasSubstr("a list of two offsets")));
  EXPECT_THAT(refused(R"({"a":{"data_offsets":[0,-4]}})", 0),
              AllOf(HasSubstr("-4"), HasSubstr("an offset: a whole number from 0 on")));
  EXPECT_THAT(refused("{\"a\":" + std::string(100000, '['), 0), HasSubstr("list"));
  EXPECT_THAT(refused("{\"a\":{\"shape\":[" + std::string(100000, '['), 0), HasSubstr("list"));
  EXPECT_THAT(refused("{\"a\":{\"shape\":{\"b\":{", 0), HasSubstr("an object"));
  EXPECT_THAT(refused("{\"__metadata__\":{\"a\":1}}", 0), HasSubstr("a string"));
  EXPECT_THAT(refused("{\"__metadata__\":{\"a\":\"1\",\"a\":\"2\"}}", 0), HasSubstr("twice"));
  EXPECT_THAT(refused("{\"__metadata__\":{},\"__metadata__\":{}}", 0), HasSubstr("twice"));
  EXPECT_THAT(refused("{\"__metadata__\":[]}", 0), HasSubstr("list"));
  EXPECT_THAT(refused("{\"a\":{}}", 0), HasSubstr("all needed"));
  EXPECT_THAT(refused(R"({"a":{"dtype":"U8","shape":[1]}})", 1), HasSubstr("all needed"));
  EXPECT_THAT(refused(R"({"a":{"dtype":"U8","dtype":"U8","shape":[1],"data_offsets":[0,1]}})", 1), HasSubstr("twice"));
  EXPECT_THAT(refused(R"({"a":{"type":"U8"}})", 1), HasSubstr("unknown field"));
  EXPECT_THAT(refused("{" + entry("a", "U8", "[1]", "[0,1]") + "," + entry("a", "U8", "[1]", "[1,2]") + "}", 2),
              HasSubstr("twice"));
  EXPECT_THAT(refused("{\"\xff\":{}}", 0), HasSubstr("not valid JSON"));
}

TEST(Safetensors, RefusesBadTensors) {
  const auto one = [](const std::string& dtype, const std::string& shape, const std::string& offsets, size_t bytes) {
    const std::string message = refused("{" + entry("a", dtype, shape, offsets) + "}", bytes);
    EXPECT_THAT(message, HasSubstr("\"a\""));
    return message;
  };
  EXPECT_THAT(one("F8_E4M3", "[1]", "[0,1]", 1), AllOf(HasSubstr("F8_E4M3"), HasSubstr("BF16")));
  EXPECT_THAT(one("F32", "[1,1,1,1,1,1]", "[0,4]", 4), HasSubstr("dimensions"));
  EXPECT_THAT(one("F32", "[-1]", "[0,4]", 4), HasSubstr("-1"));
  EXPECT_THAT(one("F32", "[1.0]", "[0,4]", 4), HasSubstr("1.0"));
  EXPECT_THAT(one("F32", "[18446744073709551615]", "[0,4]", 4), HasSubstr("18446744073709551615"));
  EXPECT_THAT(one("F32", "[\"1\"]", "[0,4]", 4), HasSubstr("\"1\""));
  EXPECT_THAT(one("F32", "1", "[0,4]", 4), HasSubstr("a list"));
  EXPECT_THAT(one("F32", "[4294967296,4294967296]", "[0,4]", 4), HasSubstr("2^63"));
  EXPECT_THAT(one("F32", "[0,4611686018427387904,4611686018427387904]", "[0,0]", 0), HasSubstr("2^63"));
  EXPECT_THAT(one("F32", "[1]", "[4,0]", 4), HasSubstr("not within"));
  EXPECT_THAT(one("F32", "[1]", "[0,8]", 4), HasSubstr("not within"));
  EXPECT_THAT(one("F32", "[1]", "[18446744073709551612,0]", 4), HasSubstr("not within"));
  EXPECT_THAT(one("F32", "[2]", "[0,4]", 4), AllOf(HasSubstr("4 bytes"), HasSubstr("takes 8")));
  EXPECT_THAT(one("F32", "[1]", "[0]", 4), HasSubstr("expected 2"));
  EXPECT_THAT(one("F32", "[1]", "[0,4,4]", 4), HasSubstr("more than two"));
}

TEST(Safetensors, RefusesOverlapsHolesAndTails) {
  const auto two = [](const char* a, const char* b, size_t bytes) {
    return refused("{" + entry("a", "F32", "[2]", a) + "," + entry("b", "F32", "[2]", b) + "}", bytes);
  };
  EXPECT_THAT(two("[0,8]", "[4,12]", 12), HasSubstr("overlap"));
  EXPECT_THAT(two("[0,8]", "[0,8]", 8), HasSubstr("overlap"));
  EXPECT_THAT(two("[0,8]", "[12,20]", 20), HasSubstr("no tensor"));
  EXPECT_THAT(two("[4,12]", "[12,20]", 20), HasSubstr("no tensor"));
  EXPECT_THAT(two("[0,8]", "[8,16]", 20), HasSubstr("the file has 20"));
}

TEST(Safetensors, RandomDamageNeverEscapesAsAnythingButError) {
  TempDir dir;
  Tensor a({3, 5}), b({7}, DType::kU8);
  save_safetensors(dir / "good", {{"a", a.ref()}, {"b", b.ref()}}, {{"k", "v"}});
  const std::string good = get_file(dir / "good");
  Rng rng(1);
  for (int i = 0; i < 3000; ++i) {
    std::string bad = good;
    for (uint64_t flips = 1 + rng.below(3); flips > 0; --flips)
      bad[rng.below(bad.size() - 67)] = static_cast<char>(rng.below(256));  // header and length only
    put_file(dir / "bad", bad);
    try {
      const SafetensorsFile file(dir / "bad");
      for (const StoredTensor& t : file.tensors())
        EXPECT_EQ(static_cast<size_t>(t.ref().numel()) * dtype_size(t.dtype), t.bytes);
    } catch (const Error&) {
    }
  }
}

TEST(Safetensors, ReadsTheGoldenFiles) {
  const char* variable = std::getenv("COCA_GOLDEN_DIR");
  const std::filesystem::path golden =
      variable ? std::filesystem::path(variable) : std::filesystem::path(COCA_SOURCE_DIR) / "../shared/golden";
  if (!std::filesystem::is_directory(golden)) GTEST_SKIP() << "no golden data in " << golden << "; set COCA_GOLDEN_DIR";
  int files = 0;
  for (const auto& item : std::filesystem::recursive_directory_iterator(golden)) {
    if (item.path().extension() != ".safetensors") continue;
    const SafetensorsFile file(item.path());
    EXPECT_FALSE(file.tensors().empty());
    for (const StoredTensor& t : file.tensors()) {
      if (t.dtype != DType::kF32) continue;
      for (const float v : to_f32(t)) ASSERT_FALSE(std::isnan(v)) << item.path() << " " << t.name;
    }
    if (item.path().filename() == "len29.safetensors") {
      EXPECT_EQ(file.at("input_ids").shape[1], 29);
    }
    ++files;
  }
  EXPECT_GT(files, 0);
}

}  // namespace
}  // namespace coca::io::safetensors_test
