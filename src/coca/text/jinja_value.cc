// coca/text/jinja_value.cc - see jinja_value.h.
// SPDX-License-Identifier: Apache-2.0
#include "coca/text/jinja_value.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "coca/base/count.h"
#include "coca/base/error.h"

namespace coca::text::jinja {

const Value* Dict::find(std::string_view key) const {
  for (const auto& [name, value] : items)
    if (name == key) return &value;
  return nullptr;
}

void Dict::set(std::string_view key, Value value) {
  for (auto& [name, old] : items)
    if (name == key) {
      old = std::move(value);
      return;
    }
  items.emplace_back(std::string(key), std::move(value));
}

void Value::add_inside(const Value& item) {
  constexpr int kMaxDepth = 100;
  constexpr size_t kMaxWeight = 4'000'000;
  depth_ = std::max(depth_, item.depth_ + 1);
  weight_ += item.weight_;
  COCA_CHECK_AS(kBadFile, depth_ <= kMaxDepth && weight_ <= kMaxWeight,
                "a value nested {} deep, {} in all; at most {} and {}", depth_, counted(weight_, "value"), kMaxDepth,
                kMaxWeight);
}

Value::Value(List v) : data_(nullptr) {
  for (const Value& item : v) add_inside(item);
  data_ = std::make_shared<List>(std::move(v));
}

Value Value::tuple(List v) {
  Value made(std::move(v));
  made.tuple_ = true;
  return made;
}

Value::Value(Dict v) : data_(nullptr) {
  for (const auto& [key, item] : v.items) {
    add_inside(item);
    weight_ += key.size() / 16;
  }
  data_ = std::make_shared<Dict>(std::move(v));
}

namespace {

template <typename Json>
Value convert(const Json& json) {
  if (json.is_null()) return nullptr;
  if (json.is_boolean()) return json.template get<bool>();
  if (json.is_number_integer()) return json.template get<int64_t>();
  if (json.is_number()) return json.template get<double>();
  if (json.is_string()) return json.template get<std::string>();
  if (json.is_array()) {
    List list;
    for (const auto& item : json) list.push_back(convert(item));
    return list;
  }
  Dict dict;
  for (const auto& [key, item] : json.items()) dict.items.emplace_back(dict_key(Value(key)), convert(item));
  return dict;
}

std::string float_text(double v) {
  if (std::isnan(v)) return "nan";
  if (std::isinf(v)) return v < 0 ? "-inf" : "inf";
  std::string text = fmt::format("{}", v);
  if (text.find_first_of(".e") == std::string::npos) text += ".0";
  return text;
}

std::string quoted(const std::string& text) {  // repr() of a string
  const char quote = text.find('\'') != std::string::npos && text.find('"') == std::string::npos ? '"' : '\'';
  std::string out(1, quote);
  for (const char c : text) {
    if (c == '\\' || c == quote)
      (out += '\\') += c;
    else if (c == '\n')
      out += "\\n";
    else if (c == '\r')
      out += "\\r";
    else if (c == '\t')
      out += "\\t";
    else if (static_cast<unsigned char>(c) < 32 || c == 127)
      out += fmt::format("\\x{:02x}", static_cast<unsigned char>(c));
    else
      out += c;
  }
  return out + quote;
}

std::string repr(const Value& value) {
  if (const auto* text = value.string()) return quoted(*text);
  std::string out;
  if (const auto* list = value.list()) {
    for (const Value& item : *list) {
      out += (out.empty() ? "" : ", ") + repr(item);
      check_text(out.size());
    }
    if (value.is_tuple()) return "(" + out + (list->size() == 1 ? ",)" : ")");
    return "[" + out + "]";
  }
  if (const auto* dict = value.dict()) {
    if (dict->is_namespace) return "<Namespace>";
    for (const auto& [key, item] : dict->items) {
      out += (out.empty() ? "" : ", ") + repr(key_value(key)) + ": " + repr(item);
      check_text(out.size());
    }
    return "{" + out + "}";
  }
  return value.is_undefined() ? "Undefined" : to_text(value);
}

std::string quoted_json(const std::string& text, const JsonStyle& style) {
  return nlohmann::json(text).dump(-1, ' ', style.ascii, nlohmann::json::error_handler_t::replace);
}

void append_json(const Value& value, const JsonStyle& style, size_t depth, std::string& out) {
  const auto line = [&](size_t d) {
    return style.indent ? "\n" + std::string(static_cast<size_t>(*style.indent) * d, ' ') : "";
  };
  const std::string newline = line(depth + 1), end = line(depth);
  const std::string comma = style.comma.value_or(style.indent ? "," : ", "), colon = style.colon.value_or(": ");
  check_text(out.size());
  if (const auto* list = value.list()) {
    out += '[';
    for (size_t i = 0; i < list->size(); ++i) {
      out += (i > 0 ? comma : "") + newline;
      append_json((*list)[i], style, depth + 1, out);
    }
    out += (list->empty() ? "" : end) + "]";
  } else if (const auto* dict = value.dict(); dict && !dict->is_namespace) {
    std::vector<std::pair<std::string, const Value*>> items;
    for (const auto& [key, item] : dict->items) {
      const Value name = key_value(key);
      items.emplace_back(name.string() ? *name.string() : to_json(name, {}), &item);
    }
    if (style.sort_keys) std::ranges::stable_sort(items, {}, &std::pair<std::string, const Value*>::first);
    out += '{';
    for (size_t i = 0; i < items.size(); ++i) {
      out += (i > 0 ? comma : "") + newline + quoted_json(items[i].first, style) + colon;
      append_json(*items[i].second, style, depth + 1, out);
    }
    out += (items.empty() ? "" : end) + "}";
  } else if (const auto* text = value.string()) {
    out += quoted_json(*text, style);
  } else if (value.is_none()) {
    out += "null";
  } else if (const auto* flag = value.boolean()) {
    out += *flag ? "true" : "false";
  } else if (value.number()) {
    out += to_text(value);
  } else {
    fail(ErrorKind::kBadFile, "tojson: {} cannot be written as JSON", value.described());
  }
}

}  // namespace

Value Value::from_json(const nlohmann::json& json) { return convert(json); }
Value Value::from_json(const nlohmann::ordered_json& json) { return convert(json); }

Dict* Value::mutable_dict() const {
  const auto* pointer = std::get_if<std::shared_ptr<Dict>>(&data_);
  return pointer ? pointer->get() : nullptr;
}

std::optional<int64_t> Value::integer() const {
  if (const auto* v = std::get_if<int64_t>(&data_)) return *v;
  if (const auto* v = boolean()) return *v ? 1 : 0;
  return std::nullopt;
}

std::optional<double> Value::number() const {
  if (const auto* v = real()) return *v;
  if (const auto v = integer()) return static_cast<double>(*v);
  return std::nullopt;
}

bool Value::truth() const {
  if (is_undefined() || is_none()) return false;
  if (const auto v = number()) return *v != 0;
  if (const auto* v = string()) return !v->empty();
  if (const auto* v = list()) return !v->empty();
  if (const auto* v = dict()) return v->is_namespace || !v->items.empty();
  return true;
}

std::string_view Value::type_name() const {
  constexpr std::string_view kNames[] = {"undefined", "NoneType", "bool", "int",     "float",
                                         "str",       "list",     "dict", "function"};
  return kNames[data_.index()];
}

std::string Value::described() const {
  const bool named = is_undefined() && !undefined_name().empty();
  return named ? fmt::format("undefined ({})", undefined_text()) : std::string(type_name());
}

std::string Value::undefined_text(std::string_view so) const {
  const auto& [name, variable, items, list] = std::get<Undefined>(data_);
  if (items) return fmt::format("{} has {}; there is no item {}", list, counted(*items, "item"), name);
  std::string text = fmt::format("\"{}\" is not defined{}", name, so);
  if (variable)
    text += fmt::format("; define it with --chat-var {}=VALUE{}", name,
                        name.ends_with("_token") ? ", or in tokenizer_config.json beside the model" : "");
  return text;
}

void check_text(size_t bytes) {
  COCA_CHECK_AS(kBadFile, bytes <= kMaxText, "makes a text of {}; at most {}", counted(bytes, "byte"),
                grouped(kMaxText));
}

namespace {

constexpr int64_t kMaxComparisons = 50'000'000;
thread_local int64_t comparisons = 0;

}  // namespace

void begin_comparing() { comparisons = 0; }

bool equal(const Value& a, const Value& b) {
  comparisons += 1 + static_cast<int64_t>(a.string() && b.string() ? std::min(a.weight(), b.weight()) / 16 : 0);
  COCA_CHECK_AS(kBadFile, comparisons <= kMaxComparisons, "compares more than {} values", kMaxComparisons);
  if (const auto x = a.integer(), y = b.integer(); x && y) return *x == *y;
  if (const auto x = a.number(), y = b.number(); x && y) return *x == *y;
  if (a.string() && b.string()) return *a.string() == *b.string();
  if (a.list() && b.list())
    return a.is_tuple() == b.is_tuple() &&
           std::equal(a.list()->begin(), a.list()->end(), b.list()->begin(), b.list()->end(), equal);
  if (a.dict() && b.dict()) {
    if (a.dict() == b.dict()) return true;
    if (a.dict()->is_namespace || a.dict()->items.size() != b.dict()->items.size()) return false;
    for (const auto& [key, value] : a.dict()->items) {
      const Value* other = b.dict()->find(key);
      if (other == nullptr || !equal(value, *other)) return false;
    }
    return true;
  }
  return (a.is_none() && b.is_none()) || (a.is_undefined() && b.is_undefined());
}

std::string to_text(const Value& value) {
  if (const auto* text = value.string()) return *text;
  if (value.is_undefined()) return "";
  if (value.is_none()) return "None";
  if (const auto* flag = value.boolean()) return *flag ? "True" : "False";
  if (const auto integer = value.integer()) return std::to_string(*integer);
  if (const auto* real = value.real()) return float_text(*real);
  if (value.callable()) return "<function " + value.callable()->name + ">";
  return repr(value);
}

std::string to_json(const Value& value, const JsonStyle& style) {
  std::string out;
  append_json(value, style, 0, out);
  return out;
}

std::string dict_key(const Value& value) {
  if (const auto* text = value.string()) return text->starts_with('\0') ? std::string("\0s", 2) + *text : *text;
  if (const auto integer = value.integer()) return std::string("\0i", 2) + std::to_string(*integer);
  if (const auto* real = value.real()) {
    const bool whole = std::abs(*real) < 9e18 && *real == std::floor(*real);
    return whole ? std::string("\0i", 2) + fmt::format("{:.0f}", *real) : std::string("\0f", 2) + float_text(*real);
  }
  COCA_CHECK_AS(kBadFile, value.is_none(), "{} cannot be a key of a dict", value.described());
  return {"\0n", 2};
}

Value key_value(const std::string& key) {
  if (!key.starts_with('\0')) return key;
  const std::string rest = key.substr(2);
  if (key[1] == 's') return rest;
  if (key[1] == 'i') return static_cast<int64_t>(std::stoll(rest));
  return key[1] == 'f' ? Value(std::stod(rest)) : Value(nullptr);
}

std::optional<int> order_of(const Value& a, const Value& b) {
  comparisons += 1 + static_cast<int64_t>(a.string() && b.string() ? std::min(a.weight(), b.weight()) / 16 : 0);
  COCA_CHECK_AS(kBadFile, comparisons <= kMaxComparisons, "compares more than {} values", kMaxComparisons);
  if (const auto x = a.integer(), y = b.integer(); x && y) return *x < *y ? -1 : *x > *y ? 1 : 0;
  if (const auto x = a.number(), y = b.number(); x && y) return *x < *y ? -1 : *x > *y ? 1 : 0;
  if (a.string() && b.string()) return a.string()->compare(*b.string());
  if (!a.list() || !b.list()) return std::nullopt;
  for (size_t i = 0; i < std::min(a.list()->size(), b.list()->size()); ++i)
    if (!equal((*a.list())[i], (*b.list())[i])) return order_of((*a.list())[i], (*b.list())[i]);
  return a.list()->size() < b.list()->size() ? -1 : a.list()->size() > b.list()->size() ? 1 : 0;
}

}  // namespace coca::text::jinja
