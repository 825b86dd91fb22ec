// coca/text/jinja_lexer.cc - see jinja_lexer.h.
// SPDX-License-Identifier: Apache-2.0
#include "coca/text/jinja_lexer.h"

#include <algorithm>

#include "coca/base/error.h"
#include "coca/text/jinja_ast.h"
#include "coca/text/unicode.h"

namespace coca::text::jinja {

namespace {

bool is_blank(char c) { return c == ' ' || (c >= '\t' && c <= '\r'); }
bool is_digit(char c) { return c >= '0' && c <= '9'; }
bool is_name(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' || is_digit(c); }

class Lexer {
 public:
  Lexer(const std::string& source, const std::string& origin) : source_(source), origin_(origin) {}

  std::vector<Token> run() {
    while (at_ < source_.size()) {
      const size_t begin = next_tag();
      if (begin == std::string::npos) {
        add_text(source_.size(), false);
        break;
      }
      const char kind = source_[begin + 1], sign = begin + 2 < source_.size() ? source_[begin + 2] : '\0';
      add_text(begin, kind != '{' && sign != '+', sign == '-');
      at_ = begin + 2 + (sign == '-' || (sign == '+' && kind != '{') ? 1 : 0);
      if (kind == '#')
        comment(begin);
      else if (kind == '%' && is_raw())
        raw(begin);
      else
        tag(begin, kind);
    }
    add(Token::Kind::kEnd, "", source_.size());
    return std::move(tokens_);
  }

 private:
  [[noreturn]] void wrong(size_t at, std::string_view what) const {
    fail(ErrorKind::kBadFile, "{}: {}", place_of(source_, origin_, at), what);
  }
  void add(Token::Kind kind, std::string text, size_t at) { tokens_.push_back({kind, std::move(text), at}); }

  size_t next_tag() const {
    for (size_t at = source_.find('{', at_); at != std::string::npos; at = source_.find('{', at + 1)) {
      const char next = at + 1 < source_.size() ? source_[at + 1] : '\0';
      if (next == '{' || next == '%' || next == '#') return at;
    }
    return std::string::npos;
  }

  // Text up to `end`, without its last blanks where a tag takes them away: all of them (strip_all), or those that lead
  // the tag's line (strip_line).
  void add_text(size_t end, bool strip_line, bool strip_all = false) {
    std::string text = source_.substr(at_, end - at_);
    if (strip_all) {
      while (!text.empty() && is_blank(text.back())) text.pop_back();
    } else if (strip_line) {
      const size_t newline = text.rfind('\n');
      const size_t line = newline == std::string::npos ? 0 : newline + 1;
      const bool starts_line = newline != std::string::npos || line_start_;
      if (starts_line && std::all_of(text.begin() + static_cast<std::ptrdiff_t>(line), text.end(), is_blank))
        text.resize(line);
    }
    if (!text.empty()) add(Token::Kind::kText, std::move(text), at_);
    at_ = end;
  }

  // After "-%}" all blanks are removed, after "%}" and "#}" one newline.
  void after_tag(bool strip_all, bool trim_newline) {
    const size_t begin = at_;
    if (strip_all)
      while (at_ < source_.size() && is_blank(source_[at_])) ++at_;
    else if (trim_newline && at_ < source_.size() && source_[at_] == '\n')
      ++at_;
    line_start_ = at_ > begin && source_[at_ - 1] == '\n';
  }

  void comment(size_t begin) {
    const size_t end = source_.find("#}", at_);
    if (end == std::string::npos) wrong(begin, "a comment {# without its end");
    const bool minus = end > at_ && source_[end - 1] == '-', plus = end > at_ && source_[end - 1] == '+';
    at_ = end + 2;
    after_tag(minus, !plus);
  }

  // Whether "raw" and the end of its tag follow.
  bool is_raw() {
    size_t at = at_;
    while (at < source_.size() && is_blank(source_[at])) ++at;
    if (source_.compare(at, 3, "raw") != 0 || (at + 3 < source_.size() && is_name(source_[at + 3]))) return false;
    return true;
  }

  void raw(size_t begin) {
    const size_t open = source_.find("%}", at_);
    if (open == std::string::npos) wrong(begin, "a tag {% raw without its end");
    const bool minus = source_[open - 1] == '-';
    at_ = open + 2;
    after_tag(minus, true);
    for (size_t at = source_.find("{%", at_); at != std::string::npos; at = source_.find("{%", at + 2)) {
      size_t word = at + 2;
      const bool strip = word < source_.size() && source_[word] == '-';
      if (strip) ++word;
      while (word < source_.size() && is_blank(source_[word])) ++word;
      if (source_.compare(word, 6, "endraw") != 0) continue;
      const size_t close = source_.find("%}", word);
      if (close == std::string::npos) break;
      add_text(at, true, strip);
      at_ = close + 2;
      after_tag(source_[close - 1] == '-', true);
      return;
    }
    wrong(begin, "{% raw %} without {% endraw %}");
  }

  void tag(size_t begin, char kind) {
    const bool print = kind == '{';
    add(print ? Token::Kind::kPrintBegin : Token::Kind::kBlockBegin, print ? "{{" : "{%", begin);
    const std::string end = print ? "}}" : "%}";
    size_t open = 0;  // brackets: "}}" inside a dict does not end the tag
    while (true) {
      while (at_ < source_.size() && is_blank(source_[at_])) ++at_;
      if (at_ >= source_.size()) wrong(begin, print ? "{{ without }}" : "{% without %}");
      const bool minus = source_[at_] == '-', plus = source_[at_] == '+';
      const size_t ahead = minus || plus ? 1 : 0;
      if (open == 0 && source_.compare(at_ + ahead, 2, end) == 0 && !(plus && print)) {
        add(print ? Token::Kind::kPrintEnd : Token::Kind::kBlockEnd, end, at_);
        at_ += ahead + 2;
        after_tag(minus, !print && !plus);
        return;
      }
      token(open);
    }
  }

  void token(size_t& open) {
    const char c = source_[at_];
    const size_t begin = at_;
    if (c == '\'' || c == '"') return string(c);
    if (is_digit(c)) {
      while (at_ < source_.size() && (is_digit(source_[at_]) || source_[at_] == '_')) ++at_;
      bool real = at_ + 1 < source_.size() && source_[at_] == '.' && is_digit(source_[at_ + 1]);
      if (real)
        for (++at_; at_ < source_.size() && is_digit(source_[at_]);) ++at_;
      if (at_ < source_.size() && (source_[at_] == 'e' || source_[at_] == 'E')) {
        size_t digits = at_ + 1;
        if (digits < source_.size() && (source_[digits] == '-' || source_[digits] == '+')) ++digits;
        const size_t first = digits;
        while (digits < source_.size() && is_digit(source_[digits])) ++digits;
        if (digits > first) {
          at_ = digits;
          real = true;
        }
      }
      std::string text = source_.substr(begin, at_ - begin);
      std::erase(text, '_');
      return add(real ? Token::Kind::kFloat : Token::Kind::kInteger, std::move(text), begin);
    }
    if (is_name(c)) {
      while (at_ < source_.size() && is_name(source_[at_])) ++at_;
      return add(Token::Kind::kName, source_.substr(begin, at_ - begin), begin);
    }
    for (const char* sign : {"==", "!=", "<=", ">=", "//", "**"})
      if (source_.compare(at_, 2, sign) == 0) {
        at_ += 2;
        return add(Token::Kind::kSign, sign, begin);
      }
    if (std::string_view("+-*/%~|.,:()[]{}=<>").find(c) == std::string_view::npos)
      wrong(at_,
            fmt::format("\"{}\" is not valid in a template", source_.substr(at_, read_utf8(&source_[at_]).length)));
    if (c == '(' || c == '[' || c == '{') ++open;
    if ((c == ')' || c == ']' || c == '}') && open > 0) --open;
    ++at_;
    add(Token::Kind::kSign, std::string(1, c), begin);
  }

  void string(char quote) {
    const size_t begin = at_++;
    std::string text;
    for (; at_ < source_.size() && source_[at_] != quote; ++at_) {
      if (source_[at_] != '\\') {
        text += source_[at_];
        continue;
      }
      if (++at_ >= source_.size()) break;
      escape(text);
    }
    if (at_ >= source_.size()) wrong(begin, "a string without its end");
    ++at_;
    add(Token::Kind::kString, std::move(text), begin);
  }

  void escape(std::string& text) {  // at_ is at the character after the backslash
    const char c = source_[at_];
    constexpr std::string_view kFrom = "nrtabfv0\\'\"", kTo = std::string_view("\n\r\t\a\b\f\v\0\\'\"", 11);
    if (const size_t found = kFrom.find(c); found != std::string_view::npos) {
      text += kTo[found];
    } else if (c == 'x' || c == 'u' || c == 'U') {
      const size_t digits = c == 'x' ? 2 : c == 'u' ? 4 : 8;
      const std::string hex = source_.substr(at_ + 1, digits);
      const bool good = hex.size() == digits && hex.find_first_not_of("0123456789abcdefABCDEF") == std::string::npos;
      const unsigned long value = good ? std::stoul(hex, nullptr, 16) : 0x110000;
      if (value > 0x10ffff || (value >= 0xd800 && value < 0xe000)) wrong(at_, "a character code that does not exist");
      append_utf8(static_cast<uint32_t>(value), text);
      at_ += digits;
    } else if (c == '\n') {
      // a continued line
    } else {
      (text += '\\') += c;
    }
  }

  const std::string& source_;
  const std::string& origin_;
  size_t at_ = 0;
  bool line_start_ = true;  // whether what is at at_ begins a line
  std::vector<Token> tokens_;
};

}  // namespace

std::string place_of(const std::string& source, const std::string& origin, size_t at) {
  const auto end = source.begin() + static_cast<std::ptrdiff_t>(std::min(at, source.size()));
  return fmt::format("{}: line {}", origin, 1 + std::count(source.begin(), end, '\n'));
}

std::vector<Token> lex_template(const std::string& source, const std::string& origin) {
  return Lexer(source, origin).run();
}

}  // namespace coca::text::jinja
