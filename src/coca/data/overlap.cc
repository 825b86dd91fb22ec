// SPDX-License-Identifier: Apache-2.0
#include "coca/data/overlap.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <unordered_map>

#include "coca/base/count.h"
#include "coca/base/rng.h"
#include "coca/io/names.h"

namespace coca::data {

namespace {

constexpr std::string_view kWhiteSpace = " \t\r\n\f\v";
constexpr size_t kDigits = 16;

template <typename Take>  // take(hash, name)
void for_each_document(std::string_view list, const Take& take) {
  while (!list.empty()) {
    const std::string_view line = list.substr(0, list.find('\n'));
    list.remove_prefix(std::min(line.size() + 1, list.size()));
    uint64_t hash = 0;
    std::from_chars(line.data(), line.data() + std::min(kDigits, line.size()), hash, 16);
    if (hash != 0) take(hash, line.substr(std::min(kDigits + 1, line.size())));
  }
}

}  // namespace

uint64_t content_hash(std::string_view text) {
  uint64_t hash = 0xcbf29ce484222325ull, bytes = 0;  // FNV-1a, finalised with mix64
  const auto add = [&](char c) {
    hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3ull;
    ++bytes;
  };
  bool gap = false;
  for (const char c : text) {
    if (kWhiteSpace.find(c) != std::string_view::npos) {
      gap = true;
      continue;
    }
    if (gap && bytes > 0) add(' ');
    gap = false;
    add(c);
  }
  return bytes == 0 ? 0 : std::max<uint64_t>(1, mix64(hash ^ bytes));
}

std::string document_line(std::string_view name, std::string_view text) {
  std::string shown = io::shown_name(name);
  std::ranges::replace(shown, '\n', ' ');
  return fmt::format("{:016x} {}\n", content_hash(text), shown);
}

Overlap find_overlap(std::string_view training, std::string_view evaluation) {
  std::unordered_map<uint64_t, std::string_view> found;  // name in the training text, by content
  for_each_document(evaluation, [&](uint64_t hash, std::string_view) { found.try_emplace(hash); });
  for_each_document(training, [&](uint64_t hash, std::string_view name) {
    const auto document = found.find(hash);
    if (document != found.end() && document->second.empty()) document->second = name;
  });
  Overlap overlap;
  std::string_view last;  // found, to count it once
  for_each_document(evaluation, [&](uint64_t hash, std::string_view name) {
    const std::string_view same = found[hash];
    if (same.empty() || name == last) return;
    last = name;
    if (++overlap.documents <= static_cast<int64_t>(kMaxOverlapNames))
      overlap.pairs.push_back({std::string(same), std::string(name)});
  });
  return overlap;
}

std::vector<std::string> overlap_sentences(const Overlap& overlap, std::string_view evaluation) {
  std::vector<std::string> sentences;
  for (const Overlap::Pair& pair : overlap.pairs)
    sentences.push_back(
        fmt::format("{} (training) and {} ({}) are the same document", pair.training, pair.evaluation, evaluation));
  const int64_t more = overlap.documents - static_cast<int64_t>(overlap.pairs.size());
  if (more > 0)
    sentences.push_back(fmt::format("{} of the {} text {} in the training text", counted(more, "more document"),
                                    evaluation, more == 1 ? "is" : "are"));
  return sentences;
}

}  // namespace coca::data
