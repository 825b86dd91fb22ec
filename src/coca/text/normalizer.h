// coca/text/normalizer.h - the "normalizer" of a tokenizer.json: changes to a text before it is cut into words.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "coca/text/json_field.h"
#include "coca/text/regex.h"
#include "coca/text/unicode.h"

namespace coca::text {

class Normalizer {
 public:
  Normalizer() = default;                       // changes nothing
  explicit Normalizer(const JsonField& field);  // null, or one of those in docs/tokenizers.md

  bool empty() const { return steps_.empty(); }
  struct Normalized {
    std::string text;
    bool from_start = true;  // false: characters were taken away at the start
  };
  Normalized apply(std::string_view valid) const;
  // Whether each U+FFFD of a text is found again, in order, in the result.
  bool keeps_replacement_characters() const;

 private:
  enum class Kind { kForm, kLower, kAccents, kStrip, kReplace, kReplaceRegex, kPrepend };
  struct Step {
    Kind kind;
    NormalForm form = NormalForm::kNfc;
    bool left = false, right = false;
    std::string from, to;
    std::shared_ptr<const Regex> regex;
  };
  void add(const JsonField& field);
  void add_replace(const JsonField& field);
  static void run(const Step& step, size_t most, Normalized& out);

  std::vector<Step> steps_;
};

}  // namespace coca::text
