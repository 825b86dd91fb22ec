// coca/text/regex_syntax.cc - Oniguruma's Ruby syntax rewritten for PCRE2, or refused where the engines differ.
// SPDX-License-Identifier: Apache-2.0
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <utility>
#include <vector>

#include "coca/base/error.h"
#include "coca/text/regex.h"
#include "coca/text/unicode.h"

namespace coca::text {

namespace {

constexpr auto kCategories = std::to_array<std::string_view>(
    {"C",  "Cc", "Cf", "Cn", "Co", "Cs", "L",  "Ll", "Lm", "Lo", "Lt", "Lu", "M",  "Mc", "Me", "Mn", "N",  "Nd", "Nl",
     "No", "P",  "Pc", "Pd", "Pe", "Pf", "Pi", "Po", "Ps", "S",  "Sc", "Sk", "Sm", "So", "Z",  "Zl", "Zp", "Zs"});

bool is_letter(char c) { return (c | 32) >= 'a' && (c | 32) <= 'z'; }
bool is_digit(char c) { return c >= '0' && c <= '9'; }
bool is_hex(char c) { return is_digit(c) || ((c | 32) >= 'a' && (c | 32) <= 'f'); }

class Translator {
 public:
  Translator(std::string_view pattern, std::string_view origin) : pattern_(pattern), origin_(origin) {}

  std::string run() {
    while (at_ < pattern_.size()) {
      const char c = pattern_[at_];
      if (c == '\\')
        escape(Place::kOutside);
      else if (c == '[')
        char_class();
      else if (c == '(')
        group();
      else if (c == '{')
        braces();
      else
        out_ += pattern_[at_++];
    }
    return std::move(out_);
  }

 private:
  enum class Place { kOutside, kInClass };

  [[noreturn]] void refuse(std::string_view what) const {
    fail(ErrorKind::kBadFile, "{}: \"{}\" has {} at byte {}, which is not supported", origin_, pattern_, what, at_);
  }
  char peek(size_t ahead) const { return at_ + ahead < pattern_.size() ? pattern_[at_ + ahead] : '\0'; }

  // The text inside [...] for a property.
  static std::string members(const std::string& property) { return "\\p{" + property + "}" + later_members(property); }
  static std::string word_members() {
    std::string text = "\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}\\xb2\\xb3\\xb9\\xbc-\\xbe";
    for (const char* property : {"L", "M", "Nd", "Pc"}) text += later_members(property);
    return text;
  }
  void put_set(const std::string& inside, bool negated, Place place) {
    if (place == Place::kOutside)
      out_ += (negated ? "[^" : "[") + inside + "]";
    else
      out_ += inside;
  }

  void escape(Place place) {
    const char c = peek(1);
    if (c == '\0') refuse("a \\ at its end");
    if (!is_letter(c) && !is_digit(c)) {
      out_.append(pattern_, at_, 2);
      at_ += 2;
      return;
    }
    if (c == 'p' || c == 'P') return property(place);
    if (c == 'x' || c == 'u') return code_point();
    at_ += 2;
    switch (c) {
      case 's': out_ += "\\p{White_Space}"; return;
      case 'S': out_ += "\\P{White_Space}"; return;
      case 'd': return put_set(members("Nd"), false, place);
      case 'w': return put_set(word_members(), false, place);
      case 'h': return put_set("0-9a-fA-F", false, place);
      case 'v': out_ += "\\x0b"; return;
      case 't':
      case 'n':
      case 'r':
      case 'f':
      case 'a':
      case 'e': (out_ += '\\') += c; return;
      default: break;
    }
    if (place == Place::kInClass) {
      if (c == 'D') {
        out_ += "\\P{Nd}";
        return;
      }
      if (c == 'b') {
        out_ += "\\x08";
        return;
      }
    } else {
      const std::string word = "[" + word_members() + "]";
      switch (c) {
        case 'D': return put_set(members("Nd"), true, place);
        case 'W': return put_set(word_members(), true, place);
        case 'H': return put_set("0-9a-fA-F", true, place);
        case 'A':
        case 'z':
        case 'Z': (out_ += '\\') += c; return;
        case 'b': out_ += "(?:(?<=" + word + ")(?!" + word + ")|(?<!" + word + ")(?=" + word + "))"; return;
        case 'B': out_ += "(?:(?<=" + word + ")(?=" + word + ")|(?<!" + word + ")(?!" + word + "))"; return;
        default: break;
      }
    }
    at_ -= 2;
    refuse(std::string("\\") + c + (place == Place::kInClass ? " in a character class" : ""));
  }

  // \p{L} \P{Lu} \p{^N} \p{Han}: categories, White_Space, Alphabetic, and scripts by their names.
  void property(Place place) {
    bool negated = peek(1) == 'P';
    const size_t close = pattern_.find('}', at_);
    if (peek(2) != '{' || close == std::string_view::npos) refuse("\\p without {name}");
    std::string name(pattern_.substr(at_ + 3, close - at_ - 3));
    if (name.starts_with('^')) {
      negated = !negated;
      name.erase(0, 1);
    }
    const bool known = std::ranges::find(kCategories, name) != kCategories.end();
    const bool plain = std::ranges::all_of(name, [](char c) { return is_letter(c) || c == '_'; });
    if (name.empty() || !plain) refuse("\\p{" + name + "}");
    const bool binary = name == "White_Space" || name == "Alphabetic";
    const std::string ours = known || binary ? name : "sc:" + name;
    std::string inside = "\\p{" + ours + "}" + later_members(name);
    if (name == "Alphabetic") inside += later_members("L");
    if (place == Place::kInClass && negated) inside = "\\P{" + ours + "}";  // later characters cannot be taken out
    put_set(inside, negated, place);
    at_ = close + 1;
  }

  void code_point() {
    const bool braced = peek(1) == 'x' && peek(2) == '{';
    const size_t begin = at_ + (braced ? 3 : 2);
    const size_t most = peek(1) == 'u' ? 4 : braced ? 8 : 2;
    size_t end = begin;
    while (end < pattern_.size() && end - begin < most && is_hex(pattern_[end])) ++end;
    const std::string digits(pattern_.substr(begin, end - begin));
    if (digits.empty() || (peek(1) == 'u' && digits.size() != 4)) refuse("a code without its digits");
    // Two digits are a byte to Oniguruma, a character to PCRE2: the same below 80.
    if (!braced && peek(1) == 'x' && digits.size() == 2 && digits[0] >= '8') refuse("a byte above \\x7f");
    if (braced && (end >= pattern_.size() || pattern_[end] != '}')) refuse("\\x{ without }");
    out_ += "\\x{" + digits + "}";
    at_ = end + (braced ? 1 : 0);
  }

  // A class, as what matches one character. PCRE2 knows no classes within classes and no intersections: those become
  // alternatives and conditions on the character ahead.
  void char_class() {
    constexpr int kMostDepth = 32;
    if (++depth_ > kMostDepth) refuse("classes within classes that deep");
    std::string outer = std::exchange(out_, {});
    ++at_;
    const bool negated = peek(0) == '^';
    if (negated) ++at_;
    if (peek(0) == ']') refuse("an empty character class");
    std::vector<std::string> operands;  // of &&
    std::vector<std::string> nested;
    const auto end_operand = [&] {
      if (out_.empty() && nested.empty()) refuse("an intersection with nothing (&&)");
      if (!out_.empty()) nested.insert(nested.begin(), "[" + out_ + "]");
      operands.push_back(nested.size() == 1 ? nested[0] : fmt::format("(?:{})", fmt::join(nested, "|")));
      nested.clear();
      out_.clear();
    };
    bool plain = true;
    while (at_ < pattern_.size() && pattern_[at_] != ']') {
      const char c = pattern_[at_];
      if (c == '\\') {
        escape(Place::kInClass);
      } else if (c == '[' && peek(1) == ':') {
        posix_class();
      } else if (c == '[') {
        const std::string items = std::exchange(out_, {});
        char_class();
        nested.push_back(std::exchange(out_, items));
        plain = false;
      } else if (c == '&' && peek(1) == '&') {
        end_operand();
        at_ += 2;
        plain = false;
      } else {
        // Behind a part that was taken out, a ^ would negate.
        if (c == '^' && out_.empty()) out_ += '\\';
        out_ += c;
        ++at_;
      }
    }
    if (at_ >= pattern_.size()) refuse("a [ without ]");
    ++at_;
    --depth_;
    if (plain) {
      out_ = outer + (negated ? "[^" : "[") + out_ + "]";
      return;
    }
    end_operand();
    std::string all = operands.back();
    for (size_t i = operands.size() - 1; i-- > 0;) all = "(?=" + operands[i] + ")" + all;
    out_ = outer + (negated ? "(?:(?!" + all + ")(?s:.))" : "(?:" + all + ")");
  }

  void posix_class() {
    const std::string_view rest = pattern_.substr(at_);
    const auto take = [&](std::string_view name, const std::string& inside) {
      if (!rest.starts_with(name)) return false;
      out_ += inside;
      at_ += name.size();
      return true;
    };
    if (take("[:alpha:]", "\\p{Alphabetic}" + later_members("L")) || take("[:digit:]", members("Nd")) ||
        take("[:space:]", "\\p{White_Space}") || take("[:upper:]", members("Lu")) || take("[:lower:]", members("Ll")))
      return;
    refuse("a class within a class");
  }

  void group() {
    const std::string_view rest = pattern_.substr(at_);
    for (const std::string_view start : {"(?:", "(?=", "(?!", "(?<=", "(?<!", "(?>"})
      if (rest.starts_with(start)) {
        out_ += start;
        at_ += start.size();
        return;
      }
    if (rest.starts_with("(*")) refuse("(*");
    if (rest.starts_with("(?<") && is_letter(peek(3))) {
      const size_t close = pattern_.find('>', at_);
      if (close == std::string_view::npos) refuse("a group name without >");
      out_ += '(';  // the name serves nothing here
      at_ = close + 1;
    } else if (rest.starts_with("(?")) {
      options();
    } else {
      out_ += pattern_[at_++];
    }
  }

  // (?i:  (?i-m:  and (?i) where it is first; Ruby's m is "dot matches newline".
  void options() {
    std::string text = "(?";
    size_t i = at_ + 2;
    for (; i < pattern_.size() && (pattern_[i] == 'i' || pattern_[i] == 'm' || pattern_[i] == '-'); ++i)
      text += pattern_[i] == 'm' ? 's' : pattern_[i];
    const char end = i < pattern_.size() ? pattern_[i] : '\0';
    // Elsewhere Ruby takes the rest of the alternatives into the group, PCRE2 does not.
    if (i == at_ + 2 || (end != ':' && !(end == ')' && at_ == 0)))
      refuse(std::string(pattern_.substr(at_, i - at_ + 1)));
    out_ += text + end;
    at_ = i + 1;
  }

  // {n,m} as in PCRE2; Ruby also knows {,m}, and reads a + or ? behind some of them in its own way.
  void braces() {
    size_t i = at_ + 1;
    std::string low, high;
    while (i < pattern_.size() && is_digit(pattern_[i])) low += pattern_[i++];
    const bool comma = i < pattern_.size() && pattern_[i] == ',';
    if (comma) ++i;
    while (comma && i < pattern_.size() && is_digit(pattern_[i])) high += pattern_[i++];
    const bool quantifier = i < pattern_.size() && pattern_[i] == '}' && (!low.empty() || !high.empty());
    if (!quantifier) {
      out_ += "\\{";
      ++at_;
      return;
    }
    const char next = i + 1 < pattern_.size() ? pattern_[i + 1] : '\0';
    if (next == '+' || next == '*' || (next == '?' && !comma)) refuse(std::string("a ") + next + " behind {}");
    out_ += "{" + (low.empty() ? "0" : low) + (comma ? "," : "") + high + "}";
    at_ = i + 1;
  }

  std::string_view pattern_, origin_;
  size_t at_ = 0;
  int depth_ = 0;  // of classes within classes
  std::string out_;
};

}  // namespace

std::string translate_oniguruma(std::string_view pattern, std::string_view origin) {
  return Translator(pattern, origin).run();
}

std::string quote_regex(std::string_view text) {
  std::string out;
  for (const char c : text) {
    if (std::string_view("\\^$.|?*+()[]{}-#&").find(c) != std::string_view::npos) out += '\\';
    out += c;
  }
  return out;
}

}  // namespace coca::text
