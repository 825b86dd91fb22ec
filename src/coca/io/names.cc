// SPDX-License-Identifier: Apache-2.0
#include "coca/io/names.h"

#include <fmt/format.h>

#include <optional>

namespace coca::io {

namespace {

std::optional<unsigned> hex_digit(char c) {
  if (c >= '0' && c <= '9') return static_cast<unsigned>(c - '0');
  if (c >= 'a' && c <= 'f') return static_cast<unsigned>(c - 'a' + 10);
  return std::nullopt;
}

// The byte that \xHH at the front of `text` represents.
std::optional<char> escaped_byte(std::string_view text) {
  if (text.size() < 4 || text[0] != '\\' || text[1] != 'x') return std::nullopt;
  const auto high = hex_digit(text[2]), low = hex_digit(text[3]);
  if (!high || !low) return std::nullopt;
  return static_cast<char>(*high * 16 + *low);
}

}  // namespace

size_t utf8_length(std::string_view text) {
  const auto byte = [&](size_t i) { return i < text.size() ? static_cast<unsigned char>(text[i]) : 0u; };
  const auto continues = [&](size_t i) { return (byte(i) & 0xc0u) == 0x80u; };
  const unsigned lead = byte(0), next = byte(1);
  if (text.empty()) return 0;
  if (lead < 0x80u) return 1;
  if (lead >= 0xc2u && lead <= 0xdfu) return continues(1) ? 2 : 0;
  if ((lead & 0xf0u) == 0xe0u) {
    if ((lead == 0xe0u && next < 0xa0u) || (lead == 0xedu && next > 0x9fu)) return 0;
    return continues(1) && continues(2) ? 3 : 0;
  }
  if (lead >= 0xf0u && lead <= 0xf4u) {
    if ((lead == 0xf0u && next < 0x90u) || (lead == 0xf4u && next > 0x8fu)) return 0;
    return continues(1) && continues(2) && continues(3) ? 4 : 0;
  }
  return 0;
}

bool is_utf8(std::string_view text) {
  while (!text.empty()) {
    const size_t length = utf8_length(text);
    if (length == 0) return false;
    text.remove_prefix(length);
  }
  return true;
}

std::string name_from_bytes(std::string_view bytes) {
  std::string name;
  name.reserve(bytes.size());
  while (!bytes.empty()) {
    const size_t length = utf8_length(bytes);
    if (length == 0 || escaped_byte(bytes))
      name += fmt::format("\\x{:02x}", static_cast<unsigned char>(bytes.front()));
    else
      name += bytes.substr(0, length);
    bytes.remove_prefix(length == 0 ? 1 : length);
  }
  return name;
}

std::string bytes_from_name(std::string_view name) {
  std::string bytes;
  bytes.reserve(name.size());
  while (!name.empty()) {
    const auto byte = escaped_byte(name);
    bytes += byte.value_or(name.front());
    name.remove_prefix(byte ? 4 : 1);
  }
  return bytes;
}

std::string shown_name(std::string_view bytes) { return is_utf8(bytes) ? std::string(bytes) : name_from_bytes(bytes); }

}  // namespace coca::io
