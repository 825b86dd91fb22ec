// SPDX-License-Identifier: Apache-2.0
#include "coca/base/suggest.h"

#include <algorithm>
#include <cctype>
#include <limits>

namespace coca {

namespace {

constexpr double kFar = std::numeric_limits<double>::infinity();

std::string folded(std::string_view name) {
  std::string out(name);
  for (char& c : out) c = c == '_' || c == ' ' ? '-' : static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return out.substr(std::min(out.find_first_not_of('-'), out.size()));
}

// The number of insertions, deletions, replacements and swaps of neighbours that turn a into b.
size_t edit_distance(std::string_view a, std::string_view b) {
  std::vector<std::vector<size_t>> d(a.size() + 1, std::vector<size_t>(b.size() + 1));
  for (size_t i = 0; i <= a.size(); ++i) d[i][0] = i;
  for (size_t j = 0; j <= b.size(); ++j) d[0][j] = j;
  for (size_t i = 1; i <= a.size(); ++i)
    for (size_t j = 1; j <= b.size(); ++j) {
      d[i][j] = std::min({d[i - 1][j] + 1, d[i][j - 1] + 1, d[i - 1][j - 1] + (a[i - 1] != b[j - 1] ? 1 : 0)});
      if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
        d[i][j] = std::min(d[i][j], d[i - 2][j - 2] + 1);
    }
  return d[a.size()][b.size()];
}

std::vector<std::string> words_of(std::string_view name) {
  std::vector<std::string> words(1);
  for (const char c : name) {
    if (c != '-')
      words.back() += c;
    else if (!words.back().empty())
      words.emplace_back();
  }
  if (words.back().empty()) words.pop_back();
  return words;
}

bool contains_all(const std::vector<std::string>& words, const std::vector<std::string>& some) {
  return std::ranges::all_of(
      some, [&](const std::string& word) { return word.size() > 2 && std::ranges::find(words, word) != words.end(); });
}

// attn: attention, and the other way round. The first letter is the same and the others follow in order; at least
// three.
bool abbreviates(const std::string& typed, const std::string& name) {
  if (typed.size() < 3 || name.empty() || typed[0] != name[0]) return false;
  size_t at = 0;
  for (const char c : name) at += at < typed.size() && typed[at] == c ? 1 : 0;
  return at == typed.size();
}

// 0: the same name; kFar: another one.
double cost(const std::string& typed, const std::string& name) {
  const size_t distance = edit_distance(typed, name), longer = std::max(typed.size(), name.size());
  double best = distance <= (longer + 1) / 3 && distance < longer ? static_cast<double>(distance) : kFar;
  if (typed.size() < 2) return best;
  const std::vector<std::string> typed_words = words_of(typed), words = words_of(name);
  std::string initials;
  for (const std::string& word : words) initials += word[0];
  for (size_t dash = name.find('-'); dash != std::string::npos; dash = name.find('-', dash + 1)) {  // copa: coca-slack
    const size_t first = edit_distance(typed, name.substr(0, dash));
    if (dash > 2 && first <= (std::max(typed.size(), dash) + 1) / 3)
      best = std::min(best, 1.5 + static_cast<double>(first));
  }
  if (abbreviates(typed, name) || abbreviates(name, typed)) best = std::min(best, 2.5);
  if (name.starts_with(typed) || initials == typed) best = std::min(best, 1.5);
  if (contains_all(words, typed_words) || contains_all(typed_words, words)) {
    const auto [less, more] = std::minmax(words.size(), typed_words.size());
    best = std::min(best, 2.0 + 0.5 * static_cast<double>(more - less));
  }
  return best;
}

}  // namespace

std::vector<std::string> nearest_names(std::string_view typed, std::span<const std::string> known) {
  double least = kFar;
  std::vector<std::string> names;
  for (const std::string& name : known) {
    const double c = cost(folded(typed), folded(name));
    if (c == kFar || c > least || std::ranges::find(names, name) != names.end()) continue;
    if (c < least) names.clear();
    least = c;
    names.push_back(name);
  }
  std::ranges::stable_sort(names, {}, &std::string::size);
  if (names.size() > 3) names.resize(3);
  return names;
}

std::string did_you_mean(std::string_view typed, std::span<const std::string> known) {
  return did_you_mean(nearest_names(typed, known));
}

std::string did_you_mean(const std::vector<std::string>& names) {
  std::string text;
  for (size_t i = 0; i < names.size(); ++i) text += (i == 0 ? "" : i + 1 < names.size() ? ", " : " or ") + names[i];
  return text.empty() ? "" : "; did you mean " + text + "?";
}

}  // namespace coca
