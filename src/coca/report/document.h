// coca/report/document.h - a report as a list of blocks, rendered by html.h and markdown.h.
// Paragraphs, list items and captions take plain text with two marks: `code` and **bold**; all else is
// literal.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "coca/report/table.h"

namespace coca::report {

struct Heading {
  int level = 2;  // 2..4; the document's title is level 1
  std::string text;
};
struct Paragraph {
  std::string text;
};
struct List {
  std::vector<std::string> items;
};
struct Preformatted {
  std::string text;
};
struct Figure {
  std::string name;  // of its file, figures/<name>.svg: small letters, digits, "-" and "_"; unique in a document
  std::string svg;
  std::string caption;
};
using Block = std::variant<Heading, Paragraph, List, Preformatted, Table, Figure>;

class Document {
 public:
  explicit Document(std::string title) : title_(std::move(title)) {}

  void heading(int level, std::string text);
  void paragraph(std::string text);
  void list(std::vector<std::string> items);
  void preformatted(std::string text);
  void table(Table table);
  void figure(Figure figure);

  const std::string& title() const { return title_; }
  const std::vector<Block>& blocks() const { return blocks_; }

 private:
  std::string title_;
  std::vector<Block> blocks_;
};

// A paragraph's text cut at its marks. A mark without its partner is plain text.
enum class SpanKind { kPlain, kCode, kBold };
struct Span {
  SpanKind kind = SpanKind::kPlain;
  std::string text;
};
std::vector<Span> parse_spans(std::string_view text);

}  // namespace coca::report
