// coca/text/added_tokens.cc - see added_tokens.h.
// SPDX-License-Identifier: Apache-2.0
#include "coca/text/added_tokens.h"

#include <algorithm>
#include <numeric>

#include "coca/base/error.h"
#include "coca/text/regex.h"
#include "coca/text/unicode.h"

namespace coca::text {

namespace {

bool is_word(std::string_view character) {
  static const Regex word(R"([\w\x{200c}\x{200d}])", "added_tokens");
  bool found = false;
  word.find_all(character, [&](size_t, size_t) { found = true; });
  return found;
}

std::string_view last_character(std::string_view text) {
  size_t at = text.size() - 1;
  while ((static_cast<unsigned char>(text[at]) & 0xc0) == 0x80) --at;
  return text.substr(at);
}

}  // namespace

AddedToken read_added_token(const JsonField& field) {
  field.only({"id", "content", "single_word", "lstrip", "rstrip", "normalized", "special"});
  AddedToken token;
  const JsonField id = field.at("id");
  if (id.integer() < 0 || id.integer() > INT32_MAX) id.refuse(fmt::format("0 to {}", INT32_MAX));
  token.id = static_cast<int32_t>(id.integer());
  token.content = field.at("content").string();
  token.special = field.flag("special", false);
  token.single_word = field.flag("single_word", false);
  token.lstrip = field.flag("lstrip", false);
  token.rstrip = field.flag("rstrip", false);
  token.normalized = field.flag("normalized", true);
  return token;
}

TokenMatcher::TokenMatcher(std::vector<const AddedToken*> tokens, const std::vector<std::string>& spelling)
    : tokens_(std::move(tokens)) {
  // Sorted, the spellings below a node are neighbours; nodes are made breadth first. Of equal ones the first counts.
  std::vector<size_t> order(tokens_.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::erase_if(order, [&](size_t i) { return spelling[i].empty(); });
  std::ranges::stable_sort(order, [&](size_t a, size_t b) { return spelling[a] < spelling[b]; });
  struct Range {
    size_t begin, end, depth;
  };
  std::vector<Range> ranges = {{0, order.size(), 0}};
  nodes_.emplace_back();
  for (size_t n = 0; n < ranges.size(); ++n) {
    auto [at, end, depth] = ranges[n];
    const auto text = [&](size_t i) -> const std::string& { return spelling[order[i]]; };
    if (at < end && text(at).size() == depth) nodes_[n].token = tokens_[order[at]];
    while (at < end && text(at).size() == depth) ++at;
    nodes_[n].first_edge = static_cast<uint32_t>(edges_.size());
    while (at < end) {
      const char byte = text(at)[depth];
      size_t next = at;
      while (next < end && text(next)[depth] == byte) ++next;
      edges_.push_back({static_cast<unsigned char>(byte), static_cast<uint32_t>(ranges.size())});
      ranges.push_back({at, next, depth + 1});
      nodes_.emplace_back();
      ++nodes_[n].edges;
      at = next;
    }
  }
  for (uint32_t e = 0; e < nodes_[0].edges; ++e) starts_[edges_[e].byte] = true;
}

const TokenMatcher::Node* TokenMatcher::step(const Node& node, char byte) const {
  const Edge* begin = edges_.data() + node.first_edge;
  const Edge* end = begin + node.edges;
  const auto wanted = static_cast<unsigned char>(byte);
  const Edge* edge = std::lower_bound(begin, end, wanted, [](const Edge& e, unsigned char b) { return e.byte < b; });
  return edge != end && edge->byte == wanted ? &nodes_[edge->node] : nullptr;
}

TokenMatcher::Found TokenMatcher::find(std::string_view text, size_t from) const {
  for (size_t begin = from; begin < text.size(); ++begin) {
    if (!starts_[static_cast<unsigned char>(text[begin])]) continue;
    Found found;
    const Node* node = nodes_.data();
    for (size_t at = begin; at < text.size(); ++at) {
      node = step(*node, text[at]);
      if (node == nullptr) break;
      if (node->token != nullptr) found = {begin, at + 1, node->token};
    }
    if (found.token != nullptr) return found;
  }
  return {};
}

bool TokenMatcher::accept(const AddedToken& token, std::string_view text, size_t begin, SpecialTokens special,
                          size_t& first, size_t& last) {
  if (token.special && special == SpecialTokens::kAsText) return false;
  if (token.single_word) {
    if (first > 0 && is_word(last_character(text.substr(0, first)))) return false;
    if (last < text.size() && is_word(text.substr(last, read_utf8(text.data() + last).length))) return false;
  }
  if (token.lstrip) first = std::max(first, begin);
  while (token.lstrip && first > begin) {
    const std::string_view before = last_character(text.substr(0, first));
    if (!is_space(read_utf8(before.data()).value)) break;
    first -= before.size();
  }
  while (token.rstrip && last < text.size()) {
    const CodePoint c = read_utf8(text.data() + last);
    if (!is_space(c.value)) break;
    last += c.length;
  }
  return true;
}

}  // namespace coca::text
