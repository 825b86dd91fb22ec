// bf16 and f16 against their definitions: all 65536 patterns, every midpoint between neighbours and its float
// neighbours (round to nearest, ties to even), overflow, subnormals and NaN.
// SPDX-License-Identifier: Apache-2.0
#include "coca/base/dtype.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <limits>

namespace coca::dtype_test {
namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();

// Value of the sign, exponent and mantissa fields, as IEEE 754 defines it.
double decode(uint32_t bits, int exponent_bits, int mantissa_bits) {
  const uint32_t mantissa = bits & ((1u << mantissa_bits) - 1);
  const int top = (1 << exponent_bits) - 1, bias = top / 2;
  const int exponent = static_cast<int>(bits >> mantissa_bits) & top;
  const double sign = (bits >> (mantissa_bits + exponent_bits)) & 1u ? -1.0 : 1.0;
  if (exponent == top) return mantissa ? std::nan("") : sign * HUGE_VAL;
  if (exponent == 0) return sign * std::ldexp(mantissa, 1 - bias - mantissa_bits);
  return sign * std::ldexp(mantissa + (1u << mantissa_bits), exponent - bias - mantissa_bits);
}

struct Format {
  const char* name;
  int exponent_bits, mantissa_bits;
  uint16_t infinity;
  uint16_t (*narrow)(float);
  float (*widen)(uint16_t);
};

const Format kFormats[] = {
    {"f16", 5, 10, 0x7c00, f32_to_f16, f16_to_f32},
    {"bf16", 8, 7, 0x7f80, [](float v) { return BF16(v).bits; },
     [](uint16_t bits) {
       BF16 value;
       value.bits = bits;
       return static_cast<float>(value);
     }},
};

class Halves : public testing::TestWithParam<Format> {};

TEST_P(Halves, EveryPatternWidensExactly) {
  const Format& f = GetParam();
  for (uint32_t bits = 0; bits < 65536; ++bits) {
    const double expected = decode(bits, f.exponent_bits, f.mantissa_bits);
    const float actual = f.widen(static_cast<uint16_t>(bits));
    if (std::isnan(expected)) {
      ASSERT_TRUE(std::isnan(actual)) << bits;
    } else {
      ASSERT_EQ(static_cast<double>(actual), expected) << bits;
      ASSERT_EQ(std::signbit(actual), bits >= 0x8000u) << bits;
    }
  }
}

TEST_P(Halves, EveryPatternComesBack) {
  const Format& f = GetParam();
  for (uint32_t bits = 0; bits < 65536; ++bits) {
    const float value = f.widen(static_cast<uint16_t>(bits));
    const uint16_t back = f.narrow(value);
    if (std::isnan(value))
      ASSERT_TRUE(std::isnan(f.widen(back)) && (back >> 15) == (bits >> 15)) << bits;
    else
      ASSERT_EQ(back, bits);
  }
}

TEST_P(Halves, RoundsToNearestTiesToEven) {
  const Format& f = GetParam();
  for (uint32_t bits = 0; bits + 1 < f.infinity; ++bits) {
    const double low = decode(bits, f.exponent_bits, f.mantissa_bits);
    const double high = decode(bits + 1, f.exponent_bits, f.mantissa_bits);
    const float middle = static_cast<float>((low + high) / 2);  // exact: needs one more mantissa bit
    ASSERT_EQ(static_cast<double>(middle), (low + high) / 2);
    const uint32_t even = bits % 2 == 0 ? bits : bits + 1;
    ASSERT_EQ(f.narrow(middle), even) << bits;
    ASSERT_EQ(f.narrow(std::nextafter(middle, 0.0f)), bits) << bits;
    ASSERT_EQ(f.narrow(std::nextafter(middle, kInf)), bits + 1) << bits;
    ASSERT_EQ(f.narrow(-middle), even | 0x8000u) << bits;
  }
}

TEST_P(Halves, OverflowsToInfinityFromTheMidpointOn) {
  const Format& f = GetParam();
  const uint16_t largest = static_cast<uint16_t>(f.infinity - 1);
  const double step =
      decode(largest, f.exponent_bits, f.mantissa_bits) - decode(largest - 1u, f.exponent_bits, f.mantissa_bits);
  const float edge = static_cast<float>(decode(largest, f.exponent_bits, f.mantissa_bits) + step / 2);
  ASSERT_TRUE(std::isfinite(edge));
  EXPECT_EQ(f.narrow(std::nextafter(edge, 0.0f)), largest);
  EXPECT_EQ(f.narrow(edge), f.infinity);
  EXPECT_EQ(f.narrow(std::numeric_limits<float>::max()), f.infinity);
  EXPECT_EQ(f.narrow(kInf), f.infinity);
  EXPECT_EQ(f.narrow(-kInf), f.infinity | 0x8000u);
}

TEST_P(Halves, NanStaysNanWhateverItsPayload) {
  const Format& f = GetParam();
  for (const uint32_t payload : {0x7f800001u, 0x7fffffffu, 0x7fc00000u, 0xff800001u, 0xffffffffu, 0x7f80ffffu}) {
    const uint16_t bits = f.narrow(std::bit_cast<float>(payload));
    EXPECT_TRUE(std::isnan(f.widen(bits))) << payload;
    EXPECT_EQ(bits >> 15, payload >> 31) << payload;
  }
}

INSTANTIATE_TEST_SUITE_P(Formats, Halves, testing::ValuesIn(kFormats),
                         [](const auto& instance) { return std::string(instance.param.name); });

TEST(DType, NamesAndSizes) {
  const struct {
    DType dtype;
    size_t size;
    const char* name;
  } kAll[] = {{DType::kF32, 4, "F32"}, {DType::kF64, 8, "F64"}, {DType::kBF16, 2, "BF16"},
              {DType::kF16, 2, "F16"}, {DType::kI32, 4, "I32"}, {DType::kI64, 8, "I64"},
              {DType::kU8, 1, "U8"},   {DType::kU16, 2, "U16"}, {DType::kBool, 1, "BOOL"}};
  for (const auto& d : kAll) {
    EXPECT_EQ(dtype_size(d.dtype), d.size) << d.name;
    EXPECT_EQ(dtype_name(d.dtype), d.name);
    EXPECT_EQ(dtype_from_name(d.name), d.dtype);
  }
  EXPECT_FALSE(dtype_from_name("f32"));
  EXPECT_FALSE(dtype_from_name(""));
  static_assert(sizeof(BF16) == 2);
  static_assert(DTypeOf<BF16>::value == DType::kBF16);
}

}  // namespace
}  // namespace coca::dtype_test
