// coca/report/escape.h - making arbitrary text safe inside HTML, Markdown, gnuplot scripts and one-line
// cells.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <string_view>

namespace coca::report {

std::string escape_html(std::string_view text);      // & < > " '; bytes that are not UTF-8 as io/names.h writes them
std::string escape_markdown(std::string_view text);  // also safe inside a table cell: | and line breaks

// Line breaks, tabs and other control characters become spaces; bytes that are not UTF-8 become U+FFFD.
std::string single_line(std::string_view text);

// A gnuplot string in double quotes. Every ASCII character with a meaning anywhere in gnuplot (quotes,
// backslash, backquote, $, @, ...) is written as an octal escape, which is resolved only after the command
// has been parsed.
std::string quote_gnuplot(std::string_view text);
std::string quote_gnuplot_tick(std::string_view text);  // names of ticks are also number formats: "%" doubled

}  // namespace coca::report
