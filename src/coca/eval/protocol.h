// coca/eval/protocol.h - rules that all evaluations share: the begin-of-sequence token, the check that
// tokenizer and model belong together, and the bytes and words of a token. See docs/evaluation.md.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "coca/base/enum_names.h"
#include "coca/base/error.h"
#include "coca/base/suggest.h"
#include "coca/model/spec.h"
#include "coca/text/tokenizer.h"

namespace coca::eval {

// Whether windows and prompts begin with the model's bos token; it takes one place of the length.
enum class Bos : uint8_t {
  kAuto,  // when config.json names one
  kNever,
  kAlways,  // Error when config.json names none
};
std::optional<int32_t> bos_token(const model::ModelSpec&, Bos);

// The lengths measured if none are given: the trained length times 1, 2, 4 and 8. If a prompt does not fit into the
// trained length, they begin at the first of its doublings into which one fits (as far as 32,768).
std::vector<int64_t> default_lengths(int64_t trained, const std::function<bool(int64_t)>& fits = {});

// Which part of a document is kept when only some of its tokens are used.
enum class Cut : uint8_t {
  kMiddle,  // prose, where the beginning may be a title page and a list of contents
  kStart,   // as published scripts cut
};
// Where the `most` tokens begin that are kept of N; 0 if all are kept (most is 0, or at least N).
int64_t cut_begin(int64_t N, int64_t most, Cut);

// The spec with its position scaling replaced, when one is given. Error for a factor below 1.
model::ModelSpec with_scaling(const model::ModelSpec&, const std::optional<model::RopeScaling>&);

// Error unless every id of the tokenizer has a row in the model's embedding.
void check_tokenizer(const text::Tokenizer&, const model::ModelSpec&);

// The sizes of the text of an id; control ids have no text. White space is that of ASCII.
struct IdText {
  int32_t bytes = 0;
  int32_t words = 0;  // words that begin in it if white space precedes it
  bool begins_in_word = false, ends_in_word = false;
};
std::vector<IdText> text_of_ids(const text::Tokenizer&);

// The sizes of ids [first, end). Words are counted where they begin, so the sum over a text is its number of words.
struct TextSize {
  int64_t bytes = 0, words = 0;
};
TextSize text_size(std::span<const IdText>, std::span<const int32_t> ids, int64_t first, int64_t end);

// Tables of published protocols (perplexity_protocol.h, passkey_protocol.h): their names, "a, b, ...", and the entry of
// one.
template <typename Named>
std::string names_of(const std::vector<Named>& table) {
  std::string names;
  for (const Named& entry : table) names += (names.empty() ? "" : ", ") + std::string(entry.name);
  return names;
}
template <typename Named>
const Named& entry_of(const std::vector<Named>& table, std::string_view what, std::string_view name) {
  for (const Named& entry : table)
    if (entry.name == name) return entry;
  std::vector<std::string> names;
  for (const Named& entry : table) names.emplace_back(entry.name);
  fail(ErrorKind::kInvalidArgument, "{} is \"{}\"; expected one of {}{}", what, name, names_of(table),
       did_you_mean(name, names));
}

}  // namespace coca::eval

COCA_ENUM_NAMES(coca::eval::Bos, "bos", {coca::eval::Bos::kAuto, "auto"}, {coca::eval::Bos::kNever, "never"},
                {coca::eval::Bos::kAlways, "always"})
COCA_ENUM_NAMES(coca::eval::Cut, "cut", {coca::eval::Cut::kMiddle, "middle"}, {coca::eval::Cut::kStart, "start"})
