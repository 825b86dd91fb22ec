// coca/io/hash.h - checksums and fingerprints of our files. None of them is cryptographic.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace coca::io {

// CRC-32C (Castagnoli). Chain pieces by passing the previous result: crc32c(b, nb, crc32c(a, na)).
uint32_t crc32c(const void* data, size_t bytes, uint32_t previous = 0);

// 64-bit FNV-1a, finalised with mix64, as 16 hexadecimal digits.
std::string fingerprint64(std::string_view data);

}  // namespace coca::io
