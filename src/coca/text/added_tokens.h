// coca/text/added_tokens.h - tokens that are found in a text by their spelling, before the model encodes the rest.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "coca/text/json_field.h"
#include "coca/text/tokenizer.h"

namespace coca::text {

struct AddedToken {
  int32_t id = 0;
  std::string content;
  std::string spelling;  // in the text to search, which may be normalized; the token decodes to this
  bool single_word = false, lstrip = false, rstrip = false, normalized = true, special = false;
};
AddedToken read_added_token(const JsonField& field);

// Finds the leftmost, then longest, of many strings.
class TokenMatcher {
 public:
  // `spelling[i]` is how tokens[i] is written in the texts to search. The tokens must outlive the matcher.
  TokenMatcher() = default;
  TokenMatcher(std::vector<const AddedToken*> tokens, const std::vector<std::string>& spelling);

  bool empty() const { return tokens_.empty(); }
  // Calls visit(text, id) for the parts of a valid text in order; id is -1 for text between tokens. Parts without a
  // token are not empty.
  template <typename Visit>
  void split(std::string_view text, SpecialTokens special, const Visit& visit) const {
    size_t begin = 0;
    for (size_t at = 0; !tokens_.empty();) {
      const Found found = find(text, at);
      if (found.token == nullptr) break;
      at = found.end;
      size_t first = found.begin, last = found.end;
      if (!accept(*found.token, text, begin, special, first, last) || first >= last) continue;
      if (begin < first) visit(text.substr(begin, first - begin), -1);
      visit(text.substr(first, last - first), found.token->id);
      begin = last;
    }
    if (begin < text.size()) visit(text.substr(begin), -1);
  }

 private:
  struct Found {
    size_t begin = 0, end = 0;
    const AddedToken* token = nullptr;
  };
  struct Node {
    const AddedToken* token = nullptr;
    uint32_t first_edge = 0, edges = 0;  // in edges_, sorted by byte
  };
  struct Edge {
    unsigned char byte;
    uint32_t node;
  };
  Found find(std::string_view text, size_t from) const;
  const Node* step(const Node& node, char byte) const;
  // Whether a match counts, and how far it extends over blanks. `begin`: where the part before it begins. first >=
  // last: the token before it took these blanks.
  static bool accept(const AddedToken& token, std::string_view text, size_t begin, SpecialTokens special, size_t& first,
                     size_t& last);

  std::vector<const AddedToken*> tokens_;
  std::vector<Node> nodes_;
  std::vector<Edge> edges_;
  bool starts_[256] = {};
};

}  // namespace coca::text
