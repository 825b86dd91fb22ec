// coca/data/passkey.cc - see passkey.h. Texts: Mohtashami and Jaggi 2023 (landmark attention, run_test.py);
// CoCA paper.
// SPDX-License-Identifier: Apache-2.0
#include "coca/data/passkey.h"

#include <algorithm>
#include <cmath>

#include "coca/base/error.h"

namespace coca::data {

namespace {

constexpr std::string_view kIntro =
    "There is an important info hidden inside a lot of irrelevant text. Find it and memorize them. I will "
    "quiz you "
    "about the important information there.";
constexpr std::string_view kGarbage =
    "The grass is green. The sky is blue. The sun is yellow. Here we go. There and back again. ";
constexpr std::string_view kShortGarbage = "The grass is green. The sky is blue. ";

struct Parts {
  std::string_view intro, garbage;
  std::string key, question;
};

Parts parts_of(PasskeyWording wording, int64_t key) {
  switch (wording) {
    case PasskeyWording::kLandmark:
      return {kIntro, kGarbage, fmt::format("The pass key is {}. Remember it. {} is the pass key.", key, key),
              "What is the pass key? The pass key is"};
    case PasskeyWording::kCoca:
      return {kIntro, kGarbage, fmt::format("The passkey is {}. Remeber it. {} is the passkey.", key, key),
              "What is the passkey?"};
    case PasskeyWording::kCompact:
      break;
  }
  return {"", kShortGarbage, fmt::format("The pass key is {}.", key), "The pass key is"};
}

// The first `chars` characters (they are ASCII) of the garbage repeated without end, without a blank at the
// end.
std::string garbage_text(std::string_view unit, int64_t chars) {
  std::string text;
  text.reserve(static_cast<size_t>(chars));
  while (static_cast<int64_t>(text.size()) < chars)
    text += unit.substr(0, static_cast<size_t>(chars) - text.size());
  while (!text.empty() && text.back() == ' ') text.pop_back();
  return text;
}

std::string prompt_text(const Parts& parts, int64_t garbage_chars, double depth) {
  const int64_t before = std::llround(depth * static_cast<double>(garbage_chars));
  std::string text;
  // Compact prompts leave out empty lines; the published wordings keep their five.
  const auto add = [&](std::string_view line) {
    if (parts.intro.empty() && line.empty()) return;
    if (!text.empty()) text += '\n';
    text += line;
  };
  if (!parts.intro.empty()) add(parts.intro);
  add(garbage_text(parts.garbage, before));
  add(parts.key);
  add(garbage_text(parts.garbage, garbage_chars - before));
  add(parts.question);
  return text;
}

int64_t random_key(Rng& rng, int64_t digits) {
  COCA_CHECK(digits >= 1 && digits <= 18, "passkey of {} digits; expected 1 to 18", digits);
  int64_t low = 1;
  for (int64_t i = 1; i < digits; ++i) low *= 10;
  return low + static_cast<int64_t>(rng.below(static_cast<uint64_t>(9 * low)));
}

// The largest number of garbage characters whose prompt fits. Tokens grow with characters, but not one by
// one, so the search is: bracket around an estimate, halve, then look a little further.
class GarbageSearch {
 public:
  GarbageSearch(const Parts& parts, const std::string& answer, int64_t length, double depth,
                const text::Tokenizer& tokenizer)
      : parts_(parts), answer_(answer), length_(length), depth_(depth), tokenizer_(tokenizer) {}

  int64_t run() const {
    const int64_t least = tokens(0);
    COCA_CHECK(least <= length_, "passkey prompt of {} tokens: even without garbage it takes {}", length_,
               least);
    const int64_t sample = 16 * static_cast<int64_t>(parts_.garbage.size());
    const double chars_per_token =
        static_cast<double>(sample) / static_cast<double>(std::max<int64_t>(1, tokens(sample) - least));
    int64_t guess = 0, used = least;
    for (int round = 0; round < 2; ++round) {  // the second corrects the first by what it measured
      const double correction = static_cast<double>(length_ - used) * chars_per_token;
      guess = std::max<int64_t>(0, guess + static_cast<int64_t>(correction));
      used = tokens(guess);
    }
    int64_t step = 4, low = std::max<int64_t>(0, guess - step), high = guess + step;
    while (low > 0 && !fits(low)) {
      high = low;
      low = std::max<int64_t>(0, low - (step *= 2));
    }
    while (fits(high)) {
      low = high;
      high += (step *= 2);
    }
    while (high - low > 1) {
      const int64_t middle = low + (high - low) / 2;
      (fits(middle) ? low : high) = middle;
    }
    constexpr int64_t kLookAhead = 4;  // a longer text can have fewer tokens: "gree" and "green"
    for (int64_t chars = low + kLookAhead; chars > low + 1; --chars)
      if (fits(chars)) return chars;
    return low;
  }

 private:
  int64_t tokens(int64_t chars) const {
    return static_cast<int64_t>(tokenizer_.encode(prompt_text(parts_, chars, depth_) + answer_).size());
  }
  bool fits(int64_t chars) const { return tokens(chars) <= length_; }

  const Parts& parts_;
  const std::string& answer_;
  int64_t length_;
  double depth_;
  const text::Tokenizer& tokenizer_;
};

}  // namespace

PasskeyPrompt make_passkey_prompt(PasskeyWording wording, int64_t length_tokens, double depth,
                                  const text::Tokenizer& tokenizer, Rng& rng, int64_t digits) {
  COCA_CHECK(depth >= 0.0 && depth <= 1.0, "passkey depth is {}; expected 0 to 1", depth);
  PasskeyPrompt prompt{.key = random_key(rng, digits), .depth = depth};
  prompt.answer = fmt::format(" {}", prompt.key);
  const Parts parts = parts_of(wording, prompt.key);
  const int64_t chars = GarbageSearch(parts, prompt.answer, length_tokens, depth, tokenizer).run();
  prompt.text = prompt_text(parts, chars, depth);
  return prompt;
}

namespace {

struct TrainingPrompt {
  std::vector<int32_t> ids;  // prompt and answer
  PasskeyWindowInfo info;    // answer_start within ids
};

TrainingPrompt training_prompt(PasskeyWording wording, int64_t most_tokens, const text::Tokenizer& tokenizer,
                               Rng& rng, int64_t digits) {
  TrainingPrompt out;
  out.info.depth = rng.uniform();
  const PasskeyPrompt prompt =
      make_passkey_prompt(wording, most_tokens, out.info.depth, tokenizer, rng, digits);
  out.info.key = prompt.key;
  out.ids = tokenizer.encode(prompt.text + prompt.answer);
  // The prompt alone may end in other ids than the prompt with its answer: the answer begins where they part.
  const std::vector<int32_t> question = tokenizer.encode(prompt.text);
  out.info.answer_start =
      std::mismatch(out.ids.begin(), out.ids.end(), question.begin(), question.end()).first - out.ids.begin();
  return out;
}

// Tokens of the prompt without garbage, for some key of so many digits.
int64_t least_prompt_tokens(PasskeyWording wording, const text::Tokenizer& tokenizer, int64_t digits) {
  Rng any(0);
  const int64_t key = random_key(any, digits);
  return static_cast<int64_t>(
      tokenizer.encode(prompt_text(parts_of(wording, key), 0, 0.0) + fmt::format(" {}\n", key)).size());
}

}  // namespace

std::vector<int32_t> passkey_training_window(PasskeyWording wording, int64_t tokens,
                                             const text::Tokenizer& tokenizer, Rng& rng, int64_t digits,
                                             PasskeyWindowInfo* info) {
  // Half of the windows are one long prompt, as the evaluation's; the others end in a prompt of random length.
  const int64_t least = least_prompt_tokens(wording, tokenizer, digits);
  const bool one = rng.uniform() < 0.5 || tokens < 2 * least;
  const auto any_length = [&](int64_t most) { return least + static_cast<int64_t>(rng.below(static_cast<uint64_t>(most - least + 1))); };
  TrainingPrompt last = training_prompt(wording, one ? tokens : any_length(tokens - least), tokenizer, rng, digits);

  // In front of it further prompts with other keys, as long as they fit: each is one more lesson in looking back.
  std::vector<int32_t> window = last.ids;
  const std::vector<int32_t> line_end = tokenizer.encode("\n");
  int64_t room = tokens - static_cast<int64_t>(window.size());
  while (room >= least + static_cast<int64_t>(line_end.size())) {
    const int64_t most = room - static_cast<int64_t>(line_end.size());
    std::vector<int32_t> ids = training_prompt(wording, any_length(most), tokenizer, rng, digits).ids;
    ids.insert(ids.end(), line_end.begin(), line_end.end());
    window.insert(window.begin(), ids.begin(), ids.end());
    room = tokens - static_cast<int64_t>(window.size());
  }
  if (room > 0) {  // garbage, cut to fit
    std::vector<int32_t> filling;
    const std::string_view unit = parts_of(wording, last.info.key).garbage;
    for (int64_t chars = static_cast<int64_t>(unit.size()); static_cast<int64_t>(filling.size()) < room; chars *= 2)
      filling = tokenizer.encode(garbage_text(unit, chars) + "\n");
    window.insert(window.begin(), filling.end() - room, filling.end());
  }
  if (info != nullptr) {
    *info = last.info;
    info->answer_start += tokens - static_cast<int64_t>(last.ids.size());
  }
  return window;
}

}  // namespace coca::data
