// coca/data/passkey.h - prompts for passkey retrieval: a number hidden in garbage, asked for at the end.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "coca/base/enum_names.h"
#include "coca/base/rng.h"
#include "coca/text/tokenizer.h"

namespace coca::data {

enum class PasskeyWording {
  kLandmark,  // Mohtashami and Jaggi 2023, used by most papers since
  kCoca,      // the CoCA paper's, its spelling kept
  kCompact,   // a few dozen bytes, for tiny byte-level models
};

struct PasskeyPrompt {
  std::string text;
  std::string answer;  // what must follow, with its leading space: " 73914"
  int64_t key = 0;     // exactly `digits` decimal digits, none leading zero
  double depth = 0;    // share of the garbage in front of the key
};

// The prompt with the most garbage such that encode(text + answer) has at most length_tokens ids. Garbage is
// cut to fit by characters. Error naming the least length when even the prompt without garbage does not fit.
PasskeyPrompt make_passkey_prompt(PasskeyWording wording, int64_t length_tokens, double depth,
                                  const text::Tokenizer& tokenizer, Rng& rng, int64_t digits = 5);

enum class PasskeyWindow : uint8_t {
  kPrompt,    // one prompt as evaluated, at a random depth
  kRepeated,  // one key, said and asked for again and again, little garbage between
  kDigits,    // a string of 3 to 20 digits, over and over
};

struct PasskeyWindowInfo {
  PasskeyWindow kind = PasskeyWindow::kPrompt;
  int64_t answer_start = 0;  // index of the last answer's first id; the answer ends the window. Not for kDigits
  int64_t key = 0;           // not for kDigits
  double depth = 0;          // kPrompt only
};

// Exactly `tokens` ids. A fifth of the windows are prompts as the evaluation's, two fifths each repeated keys and
// repeated digits: in these most tokens can be copied from further up, which is what a small model has to learn first
// (docs/decisions/010).
std::vector<int32_t> passkey_training_window(PasskeyWording wording, int64_t tokens,
                                             const text::Tokenizer& tokenizer, Rng& rng, int64_t digits = 5,
                                             PasskeyWindowInfo* info = nullptr);

}  // namespace coca::data

COCA_ENUM_NAMES(coca::data::PasskeyWording, "passkey wording",
                {coca::data::PasskeyWording::kLandmark, "landmark"},
                {coca::data::PasskeyWording::kCoca, "coca"},
                {coca::data::PasskeyWording::kCompact, "compact"})
