// coca/text/jinja_value.h - the values of a chat template: those of Python, as far as templates use them.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

namespace coca::text::jinja {

struct Macro;  // jinja_ast.h

class Value;
using List = std::vector<Value>;
struct Dict {
  std::vector<std::pair<std::string, Value>> items;  // in the order of insertion, by dict_key()
  bool is_namespace = false;                         // {% set ns.x = ... %} may change it
  const Value* find(std::string_view key) const;
  void set(std::string_view key, Value value);
};
struct Undefined {
  std::string name;       // of what is not there, for messages
  bool variable = false;  // of the template, rather than a field of a value
  // Of a list or string that is too short for item `name`: its number of items, and what the template calls it.
  std::optional<int64_t> items = std::nullopt;
  std::string list = "the list";
};
// Something callable: a function by name, a method of a value, or a macro; self of a caller() holds the variables
// visible to it.
struct Callable {
  std::string name;
  std::shared_ptr<const Value> self;
  const Macro* macro = nullptr;
};

class Value {
 public:
  Value() : data_(Undefined{}) {}
  Value(std::nullptr_t) : data_(nullptr) {}                                  // NOLINT: values convert, as in Python
  Value(bool v) : data_(v) {}                                                // NOLINT
  Value(int64_t v) : data_(v) {}                                             // NOLINT
  Value(double v) : data_(v) {}                                              // NOLINT
  Value(std::string v) : weight_(1 + v.size() / 16), data_(std::move(v)) {}  // NOLINT
  Value(const char* v) : Value(std::string(v)) {}                            // NOLINT
  Value(Undefined v) : data_(std::move(v)) {}                                // NOLINT
  Value(Callable v) : data_(std::move(v)) {}                                 // NOLINT
  // Error kBadFile when it is nested too deep or holds too much: templates can put a list into itself again and again.
  Value(List v);               // NOLINT
  Value(Dict v);               // NOLINT
  static Value tuple(List v);  // a list that prints as (1, 2)
  static Value from_json(const nlohmann::json& json);
  static Value from_json(const nlohmann::ordered_json& json);

  bool is_undefined() const { return std::holds_alternative<Undefined>(data_); }
  bool is_none() const { return std::holds_alternative<std::nullptr_t>(data_); }
  const bool* boolean() const { return std::get_if<bool>(&data_); }
  const std::string* string() const { return std::get_if<std::string>(&data_); }
  const List* list() const { return pointee<List>(); }  // of a tuple too
  bool is_tuple() const { return tuple_; }
  const Dict* dict() const { return pointee<Dict>(); }
  Dict* mutable_dict() const;
  const Callable* callable() const { return std::get_if<Callable>(&data_); }
  const double* real() const { return std::get_if<double>(&data_); }
  void name_list(const std::string& name) {  // of an item that is not there, for messages
    if (auto* undefined = std::get_if<Undefined>(&data_)) undefined->list = name;
  }
  const std::string& undefined_name() const { return std::get<Undefined>(data_).name; }
  std::optional<int64_t> integer() const;  // true and false are 1 and 0
  std::optional<double> number() const;

  size_t weight() const { return weight_; }  // values in it and in those, and 16 bytes of text each
  bool truth() const;
  std::string_view type_name() const;  // as Python names it: "str", "dict", ...
  std::string described() const;       // the same for messages; of what is undefined also why
  // "... is not defined", and how a variable of the template is defined.
  std::string undefined_text(std::string_view so = "") const;

 private:
  template <typename T>
  const T* pointee() const {
    const auto* pointer = std::get_if<std::shared_ptr<T>>(&data_);
    return pointer ? pointer->get() : nullptr;
  }
  void add_inside(const Value& item);

  size_t weight_ = 1;
  int depth_ = 0;
  bool tuple_ = false;
  std::variant<Undefined, std::nullptr_t, bool, int64_t, double, std::string, std::shared_ptr<List>,
               std::shared_ptr<Dict>, Callable>
      data_;
};

// Bytes of one string, and of the output. check_text() is asked while a text grows, so that a template cannot make it
// large in one step.
inline constexpr size_t kMaxText = size_t{8} << 20;
void check_text(size_t bytes);

// Values compared are counted, by thread: Error kBadFile beyond a limit, until the count begins anew.
void begin_comparing();
bool equal(const Value& a, const Value& b);
std::string to_text(const Value& value);  // str()
// Keys of dicts: strings stand for themselves, other values (numbers, none) for strings that no text makes. Error
// kBadFile for what Python cannot hash.
std::string dict_key(const Value& value);
Value key_value(const std::string& key);
// Below, equal to or above 0 if a is before, equal to or after b; nothing if Python does not order them.
std::optional<int> order_of(const Value& a, const Value& b);

struct JsonStyle {  // of json.dumps
  std::optional<int64_t> indent;
  std::optional<std::string> comma, colon;
  bool sort_keys = false, ascii = false;
};
std::string to_json(const Value& value, const JsonStyle& style);

}  // namespace coca::text::jinja
