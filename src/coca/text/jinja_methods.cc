// coca/text/jinja_methods.cc - what the values of a template can be asked: methods, attributes, items, slices. Methods
// of strings are in jinja_strings.cc.
// SPDX-License-Identifier: Apache-2.0
#include <algorithm>

#include "coca/base/count.h"
#include "coca/base/error.h"
#include "coca/text/jinja_builtins.h"
#include "coca/text/unicode.h"

namespace coca::text::jinja {

namespace {

constexpr size_t kMostCharacters = size_t{1} << 20;  // of a text taken apart into values

Value dict_method(const Dict& dict, const std::string& name, const Arguments& a) {
  if (name == "get") {
    const Value* key = a.get(0, "key");
    const Value* found = key && !key->is_undefined() ? dict.find(dict_key(*key)) : nullptr;
    const Value* absent = a.get(1, "default");
    return found ? *found : absent ? *absent : Value(nullptr);
  }
  if (name == "copy") return Dict{.items = dict.items};
  List out;
  for (const auto& [key, value] : dict.items)
    if (name == "items")
      out.push_back(Value::tuple({key_value(key), value}));
    else
      out.push_back(name == "keys" ? key_value(key) : value);
  return out;
}

bool is_dict_method(std::string_view name) {
  return name == "items" || name == "keys" || name == "values" || name == "get" || name == "copy";
}

bool is_list_method(std::string_view name) { return name == "index" || name == "count"; }

Value list_method(const List& list, const std::string& name, const Arguments& a) {
  a.only(name, 1, {});
  COCA_CHECK_AS(kBadFile, a.positional.size() == 1, "{}: expected one argument", name);
  int64_t found = 0;
  for (size_t i = 0; i < list.size(); ++i) {
    if (!equal(list[i], a.positional[0])) continue;
    if (name == "index") return static_cast<int64_t>(i);
    ++found;
  }
  COCA_CHECK_AS(kBadFile, name == "count", "index: the list does not hold {}", to_text(a.positional[0]));
  return found;
}

int64_t whole(const Value& v, std::string_view what) {
  const auto integer = v.integer();
  COCA_CHECK_AS(kBadFile, integer, "{}: {} where a whole number is expected", what, v.described());
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
    return std::clamp(at < 0 ? (at < -size ? -1 : at + size) : at, by > 0 ? int64_t{0} : int64_t{-1},
                      by > 0 ? size : size - 1);
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
  if (value.string()) return find_string_method(name) != nullptr;
  if (value.list()) return is_list_method(name);
  return value.dict() && !value.dict()->is_namespace && is_dict_method(name);
}

Value call_method(const Value& self, const std::string& name, const Arguments& arguments) {
  if (self.string())
    if (const StringMethod method = find_string_method(name)) return method(*self.string(), arguments);
  if (self.list() && is_list_method(name)) return list_method(*self.list(), name, arguments);
  if (self.integer() && name == "cycle") {  // of the loop in its self-th turn
    COCA_CHECK_AS(kBadFile, !arguments.positional.empty(), "cycle: no values");
    return arguments.positional[static_cast<size_t>(*self.integer()) % arguments.positional.size()];
  }
  COCA_CHECK_AS(kBadFile, self.dict() && is_dict_method(name), "{} has no method \"{}\" that is supported",
                self.described(), name);
  return dict_method(*self.dict(), name, arguments);
}

Value attribute_of(const Value& value, std::string_view name) {
  if (const size_t dot = name.find('.'); dot != std::string_view::npos)
    return attribute_of(attribute_of(value, name.substr(0, dot)), name.substr(dot + 1));
  if (value.is_undefined())
    fail(ErrorKind::kBadFile, "{}", value.undefined_text(fmt::format(", so it has no \"{}\"", name)));
  if (has_method(value, name)) return Callable{std::string(name), std::make_shared<const Value>(value), nullptr};
  const Value* item = value.dict() ? value.dict()->find(name) : nullptr;
  return item ? *item : Value(Undefined{std::string(name)});
}

Value item_of(const Value& value, const Value& key) {
  if (value.is_undefined()) fail(ErrorKind::kBadFile, "{}", value.undefined_text(", so it has no items"));
  if (const auto* dict = value.dict()) {
    const bool hashable = !key.list() && !key.dict() && !key.is_undefined() && !key.callable();
    const Value* item = hashable ? dict->find(dict_key(key)) : nullptr;
    return item ? *item : Value(Undefined{to_text(key)});
  }
  if (!value.list() && !value.string()) return Undefined{to_text(key)};
  if (!key.integer()) return key.string() ? attribute_of(value, *key.string()) : Value(Undefined{to_text(key)});
  int64_t at = *key.integer();
  const auto item = [&](const List& items) {
    if (at < 0) at += std::ssize(items);
    if (at < 0 || at >= std::ssize(items)) return Value(Undefined{to_text(key), false, std::ssize(items)});
    return items[static_cast<size_t>(at)];
  };
  return value.list() ? item(*value.list()) : item(iterate(value));
}

Value slice_of(const Value& value, const Value& start, const Value& stop, const Value& step) {
  if (const auto* list = value.list()) {
    List part = slice(*list, start, stop, step);
    return value.is_tuple() ? Value::tuple(std::move(part)) : Value(std::move(part));
  }
  COCA_CHECK_AS(kBadFile, value.string(), "{} cannot be sliced", value.described());
  std::string out;
  for (const std::string& c : slice(characters_of(*value.string()), start, stop, step)) out += c;
  return out;
}

List iterate(const Value& value) {
  if (value.is_undefined()) return {};
  if (const auto* list = value.list()) return *list;
  List out;
  if (const auto* dict = value.dict()) {
    for (const auto& [key, item] : dict->items) out.push_back(key_value(key));
    return out;
  }
  COCA_CHECK_AS(kBadFile, value.string(), "{} cannot be iterated", value.described());
  COCA_CHECK_AS(kBadFile, value.string()->size() <= kMostCharacters, "a text of {} as a list of characters; at most {}",
                counted(value.string()->size(), "byte"), grouped(kMostCharacters));
  for (std::string& c : characters_of(*value.string())) out.push_back(std::move(c));
  return out;
}

bool contains(const Value& container, const Value& item) {
  if (const auto* text = container.string()) {
    COCA_CHECK_AS(kBadFile, item.string(), "{} in a string: expected a string", item.described());
    return find_text(*text, *item.string(), 0) != std::string::npos;
  }
  if (const auto* dict = container.dict()) return !item.is_undefined() && dict->find(dict_key(item)) != nullptr;
  const List items = iterate(container);
  return std::ranges::any_of(items, [&](const Value& x) { return equal(x, item); });
}

}  // namespace coca::text::jinja
