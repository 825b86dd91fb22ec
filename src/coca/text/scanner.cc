// coca/text/scanner.cc - see scanner.h.
// SPDX-License-Identifier: Apache-2.0
#include "coca/text/scanner.h"

#include "coca/text/unicode.h"

namespace coca::text {

namespace {

// One character ahead of the text, with its class.
class Cursor {
 public:
  Cursor(std::string_view text, size_t at) : text_(text), at_(at), table_(&CharTable::get()) { look(); }

  bool done() const { return at_ >= text_.size(); }
  size_t at() const { return at_; }
  bool is(CharClass type) const { return !done() && type_ == type; }
  bool is_blank() const { return is(CharClass::kSpace) || is(CharClass::kNewline); }
  void next() {
    at_ += length_;
    look();
  }
  void skip(CharClass type) {
    while (is(type)) next();
  }

 private:
  void look() {
    if (done()) return;
    const CodePoint c = read_utf8(text_.data() + at_);
    type_ = (*table_)[c.value];
    length_ = c.length;
  }
  std::string_view text_;
  size_t at_, length_ = 0;
  CharClass type_ = CharClass::kOther;
  const CharTable* table_;
};

enum class Case { kExact, kAny };

// 's 't 're 've 'm 'll 'd at an apostrophe: their length, or 0. In any case, the long s is an s.
size_t contraction(std::string_view text, size_t at, Case letters) {
  const auto letter = [&](size_t i) {
    const char c = at + i < text.size() ? text[at + i] : '\0';
    return letters == Case::kAny && c >= 'A' && c <= 'Z' ? static_cast<char>(c | 32) : c;
  };
  const char first = letter(1), second = letter(2);
  if (first == 's' || first == 't' || first == 'm' || first == 'd') return 2;
  if ((first == 'r' || first == 'v') && second == 'e') return 3;
  if (first == 'l' && second == 'l') return 3;
  if (letters == Case::kAny && first == '\xc5' && second == '\xbf') return 3;
  return 0;
}

enum class Newlines { kPlain, kEndWord };  // kEndWord: \s*[\r\n]+ comes before \s+(?!\S)

// A run of blanks: up to its last newline; else all but the last before a word; else all.
size_t scan_blanks(Cursor cursor, Newlines newlines) {
  size_t last = cursor.at(), newline_end = 0;
  const size_t begin = cursor.at();
  while (cursor.is_blank()) {
    last = cursor.at();
    const bool newline = cursor.is(CharClass::kNewline);
    cursor.next();
    if (newline) newline_end = cursor.at();
  }
  if (newlines == Newlines::kEndWord && newline_end != 0) return newline_end;
  if (cursor.done() || last == begin) return cursor.at();
  return last;
}

size_t scan_gpt2(std::string_view text, size_t at) {
  if (text[at] == '\'')
    if (const size_t length = contraction(text, at, Case::kExact)) return at + length;
  Cursor cursor(text, at);
  if (text[at] == ' ') {
    Cursor behind = cursor;
    behind.next();
    if (!behind.done() && !behind.is_blank()) cursor = behind;
  }
  for (const CharClass type : {CharClass::kLetter, CharClass::kNumber, CharClass::kOther})
    if (cursor.is(type)) {
      cursor.skip(type);
      return cursor.at();
    }
  return scan_blanks(cursor, Newlines::kPlain);
}

template <int kDigits>
size_t scan_llama3(std::string_view text, size_t at) {
  if (text[at] == '\'')
    if (const size_t length = contraction(text, at, Case::kAny)) return at + length;
  Cursor cursor(text, at);
  if (cursor.is(CharClass::kNumber)) {
    for (int i = 0; i < kDigits && cursor.is(CharClass::kNumber); ++i) cursor.next();
    return cursor.at();
  }
  Cursor behind = cursor;  // one character other than a newline may precede letters
  if (!cursor.is(CharClass::kLetter) && !cursor.is(CharClass::kNewline)) behind.next();
  if (behind.is(CharClass::kLetter)) {
    behind.skip(CharClass::kLetter);
    return behind.at();
  }
  if (text[at] != ' ') behind = cursor;  // a space may precede signs
  if (behind.is(CharClass::kOther)) {
    behind.skip(CharClass::kOther);
    behind.skip(CharClass::kNewline);
    return behind.at();
  }
  return scan_blanks(cursor, Newlines::kEndWord);
}

}  // namespace

std::optional<Scanner> scanner_for(std::string_view pattern) {
  if (pattern == kGpt2Pattern) return &scan_gpt2;
  if (pattern == kLlama3Pattern) return &scan_llama3<3>;
  if (pattern == kQwen2Pattern) return &scan_llama3<1>;
  return std::nullopt;
}

}  // namespace coca::text
