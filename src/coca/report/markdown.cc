// SPDX-License-Identifier: Apache-2.0
#include "coca/report/markdown.h"

#include <algorithm>
#include <cctype>

#include "coca/report/escape.h"

namespace coca::report {

namespace {

// The longest run of backquotes, plus one, fences any text.
std::string fence_for(const std::string& text, size_t least) {
  size_t longest = 0, run = 0;
  for (const char c : text) longest = std::max(longest, run = c == '`' ? run + 1 : 0);
  return std::string(std::max(least, longest + 1), '`');
}

std::string spans_markdown(const std::string& text) {
  std::string out;
  for (const Span& span : parse_spans(text)) {
    switch (span.kind) {
      case SpanKind::kPlain: out += escape_markdown(span.text); break;
      case SpanKind::kCode: out += "`" + single_line(span.text) + "`"; break;  // holds no backquote: it ended there
      case SpanKind::kBold: out += "**" + escape_markdown(span.text) + "**"; break;
    }
  }
  return out;
}

// "- x", "+ x" and "1. x" at the start of a paragraph would become lists, "=" and "-" underlines.
std::string not_a_list(std::string text) {
  const size_t digits = std::min(text.find_first_not_of("0123456789"), text.size());
  if (digits > 0 && digits < text.size() && (text[digits] == '.' || text[digits] == ')'))
    text.insert(digits, "\\");
  else if (!text.empty() && (text[0] == '-' || text[0] == '+' || text[0] == '='))
    text.insert(0, "\\");
  return text;
}

struct BlockToMarkdown {
  std::string operator()(const Heading& h) const {
    return std::string(static_cast<size_t>(h.level), '#') + " " + spans_markdown(h.text) + "\n";
  }
  std::string operator()(const Paragraph& p) const { return not_a_list(spans_markdown(p.text)) + "\n"; }
  std::string operator()(const List& list) const {
    std::string out;
    for (const std::string& item : list.items) out += "- " + not_a_list(spans_markdown(item)) + "\n";
    return out;
  }
  std::string operator()(const Preformatted& p) const {
    const std::string fence = fence_for(p.text, 3);
    return fence + "\n" + p.text + (p.text.ends_with('\n') ? "" : "\n") + fence + "\n";
  }
  std::string operator()(const Table& table) const { return to_markdown(table); }
  std::string operator()(const Figure& figure) const {
    return "![" + figure.name + "](figures/" + figure.name + ".svg)\n\n" + not_a_list(spans_markdown(figure.caption)) +
           "\n";
  }
};

}  // namespace

std::string to_markdown(const Document& document) {
  std::string out = "# " + escape_markdown(document.title()) + "\n";
  for (const Block& block : document.blocks()) out += "\n" + std::visit(BlockToMarkdown{}, block);
  return out;
}

}  // namespace coca::report
