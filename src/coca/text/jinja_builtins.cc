// coca/text/jinja_builtins.cc - filters and tests; methods and items of values are in jinja_methods.cc.
// SPDX-License-Identifier: Apache-2.0
#include "coca/text/jinja_builtins.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <map>

#include "coca/base/error.h"
#include "coca/text/unicode.h"

namespace coca::text::jinja {

const Value* Arguments::get(size_t index, std::string_view name) const {
  if (index < positional.size()) return &positional[index];
  for (const auto& [key, value] : named)
    if (key == name) return &value;
  return nullptr;
}

void Arguments::only(std::string_view function, size_t most, std::initializer_list<std::string_view> names) const {
  COCA_CHECK_AS(kBadFile, positional.size() <= most, "{}: {} arguments; expected at most {}", function, positional.size(), most);
  for (const auto& [key, value] : named)
    COCA_CHECK_AS(kBadFile, std::ranges::find(names, key) != names.end(), "{}: the argument \"{}\" is not supported", function,
                  key);
}

namespace {

using Filter = Value (*)(const Value&, const Arguments&);
using Test = bool (*)(const Value&, const Arguments&);

std::string text_argument(const Arguments& a, size_t index, std::string_view name, const char* absent) {
  const Value* value = a.get(index, name);
  return value ? to_text(*value) : absent;
}

const Value& need(const Arguments& a, size_t index, std::string_view name) {
  const Value* value = a.get(index, name);
  COCA_CHECK_AS(kBadFile, value, "the argument \"{}\" is missing", name);
  return *value;
}

Value method(const char* name, const Value& v, const Arguments& a) { return call_method(to_text(v), name, a); }

Value filter_length(const Value& v, const Arguments&) {
  if (v.string())
    return static_cast<int64_t>(std::ranges::count_if(*v.string(), [](char c) { return (static_cast<unsigned char>(c) & 0xc0) != 0x80; }));
  COCA_CHECK_AS(kBadFile, v.list() || v.dict() || v.is_undefined(), "length: {} has no length", v.type_name());
  return std::ssize(iterate(v));
}

Value filter_default(const Value& v, const Arguments& a) {
  const Value* flag = a.get(1, "boolean");
  const bool absent = v.is_undefined() || (flag && flag->truth() && !v.truth());
  const Value* given = a.get(0, "default_value");
  return !absent ? v : given ? *given : Value("");
}

Value filter_join(const Value& v, const Arguments& a) {
  const std::string between = text_argument(a, 0, "d", "");
  const Value* attribute = a.get(1, "attribute");
  std::string out;
  bool first = true;
  for (const Value& item : iterate(v)) {
    out += (first ? "" : between) + to_text(attribute ? attribute_of(item, to_text(*attribute)) : item);
    check_text(out.size());
    first = false;
  }
  return out;
}

Value filter_tojson(const Value& v, const Arguments& a) {
  a.only("tojson", 1, {"indent", "ensure_ascii"});
  const Value* ascii = a.get(1, "ensure_ascii");
  COCA_CHECK_AS(kBadFile, !ascii || !ascii->truth(), "tojson: ensure_ascii=true is not supported");
  const Value* indent = a.get(0, "indent");
  const auto width = indent ? indent->integer() : std::nullopt;
  COCA_CHECK_AS(kBadFile, !width || (*width >= 0 && *width <= 16), "tojson: indent={}; expected 0 to 16", width.value_or(0));
  return to_json(v, width);
}

Value end_item(const Value& v, bool last) {
  const List items = iterate(v);
  if (items.empty()) return Undefined{last ? "last item" : "first item"};
  return last ? items.back() : items.front();
}

Value filter_int(const Value& v, const Arguments& a) {
  if (const auto* real = v.real(); real && std::abs(*real) < 9e18) return static_cast<int64_t>(*real);
  if (const auto integer = v.integer()) return *integer;
  int64_t value = 0;
  if (const auto* text = v.string()) {
    const auto [end, error] = std::from_chars(text->data(), text->data() + text->size(), value);
    if (error == std::errc() && end == text->data() + text->size()) return value;
  }
  const Value* given = a.get(0, "default");
  return given ? *given : Value(int64_t{0});
}

Value filter_float(const Value& v, const Arguments& a) {
  if (const auto number = v.number()) return *number;
  double value = 0;
  if (const auto* text = v.string()) {
    const auto [end, error] = std::from_chars(text->data(), text->data() + text->size(), value);
    if (error == std::errc() && end == text->data() + text->size()) return value;
  }
  const Value* given = a.get(0, "default");
  return given ? *given : Value(0.0);
}

Value filter_map(const Value& v, const Arguments& a) {
  List out;
  const Value* attribute = a.positional.empty() ? a.get(0, "attribute") : nullptr;
  const Value* absent = a.get(9, "default");
  for (const Value& item : iterate(v)) {
    Value made = attribute ? attribute_of(item, to_text(*attribute))
                           : apply_filter(to_text(need(a, 0, "filter")), item, {{a.positional.begin() + 1, a.positional.end()}, {}});
    if (made.is_undefined() && absent) made = *absent;
    out.push_back(std::move(made));
  }
  return out;
}

// select and reject test the items, selectattr and rejectattr an attribute of them.
Value choose(const Value& v, const Arguments& a, bool by_attribute, bool keep) {
  const size_t test_at = by_attribute ? 1 : 0;
  Arguments rest;
  if (a.positional.size() > test_at + 1) rest.positional = {a.positional.begin() + static_cast<std::ptrdiff_t>(test_at) + 1, a.positional.end()};
  List out;
  for (const Value& item : iterate(v)) {
    const Value tested = by_attribute ? attribute_of(item, to_text(need(a, 0, "attribute"))) : item;
    const bool holds =
        a.positional.size() > test_at ? apply_test(to_text(a.positional[test_at]), tested, rest) : tested.truth();
    if (holds == keep) out.push_back(item);
  }
  return out;
}

Value filter_items(const Value& v, const Arguments&) {
  return v.is_undefined() ? Value(List{}) : call_method(v, "items", {});
}

Value filter_indent(const Value& v, const Arguments& a) {
  a.only("indent", 3, {"width", "first", "blank"});
  const Value *width = a.get(0, "width"), *first = a.get(1, "first"), *blank = a.get(2, "blank");
  const int64_t count = width ? width->integer().value_or(-1) : 4;
  COCA_CHECK_AS(kBadFile, count >= 0 && count <= 100, "indent: a width of {}; expected 0 to 100", count);
  const std::string spaces(static_cast<size_t>(count), ' '), text = to_text(v);
  std::string out = first && first->truth() ? spaces : "";
  for (size_t i = 0; i < text.size(); ++i) {
    out += text[i];
    const bool empty_line = i + 1 >= text.size() || text[i + 1] == '\n';
    if (text[i] == '\n' && (!empty_line || (blank && blank->truth()))) out += spaces;
    check_text(out.size());
  }
  return out;
}

Value filter_reverse(const Value& v, const Arguments&) {
  List items = iterate(v);
  std::ranges::reverse(items);
  if (!v.string()) return items;
  std::string out;
  for (const Value& item : items) out += to_text(item);
  return out;
}

Value filter_unique(const Value& v, const Arguments& a) {
  a.only("unique", 0, {});
  List out;
  for (const Value& item : iterate(v))
    if (std::ranges::none_of(out, [&](const Value& seen) { return equal(seen, item); })) out.push_back(item);
  return out;
}

Value filter_abs(const Value& v, const Arguments&) {
  if (const auto integer = v.integer(); integer && *integer != INT64_MIN) return *integer < 0 ? -*integer : *integer;
  COCA_CHECK_AS(kBadFile, v.number(), "abs: {} is no number", v.type_name());
  return std::abs(*v.number());
}

const std::map<std::string, Filter>& filters() {
  static const std::map<std::string, Filter> table = {
      {"trim", [](const Value& v, const Arguments& a) { return method("strip", v, a); }},
      {"upper", [](const Value& v, const Arguments& a) { return method("upper", v, a); }},
      {"lower", [](const Value& v, const Arguments& a) { return method("lower", v, a); }},
      {"capitalize", [](const Value& v, const Arguments& a) { return method("capitalize", v, a); }},
      {"title", [](const Value& v, const Arguments& a) { return method("title", v, a); }},
      {"replace", [](const Value& v, const Arguments& a) { return method("replace", v, a); }},
      {"length", &filter_length},
      {"count", &filter_length},
      {"default", &filter_default},
      {"d", &filter_default},
      {"join", &filter_join},
      {"tojson", &filter_tojson},
      {"first", [](const Value& v, const Arguments&) { return end_item(v, false); }},
      {"last", [](const Value& v, const Arguments&) { return end_item(v, true); }},
      {"list", [](const Value& v, const Arguments&) { return Value(iterate(v)); }},
      {"string", [](const Value& v, const Arguments&) { return Value(to_text(v)); }},
      {"safe", [](const Value& v, const Arguments&) { return Value(to_text(v)); }},
      {"int", &filter_int},
      {"float", &filter_float},
      {"abs", &filter_abs},
      {"map", &filter_map},
      {"select", [](const Value& v, const Arguments& a) { return choose(v, a, false, true); }},
      {"reject", [](const Value& v, const Arguments& a) { return choose(v, a, false, false); }},
      {"selectattr", [](const Value& v, const Arguments& a) { return choose(v, a, true, true); }},
      {"rejectattr", [](const Value& v, const Arguments& a) { return choose(v, a, true, false); }},
      {"items", &filter_items},
      {"indent", &filter_indent},
      {"reverse", &filter_reverse},
      {"unique", &filter_unique}};
  return table;
}

bool divides(const Value& v, const Value& by) {
  const auto x = v.integer(), y = by.integer();
  COCA_CHECK_AS(kBadFile, x && y && *y != 0, "divisibleby: expected two whole numbers, the second not 0");
  return *y == -1 || *x % *y == 0;  // the smallest number by -1 is beyond the machine
}

bool is_equal(const Value& v, const Arguments& a) { return equal(v, need(a, 0, "other")); }

const std::map<std::string, Test>& tests() {
  const auto is_number = [](const Value& v, const Arguments&) { return v.number().has_value(); };
  const auto is_sequence = [](const Value& v, const Arguments&) { return v.list() || v.dict() || v.string() || v.is_undefined(); };
  static const std::map<std::string, Test> table = {
      {"defined", [](const Value& v, const Arguments&) { return !v.is_undefined(); }},
      {"undefined", [](const Value& v, const Arguments&) { return v.is_undefined(); }},
      {"none", [](const Value& v, const Arguments&) { return v.is_none(); }},
      {"string", [](const Value& v, const Arguments&) { return v.string() != nullptr; }},
      {"boolean", [](const Value& v, const Arguments&) { return v.boolean() != nullptr; }},
      {"true", [](const Value& v, const Arguments&) { return v.boolean() && *v.boolean(); }},
      {"false", [](const Value& v, const Arguments&) { return v.boolean() && !*v.boolean(); }},
      {"integer", [](const Value& v, const Arguments&) { return v.integer() && !v.boolean(); }},
      {"float", [](const Value& v, const Arguments&) { return v.real() != nullptr; }},
      {"number", is_number},
      {"mapping", [](const Value& v, const Arguments&) { return v.dict() && !v.dict()->is_namespace; }},
      {"iterable", is_sequence},
      {"sequence", is_sequence},
      {"callable", [](const Value& v, const Arguments&) { return v.callable() != nullptr; }},
      {"odd", [](const Value& v, const Arguments&) { return !divides(v, int64_t{2}); }},
      {"even", [](const Value& v, const Arguments&) { return divides(v, int64_t{2}); }},
      {"divisibleby", [](const Value& v, const Arguments& a) { return divides(v, need(a, 0, "num")); }},
      {"in", [](const Value& v, const Arguments& a) { return contains(need(a, 0, "seq"), v); }},
      {"eq", &is_equal},
      {"equalto", &is_equal},
      {"ne", [](const Value& v, const Arguments& a) { return !is_equal(v, a); }}};
  return table;
}

template <typename Table>
auto found(const Table& table, const std::string& name, std::string_view what) {
  const auto place = table.find(name);
  if (place != table.end()) return place->second;
  std::vector<std::string> names;
  names.reserve(table.size());
  for (const auto& [known, function] : table) names.push_back(known);
  fail(ErrorKind::kBadFile, "the {} \"{}\" is not supported; expected one of {}", what, name, fmt::join(names, ", "));
}

}  // namespace

Value apply_filter(const std::string& name, const Value& value, const Arguments& arguments) {
  return found(filters(), name, "filter")(value, arguments);
}

bool apply_test(const std::string& name, const Value& value, const Arguments& arguments) {
  return found(tests(), name, "test")(value, arguments);
}

}  // namespace coca::text::jinja
