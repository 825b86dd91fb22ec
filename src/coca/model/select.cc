// SPDX-License-Identifier: Apache-2.0
#include "coca/model/select.h"

#include <algorithm>
#include <numeric>
#include <set>

#include "coca/base/count.h"
#include "coca/base/suggest.h"

namespace coca::model {

namespace {

// Names that the letters of a pattern may stand for, whole or between two dots; if there are none, what the names
// consist of.
std::string suggestion(const std::vector<std::string>& names, std::string_view pattern) {
  std::string letters;
  std::ranges::copy_if(pattern, std::back_inserter(letters), [](char c) { return c != '*' && c != '?' && c != '!'; });
  std::set<std::string> parts_of_names;
  for (const std::string& name : names)
    for (size_t at = 0; at <= name.size();) {
      const size_t end = std::min(name.find('.', at), name.size());
      parts_of_names.insert(name.substr(at, end - at));
      at = end + 1;
    }
  std::set<std::string> known = parts_of_names;
  known.insert(names.begin(), names.end());
  const std::string near = did_you_mean(letters, std::vector<std::string>(known.begin(), known.end()));
  if (!near.empty()) return near;
  // GPT-NeoX's parts of one matrix, by the names that they have elsewhere.
  static const std::vector<std::string> kElsewhere = {"q_proj", "k_proj", "t_proj", "v_proj"};
  for (const std::string& name : nearest_names(letters, kElsewhere)) {
    const std::string part = "query_key_value." + name.substr(0, 1);
    if (std::ranges::any_of(names, [&](const std::string& n) { return n.find("." + part) != std::string::npos; }))
      return did_you_mean(std::vector<std::string>{"*" + part + "*"});
  }
  std::string parts;
  for (const std::string& part : parts_of_names)
    if (part.find_first_not_of("0123456789") != std::string::npos) parts += (parts.empty() ? "" : ", ") + part;
  return "; the parts of the names are " + parts;
}

std::vector<std::string> split_patterns(const std::vector<std::string>& texts) {
  std::vector<std::string> patterns;
  for (const std::string& text : texts)
    for (size_t begin = 0; begin <= text.size();) {
      const size_t end = std::min(text.find(',', begin), text.size());
      if (end > begin) patterns.push_back(text.substr(begin, end - begin));
      begin = end + 1;
    }
  return patterns;
}

// A name, and the second one it goes by, if any.
struct Candidate {
  std::string name, also;
};

std::vector<bool> select(const std::vector<Candidate>& candidates, const std::vector<std::string>& texts,
                         std::string_view what) {
  const std::vector<std::string> patterns = split_patterns(texts);
  std::vector<bool> in(candidates.size(), patterns.empty() || patterns.front().starts_with('!'));
  for (const std::string& pattern : patterns) {
    const bool takes_out = pattern.starts_with('!');
    const std::string_view glob = std::string_view(pattern).substr(takes_out ? 1 : 0);
    bool any = false;
    for (size_t i = 0; i < candidates.size(); ++i) {
      if (!glob_matches(glob, candidates[i].name) && !glob_matches(glob, candidates[i].also)) continue;
      any = true;
      in[i] = !takes_out;
    }
    if (any) continue;
    std::vector<std::string> names;
    names.reserve(candidates.size());
    for (const Candidate& c : candidates) names.push_back(c.name);
    fail(ErrorKind::kInvalidArgument, "{}: \"{}\" matches none of {}{}", what, pattern, counted(names.size(), "name"),
         suggestion(names, pattern));
  }
  COCA_CHECK(std::find(in.begin(), in.end(), true) != in.end(), "{}: nothing is left of {}", what,
             counted(candidates.size(), "name"));
  return in;
}

}  // namespace

bool glob_matches(std::string_view pattern, std::string_view name) {
  size_t p = 0, n = 0, star = std::string_view::npos, taken = 0;
  while (n < name.size()) {
    if (p < pattern.size() && pattern[p] == '*') {
      star = p++;
      taken = n;
    } else if (p < pattern.size() && (pattern[p] == '?' || pattern[p] == name[n])) {
      ++p;
      ++n;
    } else if (star != std::string_view::npos) {  // the last star takes one more
      p = star + 1;
      n = ++taken;
    } else {
      return false;
    }
  }
  while (p < pattern.size() && pattern[p] == '*') ++p;
  return p == pattern.size();
}

std::vector<bool> select_names(const std::vector<std::string>& names, const std::vector<std::string>& patterns,
                               std::string_view what) {
  std::vector<Candidate> candidates;
  candidates.reserve(names.size());
  for (const std::string& name : names) candidates.push_back({name, name});
  return select(candidates, patterns, what);
}

std::vector<ParamInfo> select_parameters(const ModelSpec& spec, const std::vector<std::string>& patterns,
                                         std::string_view what) {
  const std::vector<ParamInfo> wholes = parameter_list(spec), parts = part_list(spec);
  std::vector<Candidate> candidates;
  std::vector<const ParamInfo*> infos;
  for (const ParamInfo& whole : wholes) {
    const size_t before = infos.size();
    for (const ParamInfo& part : parts)
      if (part.index == whole.index) {
        candidates.push_back({part.name, whole.name});
        infos.push_back(&part);
      }
    if (infos.size() == before) {
      candidates.push_back({whole.name, whole.name});
      infos.push_back(&whole);
    }
  }
  const std::vector<bool> in = select(candidates, patterns, what);
  std::vector<ParamInfo> selection;
  for (size_t i = 0; i < infos.size(); ++i) {
    const bool part = infos[i]->part == ParamPart::kQ;  // the first of three
    if (part && in[i] && in[i + 1] && in[i + 2]) {
      selection.push_back(wholes[infos[i]->index]);
      i += 2;
    } else if (in[i]) {
      selection.push_back(*infos[i]);
    }
  }
  assign_offsets(selection);
  return selection;
}

int64_t element_count(const std::vector<ParamInfo>& infos) {
  return std::accumulate(infos.begin(), infos.end(), int64_t{0},
                         [](int64_t sum, const ParamInfo& info) { return sum + info.shape.product(); });
}

}  // namespace coca::model
