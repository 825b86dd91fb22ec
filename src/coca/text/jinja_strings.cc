// coca/text/jinja_strings.cc - methods of strings. How numbers and texts are formatted is in jinja_format.cc.
// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cstring>
#include <map>

#include "coca/base/error.h"
#include "coca/text/jinja_builtins.h"
#include "coca/text/unicode.h"

namespace coca::text::jinja {

namespace {

bool is_blank(const std::string& character) {
  const uint32_t c = read_utf8(character.data()).value;
  return is_space(c) || (c >= 0x1c && c <= 0x1f);
}

const std::string& text_at(const Arguments& a, size_t index, std::string_view name) {
  const Value* value = a.get(index, name);
  COCA_CHECK_AS(kBadFile, value && value->string(), "the argument \"{}\" must be a string", name);
  return *value->string();
}

std::string strip(const std::string& text, const Arguments& a, bool left, bool right) {
  a.only("strip", 1, {"chars"});
  const Value* given = a.get(0, "chars");
  std::vector<std::string> set;
  if (given && !given->is_none()) set = characters_of(text_at(a, 0, "chars"));
  const bool blanks = !given || given->is_none();
  const std::vector<std::string> all = characters_of(text);
  const auto goes = [&](const std::string& c) { return blanks ? is_blank(c) : std::ranges::find(set, c) != set.end(); };
  size_t begin = 0, end = all.size();
  while (left && begin < end && goes(all[begin])) ++begin;
  while (right && end > begin && goes(all[end - 1])) --end;
  std::string out;
  for (size_t i = begin; i < end; ++i) out += all[i];
  return out;
}

Value split(const std::string& text, const Arguments& a) {
  a.only("split", 2, {"sep", "maxsplit"});
  const Value *sep = a.get(0, "sep"), *most = a.get(1, "maxsplit");
  int64_t left = most ? most->integer().value_or(-1) : -1;
  List out;
  if (sep && !sep->is_none()) {
    const std::string& by = text_at(a, 0, "sep");
    COCA_CHECK_AS(kBadFile, !by.empty(), "split: an empty separator");
    size_t at = 0;
    for (size_t found = find_text(text, by, 0); found != std::string::npos && left != 0;
         found = find_text(text, by, at), --left) {
      out.push_back(text.substr(at, found - at));
      at = found + by.size();
    }
    out.push_back(text.substr(at));
    return out;
  }
  std::string word;
  const std::vector<std::string> all = characters_of(text);
  for (size_t i = 0; i < all.size(); ++i) {
    if (is_blank(all[i])) {
      if (!word.empty()) out.push_back(std::exchange(word, {}));
    } else if (word.empty() && left >= 0 && std::ssize(out) == left) {
      for (; i < all.size(); ++i) word += all[i];
      break;  // the rest stays as it is
    } else {
      word += all[i];
    }
  }
  if (!word.empty()) out.push_back(word);
  return out;
}

Value replace(const std::string& text, const Arguments& a) {
  a.only("replace", 3, {"old", "new", "count"});
  const std::string &from = text_at(a, 0, "old"), &to = text_at(a, 1, "new");
  COCA_CHECK_AS(kBadFile, !from.empty(), "replace: an empty string to look for");
  const Value* count = a.get(2, "count");
  int64_t left = count ? count->integer().value_or(-1) : -1;
  std::string out;
  size_t at = 0;
  for (size_t found = find_text(text, from, 0); found != std::string::npos && left != 0;
       found = find_text(text, from, at), --left) {
    out.append(text, at, found - at).append(to);
    check_text(out.size());
    at = found + from.size();
  }
  return out.append(text, at);
}

template <typename Holds>
Value any_of(const Value* given, const Holds& holds) {
  COCA_CHECK_AS(kBadFile, given && (given->string() || given->list()), "expected a string or a tuple of strings");
  if (given->string()) return holds(*given->string());
  for (const Value& item : *given->list())
    if (item.string() && holds(*item.string())) return true;
  return false;
}

std::string title(const std::string& text) {
  std::string out;
  bool inside = false;
  for (const std::string& c : characters_of(text)) {
    out += inside ? to_lower(c) : to_upper(c);
    inside = CharTable::get()[read_utf8(c.data()).value] == CharClass::kLetter;
  }
  return out;
}

std::string capitalize(const std::string& text) {
  std::string out;
  for (const std::string& c : characters_of(text)) out += out.empty() ? to_upper(c) : to_lower(c);
  return out;
}

// Places are counted in characters; -1: not there.
int64_t place_of_text(const std::string& text, const Arguments& a, bool last) {
  a.only("find", 1, {});
  const std::string& what = text_at(a, 0, "sub");
  const size_t found = last ? text.rfind(what) : find_text(text, what, 0);
  return found == std::string::npos ? int64_t{-1} : std::ssize(characters_of(text.substr(0, found)));
}

Value index_of(const std::string& text, const Arguments& a, bool last) {
  const int64_t found = place_of_text(text, a, last);
  COCA_CHECK_AS(kBadFile, found >= 0, "index: the text does not hold \"{}\"", text_at(a, 0, "sub"));
  return found;
}

Value partition(const std::string& text, const Arguments& a, bool last) {
  const std::string& by = text_at(a, 0, "sep");
  COCA_CHECK_AS(kBadFile, !by.empty(), "partition: an empty separator");
  const size_t found = last ? text.rfind(by) : find_text(text, by, 0);
  if (found == std::string::npos) return Value::tuple(last ? List{"", "", text} : List{text, "", ""});
  return Value::tuple({text.substr(0, found), by, text.substr(found + by.size())});
}

Value rsplit(const std::string& text, const Arguments& a) {
  a.only("rsplit", 2, {"sep", "maxsplit"});
  const Value *sep = a.get(0, "sep"), *most = a.get(1, "maxsplit");
  int64_t left = most ? most->integer().value_or(-1) : -1;
  if (left < 0) return split(text, a);
  COCA_CHECK_AS(kBadFile, sep && !sep->is_none(), "rsplit: maxsplit needs a separator");
  const std::string& by = text_at(a, 0, "sep");
  COCA_CHECK_AS(kBadFile, !by.empty(), "rsplit: an empty separator");
  List out;
  std::string rest = text;
  for (size_t found = rest.rfind(by); found != std::string::npos && left > 0; found = rest.rfind(by), --left) {
    out.push_back(rest.substr(found + by.size()));
    rest.resize(found);
  }
  out.push_back(std::move(rest));
  std::ranges::reverse(out);
  return out;
}

// ljust, rjust, center and zfill.
Value justify(const std::string& text, const Arguments& a, char how) {
  const Value* width = a.get(0, "width");
  COCA_CHECK_AS(kBadFile, width && width->integer() && *width->integer() <= 10'000,
                "a width of {}; expected a whole number up to 10000", width ? to_text(*width) : "nothing");
  const std::string fill = how == 'z' ? "0" : a.get(1, "fillchar") ? text_at(a, 1, "fillchar") : " ";
  const int64_t wanted = *width->integer(), missing = std::max<int64_t>(0, wanted - std::ssize(characters_of(text)));
  int64_t left = how == 'l' ? 0 : missing;
  if (how == 'c') left = missing / 2 + (missing & wanted & 1);  // as Python does
  std::string front, back;
  for (int64_t i = 0; i < missing; ++i) (i < left ? front : back) += fill;
  if (how == 'z' && (text.starts_with('-') || text.starts_with('+'))) return text[0] + front + text.substr(1);
  return front + text + back;
}

Value cased(const std::string& text, bool upper) {  // isupper, islower
  bool letters = false;
  for (const std::string& c : characters_of(text)) {
    const std::string low = to_lower(c), high = to_upper(c);
    if (low == high) continue;
    if (c != (upper ? high : low)) return false;
    letters = true;
  }
  return letters;
}

std::string swapped(const std::string& text) {
  std::string out;
  for (const std::string& c : characters_of(text)) out += c == to_lower(c) ? to_upper(c) : to_lower(c);
  return out;
}

bool is_letter(uint32_t c) { return CharTable::get()[c] == CharClass::kLetter; }
bool is_digit(uint32_t c) { return c >= '0' && c <= '9'; }

Value split_lines(const std::string& text, const Arguments& a) {
  a.only("splitlines", 0, {});
  List out;
  for (size_t at = 0; at < text.size();) {
    const size_t end = std::min(text.find_first_of("\r\n", at), text.size());
    out.push_back(text.substr(at, end - at));
    at = end + (text.compare(end, 2, "\r\n") == 0 ? 2 : 1);
  }
  return out;
}

Value count(const std::string& text, const Arguments& a) {
  const std::string& what = text_at(a, 0, "sub");
  COCA_CHECK_AS(kBadFile, !what.empty(), "count: an empty string to look for");
  int64_t n = 0;
  for (size_t at = find_text(text, what, 0); at != std::string::npos; at = find_text(text, what, at + what.size())) ++n;
  return n;
}

Value all_characters(const std::string& text, bool (*holds)(uint32_t)) {
  const std::vector<std::string> all = characters_of(text);
  return !all.empty() &&
         std::ranges::all_of(all, [&](const std::string& c) { return holds(read_utf8(c.data()).value); });
}

const std::map<std::string_view, StringMethod>& string_methods() {
  static const std::map<std::string_view, StringMethod> table = {
      {"strip", [](const std::string& s, const Arguments& a) { return Value(strip(s, a, true, true)); }},
      {"lstrip", [](const std::string& s, const Arguments& a) { return Value(strip(s, a, true, false)); }},
      {"rstrip", [](const std::string& s, const Arguments& a) { return Value(strip(s, a, false, true)); }},
      {"upper", [](const std::string& s, const Arguments&) { return Value(to_upper(s)); }},
      {"lower", [](const std::string& s, const Arguments&) { return Value(to_lower(s)); }},
      {"title", [](const std::string& s, const Arguments&) { return Value(title(s)); }},
      {"capitalize", [](const std::string& s, const Arguments&) { return Value(capitalize(s)); }},
      {"startswith",
       [](const std::string& s, const Arguments& a) {
         return any_of(a.get(0, "prefix"), [&](const std::string& x) { return s.starts_with(x); });
       }},
      {"endswith",
       [](const std::string& s, const Arguments& a) {
         return any_of(a.get(0, "suffix"), [&](const std::string& x) { return s.ends_with(x); });
       }},
      {"isdigit", [](const std::string& s, const Arguments&) { return all_characters(s, &is_digit); }},
      {"isdecimal", [](const std::string& s, const Arguments&) { return all_characters(s, &is_digit); }},
      {"isnumeric", [](const std::string& s, const Arguments&) { return all_characters(s, &is_numeric); }},
      {"isalpha", [](const std::string& s, const Arguments&) { return all_characters(s, &is_letter); }},
      {"isalnum",
       [](const std::string& s, const Arguments&) {
         return all_characters(s, [](uint32_t c) { return is_letter(c) || is_numeric(c); });
       }},
      {"isupper", [](const std::string& s, const Arguments&) { return cased(s, true); }},
      {"islower", [](const std::string& s, const Arguments&) { return cased(s, false); }},
      {"swapcase", [](const std::string& s, const Arguments&) { return Value(swapped(s)); }},
      {"casefold", [](const std::string& s, const Arguments&) { return Value(to_lower(s)); }},
      {"removeprefix",
       [](const std::string& s, const Arguments& a) {
         const std::string& x = text_at(a, 0, "prefix");
         return Value(s.starts_with(x) ? s.substr(x.size()) : s);
       }},
      {"removesuffix",
       [](const std::string& s, const Arguments& a) {
         const std::string& x = text_at(a, 0, "suffix");
         return Value(s.ends_with(x) ? s.substr(0, s.size() - x.size()) : s);
       }},
      {"ljust", [](const std::string& s, const Arguments& a) { return justify(s, a, 'l'); }},
      {"rjust", [](const std::string& s, const Arguments& a) { return justify(s, a, 'r'); }},
      {"center", [](const std::string& s, const Arguments& a) { return justify(s, a, 'c'); }},
      {"zfill", [](const std::string& s, const Arguments& a) { return justify(s, a, 'z'); }},
      {"rsplit", &rsplit},
      {"partition", [](const std::string& s, const Arguments& a) { return partition(s, a, false); }},
      {"rpartition", [](const std::string& s, const Arguments& a) { return partition(s, a, true); }},
      {"rfind", [](const std::string& s, const Arguments& a) { return Value(place_of_text(s, a, true)); }},
      {"index", [](const std::string& s, const Arguments& a) { return index_of(s, a, false); }},
      {"rindex", [](const std::string& s, const Arguments& a) { return index_of(s, a, true); }},
      {"format", [](const std::string& s, const Arguments& a) { return Value(brace_format(s, a)); }},
      {"isspace", [](const std::string& s, const Arguments&) { return all_characters(s, &is_space); }},
      {"split", &split},
      {"splitlines", &split_lines},
      {"replace", &replace},
      {"find", [](const std::string& s, const Arguments& a) { return Value(place_of_text(s, a, false)); }},
      {"count", &count},
      {"join", [](const std::string& s, const Arguments& a) {
         const Value* items = a.get(0, "iterable");
         COCA_CHECK_AS(kBadFile, items, "join: the argument is missing");
         return apply_filter("join", *items, {{Value(s)}, {}});
       }}};
  return table;
}

}  // namespace

size_t find_text(const std::string& text, const std::string& what, size_t at) {
  if (at > text.size()) return std::string::npos;
  const void* found = ::memmem(text.data() + at, text.size() - at, what.data(), what.size());
  return found == nullptr ? std::string::npos : static_cast<size_t>(static_cast<const char*>(found) - text.data());
}

StringMethod find_string_method(std::string_view name) {
  const auto found = string_methods().find(name);
  return found == string_methods().end() ? nullptr : found->second;
}

}  // namespace coca::text::jinja
