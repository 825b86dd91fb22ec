// coca/text/pre_tokenizer.h - the "pre_tokenizer" of a tokenizer.json: a text cut into the words that the model
// encodes one by one.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "coca/text/json_field.h"
#include "coca/text/regex.h"
#include "coca/text/scanner.h"

namespace coca::text {

class PreTokenizer {
 public:
  PreTokenizer() = default;  // the text is one word
  // null, or ByteLevel Split Digits Punctuation Whitespace WhitespaceSplit Metaspace Sequence.
  explicit PreTokenizer(const JsonField& field);

  // Whether words are read as bytes: the vocabulary's letters represent bytes (ByteLevel).
  bool byte_level() const { return byte_level_; }
  bool keeps_all() const;  // no character is ever dropped
  // Metaspace "first" after a step that cuts needs the place of each piece in the text before the normalizer.
  bool needs_origins() const;

  enum class Position { kTextStart, kWithin };
  // Calls visit(word) in order; words are not empty and valid UTF-8, but behind steps on ByteLevel's letters, which may
  // cut within a character. `position` says whether the text begins where the whole input does.
  template <typename Visit>
  void for_each_word(std::string_view valid, Position position, const Visit& visit) const {
    if (steps_.empty()) {
      if (!valid.empty()) visit(valid);
    } else if (only_scanner_) {
      for (size_t at = 0; at < valid.size();) {
        const size_t end = only_scanner_(valid, at);
        visit(valid.substr(at, end - at));
        at = end;
      }
    } else {
      Pieces pieces{std::string(valid), {{0, valid.size()}}};
      run(pieces, position);
      for (const Span& span : pieces.spans) {
        const std::string_view word = std::string_view(pieces.text).substr(span.begin, span.size);
        visit(letters_ ? std::string_view(bytes_of(word)) : word);
      }
    }
  }

 private:
  struct Span {
    size_t begin, size;
  };
  struct Pieces {
    std::string text;
    std::vector<Span> spans;  // in order, none empty but perhaps the first of an empty text
  };
  enum class Kind { kRegex, kScanner, kText, kCharacters, kPrefixSpace, kMetaspace, kLetters };
  enum class Behavior { kRemoved, kIsolated, kMergedWithPrevious, kMergedWithNext, kContiguous };
  enum class Scheme { kNever, kFirst, kAlways };
  struct Step {
    Kind kind;
    Behavior behavior = Behavior::kIsolated;
    bool invert = false;
    std::string text;  // kText: the delimiter; kMetaspace: the replacement
    bool (*character)(uint32_t) = nullptr;
    Scanner scanner = nullptr;
    std::shared_ptr<const Regex> regex;
    Scheme scheme = Scheme::kAlways;
  };
  struct Match {
    size_t begin, end;
    bool is_match;
  };

  void add(const JsonField& field);
  void add_split(const JsonField& field);
  void add_pattern(std::string_view pattern, const std::string& origin, Step step);
  void add_byte_level(const JsonField& field);
  void add_metaspace(const JsonField& field);
  static Behavior behavior_of(const JsonField& field);
  void run(Pieces& pieces, Position position) const;
  static void split(const Step& step, Pieces& pieces);
  static void find(const Step& step, std::string_view text, std::vector<Match>& out);
  static void cut(const Step& step, std::vector<Match>& matches, size_t base, std::vector<Span>& out);
  static void metaspace(const Step& step, Pieces& pieces, Position position);
  static void prefix_space(Pieces& pieces);
  static void to_letters(Pieces& pieces);
  static std::string bytes_of(std::string_view letters);

  std::vector<Step> steps_;
  bool letters_ = false;  // some steps stand behind ByteLevel and see its letters
  bool byte_level_ = false;
  Scanner only_scanner_ = nullptr;
};

}  // namespace coca::text
