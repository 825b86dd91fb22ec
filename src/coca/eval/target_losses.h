// coca/eval/target_losses.h - what the losses of single targets say beyond their mean: by position in the window, and
// over key tokens. perplexity.h fills these in. docs/evaluation.md.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cmath>
#include <cstdint>
#include <map>
#include <optional>
#include <vector>

#include "coca/eval/interval.h"

namespace coca::eval {

// The first values of ranges of a target's context, the tokens before it in its window: 1, 2, 3, 4, 6, 8, 12, 16, ...,
// two an octave, up to `most`. The last value is most + 1, the end of the last range.
std::vector<int64_t> context_bounds(int64_t most);

// Over the targets with from..to tokens of context, whether the protocol scores them or not.
struct PositionLoss {
  int64_t from = 0, to = 0;
  GroupedMean loss;  // of the nll, with its interval over documents
};

// The losses of a window's scored targets.
struct WindowLosses {
  int64_t document = 0;      // index among those given; of joined texts the first
  int64_t first_target = 0;  // in the text, a leading bos not counted
  std::vector<double> nll;
};

// Tokens of the texts, a leading bos not counted.
struct KeyTokens {
  std::map<int64_t, std::vector<bool>> of_document;  // by WindowLosses::document; may end early
  int64_t compared = 0, found = 0;

  bool holds(int64_t document, int64_t token) const {
    const auto of = of_document.find(document);
    return of != of_document.end() && token < static_cast<int64_t>(of->second.size()) &&
           of->second[static_cast<size_t>(token)];
  }
};

// LongPPL: over the scored targets that are key tokens.
struct KeyLoss {
  GroupedMean loss;  // of the nll, with its interval over documents
  double share = 0;  // of the scored targets
  // Empty without key tokens.
  std::optional<double> perplexity() const {
    return loss.items > 0 ? std::optional(std::exp(loss.mean)) : std::nullopt;
  }
};

}  // namespace coca::eval
