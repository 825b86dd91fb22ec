// coca/eval/recall.h - whether a model copies a name from far back: names of the text itself that occur a second time,
// by the distance from their first occurrence. docs/evaluation.md.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "coca/base/enum_names.h"
#include "coca/dist/communicator.h"
#include "coca/eval/interval.h"
#include "coca/eval/protocol.h"
#include "coca/model/params.h"
#include "coca/tensor/context.h"

namespace coca::eval {

// Words are runs of ASCII letters and bytes from 0x80 on, three bytes or longer, that fill whole tokens.
enum class RecallWords : uint8_t {
  kNames,  // begin with a capital, and the document never has them in small letters
  kRare,   // any that the document has two or three times
};
// What the model is told of the name.
enum class RecallGiven : uint8_t {
  kFirst,    // its first token; names of one token are left out
  kNothing,  // the first token has to be predicted too
};

struct RecallOptions {
  std::vector<int64_t> lengths;  // of windows, each at least 8: see RecallResult
  int64_t pairs = 100;           // windows of each length, at most; spread evenly over all there are
  int64_t lead = 16;             // tokens before the first occurrence, at most
  RecallWords words = RecallWords::kNames;
  RecallGiven given = RecallGiven::kFirst;
  Bos bos = Bos::kAuto;
  std::optional<model::RopeScaling> scaling;                                  // instead of the spec's
  std::function<void(int64_t length, int64_t done, int64_t total)> progress;  // windows, over all lengths; may be empty
  dist::Communicator& ranks = dist::alone();  // who share the windows; all get the same results
};

// Two occurrences of one word with the same tokens, and none between them. Indices count the document's tokens.
struct RecallPair {
  int64_t document = 0;
  int64_t begin = 0;              // of the window; it ends with the second occurrence
  int64_t first = 0, second = 0;  // first tokens of the word
  int64_t tokens = 0;             // of the word

  int64_t end() const { return second + tokens; }
  int64_t distance() const { return second - first; }
};
// All of the documents, in their order. `front`: 1 if a bos leads each window. The window holds no occurrence before
// the first, and at least one token before it, bos included.
std::vector<RecallPair> find_pairs(const text::Tokenizer&, std::span<const std::vector<int32_t>> documents,
                                   const RecallOptions&, int64_t front);

// Of the occurrences of one kind. All NaN where a logit is NaN or infinite.
struct RecallScore {
  double accuracy = 0;  // share of the names all of whose tokens have the largest logit, given the right ones before
  Interval interval;    // Wilson's
  GroupedMean nll;      // per token, with its interval over documents; items are tokens
};
struct RecallResult {
  int64_t length = 0;                             // its windows, bos included, have at most so many tokens, and more
                                                  // than half of them
  int64_t found = 0, planned = 0, pairs = 0;      // in the text; wanted of these; done
  int64_t least_distance = 0, most_distance = 0;  // of those done, in tokens
  RecallScore first, second;                      // where nothing in the window says the name; after its first
  GroupedMean gain;  // nll of the first less that of the second, per token, with its interval over documents
  double seconds = 0;
};

// One result per length that has a pair; after an error those done so far. Error if no length has one.
void recall(Context&, const model::ModelSpec&, const model::Weights&, const text::Tokenizer&,
            std::span<const std::vector<int32_t>> documents, const RecallOptions&, std::vector<RecallResult>& results);
// The counts of what it would run, with its errors, before any weights.
std::vector<RecallResult> plan_recall(const model::ModelSpec&, const text::Tokenizer&,
                                      std::span<const std::vector<int32_t>> documents, const RecallOptions&);

}  // namespace coca::eval

COCA_ENUM_NAMES(coca::eval::RecallWords, "words", {coca::eval::RecallWords::kNames, "names"},
                {coca::eval::RecallWords::kRare, "rare"})
COCA_ENUM_NAMES(coca::eval::RecallGiven, "given", {coca::eval::RecallGiven::kFirst, "first"},
                {coca::eval::RecallGiven::kNothing, "nothing"})
