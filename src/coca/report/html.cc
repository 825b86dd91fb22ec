// SPDX-License-Identifier: Apache-2.0
#include "coca/report/html.h"

#include <fmt/format.h>

#include "coca/report/escape.h"
#include "coca/report/svg.h"

namespace coca::report {

namespace {

// Lines of text stay short; a table may take the whole page (1,200 px), breaks its headers and first column before it
// grows beyond that, and then scrolls in a box of its own.
constexpr std::string_view kStyle = R"(
:root { color-scheme: light dark; --text: #1f2328; --soft: #59636e; --page: #ffffff;
  --line: #d9dee4; --fill: #f5f7f9; }
@media (prefers-color-scheme: dark) {
  :root { --text: #e6e8eb; --soft: #a0a8b2; --page: #16191d;
    --line: #363c44; --fill: #20252b; }
}
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 2rem 1.25rem 4rem; max-width: 75rem;
  background: var(--page); color: var(--text);
  font: 1rem/1.6 system-ui, -apple-system, "Segoe UI", Helvetica, Arial, "Liberation Sans", sans-serif; }
body > :not(.table) { max-width: 60rem; }
h1, h2, h3, h4 { line-height: 1.25; margin: 2.2em 0 0.6em; }
h1 { font-size: 1.9rem; margin-top: 0; }
h2 { font-size: 1.4rem; padding-bottom: 0.3rem; border-bottom: 1px solid var(--line); }
h3 { font-size: 1.15rem; }
p, ul { margin: 0.8em 0; }
code, pre { font-family: ui-monospace, "DejaVu Sans Mono", Menlo, Consolas, monospace;
  font-size: 0.88em; }
code { background: var(--fill); padding: 0.12em 0.35em; border-radius: 4px; }
pre { background: var(--fill); padding: 0.9em 1.1em; border-radius: 8px; overflow-x: auto;
  line-height: 1.45; }
.table { overflow-x: auto; margin: 1.2em 0; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
caption { text-align: left; font-weight: 600; padding-bottom: 0.5em; }
th, td { padding: 0.35em 0.7em; border-bottom: 1px solid var(--line); text-align: left; }
th { border-bottom-width: 2px; color: var(--soft); font-weight: 600; vertical-align: bottom; }
td + td { white-space: nowrap; }
.right { text-align: right; }
tbody tr:hover { background: var(--fill); }
figure { margin: 1.6em 0; padding: 0.9rem; background: #ffffff; border: 1px solid var(--line);
  border-radius: 10px; }
figure svg { display: block; width: 100%; height: auto; }
figcaption { margin-top: 0.6rem; color: #4b535c; font-size: 0.92rem; }
figcaption code { background: #f0f2f4; }
@media print { body { max-width: none; padding: 0; } figure, .table { break-inside: avoid; } }
)";

std::string spans_html(const std::string& text) {
  std::string out;
  for (const Span& span : parse_spans(text)) {
    const std::string body = escape_html(single_line(span.text));
    switch (span.kind) {
      case SpanKind::kPlain: out += body; break;
      case SpanKind::kCode: out += "<code>" + body + "</code>"; break;
      case SpanKind::kBold: out += "<strong>" + body + "</strong>"; break;
    }
  }
  return out;
}

struct BlockToHtml {
  int* figures;

  std::string operator()(const Heading& h) const {
    return fmt::format("<h{0}>{1}</h{0}>\n", h.level, spans_html(h.text));
  }
  std::string operator()(const Paragraph& p) const { return "<p>" + spans_html(p.text) + "</p>\n"; }
  std::string operator()(const List& list) const {
    std::string out = "<ul>\n";
    for (const std::string& item : list.items) out += "<li>" + spans_html(item) + "</li>\n";
    return out + "</ul>\n";
  }
  std::string operator()(const Preformatted& p) const { return "<pre>" + escape_html(p.text) + "</pre>\n"; }
  std::string operator()(const Table& table) const { return to_html(table); }
  std::string operator()(const Figure& figure) const {
    const std::string svg = inline_svg(figure.svg, fmt::format("f{}-", ++*figures));
    return fmt::format("<figure id=\"{}\">\n{}\n<figcaption>{}</figcaption>\n</figure>\n", figure.name, svg,
                       spans_html(figure.caption));
  }
};

}  // namespace

std::string to_html(const Document& document) {
  const std::string title = escape_html(single_line(document.title()));
  std::string out = fmt::format(
      "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
      "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n"
      "<title>{0}</title>\n<style>{1}</style>\n</head>\n<body>\n<h1>{0}</h1>\n",
      title, kStyle);
  int figures = 0;
  for (const Block& block : document.blocks()) out += std::visit(BlockToHtml{&figures}, block);
  return out + "</body>\n</html>\n";
}

}  // namespace coca::report
