// coca/text/utf16.h - files in UTF-16 and UTF-32, as some editors save them, read as UTF-8.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace coca::text {

struct WideText {
  std::string text;           // UTF-8; invalid parts become U+FFFD
  std::string_view encoding;  // "UTF-16LE"
};
// The text of bytes that begin with a byte order mark of UTF-16 or UTF-32, or whose zeros leave no doubt without one:
// in the first 4 KiB at least half of the units are ASCII, and the only control characters are blanks. Nothing for
// other bytes.
std::optional<WideText> read_wide(std::string_view bytes);

}  // namespace coca::text
