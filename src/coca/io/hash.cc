// coca/io/hash.cc - see hash.h.
// SPDX-License-Identifier: Apache-2.0
#include "coca/io/hash.h"

#include <fmt/format.h>

#include <array>

#include "coca/base/rng.h"

namespace coca::io {

namespace {

// kTables[k][b]: what byte b adds to the sum when k more bytes of the same word follow it ("slicing by 8").
using CrcTables = std::array<std::array<uint32_t, 256>, 8>;
constexpr CrcTables make_crc_tables() {
  CrcTables tables{};
  for (uint32_t i = 0; i < 256; ++i) {
    uint32_t value = i;
    for (int bit = 0; bit < 8; ++bit) value = (value >> 1) ^ ((value & 1u) ? 0x82f63b78u : 0u);  // reflected polynomial
    tables[0][i] = value;
  }
  for (size_t k = 1; k < 8; ++k)
    for (size_t i = 0; i < 256; ++i) tables[k][i] = (tables[k - 1][i] >> 8) ^ tables[0][tables[k - 1][i] & 0xffu];
  return tables;
}
constexpr CrcTables kTables = make_crc_tables();

uint32_t little_endian(const unsigned char* p) {
  return static_cast<uint32_t>(p[0]) | static_cast<uint32_t>(p[1]) << 8 | static_cast<uint32_t>(p[2]) << 16 |
         static_cast<uint32_t>(p[3]) << 24;
}

}  // namespace

uint32_t crc32c(const void* data, size_t bytes, uint32_t previous) {
  const unsigned char* p = static_cast<const unsigned char*>(data);
  uint32_t crc = ~previous;
  for (; bytes >= 8; p += 8, bytes -= 8) {
    const uint32_t low = crc ^ little_endian(p), high = little_endian(p + 4);
    crc = kTables[7][low & 0xffu] ^ kTables[6][low >> 8 & 0xffu] ^ kTables[5][low >> 16 & 0xffu] ^
          kTables[4][low >> 24] ^ kTables[3][high & 0xffu] ^ kTables[2][high >> 8 & 0xffu] ^
          kTables[1][high >> 16 & 0xffu] ^ kTables[0][high >> 24];
  }
  for (size_t i = 0; i < bytes; ++i) crc = (crc >> 8) ^ kTables[0][(crc ^ p[i]) & 0xffu];
  return ~crc;
}

std::string fingerprint64(std::string_view data) {
  uint64_t hash = 0xcbf29ce484222325ull;
  for (const char c : data) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3ull;
  return fmt::format("{:016x}", mix64(hash ^ data.size()));
}

}  // namespace coca::io
