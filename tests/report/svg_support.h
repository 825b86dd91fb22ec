// tests/report/svg_support.h - a small check that XML is well-formed, and helpers to read an SVG.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace coca::report {

// Returns "" if all tags are closed in order, or else the error. Understands prologs, comments and quoted attributes.
inline std::string xml_problem(std::string_view text) {
  std::vector<std::string> open;
  while (true) {
    const size_t at = text.find('<');
    const std::string_view words = text.substr(0, at);
    for (size_t amp = words.find('&'); amp != std::string_view::npos; amp = words.find('&', amp + 1))
      if (words.find(';', amp) == std::string_view::npos) return "bare & in text";
    if (at == std::string_view::npos) break;
    text.remove_prefix(at);
    if (text.starts_with("<?") || text.starts_with("<!")) {
      const size_t end = text.find('>');
      if (end == std::string_view::npos) return "unfinished prolog";
      text.remove_prefix(end + 1);
      continue;
    }
    size_t end = 1;
    char quote = 0;
    for (; end < text.size() && (quote != 0 || text[end] != '>'); ++end) {
      if (quote == 0 && (text[end] == '"' || text[end] == '\''))
        quote = text[end];
      else if (text[end] == quote)
        quote = 0;
      else if (text[end] == '<')
        return "< within a tag";
    }
    if (end >= text.size()) return "unfinished tag";
    const std::string_view tag = text.substr(1, end - 1);
    const std::string name(tag.substr(0, tag.find_first_of(" \t\r\n/", 1)));
    if (tag.starts_with('/')) {
      if (open.empty() || "/" + open.back() != name) return "unexpected </" + name + ">";
      open.pop_back();
    } else if (!tag.ends_with('/')) {
      open.push_back(name);
    }
    text.remove_prefix(end + 1);
  }
  return open.empty() ? "" : "<" + open.back() + "> is not closed";
}

inline std::vector<std::string> all_between(std::string_view text, std::string_view before, std::string_view after) {
  std::vector<std::string> found;
  for (size_t at = 0; (at = text.find(before, at)) != std::string_view::npos;) {
    at += before.size();
    const size_t end = text.find(after, at);
    if (end == std::string_view::npos) break;
    found.emplace_back(text.substr(at, end - at));
  }
  return found;
}

}  // namespace coca::report
