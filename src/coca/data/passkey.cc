// coca/data/passkey.cc - see passkey.h. Texts: Mohtashami and Jaggi 2023 (landmark attention, run_test.py);
// CoCA paper; LM-Infinite (create_passkey_data.py, get_data.py).
// SPDX-License-Identifier: Apache-2.0
#include "coca/data/passkey.h"

#include <algorithm>
#include <cmath>

#include "coca/base/count.h"
#include "coca/base/error.h"
#include "coca/io/fs.h"
#include "coca/io/json_file.h"
#include "coca/io/options.h"

namespace coca::data {

namespace {

constexpr std::string_view kIntro =
    "There is an important info hidden inside a lot of irrelevant text. Find it and memorize them. I will "
    "quiz you "
    "about the important information there.";
constexpr std::string_view kIntroIt =
    "There is an important info hidden inside a lot of irrelevant text. Find it and memorize it. I will quiz you about "
    "the important information there.";
constexpr std::string_view kGarbage =
    "The grass is green. The sky is blue. The sun is yellow. Here we go. There and back again. ";
constexpr std::string_view kShortGarbage = "The grass is green. The sky is blue. ";

struct Parts {
  std::string_view intro, garbage;
  std::string key, question;
  char between = '\n';
  bool keep_empty = true;  // the published wordings keep their five lines

  std::string answer(int64_t number) const { return (question.back() == ' ' ? "" : " ") + std::to_string(number); }
};

Parts parts_of(PasskeyWording wording, int64_t key) {
  switch (wording) {
    case PasskeyWording::kLandmark:
      return {kIntro, kGarbage, fmt::format("The pass key is {}. Remember it. {} is the pass key.", key, key),
              "What is the pass key? The pass key is"};
    case PasskeyWording::kCoca:
      return {kIntro, kGarbage, fmt::format("The passkey is {}. Remeber it. {} is the passkey.", key, key),
              "What is the passkey?"};
    case PasskeyWording::kLmInfinite:
      return {kIntroIt,
              kGarbage,
              fmt::format("The pass key is {}. Remember it. {} is the pass key.", key, key),
              "What is the pass key? The pass key is ",
              ' ',
              false};
    case PasskeyWording::kCompact: break;
  }
  return {"", kShortGarbage, fmt::format("The pass key is {}.", key), "The pass key is", '\n', false};
}

// The first `chars` characters (they are ASCII) of the garbage repeated without end.
std::string cut_garbage(std::string_view unit, int64_t chars) {
  std::string text;
  text.reserve(static_cast<size_t>(chars));
  while (static_cast<int64_t>(text.size()) < chars) text += unit.substr(0, static_cast<size_t>(chars) - text.size());
  return text;
}

// The same without a blank at the end.
std::string garbage_text(std::string_view unit, int64_t chars) {
  std::string text = cut_garbage(unit, chars);
  while (!text.empty() && text.back() == ' ') text.pop_back();
  return text;
}

// What the published scripts make of a number.
std::string published_garbage(PasskeyLength control, std::string_view unit, int64_t count) {
  if (control == PasskeyLength::kSentences) return garbage_text(unit, count * static_cast<int64_t>(unit.size()));
  if (control == PasskeyLength::kUnits) {
    const std::string_view sentences = unit.substr(0, unit.find_last_not_of(' ') + 1);
    return cut_garbage(sentences, count * static_cast<int64_t>(sentences.size()));
  }
  return cut_garbage(unit, count);
}

std::string prompt_text(const Parts& parts, const std::string& before, const std::string& after) {
  std::string text(parts.intro);
  const auto add = [&](std::string_view line) {
    if (!parts.keep_empty && line.empty()) return;
    if (!text.empty()) text += parts.between;
    text += line;
  };
  add(before);
  add(parts.key);
  add(after);
  add(parts.question);
  return text;
}

std::string prompt_text(const Parts& parts, int64_t garbage_chars, double depth) {
  const int64_t before = std::llround(depth * static_cast<double>(garbage_chars));
  return prompt_text(parts, garbage_text(parts.garbage, before), garbage_text(parts.garbage, garbage_chars - before));
}

int64_t random_key(Rng& rng, const KeyRange& keys) {
  COCA_CHECK(keys.least >= 0 && keys.least <= keys.most,
             "passkeys go from {} to {}; expected a range of numbers from 0 up", keys.least, keys.most);
  return keys.least + static_cast<int64_t>(rng.below(static_cast<uint64_t>(keys.most - keys.least) + 1));
}
int64_t random_key(Rng& rng, int64_t digits) { return random_key(rng, keys_of_digits(digits)); }

// The largest number of garbage characters whose prompt fits. Tokens grow with characters, but not one by
// one, so the search is: bracket around an estimate, halve, then look a little further.
class GarbageSearch {
 public:
  GarbageSearch(const Parts& parts, const std::string& answer, int64_t length, double depth,
                const text::Tokenizer& tokenizer)
      : parts_(parts), answer_(answer), length_(length), depth_(depth), tokenizer_(tokenizer) {}

  int64_t run() const {
    const int64_t least = tokens(0);
    COCA_CHECK(least <= length_,
               "a passkey prompt of {} has no room for its question: without any garbage it takes {}; "
               "give a greater length or a shorter wording (compact)",
               counted(length_, "token"), grouped(least));
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

// Multiples of kStep characters whose prompt stays below the length; tokens grow with them, so halving finds the
// largest.
int64_t grown_garbage(PasskeyWording wording, int64_t length, const text::Tokenizer& tokenizer) {
  constexpr int64_t kStep = 128, kKey = 25000;  // any key of the published range
  const Parts parts = parts_of(wording, kKey);
  const auto below = [&](int64_t steps) {
    const int64_t n = steps * kStep;
    return static_cast<int64_t>(
               tokenizer
                   .encode(prompt_text(parts, cut_garbage(parts.garbage, n / 2), cut_garbage(parts.garbage, n - n / 2)))
                   .size()) < length;
  };
  COCA_CHECK(below(0), "passkey prompt of {}: it takes as many without garbage", counted(length, "token"));
  int64_t low = 0, high = 1;
  while (below(high)) {
    low = high;
    high *= 2;
  }
  while (high - low > 1) {
    const int64_t middle = low + (high - low) / 2;
    (below(middle) ? low : high) = middle;
  }
  return low * kStep;
}

// LM-Infinite's create_passkey_data.py: 2 stands where it means to count the introduction (it takes the number of
// fields the tokenizer returns), and each count has its own bos. The key's sentence is counted with its placeholder.
int64_t sentence_units(PasskeyWording wording, int64_t length, int64_t front, const text::Tokenizer& tokenizer) {
  const auto tokens = [&](std::string_view text) {
    return front + static_cast<int64_t>(tokenizer.encode(text).size());
  };
  std::string key = parts_of(wording, 0).key;
  for (size_t at = key.find('0'); at != std::string::npos; at = key.find('0', at + 1)) key.replace(at, 1, "{KEY}");
  const std::string unit =
      garbage_text(parts_of(wording, 0).garbage, static_cast<int64_t>(parts_of(wording, 0).garbage.size()));
  const int64_t units = (length - tokens(key) - 2) / tokens(unit);
  COCA_CHECK(units >= 2, "passkey length {} makes {} units of garbage; at least two are needed", length, units);
  return units;
}

}  // namespace

KeyRange keys_of_digits(int64_t digits) {
  COCA_CHECK(digits >= 1 && digits <= 18, "digits is {}; expected 1 to 18", digits);
  int64_t least = 1;
  for (int64_t i = 1; i < digits; ++i) least *= 10;
  return {least, 10 * least - 1};
}

namespace {
constexpr const char* kTaskFile = "passkey.json";
}

void save_passkey_task(const std::filesystem::path& model_dir, PasskeyTask task) {
  io::write_json(model_dir / kTaskFile, io::options_to_json(task));
}

std::optional<PasskeyTask> load_passkey_task(const std::filesystem::path& model_dir) {
  const std::filesystem::path file = model_dir / kTaskFile;
  if (!io::exists(file)) return std::nullopt;
  PasskeyTask task;
  try {
    io::options_from_json(task, io::read_json(file), file.string());
    keys_of_digits(task.digits);
  } catch (const Error& error) {
    const std::string text = error.what();
    fail(ErrorKind::kBadFile, "{}{}", text.starts_with(file.string()) ? "" : file.string() + ": ", text);
  }
  return task;
}

int64_t passkey_garbage(PasskeyLength control, PasskeyWording wording, int64_t length, int64_t front,
                        const text::Tokenizer& tokenizer) {
  switch (control) {
    case PasskeyLength::kGrown: return grown_garbage(wording, length - front, tokenizer);
    case PasskeyLength::kCharacters: return length;
    case PasskeyLength::kCharacters365: return length * 365 / 100;
    case PasskeyLength::kCharacters375: return length * 375 / 100 / 1024 * 1024;
    case PasskeyLength::kUnits:
      // 32 tokens of introduction, 26 of the key's sentence, 11 of the question, 25 of a unit with LLaMA's tokenizer.
      COCA_CHECK(length >= 69, "passkey length {} in units must be at least 69", length);
      return (length - 32 - 26 - 11) / 25;
    case PasskeyLength::kSentences: return sentence_units(wording, length, front, tokenizer);
    case PasskeyLength::kTokens: break;
  }
  fail(ErrorKind::kInvalidArgument, "passkey length control tokens has no amount of its own: it fits each prompt");
}

PasskeyPrompt passkey_prompt_of(PasskeyWording wording, const PasskeyGarbage& garbage, int64_t key) {
  const Parts parts = parts_of(wording, key);
  const int64_t all = garbage.before + garbage.after;
  return {.text = prompt_text(parts, published_garbage(garbage.control, parts.garbage, garbage.before),
                              published_garbage(garbage.control, parts.garbage, garbage.after)),
          .answer = parts.answer(key),
          .key = key,
          .depth = all == 0 ? 0.0 : static_cast<double>(garbage.before) / static_cast<double>(all)};
}

PasskeyPrompt make_passkey_prompt(PasskeyWording wording, int64_t length_tokens, double depth,
                                  const text::Tokenizer& tokenizer, Rng& rng, const KeyRange& keys) {
  COCA_CHECK(depth >= 0.0 && depth <= 1.0, "passkey depth is {}; expected 0 to 1", depth);
  PasskeyPrompt prompt{.key = random_key(rng, keys), .depth = depth};
  const Parts parts = parts_of(wording, prompt.key);
  prompt.answer = parts.answer(prompt.key);
  const int64_t chars = GarbageSearch(parts, prompt.answer, length_tokens, depth, tokenizer).run();
  prompt.text = prompt_text(parts, chars, depth);
  return prompt;
}

PasskeyPrompt make_passkey_prompt(PasskeyWording wording, int64_t length_tokens, double depth,
                                  const text::Tokenizer& tokenizer, Rng& rng, int64_t digits) {
  return make_passkey_prompt(wording, length_tokens, depth, tokenizer, rng, keys_of_digits(digits));
}

namespace {

using Ids = std::vector<int32_t>;

// Index in encode(text + answer) of the answer's first id. The text alone may end in other ids: the answer begins where
// they part.
int64_t answer_start(const text::Tokenizer& tokenizer, const std::string& text, const Ids& with_answer) {
  const Ids alone = tokenizer.encode(text);
  return std::mismatch(with_answer.begin(), with_answer.end(), alone.begin(), alone.end()).first - with_answer.begin();
}

// The last `tokens` of the text front(), front() ... front() end. For bytes one round is enough; longer tokens take
// more.
template <typename Front>
Ids grow_to(int64_t tokens, const text::Tokenizer& tokenizer, std::string end, const Front& front) {
  Ids ids;
  for (size_t chars = static_cast<size_t>(tokens); static_cast<int64_t>(ids.size()) < tokens; chars *= 2) {
    std::vector<std::string> fronts;  // the last comes first
    size_t size = end.size();
    for (; size < chars; size += fronts.back().size()) fronts.push_back(front());
    std::string text;
    text.reserve(size);
    for (auto it = fronts.rbegin(); it != fronts.rend(); ++it) text += *it;
    end = std::move(text += end);
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
    const Ids filling = grow_to(room, tokenizer, "\n", [&]() -> const std::string& { return unit; });
    ids.insert(ids.begin(), filling.begin(), filling.end());
  }
  return ids;
}

Ids repeated_window(PasskeyWording wording, int64_t tokens, const text::Tokenizer& tokenizer, Rng& rng, int64_t digits,
                    PasskeyWindowInfo& info) {
  constexpr uint64_t kMostGarbage = 20;  // characters between two mentions of the key
  info.key = random_key(rng, digits);
  const Parts parts = parts_of(wording, info.key);
  const std::string answer = parts.answer(info.key);
  Ids ids = grow_to(tokens, tokenizer, parts.question + answer, [&] {
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
  for (uint64_t n = kLeast + rng.below(kMost - kLeast + 1); n > 0; --n)
    string += static_cast<char>('0' + rng.below(10));
  return grow_to(tokens, tokenizer, string, [&] { return string; });
}

}  // namespace

std::vector<int32_t> passkey_training_window(PasskeyWording wording, int64_t tokens, const text::Tokenizer& tokenizer,
                                             Rng& rng, int64_t digits, PasskeyWindowInfo* info) {
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
