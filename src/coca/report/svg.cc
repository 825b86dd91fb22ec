// SPDX-License-Identifier: Apache-2.0
#include "coca/report/svg.h"

#include <algorithm>
#include <array>
#include <cctype>

#include "coca/base/error.h"
#include "coca/report/child_process.h"
#include "coca/report/escape.h"

namespace coca::report {

namespace {

void replace_all(std::string& text, std::string_view from, std::string_view to) {
  for (size_t at = 0; (at = text.find(from, at)) != std::string::npos; at += to.size())
    text.replace(at, from.size(), to);
}

// Removes `open` ... `close`, everywhere.
void remove_all(std::string& text, std::string_view open, std::string_view close) {
  for (size_t at = 0; (at = text.find(open, at)) != std::string::npos;) {
    const size_t end = text.find(close, at + open.size());
    if (end == std::string::npos) return;
    text.erase(at, end + close.size() - at);
  }
}

std::string lower(std::string_view text) {
  std::string out(text);
  std::transform(out.begin(), out.end(), out.begin(),
                 [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  return out;
}

// Length of the tag that starts with '<' at the front of `text`, '>' included; a '>' within quotes does not
// end it.
size_t tag_length(std::string_view text) {
  char quote = 0;
  for (size_t i = 1; i < text.size(); ++i) {
    if (quote != 0)
      quote = text[i] == quote ? '\0' : quote;
    else if (text[i] == '"' || text[i] == '\'')
      quote = text[i];
    else if (text[i] == '>')
      return i + 1;
  }
  return text.size();
}

std::string prefix_ids(std::string tag, std::string_view prefix) {
  for (std::string_view mark : {" id=\"", " id='", "href=\"#", "href='#", "url(#", "url('#", "url(\"#"})
    replace_all(tag, mark, std::string(mark) + std::string(prefix));
  return tag;
}

void check_harmless(const std::string& tag) {
  const std::string low = lower(tag);
  bool bad = low.starts_with("<script") || low.starts_with("<foreignobject") || low.starts_with("<image") ||
             low.find("javascript:") != std::string::npos;
  for (size_t at = 0; !bad && (at = low.find("href=", at)) != std::string::npos; at += 5)
    bad = at + 6 >= low.size() || low[at + 6] != '#';  // past the quote: only references inside the file
  for (size_t at = 0; !bad && (at = low.find(" on", at)) != std::string::npos; at += 3) {
    const size_t equals = low.find_first_not_of("abcdefghijklmnopqrstuvwxyz", at + 3);
    bad = equals != std::string::npos && low[equals] == '=';
  }
  COCA_CHECK(!bad, "[svg] a figure must not run or load anything: {}", tag.substr(0, 120));
}

}  // namespace

std::string run_gnuplot(std::string_view script, std::string_view title) {
  COCA_CHECK_AS(kIo, program_in_path("gnuplot"),
                "gnuplot is not installed (no program of that name in PATH), so charts cannot be drawn");
  // -d: neither the system's nor the user's start-up file.
  ProcessResult result = run_process({"gnuplot", "-d"}, script);
  std::string& svg = result.out;
  COCA_CHECK_AS(kIo, result.exit_code == 0 && svg.find("</svg>") != std::string::npos,
                "gnuplot could not draw \"{}\" (exit code {}): {}", title, result.exit_code,
                result.err.empty() ? "no message" : result.err);
  // Titles inside are tooltips reading "gnuplot_plot_1"; the description is gnuplot's version.
  remove_all(svg, "<title>", "</title>");
  remove_all(svg, "<desc>", "</desc>");
  const size_t open = svg.find("<svg");
  const size_t end = open == std::string::npos ? open : svg.find('>', open);
  COCA_CHECK_AS(kIo, end != std::string::npos, "gnuplot drew \"{}\" as something that is not an SVG", title);
  svg.insert(end + 1, "\n<title>" + escape_html(single_line(title)) + "</title>");
  svg.insert(end, " role=\"img\"");
  // gnuplot writes its font name as it is, the weight included.
  const std::string fonts = "font-family=\"Helvetica, Arial, Liberation Sans, DejaVu Sans, sans-serif\"";
  replace_all(svg, "font-family=\"Arial\"", fonts);
  replace_all(svg, "font-family=\"Arial:Bold\"", fonts + " font-weight=\"bold\"");
  return svg;
}

std::string inline_svg(std::string_view svg, std::string_view id_prefix) {
  const size_t start = svg.find("<svg");
  const size_t stop = svg.rfind("</svg>");
  COCA_CHECK(start != std::string_view::npos && stop != std::string_view::npos && start < stop,
             "[svg] a figure's text is not an SVG: \"{}\"", svg.substr(0, 60));
  std::string_view rest = svg.substr(start, stop + 6 - start);
  std::string out;
  out.reserve(rest.size() + rest.size() / 16);
  while (!rest.empty()) {
    const size_t text = std::min(rest.find('<'), rest.size());
    out += rest.substr(0, text);
    rest.remove_prefix(text);
    if (rest.empty()) break;
    const size_t length = tag_length(rest);
    std::string tag(rest.substr(0, length));
    rest.remove_prefix(length);
    if (tag.starts_with("<svg")) {
      remove_all(tag, " xmlns=\"", "\"");
      remove_all(tag, " xmlns:xlink=\"", "\"");
    }
    check_harmless(tag);
    out += prefix_ids(std::move(tag), id_prefix);
  }
  return out;
}

}  // namespace coca::report
