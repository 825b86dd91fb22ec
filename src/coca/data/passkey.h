// coca/data/passkey.h - prompts for passkey retrieval: a number hidden in garbage, asked for at the end.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "coca/base/enum_names.h"
#include "coca/base/rng.h"
#include "coca/base/sizes.h"
#include "coca/text/tokenizer.h"

namespace coca::data {

enum class PasskeyWording {
  kLandmark,    // Mohtashami and Jaggi 2023, used by most papers since
  kCoca,        // the CoCA paper's, its spelling kept
  kCompact,     // a few dozen bytes, for tiny byte-level models
  kLmInfinite,  // LM-Infinite's: all in one line, and a blank after the question
};

// What the length of a prompt means, and the units of its garbage.
enum class PasskeyLength : uint8_t {
  kTokens,         // the most tokens of bos, prompt and answer; characters of garbage
  kGrown,          // YaRN: garbage grows by 128 characters while bos and prompt stay below this many tokens
  kCharacters,     // landmark: the number of characters of garbage
  kCharacters365,  // LongRoPE: floor(3.65 length) characters
  kCharacters375,  // LongLoRA: floor(3.75 length) characters, rounded down to whole 1024
  kUnits,          // PoSE: floor((length - 69) / 25) whole units of garbage, nothing between them
  kSentences,      // LM-Infinite: as many whole units, with blanks between them, as fit by the tokenizer's count
};

struct PasskeyPrompt {
  std::string text;
  std::string answer;  // the right continuation, with its leading space: " 73914" (none if the prompt ends with one)
  int64_t key = 0;
  double depth = 0;  // share of the garbage before the key
};

struct KeyRange {
  int64_t least = 10000, most = 99999;  // both included
  bool operator==(const KeyRange&) const = default;
};
KeyRange keys_of_digits(int64_t digits);  // exactly this many decimal digits, without a leading zero

// The passkeys that a model was taught in training. Its folder has them as passkey.json.
struct PasskeyTask {
  PasskeyWording wording = PasskeyWording::kCompact;
  int64_t digits = 5;

  template <class V>
  void visit(V&& v) {
    v("wording", "wording of the prompts", wording);
    v("digits", "digits of the key", digits, Least{1});
  }
};
void save_passkey_task(const std::filesystem::path& model_dir, PasskeyTask);
// nullopt: the folder has no such file.
std::optional<PasskeyTask> load_passkey_task(const std::filesystem::path& model_dir);

// Garbage before and after the key, in characters or units.
struct PasskeyGarbage {
  PasskeyLength control = PasskeyLength::kCharacters;  // how a number becomes text
  int64_t before = 0, after = 0;
};
// The amount of garbage for a length, with any control but kTokens; `front` is the number of tokens before a
// prompt (bos), 0 or 1. Error if the length is too short.
int64_t passkey_garbage(PasskeyLength, PasskeyWording, int64_t length, int64_t front, const text::Tokenizer&);
// The prompt with exactly that garbage, cut anywhere, as the published scripts make it.
PasskeyPrompt passkey_prompt_of(PasskeyWording, const PasskeyGarbage&, int64_t key);

// The prompt with the most garbage such that encode(text + answer) has at most length_tokens ids. Garbage is
// cut to fit by characters. Error naming the least length when even the prompt without garbage does not fit.
PasskeyPrompt make_passkey_prompt(PasskeyWording wording, int64_t length_tokens, double depth,
                                  const text::Tokenizer& tokenizer, Rng& rng, const KeyRange& keys);
PasskeyPrompt make_passkey_prompt(PasskeyWording wording, int64_t length_tokens, double depth,
                                  const text::Tokenizer& tokenizer, Rng& rng, int64_t digits = 5);

enum class PasskeyWindow : uint8_t {
  kPrompt,    // one prompt as evaluated, at a random depth
  kRepeated,  // one key, stated and asked for repeatedly, with little garbage in between
  kDigits,    // a string of 3 to 20 digits, repeated
};

struct PasskeyWindowInfo {
  PasskeyWindow kind = PasskeyWindow::kPrompt;
  int64_t answer_start = 0;  // index of the last answer's first id; the answer ends the window. Not for kDigits
  int64_t key = 0;           // not for kDigits
  double depth = 0;          // kPrompt only
};

// Exactly `tokens` ids. A fifth of the windows are prompts like the evaluation's; two fifths each are repeated keys and
// repeated digits. In these, most tokens can be copied from earlier ones, which a small model has to learn first
// (docs/decisions/010).
std::vector<int32_t> passkey_training_window(PasskeyWording wording, int64_t tokens, const text::Tokenizer& tokenizer,
                                             Rng& rng, int64_t digits = 5, PasskeyWindowInfo* info = nullptr);

}  // namespace coca::data

COCA_ENUM_NAMES(coca::data::PasskeyWording, "passkey wording", {coca::data::PasskeyWording::kLandmark, "landmark"},
                {coca::data::PasskeyWording::kCoca, "coca"}, {coca::data::PasskeyWording::kCompact, "compact"},
                {coca::data::PasskeyWording::kLmInfinite, "lm-infinite"})
COCA_ENUM_NAMES(coca::data::PasskeyLength, "length control", {coca::data::PasskeyLength::kTokens, "tokens"},
                {coca::data::PasskeyLength::kGrown, "grown"}, {coca::data::PasskeyLength::kCharacters, "characters"},
                {coca::data::PasskeyLength::kCharacters365, "characters-3.65"},
                {coca::data::PasskeyLength::kCharacters375, "characters-3.75"},
                {coca::data::PasskeyLength::kUnits, "units"}, {coca::data::PasskeyLength::kSentences, "sentences"})
