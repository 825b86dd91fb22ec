// SPDX-License-Identifier: Apache-2.0
#include "coca/report/escape.h"

#include <fmt/format.h>

#include <cctype>
#include <cstddef>

#include "coca/io/names.h"

namespace coca::report {

std::string escape_html(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  for (const char c : io::shown_name(text)) {
    switch (c) {
      case '&': out += "&amp;"; break;
      case '<': out += "&lt;"; break;
      case '>': out += "&gt;"; break;
      case '"': out += "&quot;"; break;
      case '\'': out += "&#39;"; break;
      default: out += c;
    }
  }
  return out;
}

std::string escape_markdown(std::string_view text) {
  constexpr std::string_view kSpecial = "\\`*_[]<>#|~";
  std::string out;
  out.reserve(text.size());
  for (const char c : single_line(text)) {
    // An entity would be decoded by Markdown; "&" alone would not, but is escaped all the same.
    if (c == '&') {
      out += "&amp;";
      continue;
    }
    if (kSpecial.find(c) != std::string_view::npos) out += '\\';
    out += c;
  }
  return out;
}

std::string single_line(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  while (!text.empty()) {
    const size_t length = io::utf8_length(text);
    const unsigned char c = static_cast<unsigned char>(text.front());
    if (length == 0)
      out += "\xef\xbf\xbd";
    else if (c < 0x20 || c == 0x7f)
      out += ' ';
    else
      out += text.substr(0, length);
    text.remove_prefix(length == 0 ? 1 : length);
  }
  return out;
}

std::string quote_gnuplot(std::string_view text) {
  constexpr std::string_view kPlain = " .,:-+_/()%";
  std::string out = "\"";
  for (const char c : single_line(text)) {
    const unsigned char byte = static_cast<unsigned char>(c);
    if (std::isalnum(byte) || byte >= 0x80 || kPlain.find(c) != std::string_view::npos)
      out += c;
    else
      out += fmt::format("\\{:03o}", static_cast<unsigned>(byte));
  }
  return out + "\"";
}

std::string quote_gnuplot_tick(std::string_view text) {
  std::string doubled;
  for (const char c : text) doubled += c == '%' ? std::string(2, c) : std::string(1, c);
  return quote_gnuplot(doubled);
}

}  // namespace coca::report
