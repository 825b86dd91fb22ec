// coca/io/hash.cc - see hash.h.
// SPDX-License-Identifier: Apache-2.0
#include "coca/io/hash.h"

#include <fmt/format.h>

#include <array>

#include "coca/base/rng.h"

namespace coca::io {

namespace {

constexpr std::array<uint32_t, 256> make_crc_table() {
  std::array<uint32_t, 256> table{};
  for (uint32_t i = 0; i < 256; ++i) {
    uint32_t value = i;
    for (int bit = 0; bit < 8; ++bit)
      value = (value >> 1) ^ ((value & 1u) ? 0x82f63b78u : 0u);  // reflected polynomial
    table[i] = value;
  }
  return table;
}
constexpr std::array<uint32_t, 256> kCrcTable = make_crc_table();

}  // namespace

uint32_t crc32c(const void* data, size_t bytes, uint32_t previous) {
  const unsigned char* p = static_cast<const unsigned char*>(data);
  uint32_t crc = ~previous;
  for (size_t i = 0; i < bytes; ++i) crc = (crc >> 8) ^ kCrcTable[(crc ^ p[i]) & 0xffu];
  return ~crc;
}

std::string fingerprint64(std::string_view data) {
  uint64_t hash = 0xcbf29ce484222325ull;
  for (const char c : data) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3ull;
  return fmt::format("{:016x}", mix64(hash ^ data.size()));
}

}  // namespace coca::io
