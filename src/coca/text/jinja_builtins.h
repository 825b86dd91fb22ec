// coca/text/jinja_builtins.h - the filters, tests and methods that chat templates use. Others are refused by
// name. Errors are of kBadFile, without their place, which the interpreter adds.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "coca/text/jinja_value.h"

namespace coca::text::jinja {

struct Arguments {
  std::vector<Value> positional;
  std::vector<std::pair<std::string, Value>> named;

  // The argument at `index` or of that name; null when it is not given.
  const Value* get(size_t index, std::string_view name) const;
  void only(std::string_view function, size_t most, std::initializer_list<std::string_view> names) const;
};

Value apply_filter(const std::string& name, const Value& value, const Arguments& arguments);
bool apply_test(const std::string& name, const Value& value, const Arguments& arguments);
using StringMethod = Value (*)(const std::string&, const Arguments&);
StringMethod find_string_method(std::string_view name);  // null when there is none
// Python's `format % values` and format.format(...), in the forms that fmt knows too.
std::string percent_format(const std::string& format, const Value& values);
std::string brace_format(const std::string& format, const Arguments& values);
// The first occurrence of `what` from `at` on. Always linear in the text, which std::string::find is not.
size_t find_text(const std::string& text, const std::string& what, size_t at);
// Methods of strings, lists and dicts. has_method says which there are.
bool has_method(const Value& value, std::string_view name);
Value call_method(const Value& self, const std::string& name, const Arguments& arguments);

// value.name: for a dict its item, undefined when there is none. Paths of map and selectattr ("function.name") too.
Value attribute_of(const Value& value, std::string_view name);
Value item_of(const Value& value, const Value& key);
Value slice_of(const Value& value, const Value& start, const Value& stop, const Value& step);
// The items of a list, keys of a dict, characters of a string; none of undefined.
List iterate(const Value& value);
bool contains(const Value& container, const Value& item);
std::vector<std::string> characters_of(const std::string& text);

}  // namespace coca::text::jinja
