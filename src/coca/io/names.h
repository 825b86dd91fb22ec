// coca/io/names.h - names of files as text. A name is any bytes; JSON, CSV and reports are UTF-8.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace coca::io {

// Bytes of the well-formed UTF-8 sequence at the front of `text`, or 0 where there is none (RFC 3629: no overlong
// forms, no surrogates, nothing above U+10FFFF).
size_t utf8_length(std::string_view text);
bool is_utf8(std::string_view text);

// Each byte that is not UTF-8 becomes \x and two hexadecimal digits ("caf\xe9.txt"). A backslash that could be read as
// the start of one becomes \x5c, so that bytes_from_name() gives back every text, byte for byte. All other text stays
// as it is.
std::string name_from_bytes(std::string_view bytes);
std::string bytes_from_name(std::string_view name);
// For people and for files that are not read back: unchanged if it is UTF-8, else as name_from_bytes() writes it.
std::string shown_name(std::string_view bytes);

}  // namespace coca::io
