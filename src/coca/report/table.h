// coca/report/table.h - one table, rendered for a terminal, Markdown, HTML and CSV; and the wording of
// numbers.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace coca::report {

enum class Align : uint8_t { kLeft, kRight };

struct Table {
  std::string title;  // may be empty
  std::vector<std::string> header;
  std::vector<std::vector<std::string>> rows;  // each as long as the header; the renderers check
  std::vector<Align> align;                    // what is missing: first column left, the others right
};

std::string to_text(const Table& table);
// Lines of at most this many columns, as far as words allow. Headers and left-aligned text are broken at spaces, the
// widest first; numbers never are. Columns that still do not fit are printed in further blocks below, after the leading
// columns that identify the rows. A table of text that
// does not fit becomes one paragraph for each row. 0: as to_text().
std::string to_text_within(const Table& table, int columns);
std::string to_markdown(const Table& table);
std::string to_html(const Table& table);
std::string to_csv(const Table& table);  // RFC 4180 with "\n"; without the title

// So many significant digits: "4.627", "122.3", "123,500"; powers of ten only from 1e15 on and below 1e-4. Trailing
// zeros stay, so that columns line up; "inf", "nan", and "-" for no value.
std::string format_number(std::optional<double> value, int significant = 4);
std::string format_duration(double seconds);  // "45.2 s", "12 min 05 s", "1 h 02 min"; "-" when not finite
std::string format_bytes(int64_t bytes);      // "512 B", "1.5 KiB", "3.2 GiB"

}  // namespace coca::report
