// coca/text/jinja_builtins.cc - filters and tests; methods and items of values are in jinja_methods.cc.
// SPDX-License-Identifier: Apache-2.0
#include "coca/text/jinja_builtins.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <functional>
#include <map>

#include "coca/base/count.h"
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
  COCA_CHECK_AS(kBadFile, positional.size() <= most, "{}: {}; expected at most {}", function,
                counted(positional.size(), "argument"), most);
  for (const auto& [key, value] : named)
    COCA_CHECK_AS(kBadFile, std::ranges::find(names, key) != names.end(), "{}: the argument \"{}\" is not supported",
                  function, key);
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
    return static_cast<int64_t>(
        std::ranges::count_if(*v.string(), [](char c) { return (static_cast<unsigned char>(c) & 0xc0) != 0x80; }));
  COCA_CHECK_AS(kBadFile, v.list() || v.dict() || v.is_undefined(), "length: {} has no length", v.described());
  return std::ssize(iterate(v));
}

Value filter_default(const Value& v, const Arguments& a) {
  const Value* flag = a.get(1, "boolean");
  const bool absent = v.is_undefined() || (flag && flag->truth() && !v.truth());
  const Value* given = a.get(0, "default_value");
  return !absent ? v : given ? *given : Value("");
}

std::optional<double> text_number(const Value& v) {
  if (!v.string()) return std::nullopt;
  std::string text = to_text(method("strip", v, {}));
  if (text.starts_with('+')) text.erase(0, 1);
  double value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (text.empty() || error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return value;
}

// attribute="function.name", "0.x" or a number.
Value path_of(const Value& item, const Value& attribute) {
  if (attribute.integer()) return item_of(item, attribute);
  Value out = item;
  for (const Value& part : iterate(call_method(to_text(attribute), "split", {{Value(".")}, {}}))) {
    const auto number = text_number(part);
    out = number ? item_of(out, static_cast<int64_t>(*number)) : attribute_of(out, to_text(part));
  }
  return out;
}

Value filter_join(const Value& v, const Arguments& a) {
  const std::string between = text_argument(a, 0, "d", "");
  const Value* attribute = a.get(1, "attribute");
  std::string out;
  bool first = true;
  for (const Value& item : iterate(v)) {
    out += (first ? "" : between) + to_text(attribute ? path_of(item, *attribute) : item);
    check_text(out.size());
    first = false;
  }
  return out;
}

Value filter_tojson(const Value& v, const Arguments& a) {
  a.only("tojson", 4, {"ensure_ascii", "indent", "separators", "sort_keys"});
  // transformers' order of arguments; a lone number by position is Jinja's own indent.
  const bool lone = a.positional.size() == 1 && a.positional[0].integer() && !a.positional[0].boolean();
  const Value *ascii = lone ? nullptr : a.get(0, "ensure_ascii"),
              *indent = lone ? &a.positional[0] : a.get(1, "indent");
  const Value *separators = a.get(2, "separators"), *sorted = a.get(3, "sort_keys");
  JsonStyle style{.indent = indent ? indent->integer() : std::nullopt,
                  .comma = {},
                  .colon = {},
                  .sort_keys = sorted && sorted->truth(),
                  .ascii = ascii && ascii->truth()};
  COCA_CHECK_AS(kBadFile, !style.indent || (*style.indent >= 0 && *style.indent <= 16),
                "tojson: indent={}; expected 0 to 16", style.indent.value_or(0));
  if (separators && !separators->is_none()) {
    const List* pair = separators->list();
    COCA_CHECK_AS(kBadFile, pair && pair->size() == 2, "tojson: separators must be two strings");
    style.comma = to_text((*pair)[0]);
    style.colon = to_text((*pair)[1]);
  }
  return to_json(v, style);
}

Value end_item(const Value& v, bool last) {
  const List items = iterate(v);
  if (items.empty()) return Undefined{last ? "last item" : "first item"};
  return last ? items.back() : items.front();
}

Value filter_int(const Value& v, const Arguments& a) {
  if (const auto integer = v.integer()) return *integer;
  if (const auto number = v.real() ? std::optional(*v.real()) : text_number(v); number && std::isfinite(*number)) {
    int64_t value = 0;  // exact where it is written as a whole number
    std::string text = to_text(method("strip", to_text(v), {}));
    if (text.starts_with('+')) text.erase(0, 1);
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (error == std::errc() && end == text.data() + text.size()) return value;
    COCA_CHECK_AS(kBadFile, std::abs(*number) < 0x1p63, "int: {} is too large", text);
    return static_cast<int64_t>(*number);
  }
  const Value* given = a.get(0, "default");
  return given ? *given : Value(int64_t{0});
}

Value filter_float(const Value& v, const Arguments& a) {
  if (const auto number = v.number()) return *number;
  if (const auto number = text_number(v)) return *number;
  const Value* given = a.get(0, "default");
  return given ? *given : Value(0.0);
}

Value filter_map(const Value& v, const Arguments& a) {
  List out;
  const Value* attribute = a.positional.empty() ? a.get(0, "attribute") : nullptr;
  const Value* absent = a.get(9, "default");
  for (const Value& item : v.truth() ? iterate(v) : List{}) {  // of none, as in Jinja: nothing
    Value made = attribute ? path_of(item, *attribute)
                           : apply_filter(to_text(need(a, 0, "filter")), item,
                                          {{a.positional.begin() + 1, a.positional.end()}, a.named});
    if (made.is_undefined() && absent) made = *absent;
    out.push_back(std::move(made));
  }
  return out;
}

// select and reject test the items, selectattr and rejectattr an attribute of them.
Value choose(const Value& v, const Arguments& a, bool by_attribute, bool keep) {
  const size_t test_at = by_attribute ? 1 : 0;
  Arguments rest;
  if (a.positional.size() > test_at + 1)
    rest.positional = {a.positional.begin() + static_cast<std::ptrdiff_t>(test_at) + 1, a.positional.end()};
  List out;
  for (const Value& item : v.truth() ? iterate(v) : List{}) {
    const Value tested = by_attribute ? path_of(item, need(a, 0, "attribute")) : item;
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

// What an item is compared by: its attribute if one is named, in lower case unless case counts.
Value comparable(const Value& item, const Value* attribute, const Value* case_sensitive) {
  Value made = attribute && !attribute->is_none() ? path_of(item, *attribute) : item;
  return made.string() && !(case_sensitive && case_sensitive->truth()) ? Value(to_lower(*made.string())) : made;
}

Value filter_unique(const Value& v, const Arguments& a) {
  a.only("unique", 2, {"case_sensitive", "attribute"});
  List out, seen;
  for (const Value& item : iterate(v)) {
    Value by = comparable(item, a.get(1, "attribute"), a.get(0, "case_sensitive"));
    if (std::ranges::any_of(seen, [&](const Value& other) { return equal(other, by); })) continue;
    seen.push_back(std::move(by));
    out.push_back(item);
  }
  return out;
}

// Stable, by `key` of each item; merge sort is left to the library, whose comparisons order_of() counts.
List sorted_by(const List& items, const std::function<Value(const Value&)>& key, const Value* reverse) {
  std::vector<std::pair<Value, size_t>> order;
  for (size_t i = 0; i < items.size(); ++i) order.emplace_back(key(items[i]), i);
  const bool down = reverse && reverse->truth();
  std::ranges::stable_sort(order, [&](const auto& x, const auto& y) {
    const auto found = down ? order_of(y.first, x.first) : order_of(x.first, y.first);
    COCA_CHECK_AS(kBadFile, found, "sort: {} and {} have no order", x.first.described(), y.first.described());
    return *found < 0;
  });
  List out;
  for (const auto& [by, i] : order) out.push_back(items[i]);
  return out;
}

Value filter_sort(const Value& v, const Arguments& a) {
  a.only("sort", 3, {"reverse", "case_sensitive", "attribute"});
  return sorted_by(
      iterate(v),
      [&](const Value& item) { return comparable(item, a.get(2, "attribute"), a.get(1, "case_sensitive")); },
      a.get(0, "reverse"));
}

Value filter_dictsort(const Value& v, const Arguments& a) {
  a.only("dictsort", 3, {"case_sensitive", "by", "reverse"});
  const Value at = text_argument(a, 1, "by", "key") == "value" ? int64_t{1} : int64_t{0};
  return sorted_by(
      iterate(filter_items(v, {})),
      [&](const Value& item) { return comparable(item_of(item, at), nullptr, a.get(0, "case_sensitive")); },
      a.get(2, "reverse"));
}

Value extreme(const Value& v, const Arguments& a, bool largest) {
  a.only(largest ? "max" : "min", 2, {"case_sensitive", "attribute"});
  const List items = iterate(v);
  if (items.empty()) return Undefined{"item of an empty list"};
  const Value down(largest);
  return sorted_by(
             items,
             [&](const Value& item) { return comparable(item, a.get(1, "attribute"), a.get(0, "case_sensitive")); },
             &down)
      .front();
}

Value filter_sum(const Value& v, const Arguments& a) {
  a.only("sum", 2, {"attribute", "start"});
  const Value *attribute = a.get(0, "attribute"), *start = a.get(1, "start");
  int64_t whole = start ? start->integer().value_or(0) : 0;
  double real = start && start->real() ? *start->real() : static_cast<double>(whole);
  bool exact = !start || start->integer();
  for (const Value& item : iterate(v)) {
    const Value x = attribute && !attribute->is_none() ? path_of(item, *attribute) : item;
    COCA_CHECK_AS(kBadFile, x.number(), "sum: {} is not a number", x.described());
    real += *x.number();
    exact = exact && x.integer();
    COCA_CHECK_AS(kBadFile, !exact || !__builtin_add_overflow(whole, *x.integer(), &whole), "sum: it is too large");
  }
  return exact ? Value(whole) : Value(real);
}

// Lists of a key and its items, by key.
Value filter_groupby(const Value& v, const Arguments& a) {
  a.only("groupby", 3, {"attribute", "default", "case_sensitive"});
  const Value &attribute = need(a, 0, "attribute"), *absent = a.get(1, "default"), *exact = a.get(2, "case_sensitive");
  const auto key = [&](const Value& item) {
    Value made = path_of(item, attribute);
    return made.is_undefined() && absent ? *absent : made;
  };
  List out;
  List items, keys;
  const auto close = [&] {
    if (!items.empty()) out.push_back(Value::tuple({key(items[0]), std::exchange(items, {})}));
  };
  Value last;
  for (const Value& item : sorted_by(
           iterate(v), [&](const Value& x) { return comparable(key(x), nullptr, exact); }, nullptr)) {
    Value by = comparable(key(item), nullptr, exact);
    if (!items.empty() && !equal(by, last)) close();
    last = std::move(by);
    items.push_back(item);
  }
  close();
  return out;
}

Value filter_batch(const Value& v, const Arguments& a) {
  a.only("batch", 2, {"linecount", "fill_with"});
  const auto size = need(a, 0, "linecount").integer();
  COCA_CHECK_AS(kBadFile, size && *size >= 1 && *size <= 1'000'000, "batch: expected a whole number of 1 or more");
  List out, row;
  for (const Value& item : iterate(v)) {
    row.push_back(item);
    if (std::ssize(row) == *size) out.push_back(std::exchange(row, {}));
  }
  const Value* fill = a.get(1, "fill_with");
  while (!row.empty() && fill && !fill->is_none() && std::ssize(row) < *size) row.push_back(*fill);
  if (!row.empty()) out.push_back(std::move(row));
  return out;
}

Value filter_round(const Value& v, const Arguments& a) {
  a.only("round", 2, {"precision", "method"});
  COCA_CHECK_AS(kBadFile, v.number(), "round: {} is not a number", v.described());
  const Value* digits = a.get(0, "precision");
  const std::string how = text_argument(a, 1, "method", "common");
  const int64_t places = digits ? digits->integer().value_or(0) : 0;
  COCA_CHECK_AS(kBadFile, places >= -15 && places <= 15, "round: a precision of {}; expected -15 to 15", places);
  if (how == "common" && places >= 0 && v.integer()) return *v.integer();
  if (how == "common" && places >= 0) return std::stod(fmt::format("{:.{}f}", *v.number(), places));
  const double scale = std::pow(10.0, static_cast<double>(places)), scaled = *v.number() * scale;
  COCA_CHECK_AS(kBadFile, how == "common" || how == "ceil" || how == "floor",
                "round: method \"{}\"; expected common, ceil or floor", how);
  return (how == "ceil" ? std::ceil(scaled) : how == "floor" ? std::floor(scaled) : std::nearbyint(scaled)) / scale;
}

Value filter_escape(const Value& v, const Arguments&) {
  std::string out;
  for (const char c : to_text(v)) {
    if (c == '&')
      out += "&amp;";
    else if (c == '<')
      out += "&lt;";
    else if (c == '>')
      out += "&gt;";
    else if (c == '"')
      out += "&#34;";
    else if (c == '\'')
      out += "&#39;";
    else
      out += c;
  }
  check_text(out.size());
  return out;
}

Value filter_format(const Value& v, const Arguments& a) {
  Dict named;
  for (const auto& [name, value] : a.named) named.set(name, value);
  return percent_format(to_text(v), a.named.empty() ? Value::tuple(a.positional) : Value(std::move(named)));
}

Value filter_wordcount(const Value& v, const Arguments&) { return std::ssize(iterate(method("split", v, {}))); }

Value filter_abs(const Value& v, const Arguments&) {
  if (const auto integer = v.integer(); integer) {
    COCA_CHECK_AS(kBadFile, *integer != INT64_MIN, "abs: that of {} is too large", *integer);
    return *integer < 0 ? -*integer : *integer;
  }
  COCA_CHECK_AS(kBadFile, v.number(), "abs: {} is not a number", v.described());
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
      {"unique", &filter_unique},
      {"sort", &filter_sort},
      {"dictsort", &filter_dictsort},
      {"min", [](const Value& v, const Arguments& a) { return extreme(v, a, false); }},
      {"max", [](const Value& v, const Arguments& a) { return extreme(v, a, true); }},
      {"sum", &filter_sum},
      {"groupby", &filter_groupby},
      {"batch", &filter_batch},
      {"round", &filter_round},
      {"escape", &filter_escape},
      {"e", &filter_escape},
      {"forceescape", &filter_escape},
      {"format", &filter_format},
      {"center",
       [](const Value& v, const Arguments& a) {
         return a.positional.empty() && a.named.empty() ? method("center", v, {{Value(int64_t{80})}, {}})
                                                        : method("center", v, a);
       }},
      {"wordcount", &filter_wordcount},
      {"attr", [](const Value& v, const Arguments& a) { return attribute_of(v, to_text(need(a, 0, "name"))); }}};
  return table;
}

bool divides(const Value& v, const Value& by) {
  const auto x = v.integer(), y = by.integer();
  COCA_CHECK_AS(kBadFile, x && y && *y != 0, "divisibleby: expected two whole numbers, the second of them not 0");
  return *y == -1 || *x % *y == 0;  // the smallest number by -1 is beyond the machine
}

bool is_equal(const Value& v, const Arguments& a) { return equal(v, need(a, 0, "other")); }

int order_to(const Value& v, const Arguments& a) {
  const Value& other = need(a, 0, "other");
  const auto order = order_of(v, other);
  COCA_CHECK_AS(kBadFile, order, "{} and {} have no order", v.described(), other.described());
  return *order;
}

bool is_below(const Value& v, const Arguments& a) { return order_to(v, a) < 0; }
bool is_above(const Value& v, const Arguments& a) { return order_to(v, a) > 0; }
bool is_at_most(const Value& v, const Arguments& a) { return order_to(v, a) <= 0; }
bool is_at_least(const Value& v, const Arguments& a) { return order_to(v, a) >= 0; }

// Of values that are not kept as objects, the same kind and value.
bool is_same(const Value& v, const Arguments& a) {
  return v.type_name() == need(a, 0, "other").type_name() && is_equal(v, a);
}

const std::map<std::string, Test>& tests() {
  const auto is_number = [](const Value& v, const Arguments&) { return v.number().has_value(); };
  const auto is_sequence = [](const Value& v, const Arguments&) {
    return v.list() || v.dict() || v.string() || v.is_undefined();
  };
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
      {"ne", [](const Value& v, const Arguments& a) { return !is_equal(v, a); }},
      {"==", &is_equal},
      {"!=", [](const Value& v, const Arguments& a) { return !is_equal(v, a); }},
      {"lt", &is_below},
      {"<", &is_below},
      {"lessthan", &is_below},
      {"le", &is_at_most},
      {"<=", &is_at_most},
      {"gt", &is_above},
      {">", &is_above},
      {"greaterthan", &is_above},
      {"ge", &is_at_least},
      {">=", &is_at_least},
      {"sameas", &is_same},
      {"lower", [](const Value& v, const Arguments&) { return call_method(to_text(v), "islower", {}).truth(); }},
      {"upper", [](const Value& v, const Arguments&) { return call_method(to_text(v), "isupper", {}).truth(); }},
      {"filter", [](const Value& v, const Arguments&) { return filters().contains(to_text(v)); }},
      {"escaped", [](const Value&, const Arguments&) { return false; }}};
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
