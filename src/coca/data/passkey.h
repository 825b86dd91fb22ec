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

struct PasskeyWindowInfo {
  int64_t answer_start = 0;  // index of the answer's first id; the answer ends the window
  int64_t key = 0;
  double depth = 0;
};

// Exactly `tokens` ids that end in a prompt with its answer at a random depth. Half of the windows are that one
// prompt; the others have a shorter one, and in front of it as many more, each with its own key and answer, as fit.
// What is left in front is garbage.
std::vector<int32_t> passkey_training_window(PasskeyWording wording, int64_t tokens,
                                             const text::Tokenizer& tokenizer, Rng& rng, int64_t digits = 5,
                                             PasskeyWindowInfo* info = nullptr);

}  // namespace coca::data

COCA_ENUM_NAMES(coca::data::PasskeyWording, "passkey wording",
                {coca::data::PasskeyWording::kLandmark, "landmark"},
                {coca::data::PasskeyWording::kCoca, "coca"},
                {coca::data::PasskeyWording::kCompact, "compact"})
