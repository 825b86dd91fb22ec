// SPDX-License-Identifier: Apache-2.0
#include "coca/report/table.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <numeric>
#include <set>
#include <string_view>
#include <type_traits>

#include "coca/base/count.h"
#include "coca/base/error.h"
#include "coca/io/csv.h"
#include "coca/report/escape.h"

namespace coca::report {

namespace {

void check(const Table& table) {
  for (size_t r = 0; r < table.rows.size(); ++r)
    COCA_CHECK(table.rows[r].size() == table.header.size(), "[table] \"{}\": row {} has {} cells, the header {}",
               table.title, r, table.rows[r].size(), table.header.size());
}

Align align_of(const Table& table, size_t column) {
  if (column < table.align.size()) return table.align[column];
  return column == 0 ? Align::kLeft : Align::kRight;
}

// Code points: right for Latin text and box drawing, too small for wide East Asian characters.
size_t width_of(std::string_view text) {
  return static_cast<size_t>(
      std::count_if(text.begin(), text.end(), [](char c) { return (static_cast<unsigned char>(c) & 0xc0) != 0x80; }));
}

std::string padded(const std::string& text, size_t width, Align align) {
  const std::string space(width - std::min(width, width_of(text)), ' ');
  return align == Align::kLeft ? text + space : space + text;
}

// Words of a cell: each ends with the space after it. Names with dashes are never broken, so that they can be copied.
std::vector<std::string> words_of(const std::string& cell) {
  std::vector<std::string> words(1);
  for (size_t i = 0; i < cell.size(); ++i) {
    words.back() += cell[i];
    if (cell[i] == ' ' && i + 1 < cell.size()) words.emplace_back();
  }
  return words;
}

size_t width_of_word(const std::string& word) { return width_of(word) - (word.ends_with(' ') ? 1 : 0); }

size_t longest_word(const std::string& cell) {
  size_t longest = 0;
  for (const std::string& word : words_of(cell)) longest = std::max(longest, width_of_word(word));
  return longest;
}

// The lines of a cell that is no wider than `width`, but for single words.
std::vector<std::string> broken(const std::string& cell, size_t width) {
  if (width_of(cell) <= width) return {cell};
  std::vector<std::string> lines(1);
  for (const std::string& word : words_of(cell)) {
    if (!lines.back().empty() && width_of(lines.back()) + width_of_word(word) > width) lines.emplace_back();
    lines.back() += word;
  }
  for (std::string& line : lines)
    if (line.ends_with(' ')) line.pop_back();
  return lines;
}

using Rows = std::vector<std::vector<std::string>>;  // the header first

size_t line_width(const std::vector<size_t>& widths) {
  size_t total = 2 * (std::max<size_t>(widths.size(), 1) - 1);
  for (const size_t width : widths) total += width;
  return total;
}

constexpr size_t kLongestNumber = 20;  // with its unit
constexpr size_t kReadable = 12;       // least width of a column of text, where its words allow

// Headers are broken at words, and so is text: what stands on the left, and what is too long for a number. A number
// stays in one piece with its unit.
size_t least_width(const Rows& rows, size_t column, Align align, size_t least_text) {
  size_t least = longest_word(rows[0][column]);
  for (size_t r = 1; r < rows.size(); ++r) {
    const std::string& cell = rows[r][column];
    const size_t width = width_of(cell), text = std::max(longest_word(cell), least_text);
    const bool number = align == Align::kRight && width <= kLongestNumber;
    least = std::max(least, number ? width : std::min(width, text));
  }
  return least;
}

// Of the columns, as wide as their cells; or narrower, the widest first, until the lines fit or no column may become
// narrower. 0 columns: as wide as their cells.
std::vector<size_t> widths_within(const Rows& rows, const std::vector<Align>& align, size_t columns,
                                  size_t least_text) {
  std::vector<size_t> widths(align.size()), least(align.size());
  for (size_t c = 0; c < align.size(); ++c) {
    for (const auto& row : rows) widths[c] = std::max(widths[c], width_of(row[c]));
    least[c] = least_width(rows, c, align[c], least_text);
  }
  size_t total = line_width(widths);
  while (columns > 0 && total > columns) {
    size_t widest = widths.size();
    for (size_t c = 0; c < widths.size(); ++c)
      if (widths[c] > least[c] && (widest == widths.size() || widths[c] > widths[widest])) widest = c;
    if (widest == widths.size()) break;
    --widths[widest];
    --total;
  }
  for (size_t c = 0; c < widths.size(); ++c) {  // a broken header may need less
    size_t needed = 0;
    for (const auto& row : rows)
      for (const std::string& line : broken(row[c], widths[c])) needed = std::max(needed, width_of(line));
    widths[c] = needed;
  }
  return widths;
}

std::string lines_of(const Rows& rows, const std::vector<Align>& align, const std::vector<size_t>& widths) {
  std::string out;
  for (size_t r = 0; r < rows.size(); ++r) {
    Rows cells;
    size_t height = 1;
    for (size_t c = 0; c < widths.size(); ++c) {
      cells.push_back(broken(rows[r][c], widths[c]));
      height = std::max(height, cells.back().size());
    }
    for (size_t h = 0; h < height; ++h) {
      std::string line;
      for (size_t c = 0; c < widths.size(); ++c)
        line += (c ? "  " : "") + padded(h < cells[c].size() ? cells[c][h] : "", widths[c], align[c]);
      line.erase(line.find_last_not_of(' ') + 1);
      out += line + "\n";
    }
    if (r > 0) continue;
    for (size_t c = 0; c < widths.size(); ++c) out += (c ? "  " : "") + std::string(widths[c], '-');
    out += "\n";
  }
  return out;
}

// The fewest leading columns that tell the rows apart; the first alone where half of the columns do not.
size_t key_columns(const Rows& rows) {
  for (size_t keys = 1; keys <= rows[0].size() / 2; ++keys) {
    std::set<std::vector<std::string>> seen;
    for (size_t r = 1; r < rows.size(); ++r)
      seen.emplace(rows[r].begin(), rows[r].begin() + static_cast<std::ptrdiff_t>(keys));
    if (seen.size() == rows.size() - 1) return keys;
  }
  return 1;
}

// As many columns side by side as fit; the others below, each time after the columns that name the rows.
std::string in_blocks(const Rows& rows, const std::vector<Align>& align, size_t columns) {
  const size_t keys = key_columns(rows);
  const auto pick = [](const auto& from, const std::vector<size_t>& chosen) {
    std::remove_cvref_t<decltype(from)> out;
    for (const size_t c : chosen) out.push_back(from[c]);
    return out;
  };
  std::string out;
  for (size_t next = keys; next < align.size();) {
    std::vector<size_t> chosen(keys), widths;
    std::iota(chosen.begin(), chosen.end(), size_t{0});
    Rows part;
    for (bool fits = true; fits && next < align.size();) {
      chosen.push_back(next);
      Rows wider;
      for (const auto& row : rows) wider.push_back(pick(row, chosen));
      const auto wider_widths = widths_within(wider, pick(align, chosen), columns, kReadable);
      fits = line_width(wider_widths) <= columns || part.empty();  // one column more than the keys is the least
      if (fits) {
        part = std::move(wider);
        widths = wider_widths;
        ++next;
      } else
        chosen.pop_back();
    }
    out += (out.empty() ? "" : "\n") + lines_of(part, pick(align, chosen), widths);
  }
  return out;
}

// One paragraph for each row: "header: cell" on lines of their own.
std::string in_paragraphs(const Rows& rows, size_t columns) {
  constexpr size_t kIndent = 2;
  std::string out;
  for (size_t r = 1; r < rows.size(); ++r) {
    out += r > 1 ? "\n" : "";
    for (size_t c = 0; c < rows[r].size(); ++c) {
      std::string indent;
      for (const std::string& line : broken(rows[0][c] + ": " + rows[r][c], columns - std::min(columns, kIndent))) {
        out += indent + line + "\n";
        indent = std::string(kIndent, ' ');
      }
    }
  }
  return out;
}

std::string markdown_line(const std::vector<std::string>& cells) {
  std::string out = "|";
  for (const std::string& cell : cells) out += " " + escape_markdown(cell) + " |";
  return out + "\n";
}

}  // namespace

std::string to_text(const Table& table) { return to_text_within(table, 0); }

std::string to_text_within(const Table& table, int columns) {
  check(table);
  Rows rows = {table.header};
  rows.insert(rows.end(), table.rows.begin(), table.rows.end());
  for (auto& row : rows)
    for (std::string& cell : row) cell = single_line(cell);
  std::vector<Align> align;
  for (size_t c = 0; c < table.header.size(); ++c) align.push_back(align_of(table, c));
  const auto room = static_cast<size_t>(std::max(columns, 0));
  std::string title;
  if (!table.title.empty())
    for (const std::string& line : broken(single_line(table.title), room > 0 ? room : std::string::npos))
      title += line + "\n";
  const auto fits = [&](const std::vector<size_t>& widths) { return room == 0 || line_width(widths) <= room; };
  std::vector<size_t> widths = widths_within(rows, align, room, kReadable);
  if (fits(widths)) return title + lines_of(rows, align, widths);
  // Columns of numbers may be split into blocks; text alone is better narrow.
  if (align.size() > 2 && std::ranges::count(align, Align::kRight) > 0) return title + in_blocks(rows, align, room);
  widths = widths_within(rows, align, room, 0);
  return title + (align.size() > 2 && !fits(widths) ? in_paragraphs(rows, room) : lines_of(rows, align, widths));
}

std::string to_markdown(const Table& table) {
  check(table);
  std::string out = table.title.empty() ? "" : "**" + escape_markdown(table.title) + "**\n\n";
  out += markdown_line(table.header) + "|";
  for (size_t c = 0; c < table.header.size(); ++c) out += align_of(table, c) == Align::kLeft ? ":---|" : "---:|";
  out += "\n";
  for (const auto& row : table.rows) out += markdown_line(row);
  return out;
}

std::string to_html(const Table& table) {
  check(table);
  const auto line = [&](const std::vector<std::string>& cells, std::string_view tag) {
    std::string out = "<tr>";
    for (size_t c = 0; c < cells.size(); ++c)
      out += fmt::format("<{0}{1}>{2}</{0}>", tag, align_of(table, c) == Align::kRight ? " class=\"right\"" : "",
                         escape_html(single_line(cells[c])));
    return out + "</tr>\n";
  };
  std::string out = "<div class=\"table\"><table>\n";
  if (!table.title.empty()) out += "<caption>" + escape_html(single_line(table.title)) + "</caption>\n";
  out += "<thead>\n" + line(table.header, "th") + "</thead>\n<tbody>\n";
  for (const auto& row : table.rows) out += line(row, "td");
  return out + "</tbody>\n</table></div>\n";
}

std::string to_csv(const Table& table) {
  check(table);
  std::string out = io::csv_line(table.header);
  for (const auto& row : table.rows) out += io::csv_line(row);
  return out;
}

std::string format_number(std::optional<double> value, int significant) {
  if (!value) return "-";
  if (std::isnan(*value)) return "nan";
  if (std::isinf(*value)) return *value > 0 ? "inf" : "-inf";
  const int precision = std::clamp(significant, 1, 17);
  char digits[64];
  std::snprintf(digits, sizeof digits, "%.*e", precision - 1, *value);
  const double rounded = std::strtod(digits, nullptr), size = std::abs(rounded);
  if (size >= 1000 && size < 1e15) {
    const int decimals = std::max(0, precision - 1 - static_cast<int>(std::log10(size)));
    const std::string plain = fmt::format("{:.{}f}", rounded, decimals);
    const size_t point = std::min(plain.find('.'), plain.size());
    return grouped(std::stoll(plain.substr(0, point))) + plain.substr(point);
  }
  std::snprintf(digits, sizeof digits, "%#.*g", precision, *value);  // fmt's # adds ".0"
  std::string text = digits;
  const size_t e = text.find('e');  // "1235." and "1.e+05" lose their point
  const size_t end = e == std::string::npos ? text.size() : e;
  if (end > 0 && text[end - 1] == '.') text.erase(end - 1, 1);
  return text;
}

std::string format_duration(double seconds) {
  if (!std::isfinite(seconds) || seconds < 0) return "-";
  if (seconds == 0) return "0 s";
  if (seconds < 0.9995e-3) return fmt::format("{:.0f} us", seconds * 1e6);
  if (seconds < 0.9995) return fmt::format("{:.{}f} ms", seconds * 1e3, seconds < 0.00995 ? 1 : 0);
  if (seconds < 59.95) return fmt::format("{:.1f} s", seconds);
  if (seconds > 1e9) return fmt::format("{:.0f} d", seconds / 86400);
  const int64_t whole = std::llround(seconds);
  if (whole < 3600) return fmt::format("{} min {:02} s", whole / 60, whole % 60);
  const int64_t minutes = std::llround(seconds / 60);
  if (minutes < 24 * 60) return fmt::format("{} h {:02} min", minutes / 60, minutes % 60);
  const int64_t hours = std::llround(seconds / 3600);
  return fmt::format("{} d {:02} h", hours / 24, hours % 24);
}

std::string format_bytes(int64_t bytes) {
  constexpr std::array<std::string_view, 5> kUnits = {"KiB", "MiB", "GiB", "TiB", "PiB"};
  if (bytes < 1024 && bytes > -1024) return fmt::format("{} B", bytes);
  double value = static_cast<double>(bytes) / 1024;
  size_t unit = 0;
  while (std::abs(value) >= 1023.95 && unit + 1 < kUnits.size()) {
    value /= 1024;
    ++unit;
  }
  return fmt::format("{:.1f} {}", value, kUnits[unit]);
}

}  // namespace coca::report
