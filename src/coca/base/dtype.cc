// SPDX-License-Identifier: Apache-2.0
#include "coca/base/dtype.h"

#include <cmath>

namespace coca {

namespace {
struct DTypeInfo {
  DType dtype;
  size_t size;
  std::string_view name;
};
constexpr DTypeInfo kInfos[] = {
    {DType::kF32, 4, "F32"}, {DType::kF64, 8, "F64"}, {DType::kBF16, 2, "BF16"},
    {DType::kF16, 2, "F16"}, {DType::kI32, 4, "I32"}, {DType::kI64, 8, "I64"},
    {DType::kU8, 1, "U8"},   {DType::kU16, 2, "U16"}, {DType::kBool, 1, "BOOL"},
};
const DTypeInfo& info(DType dtype) {
  for (const DTypeInfo& i : kInfos)
    if (i.dtype == dtype) return i;
  return kInfos[0];
}
}  // namespace

size_t dtype_size(DType dtype) { return info(dtype).size; }
std::string_view dtype_name(DType dtype) { return info(dtype).name; }

std::optional<DType> dtype_from_name(std::string_view name) {
  for (const DTypeInfo& i : kInfos)
    if (i.name == name) return i.dtype;
  return std::nullopt;
}

float f16_to_f32(uint16_t bits) {
  const uint32_t sign = static_cast<uint32_t>(bits & 0x8000u) << 16;
  const uint32_t exponent = (bits >> 10) & 0x1fu, mantissa = bits & 0x3ffu;
  if (exponent == 0) {  // zero and subnormals: value = mantissa * 2^-24
    const float value = std::ldexp(static_cast<float>(mantissa), -24);
    return sign ? -value : value;
  }
  if (exponent == 31) return std::bit_cast<float>(sign | 0x7f800000u | (mantissa << 13));
  return std::bit_cast<float>(sign | ((exponent + 112u) << 23) | (mantissa << 13));
}

uint16_t f32_to_f16(float value) {
  const uint32_t u = std::bit_cast<uint32_t>(value);
  const uint16_t sign = static_cast<uint16_t>((u >> 16) & 0x8000u);
  const uint32_t a = u & 0x7fffffffu;
  if (a > 0x7f800000u) return static_cast<uint16_t>(sign | 0x7e00u);   // NaN
  if (a >= 0x477ff000u) return static_cast<uint16_t>(sign | 0x7c00u);  // rounds to infinity
  if (a < 0x38800000u) {  // subnormal result: nearest multiple of 2^-24, ties to even
    const float scaled = std::nearbyint(std::ldexp(std::bit_cast<float>(a), 24));
    return static_cast<uint16_t>(sign | static_cast<uint16_t>(scaled));
  }
  const uint32_t rounded = a + 0xfffu + ((a >> 13) & 1u);
  return static_cast<uint16_t>(sign | ((rounded - 0x38000000u) >> 13));
}

}  // namespace coca
