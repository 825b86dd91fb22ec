// tools/terminal.h - the width and colours of standard output and standard error.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace coca::tools {

enum class Stream : uint8_t { kOut, kError };
enum class Style : uint8_t { kHeading, kName, kError, kWarning, kGood };

// Columns of the terminal, or the value of COLUMNS if set. 0 if there is neither: lines are not wrapped.
int terminal_columns(Stream);

// Whether to use colours. By default only terminals do. NO_COLOR (not empty) or TERM=dumb turns them off,
// CLICOLOR_FORCE (not 0) turns them on.
bool coloured(Stream);
std::string painted(Stream, Style, std::string_view text);  // unchanged without colours

bool is_terminal(Stream);
// Makes text of any bytes safe for a terminal: control characters other than line breaks and tabs, and bytes that are
// not UTF-8, become \x1b and the like.
std::string harmless(std::string_view text);

// Wraps lines longer than `columns` at spaces and indents the continuation by `indent`. 0 columns: no wrapping.
std::string wrapped(std::string_view text, int columns, int indent);

}  // namespace coca::tools
