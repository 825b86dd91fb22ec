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

using Ids = std::vector<int32_t>;

// Index in encode(text + answer) of the answer's first id. The text alone may end in other ids: the answer begins where
// they part.
int64_t answer_start(const text::Tokenizer& tokenizer, const std::string& text, const Ids& with_answer) {
  const Ids alone = tokenizer.encode(text);
  return std::mismatch(with_answer.begin(), with_answer.end(), alone.begin(), alone.end()).first - with_answer.begin();
}

// The last `tokens` of the text front(), front() ... front() end. For bytes one round is enough; longer tokens take more.
template <typename Front>
Ids grow_to(int64_t tokens, const text::Tokenizer& tokenizer, std::string end, const Front& front) {
  Ids ids;
  for (size_t chars = static_cast<size_t>(tokens); static_cast<int64_t>(ids.size()) < tokens; chars *= 2) {
    while (end.size() < chars) end = front() + end;
    ids = tokenizer.encode(end);
  }
  return {ids.end() - tokens, ids.end()};
}

Ids prompt_window(PasskeyWording wording, int64_t tokens, const text::Tokenizer& tokenizer, Rng& rng, int64_t digits,
                  PasskeyWindowInfo& info) {
  info.depth = rng.uniform();
  const PasskeyPrompt prompt = make_passkey_prompt(wording, tokens, info.depth, tokenizer, rng, digits);
  info.key = prompt.key;
  Ids ids = tokenizer.encode(prompt.text + prompt.answer);
  const int64_t room = tokens - static_cast<int64_t>(ids.size());
  info.answer_start = answer_start(tokenizer, prompt.text, ids) + room;
  if (room > 0) {  // garbage, cut to fit
    const std::string unit(parts_of(wording, info.key).garbage);
    const Ids filling = grow_to(room, tokenizer, "\n", [&] { return unit; });
    ids.insert(ids.begin(), filling.begin(), filling.end());
  }
  return ids;
}

Ids repeated_window(PasskeyWording wording, int64_t tokens, const text::Tokenizer& tokenizer, Rng& rng, int64_t digits,
                    PasskeyWindowInfo& info) {
  constexpr uint64_t kMostGarbage = 20;  // characters between two mentions of the key
  info.key = random_key(rng, digits);
  const Parts parts = parts_of(wording, info.key);
  const std::string answer = fmt::format(" {}", info.key);
  const Ids ids = grow_to(tokens, tokenizer, parts.question + answer, [&] {
    const std::string mention = rng.below(2) == 0 ? parts.key : parts.question + answer;
    const std::string gap = garbage_text(parts.garbage, static_cast<int64_t>(rng.below(kMostGarbage)));
    return mention + "\n" + gap + (gap.empty() ? "" : "\n");
  });
  const Ids end = tokenizer.encode(parts.question + answer);
  info.answer_start = tokens - static_cast<int64_t>(end.size()) + answer_start(tokenizer, parts.question, end);
  return ids;
}

Ids digits_window(int64_t tokens, const text::Tokenizer& tokenizer, Rng& rng) {
  constexpr uint64_t kLeast = 3, kMost = 20;
  std::string string = " ";
  for (uint64_t n = kLeast + rng.below(kMost - kLeast + 1); n > 0; --n) string += static_cast<char>('0' + rng.below(10));
  return grow_to(tokens, tokenizer, string, [&] { return string; });
}

}  // namespace

std::vector<int32_t> passkey_training_window(PasskeyWording wording, int64_t tokens,
                                             const text::Tokenizer& tokenizer, Rng& rng, int64_t digits,
                                             PasskeyWindowInfo* info) {
  PasskeyWindowInfo about;
  const double kind = rng.uniform();
  about.kind = kind < 0.2 ? PasskeyWindow::kPrompt : kind < 0.6 ? PasskeyWindow::kRepeated : PasskeyWindow::kDigits;
  std::vector<int32_t> ids;
  switch (about.kind) {
    case PasskeyWindow::kPrompt: ids = prompt_window(wording, tokens, tokenizer, rng, digits, about); break;
    case PasskeyWindow::kRepeated: ids = repeated_window(wording, tokens, tokenizer, rng, digits, about); break;
    case PasskeyWindow::kDigits: ids = digits_window(tokens, tokenizer, rng); break;
  }
  if (info != nullptr) *info = about;
  return ids;
}

}  // namespace coca::data
