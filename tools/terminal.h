// tools/terminal.h - what standard output and standard error lead to: width and colours.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace coca::tools {

enum class Stream : uint8_t { kOut, kError };
enum class Style : uint8_t { kHeading, kName, kError, kWarning, kGood };

// Columns of the terminal, or COLUMNS where that is set; 0 where it is neither: lines may be as long as they are.
int terminal_columns(Stream);

// Colours are for terminals. NO_COLOR (not empty) or TERM=dumb turns them off, CLICOLOR_FORCE (not 0) turns them on for
// all.
bool coloured(Stream);
std::string painted(Stream, Style, std::string_view text);  // as it is where there are no colours

bool is_terminal(Stream);
// Text of any bytes, so that it cannot steer a terminal: control characters but \n and \t, and what is not UTF-8,
// become \x1b.
std::string harmless(std::string_view text);

// Lines longer than `columns` are broken at spaces, and go on `indent` columns in; 0 columns: nothing is broken.
std::string wrapped(std::string_view text, int columns, int indent);

}  // namespace coca::tools
