// coca/data/token_layout.h - the bytes of a token file, for its reader and writer only. Text:
// docs/formats.md.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace coca::data::layout {

inline constexpr std::string_view kMagic = "COCATOK1";
inline constexpr uint32_t kVersion = 1;
inline constexpr size_t kHeaderBytes = 192;
inline constexpr size_t kTrailerBytes = 8;  // u32 CRC-32C of header and offsets, u32 zero
inline constexpr size_t kVersionAt = 8, kTokenBytesAt = 12, kTokensAt = 16, kDocumentsAt = 24, kVocabAt = 32;
inline constexpr size_t kKindAt = 40, kKindBytes = 32, kFingerprintAt = 72,
                        kFingerprintBytes = 64;  // zero padded

// Little-endian integers, whatever the machine.
template <typename T>
T get(const std::byte* p) {
  uint64_t value = 0;
  for (size_t i = sizeof(T); i-- > 0;) value = value << 8 | std::to_integer<uint64_t>(p[i]);
  return static_cast<T>(value);
}
template <typename T>
void put(std::byte* p, T value) {
  for (size_t i = 0; i < sizeof(T); ++i) p[i] = static_cast<std::byte>(static_cast<uint64_t>(value) >> (8 * i));
}

inline constexpr uint64_t padded8(uint64_t bytes) { return (bytes + 7) / 8 * 8; }

}  // namespace coca::data::layout
