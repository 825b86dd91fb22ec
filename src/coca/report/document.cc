// SPDX-License-Identifier: Apache-2.0
#include "coca/report/document.h"

#include <algorithm>
#include <utility>

#include "coca/base/error.h"

namespace coca::report {

void Document::heading(int level, std::string text) {
  COCA_CHECK(level >= 2 && level <= 4, "[report] heading \"{}\": level {} is not in 2..4", text, level);
  blocks_.push_back(Heading{level, std::move(text)});
}

void Document::paragraph(std::string text) { blocks_.push_back(Paragraph{std::move(text)}); }
void Document::list(std::vector<std::string> items) { blocks_.push_back(List{std::move(items)}); }
void Document::preformatted(std::string text) { blocks_.push_back(Preformatted{std::move(text)}); }
void Document::table(Table table) { blocks_.push_back(std::move(table)); }

void Document::figure(Figure figure) {
  const auto allowed = [](char c) { return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-' || c == '_'; };
  COCA_CHECK(!figure.name.empty() && std::all_of(figure.name.begin(), figure.name.end(), allowed),
             "[report] figure name \"{}\": only small letters, digits, \"-\" and \"_\" are allowed", figure.name);
  for (const Block& block : blocks_) {
    const Figure* other = std::get_if<Figure>(&block);
    COCA_CHECK(!other || other->name != figure.name, "[report] two figures are named \"{}\"", figure.name);
  }
  blocks_.push_back(std::move(figure));
}

std::vector<Span> parse_spans(std::string_view text) {
  std::vector<Span> spans;
  std::string plain;
  const auto flush = [&] {
    if (!plain.empty()) spans.push_back({SpanKind::kPlain, std::exchange(plain, {})});
  };
  while (!text.empty()) {
    const bool code = text.starts_with("`"), bold = text.starts_with("**");
    const std::string_view mark = code ? "`" : "**";
    const size_t end = code || bold ? text.find(mark, mark.size()) : std::string_view::npos;
    if (end == std::string_view::npos || end == mark.size()) {  // no mark, no partner, or nothing between
      const size_t length = bold ? 2 : 1;
      plain += text.substr(0, length);
      text.remove_prefix(length);
      continue;
    }
    flush();
    spans.push_back(
        {code ? SpanKind::kCode : SpanKind::kBold, std::string(text.substr(mark.size(), end - mark.size()))});
    text.remove_prefix(end + mark.size());
  }
  flush();
  return spans;
}

}  // namespace coca::report
