// coca/text/jinja_methods.cc - what the values of a template can be asked: methods, attributes, items, slices.
// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cstring>
#include <map>

#include "coca/base/error.h"
#include "coca/text/jinja_builtins.h"
#include "coca/text/unicode.h"

namespace coca::text::jinja {

namespace {

constexpr size_t kMostCharacters = size_t{1} << 20;  // of a text taken apart into values

using Method = Value (*)(const std::string&, const Arguments&);

bool is_blank(const std::string& character) {
  const uint32_t c = read_utf8(character.data()).value;
  return is_space(c) || (c >= 0x1c && c <= 0x1f);
}

const std::string& text_at(const Arguments& a, size_t index, std::string_view name) {
  const Value* value = a.get(index, name);
  COCA_CHECK_AS(kBadFile, value && value->string(), "the argument \"{}\" must be a string", name);
  return *value->string();
}

// The first place of `what` from `at` on. Linear whatever the texts, which std::string::find is not.
size_t find_text(const std::string& text, const std::string& what, size_t at = 0) {
  if (at > text.size()) return std::string::npos;
  const void* found = ::memmem(text.data() + at, text.size() - at, what.data(), what.size());
  return found == nullptr ? std::string::npos : static_cast<size_t>(static_cast<const char*>(found) - text.data());
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
    for (size_t found = find_text(text, by); found != std::string::npos && left != 0; found = find_text(text, by, at), --left) {
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
  for (size_t found = find_text(text, from); found != std::string::npos && left != 0; found = find_text(text, from, at), --left) {
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

Value find(const std::string& text, const Arguments& a) {
  const size_t found = find_text(text, text_at(a, 0, "sub"));
  return found == std::string::npos ? int64_t{-1} : std::ssize(characters_of(text.substr(0, found)));
}

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
  for (size_t at = find_text(text, what); at != std::string::npos; at = find_text(text, what, at + what.size())) ++n;
  return n;
}

Value all_characters(const std::string& text, bool (*holds)(uint32_t)) {
  const std::vector<std::string> all = characters_of(text);
  return !all.empty() && std::ranges::all_of(all, [&](const std::string& c) { return holds(read_utf8(c.data()).value); });
}

const std::map<std::string_view, Method>& string_methods() {
  static const std::map<std::string_view, Method> table = {
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
      {"isdigit",
       [](const std::string& s, const Arguments&) { return all_characters(s, [](uint32_t c) { return c >= '0' && c <= '9'; }); }},
      {"isspace", [](const std::string& s, const Arguments&) { return all_characters(s, &is_space); }},
      {"split", &split},
      {"splitlines", &split_lines},
      {"replace", &replace},
      {"find", &find},
      {"count", &count},
      {"join",
       [](const std::string& s, const Arguments& a) {
         const Value* items = a.get(0, "iterable");
         COCA_CHECK_AS(kBadFile, items, "join: the argument is missing");
         return apply_filter("join", *items, {{Value(s)}, {}});
       }}};
  return table;
}

Value dict_method(const Dict& dict, const std::string& name, const Arguments& a) {
  if (name == "get") {
    const Value* key = a.get(0, "key");
    const Value* found = key && key->string() ? dict.find(*key->string()) : nullptr;
    const Value* absent = a.get(1, "default");
    return found ? *found : absent ? *absent : Value(nullptr);
  }
  List out;
  for (const auto& [key, value] : dict.items)
    if (name == "items")
      out.push_back(List{Value(key), value});
    else
      out.push_back(name == "keys" ? Value(key) : value);
  return out;
}

bool is_dict_method(std::string_view name) { return name == "items" || name == "keys" || name == "values" || name == "get"; }

int64_t whole(const Value& v, std::string_view what) {
  const auto integer = v.integer();
  COCA_CHECK_AS(kBadFile, integer, "{}: {} where a whole number is expected", what, v.type_name());
  return *integer;
}

// Python's slice bounds.
template <typename Item>
std::vector<Item> slice(const std::vector<Item>& all, const Value& start, const Value& stop, const Value& step) {
  const auto given = [](const Value& v) { return !v.is_undefined() && !v.is_none(); };
  const int64_t size = std::ssize(all), by = given(step) ? whole(step, "slice") : 1;
  COCA_CHECK_AS(kBadFile, by != 0, "slice: a step of 0");
  const auto bound = [&](const Value& v, int64_t absent) {
    if (!given(v)) return absent;
    const int64_t at = whole(v, "slice");
    return std::clamp(at < 0 ? (at < -size ? -1 : at + size) : at, by > 0 ? int64_t{0} : int64_t{-1}, by > 0 ? size : size - 1);
  };
  const int64_t begin = bound(start, by > 0 ? 0 : size - 1), end = bound(stop, by > 0 ? size : -1);
  std::vector<Item> out;
  const int64_t stride = std::clamp(by, -size - 1, size + 1);  // no sum overflows
  for (int64_t i = begin; by > 0 ? i < end : i > end; i += stride) out.push_back(all[static_cast<size_t>(i)]);
  return out;
}

}  // namespace

std::vector<std::string> characters_of(const std::string& text) {
  std::vector<std::string> out;
  for (size_t at = 0; at < text.size();) {
    const size_t length = read_utf8(text.data() + at).length;
    out.push_back(text.substr(at, length));
    at += length;
  }
  return out;
}

bool has_method(const Value& value, std::string_view name) {
  if (value.string()) return string_methods().contains(name);
  return value.dict() && !value.dict()->is_namespace && is_dict_method(name);
}

Value call_method(const Value& self, const std::string& name, const Arguments& arguments) {
  if (self.string()) {
    const auto found = string_methods().find(name);
    if (found != string_methods().end()) return found->second(*self.string(), arguments);
  }
  COCA_CHECK_AS(kBadFile, self.dict() && is_dict_method(name), "{} has no method \"{}\" that is supported", self.type_name(), name);
  return dict_method(*self.dict(), name, arguments);
}

Value attribute_of(const Value& value, std::string_view name) {
  if (const size_t dot = name.find('.'); dot != std::string_view::npos)
    return attribute_of(attribute_of(value, name.substr(0, dot)), name.substr(dot + 1));
  COCA_CHECK_AS(kBadFile, !value.is_undefined(), "\"{}\" is not defined, so it has no \"{}\"", value.undefined_name(), name);
  if (has_method(value, name)) return Callable{std::string(name), std::make_shared<const Value>(value), nullptr};
  const Value* item = value.dict() ? value.dict()->find(name) : nullptr;
  return item ? *item : Value(Undefined{std::string(name)});
}

Value item_of(const Value& value, const Value& key) {
  COCA_CHECK_AS(kBadFile, !value.is_undefined(), "\"{}\" is not defined, so it has no items", value.undefined_name());
  if (const auto* dict = value.dict()) {
    const Value* item = key.string() ? dict->find(*key.string()) : nullptr;
    return item ? *item : Value(Undefined{to_text(key)});
  }
  if (!value.list() && !value.string()) return Undefined{to_text(key)};
  if (!key.integer()) return key.string() ? attribute_of(value, *key.string()) : Value(Undefined{to_text(key)});
  int64_t at = *key.integer();
  const auto item = [&](const List& items) {
    if (at < 0) at += std::ssize(items);
    return at < 0 || at >= std::ssize(items) ? Value(Undefined{to_text(key)}) : items[static_cast<size_t>(at)];
  };
  return value.list() ? item(*value.list()) : item(iterate(value));
}

Value slice_of(const Value& value, const Value& start, const Value& stop, const Value& step) {
  if (const auto* list = value.list()) return slice(*list, start, stop, step);
  COCA_CHECK_AS(kBadFile, value.string(), "{} cannot be sliced", value.type_name());
  std::string out;
  for (const std::string& c : slice(characters_of(*value.string()), start, stop, step)) out += c;
  return out;
}

List iterate(const Value& value) {
  if (value.is_undefined()) return {};
  if (const auto* list = value.list()) return *list;
  List out;
  if (const auto* dict = value.dict()) {
    for (const auto& [key, item] : dict->items) out.push_back(key);
    return out;
  }
  COCA_CHECK_AS(kBadFile, value.string(), "{} cannot be iterated", value.type_name());
  COCA_CHECK_AS(kBadFile, value.string()->size() <= kMostCharacters, "a text of {} bytes as a list of characters; at most {}",
                value.string()->size(), kMostCharacters);
  for (std::string& c : characters_of(*value.string())) out.push_back(std::move(c));
  return out;
}

bool contains(const Value& container, const Value& item) {
  if (const auto* text = container.string()) {
    COCA_CHECK_AS(kBadFile, item.string(), "{} in a string: expected a string", item.type_name());
    return find_text(*text, *item.string()) != std::string::npos;
  }
  if (const auto* dict = container.dict()) return item.string() && dict->find(*item.string()) != nullptr;
  const List items = iterate(container);
  return std::ranges::any_of(items, [&](const Value& x) { return equal(x, item); });
}

}  // namespace coca::text::jinja
