// SPDX-License-Identifier: Apache-2.0
#include "terminal.h"

#include <fmt/format.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <cstdlib>
#include <cstring>

#include "coca/dist/mpi.h"
#include "coca/io/names.h"

namespace coca::tools {

namespace {

int descriptor(Stream stream) { return stream == Stream::kOut ? STDOUT_FILENO : STDERR_FILENO; }

std::string_view variable(const char* name) {
  const char* value = std::getenv(name);
  return value ? value : "";
}

}  // namespace

int terminal_columns(Stream stream) {
  constexpr int kLeast = 40;  // narrower layouts are unreadable
  const std::string_view text = variable("COLUMNS");
  int columns = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), columns);
  if (error == std::errc() && end == text.data() + text.size() && columns > 0) return std::max(columns, kLeast);
  winsize size{};
  if (!is_terminal(stream)) return 0;
  if (ioctl(descriptor(stream), TIOCGWINSZ, &size) == 0 && size.ws_col > 0) return std::max<int>(size.ws_col, kLeast);
  return dist::mpi_launched()
             ? 0
             : 80;  // mpirun's own terminals have no width, and its output may be copied to one of any width
}

bool coloured(Stream stream) {
  if (!variable("NO_COLOR").empty()) return false;
  if (!variable("CLICOLOR_FORCE").empty() && variable("CLICOLOR_FORCE") != "0") return true;
  return isatty(descriptor(stream)) && variable("TERM") != "dumb";
}

bool is_terminal(Stream stream) { return isatty(descriptor(stream)) != 0; }

std::string harmless(std::string_view text) {
  std::string out;
  while (!text.empty()) {
    const size_t length = io::utf8_length(text);
    const std::string_view one = text.substr(0, std::max<size_t>(length, 1));
    const auto byte = static_cast<unsigned char>(one[0]);
    const bool c1 = one.size() == 2 && byte == 0xc2 && static_cast<unsigned char>(one[1]) < 0xa0;  // U+0080 to U+009F
    const bool control = byte < 0x20 ? byte != '\n' && byte != '\t' : byte == 0x7f || c1;
    for (const char c : one)
      out += control || length == 0 ? fmt::format("\\x{:02x}", static_cast<unsigned char>(c)) : std::string(1, c);
    text.remove_prefix(one.size());
  }
  return out;
}

std::string painted(Stream stream, Style style, std::string_view text) {
  if (text.empty() || !coloured(stream)) return std::string(text);
  constexpr std::string_view kCodes[] = {"1", "36", "1;31", "33", "32"};  // bold, cyan, bold red, yellow, green
  return "\x1b[" + std::string(kCodes[static_cast<size_t>(style)]) + "m" + std::string(text) + "\x1b[0m";
}

std::string wrapped(std::string_view text, int columns, int indent) {
  std::string out;
  const auto room = [&](bool first) { return static_cast<size_t>(std::max(columns - (first ? 0 : indent), 20)); };
  while (true) {
    std::string_view line = text.substr(0, text.find('\n'));
    const bool ended = line.size() < text.size();
    text.remove_prefix(line.size() + (ended ? 1 : 0));
    bool first = true;
    for (; columns > 0 && line.size() > room(first); first = false) {
      size_t cut = line.rfind(' ', room(first));
      if (cut == std::string_view::npos || line.find_first_not_of(' ') > cut) cut = line.find(' ', room(first));
      if (cut == std::string_view::npos) break;
      out += (first ? "" : std::string(static_cast<size_t>(indent), ' ')) + std::string(line.substr(0, cut)) + "\n";
      line.remove_prefix(cut + 1);
    }
    out += (first ? "" : std::string(static_cast<size_t>(indent), ' ')) + std::string(line);
    if (ended) out += "\n";
    if (text.empty()) return out;
  }
}

}  // namespace coca::tools
