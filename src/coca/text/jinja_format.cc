// coca/text/jinja_format.cc - "%s: %d" % values and "{}: {:.2f}".format(values).
// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <charconv>
#include <cmath>

#include "coca/base/count.h"
#include "coca/base/error.h"
#include "coca/text/jinja_builtins.h"

namespace coca::text::jinja {

namespace {

constexpr int kMostWidth = 1000;

std::string padded(const std::string& text, bool left, int width) {
  const auto characters = static_cast<int>(std::min<size_t>(characters_of(text).size(), kMostWidth));
  const std::string blanks(static_cast<size_t>(std::max(0, width - characters)), ' ');
  return left ? text + blanks : blanks + text;
}

// One value of a format with %: flags of "-+ #0", width and precision (-1: none).
struct Field {
  std::string flags;
  int width = 0, precision = -1;
  char type = 's';
};

std::string formatted(const Field& f, const Value& value) {
  const bool left = f.flags.find('-') != std::string::npos;
  if (f.type == 's' || f.type == 'r') {
    std::string text = f.type == 's' ? to_text(value) : to_text(List{value});
    if (f.type == 'r') text = text.substr(1, text.size() - 2);
    if (f.precision >= 0) text = to_text(slice_of(text, nullptr, int64_t{f.precision}, nullptr));
    return padded(text, left, f.width);
  }
  if (f.type == 'c') return padded(to_text(value), left, f.width);
  const auto number = value.number();
  COCA_CHECK_AS(kBadFile, number, "%{}: {} is not a number", f.type, value.described());
  const bool whole = std::string_view("diuxXo").find(f.type) != std::string_view::npos;
  COCA_CHECK_AS(kBadFile, whole || std::string_view("feEgGF").find(f.type) != std::string_view::npos,
                "%{} is not supported", f.type);
  std::string pattern = "%" + f.flags + "*.*" + (whole ? "l" : "") + f.type;
  if (f.type == 'u' || f.type == 'i') pattern.back() = 'd';
  char text[2 * kMostWidth];
  if (whole) {
    COCA_CHECK_AS(kBadFile, std::abs(*number) < 9e18, "%{}: {} is too large", f.type, *number);
    const int64_t n = value.integer().value_or(static_cast<int64_t>(*number));
    COCA_CHECK_AS(kBadFile, n >= 0 || pattern.back() == 'd', "%{} of a negative number is not supported", f.type);
    return {text, static_cast<size_t>(
                      std::snprintf(text, sizeof text, pattern.c_str(), f.width, f.precision, static_cast<long>(n)))};
  }
  return {text, static_cast<size_t>(std::snprintf(text, sizeof text, pattern.c_str(), f.width, f.precision, *number))};
}

int small_number(const std::string& text, size_t& at) {
  int value = 0;
  for (; at < text.size() && text[at] >= '0' && text[at] <= '9'; ++at) {
    value = 10 * value + (text[at] - '0');
    COCA_CHECK_AS(kBadFile, value <= kMostWidth, "a width or precision beyond {}", kMostWidth);
  }
  return value;
}

}  // namespace

std::string percent_format(const std::string& format, const Value& values) {
  const List given = values.is_tuple() ? *values.list() : List{values};
  std::string out;
  size_t next = 0;
  for (size_t at = 0; at < format.size(); ++at) {
    check_text(out.size());
    if (format[at] != '%') {
      out += format[at];
      continue;
    }
    Field field;
    const Value* value = nullptr;
    if (++at < format.size() && format[at] == '(') {
      const size_t close = format.find(')', at);
      COCA_CHECK_AS(kBadFile, close != std::string::npos && values.dict(), "%(name): expected a dict of values");
      const std::string name = format.substr(at + 1, close - at - 1);
      value = values.dict()->find(name);
      COCA_CHECK_AS(kBadFile, value, "%({}): no value of that name", name);
      at = close + 1;
    }
    while (at < format.size() && std::string_view("-+ #0").find(format[at]) != std::string_view::npos)
      field.flags += format[at++];
    COCA_CHECK_AS(kBadFile, field.flags.size() <= 5, "%: more than 5 flags");
    field.width = small_number(format, at);
    if (at < format.size() && format[at] == '.') field.precision = small_number(format, ++at);
    COCA_CHECK_AS(kBadFile, at < format.size(), "a format that ends within %");
    field.type = format[at];
    if (field.type == '%') {
      out += '%';
      continue;
    }
    if (value == nullptr) {
      COCA_CHECK_AS(kBadFile, next < given.size(), "%: {} for more places", counted(given.size(), "value"));
      value = &given[next++];
    }
    out += formatted(field, *value);
  }
  COCA_CHECK_AS(kBadFile, next == given.size() || values.dict(), "%: {} for {}", counted(given.size(), "value"),
                counted(next, "place"));
  return out;
}

std::string brace_format(const std::string& format, const Arguments& values) {
  std::string out;
  size_t next = 0;
  for (size_t at = 0; at < format.size(); ++at) {
    check_text(out.size());
    const char c = format[at];
    if ((c == '{' || c == '}') && at + 1 < format.size() && format[at + 1] == c)
      ++at;
    else if (c == '}')
      fail(ErrorKind::kBadFile, "format: a single }}");
    else if (c == '{') {
      const size_t close = format.find('}', at);
      COCA_CHECK_AS(kBadFile, close != std::string::npos, "format: {{ without }}");
      const std::string field = format.substr(at + 1, close - at - 1);
      at = close;
      const size_t colon = std::min(field.find(':'), field.size());
      const std::string name = field.substr(0, colon), spec = field.substr(std::min(colon + 1, field.size()));
      size_t index = 0;
      const auto [end, error] = std::from_chars(name.data(), name.data() + name.size(), index);
      const bool number = !name.empty() && error == std::errc() && end == name.data() + name.size();
      const Value* value = nullptr;
      if (name.empty() || number) {
        if (name.empty()) index = next++;
        if (index < values.positional.size()) value = &values.positional[index];
      } else {
        value = values.get(values.positional.size(), name);
      }
      COCA_CHECK_AS(kBadFile, value, "format: no value for {{{}}}", name);
      if (spec.empty()) {
        out += to_text(*value);
        continue;
      }
      COCA_CHECK_AS(kBadFile, spec.size() <= 12 && spec.find_first_of("{}") == std::string::npos,
                    "format: {{:{}}} is not supported", spec);
      for (size_t i = 0; i < spec.size();) {
        small_number(spec, i);
        i += i < spec.size() ? 1 : 0;
      }
      try {
        const std::string pattern = "{:" + spec + "}";
        if (const auto integer = value->integer();
            integer && !value->boolean() && spec.find_first_of("feEgG%") == std::string::npos)
          out += fmt::format(fmt::runtime(pattern), *integer);
        else if (const auto real = value->number(); real && !value->boolean())
          out += fmt::format(fmt::runtime(pattern), *real);
        else
          out += fmt::format(fmt::runtime(pattern), to_text(*value));
      } catch (const fmt::format_error&) {
        fail(ErrorKind::kBadFile, "format: {{:{}}} of {} is not supported", spec, value->described());
      }
      continue;
    }
    if (format[at] == c) out += c;
  }
  return out;
}

}  // namespace coca::text::jinja
