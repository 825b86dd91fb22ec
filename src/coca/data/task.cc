// SPDX-License-Identifier: Apache-2.0
#include "coca/data/task.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <set>

#include "coca/base/count.h"
#include "coca/base/error.h"
#include "coca/data/packing.h"
#include "coca/data/words.h"

namespace coca::data {

namespace {

using Ids = std::vector<int32_t>;

constexpr int64_t kDigitSymbols = 10, kFirstLetter = 1 + kDigitSymbols;  // needle: a mark, ten digits, letters
constexpr int64_t kPhrase = 2;                                           // symbols or words of a needle's phrase

// Tokens that a tokenizer makes of their own text.
Ids printable_tokens(const text::Tokenizer& tokenizer) {
  Ids out;
  for (int32_t id = 0; id < tokenizer.vocab_size(); ++id) {
    std::string text;
    text::DecodeState inside{.at_start = false};
    tokenizer.append_decoded(id, inside, text);
    const std::string_view letters = std::string_view(text).substr(text.starts_with(' ') ? 1 : 0);
    const bool printable = !letters.empty() && std::ranges::all_of(letters, [](char c) { return c > ' ' && c <= '~'; });
    if (printable && tokenizer.encode(text) == Ids{id}) out.push_back(id);
  }
  return out;
}

// The first `count` of a random order of {0, ..., n-1}.
std::vector<int64_t> draw_distinct(int64_t count, int64_t n, Rng& rng) {
  std::vector<int64_t> order(static_cast<size_t>(n));
  std::iota(order.begin(), order.end(), 0);
  for (int64_t i = 0; i < count; ++i)
    std::swap(order[static_cast<size_t>(i)], order[static_cast<size_t>(i) + rng.below(static_cast<uint64_t>(n - i))]);
  order.resize(static_cast<size_t>(count));
  return order;
}

// `count` distinct numbers of {0, ..., n-1}, one after the other with weights (g + 1)^-0.9, the power law of MQAR: the
// largest of u^(1/weight), u uniform (Efraimidis and Spirakis 2006).
std::vector<int64_t> draw_gaps(int64_t count, int64_t n, Rng& rng) {
  std::vector<std::pair<double, int64_t>> keys;
  for (int64_t g = 0; g < n; ++g)
    keys.emplace_back(std::log(1.0 - rng.uniform()) * std::pow(static_cast<double>(g + 1), 0.9), g);
  std::ranges::partial_sort(keys, keys.begin() + count, std::greater<>());
  std::vector<int64_t> gaps;
  for (int64_t i = 0; i < count; ++i) gaps.push_back(keys[static_cast<size_t>(i)].second);
  return gaps;
}

// A window of N tokens and the one after them, of which only some are asked for.
class Sequence {
 public:
  explicit Sequence(int64_t length) : room_(static_cast<size_t>(length) + 1) {}

  void put(int32_t id) { ids_.push_back(id); }
  void put(const Ids& ids) { ids_.insert(ids_.end(), ids.begin(), ids.end()); }
  void ask(const Ids& ids) {
    asked_.emplace_back(ids_.size(), ids.size());
    put(ids);
  }
  int64_t left() const { return static_cast<int64_t>(room_ - ids_.size()); }

  TaskWindow window() const {
    COCA_CHECK(ids_.size() == room_, "a task of {}; the window has {}", counted(ids_.size(), "token"), room_);
    TaskWindow out{.ids = {ids_.begin(), ids_.end() - 1}, .targets = Ids(room_ - 1, kNoTarget)};
    for (const auto& [first, count] : asked_)
      for (size_t i = first; i < first + count; ++i) out.targets[i - 1] = ids_[i];
    return out;
  }

 private:
  size_t room_;
  Ids ids_;
  std::vector<std::pair<size_t, size_t>> asked_;  // first and number
};

// A needle as text, in tokens.
struct TextNeedle {
  Ids before, digits, after;  // "\ntamor belusin: ", "73914", "\n"
  int64_t size() const { return static_cast<int64_t>(before.size() + digits.size() + after.size()); }
};

TextNeedle draw_needle(const text::Tokenizer& tokenizer, int64_t digits, std::set<std::string>& phrases, Rng& rng) {
  const std::string phrase = distinct(phrases, [&] { return made_up_word(rng) + " " + made_up_word(rng); });
  return {.before = tokenizer.encode("\n" + phrase + ": "),
          .digits = tokenizer.encode(random_number(rng, digits)),
          .after = tokenizer.encode("\n")};
}

// Needles that leave room for a question after one of them: `count`, or fewer (but one at least) if they are too long.
std::vector<TextNeedle> draw_needles(const text::Tokenizer& tokenizer, int64_t count, int64_t digits, int64_t tokens,
                                     Rng& rng) {
  std::set<std::string> phrases;
  std::vector<TextNeedle> needles;
  int64_t used = 0, longest = 0, least = 0;
  for (int64_t tries = 0; tries < 16 * count && static_cast<int64_t>(needles.size()) < count; ++tries) {
    TextNeedle needle = draw_needle(tokenizer, digits, phrases, rng);
    const int64_t all = used + needle.size() + std::max(longest, needle.size());
    least = tries == 0 ? all : std::min(least, all);
    if (all > tokens) continue;
    used += needle.size();
    longest = std::max(longest, needle.size());
    needles.push_back(std::move(needle));
  }
  COCA_CHECK(!needles.empty(), "task needle: a window of {} has no room for a phrase and its question, which take {}",
             counted(tokens - 1, "token"), grouped(least));
  return needles;
}

// Tokens of a text from a random place on; a short text is read over and over.
Ids hay_of(const TokenFile& text, int64_t count, Rng& rng) {
  Ids ids(static_cast<size_t>(count));
  int64_t at = static_cast<int64_t>(rng.below(static_cast<uint64_t>(text.size())));
  for (int64_t done = 0; done < count; at = 0) {
    const int64_t part = std::min(count - done, text.size() - at);
    text.read(at, std::span(ids).subspan(static_cast<size_t>(done), static_cast<size_t>(part)));
    done += part;
  }
  return ids;
}

std::vector<int64_t> sorted_places(int64_t count, int64_t most, Rng& rng) {
  std::vector<int64_t> places(static_cast<size_t>(count));
  for (int64_t& place : places) place = static_cast<int64_t>(rng.below(static_cast<uint64_t>(most) + 1));
  std::ranges::sort(places);
  return places;
}

}  // namespace

std::vector<int32_t> task_symbols(const text::Tokenizer& tokenizer) {
  if (tokenizer.kind() != text::kSymbolsKind) return printable_tokens(tokenizer);
  Ids ids(static_cast<size_t>(tokenizer.vocab_size()));
  std::iota(ids.begin(), ids.end(), 0);
  return ids;
}

TaskMaker::TaskMaker(const TaskSizes& sizes, int64_t trained_length, const text::Tokenizer& tokenizer)
    : sizes_(sizes), trained_length_(trained_length), tokenizer_(tokenizer), symbols_(task_symbols(tokenizer)) {}

int32_t TaskMaker::random_symbol(int64_t first, Rng& rng) const {
  return symbol(first + static_cast<int64_t>(rng.below(static_cast<uint64_t>(symbols() - first))));
}

int64_t TaskMaker::pairs(int64_t length) const {
  return sizes_.pairs > 0 ? sizes_.pairs : std::clamp<int64_t>(length / 8, 1, std::max<int64_t>(symbols() / 2, 1));
}

int64_t TaskMaker::string(int64_t length) const {
  return sizes_.string > 0 ? sizes_.string : std::max<int64_t>(length / 4, 1);
}

int64_t TaskMaker::shifts() const {
  return sizes_.shifts > 0 ? sizes_.shifts : std::clamp<int64_t>(std::min(trained_length_ / 8, symbols() / 8), 1, 15);
}

// A longer string than there are symbols would repeat one.
int64_t TaskMaker::indexed(int64_t length) const {
  const int64_t letters = symbols() - 1 - 2 * shifts();
  return sizes_.string > 0 ? sizes_.string : std::clamp<int64_t>(length / 4, 2, std::max<int64_t>(letters, 2));
}

int64_t TaskMaker::needles(int64_t length) const {
  return sizes_.needles > 0 ? sizes_.needles : std::max<int64_t>(length / 64, 2);
}

void TaskMaker::check(Task task, int64_t length) const {
  const auto need = [&](int64_t tokens, const std::string& what) {
    COCA_CHECK(tokens <= length, "task {}: a window of {} has no room for {}: {} are needed", enum_name(task),
               counted(length, "token"), what, grouped(tokens));
  };
  const auto need_symbols = [&](int64_t least, const std::string& what) {
    COCA_CHECK(symbols() >= least, "task {}: {} symbols are too few for {}; at least {} are needed{}", enum_name(task),
               grouped(symbols()), what, grouped(least), in_text() ? "" : " (--task-vocabulary)");
  };
  switch (task) {
    case Task::kMqar:
      need_symbols(2 * pairs(length), counted(pairs(length), "pair"));
      return need(4 * pairs(length), counted(pairs(length), "pair") + " and their keys again");
    case Task::kCopying:
      need_symbols(3, "a mark and a string");
      return need(2 * string(length) + 1, fmt::format("a string of {}, twice", counted(string(length), "symbol")));
    case Task::kIndirectIndex:
      COCA_CHECK(indexed(length) >= 2, "task indirect-index: a string of 1 symbol; at least 2 are needed");
      need_symbols(1 + 2 * shifts() + indexed(length),
                   fmt::format("a mark, shifts to {} and a string of {} different ones", shifts(), indexed(length)));
      return need(indexed(length) + 4,
                  fmt::format("a string of {} and one question", counted(indexed(length), "symbol")));
    case Task::kNeedle: break;
  }
  if (in_text()) {
    Rng rng(0);
    draw_needles(tokenizer_, needles(length), sizes_.digits, length + 1, rng);
    return;
  }
  int64_t letters = kPhrase;
  while (letters * letters < needles(length)) ++letters;
  need_symbols(kFirstLetter + letters, "a mark, ten digits and phrases");
  const int64_t unit = 1 + kPhrase + sizes_.digits;
  need((needles(length) + 1) * unit - 1,
       fmt::format("{} of {} and a question", counted(needles(length), "phrase"), counted(sizes_.digits, "digit")));
}

TaskWindow TaskMaker::window(Task task, int64_t length, Rng& rng, const TokenFile& text) const {
  switch (task) {
    case Task::kMqar: return mqar(length, rng);
    case Task::kCopying: return copying(length, rng);
    case Task::kIndirectIndex: return indirect_index(length, rng);
    case Task::kNeedle: break;
  }
  return needle(length, rng, text);
}

// The value is asked for where its key stands again; the next input is any symbol, so that no answer is shown.
TaskWindow TaskMaker::mqar(int64_t length, Rng& rng) const {
  const int64_t P = pairs(length), keys = symbols() / 2;
  const std::vector<int64_t> key = draw_distinct(P, keys, rng), value = draw_distinct(P, symbols() - keys, rng);
  TaskWindow out{.ids = {}, .targets = Ids(static_cast<size_t>(length), kNoTarget)};
  for (size_t i = 0; i < key.size(); ++i) {
    out.ids.push_back(symbol(key[i]));
    out.ids.push_back(symbol(keys + value[i]));
  }
  while (static_cast<int64_t>(out.ids.size()) < length) out.ids.push_back(random_symbol(0, rng));
  const std::vector<int64_t> gaps = draw_gaps(P, (length - 2 * P) / 2, rng);
  for (size_t i = 0; i < gaps.size(); ++i) {
    const auto at = static_cast<size_t>(2 * (P + gaps[i]));
    out.ids[at] = symbol(key[i]);
    out.targets[at] = symbol(keys + value[i]);
  }
  return out;
}

TaskWindow TaskMaker::copying(int64_t length, Rng& rng) const {
  const int64_t S = string(length);
  Sequence sequence(length);
  const auto gap = static_cast<int64_t>(rng.below(static_cast<uint64_t>(length - 2 * S)));
  const auto fill = [&](int64_t count) {
    for (int64_t i = 0; i < count; ++i) sequence.put(random_symbol(1, rng));
  };
  Ids text(static_cast<size_t>(S));
  for (int32_t& id : text) id = random_symbol(1, rng);
  fill(length - 2 * S - 1 - gap);
  sequence.put(symbol(0));
  sequence.put(text);
  fill(gap);
  sequence.put(symbol(0));
  sequence.ask(text);
  return sequence.window();
}

// Questions are a symbol of the string and a shift; the answer is shown before the next question.
TaskWindow TaskMaker::indirect_index(int64_t length, Rng& rng) const {
  const int64_t most = indexed(length), K = shifts(), first = 1 + 2 * K, questions = (length - most - 1) / 3;
  const int64_t S =
      std::max<int64_t>(2, most / 2 + static_cast<int64_t>(rng.below(static_cast<uint64_t>(most / 2 + 1))));
  std::vector<int64_t> text = draw_distinct(S, symbols() - first, rng);
  Sequence sequence(length);
  while (sequence.left() > S + 2 + 3 * questions) sequence.put(symbol(0));
  sequence.put(symbol(0));
  for (const int64_t letter : text) sequence.put(symbol(first + letter));
  sequence.put(symbol(0));
  for (int64_t i = 0; i < questions; ++i) {
    const auto named = static_cast<int64_t>(rng.below(static_cast<uint64_t>(S)));
    const int64_t before = std::min(K, named), after = std::min(K, S - 1 - named);
    int64_t shift = static_cast<int64_t>(rng.below(static_cast<uint64_t>(before + after))) - before;
    if (shift >= 0) ++shift;
    sequence.put(symbol(first + text[static_cast<size_t>(named)]));
    sequence.put(symbol(shift < 0 ? 1 + K + shift : K + shift));
    sequence.ask({symbol(first + text[static_cast<size_t>(named + shift)])});
  }
  return sequence.window();
}

TaskWindow TaskMaker::needle(int64_t length, Rng& rng, const TokenFile& text) const {
  std::vector<TextNeedle> needles;
  int64_t M = this->needles(length);
  if (in_text()) {
    needles = draw_needles(tokenizer_, M, sizes_.digits, length + 1, rng);
    M = static_cast<int64_t>(needles.size());
  } else {
    std::set<std::pair<int32_t, int32_t>> phrases;
    while (static_cast<int64_t>(needles.size()) < M) {
      const std::pair phrase{random_symbol(kFirstLetter, rng), random_symbol(kFirstLetter, rng)};
      if (!phrases.insert(phrase).second) continue;
      TextNeedle& needle = needles.emplace_back();
      needle.before = {symbol(0), phrase.first, phrase.second};
      for (int64_t i = 0; i < sizes_.digits; ++i)
        needle.digits.push_back(symbol(1 + static_cast<int64_t>(rng.below(kDigitSymbols))));
    }
  }
  const TextNeedle& asked = needles[rng.below(static_cast<uint64_t>(M))];
  int64_t hay = length + 1 - static_cast<int64_t>(asked.before.size() + asked.digits.size());
  for (const TextNeedle& needle : needles) hay -= needle.size();
  Ids straw = in_text() ? hay_of(text, hay, rng) : Ids(static_cast<size_t>(hay));
  if (!in_text())
    for (int32_t& id : straw) id = random_symbol(kFirstLetter, rng);
  const std::vector<int64_t> places = sorted_places(M, hay, rng);
  Sequence sequence(length);
  int64_t done = 0;
  const auto put_hay = [&](int64_t to) { sequence.put(Ids(straw.begin() + done, straw.begin() + to)); };
  for (size_t i = 0; i < needles.size(); done = places[i++]) {
    put_hay(places[i]);
    for (const Ids* part : {&needles[i].before, &needles[i].digits, &needles[i].after}) sequence.put(*part);
  }
  put_hay(hay);
  sequence.put(asked.before);
  sequence.ask(asked.digits);
  return sequence.window();
}

}  // namespace coca::data
