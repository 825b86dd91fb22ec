// Each task is drawn once and then built at any size from the same draw, so that the size can be searched for.
// SPDX-License-Identifier: Apache-2.0
#include "coca/data/ruler.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <numbers>

#include "coca/base/count.h"
#include "coca/base/error.h"
#include "coca/data/words.h"

namespace coca::data {

namespace {

constexpr std::string_view kNoiseLine =
    "The grass is green. The sky is blue. The sun is yellow. Here we go. There and back again.";

// A task as drawn: `build` makes its prompt of a size, at least `least`; larger sizes have more tokens.
struct Draw {
  int64_t least = 1;
  std::function<RulerPrompt(int64_t size)> build;
};

// The largest size whose prompt has at most `tokens` ids.
RulerPrompt largest(const Draw& draw, int64_t tokens, const text::Tokenizer& tokenizer, RulerTask task) {
  const auto count = [&](int64_t size) { return static_cast<int64_t>(tokenizer.encode(draw.build(size).text).size()); };
  const int64_t least = count(draw.least);
  COCA_CHECK(least <= tokens, "{}: the shortest prompt takes {}, and {} more are generated: {} in all", enum_name(task),
             counted(least, "token"), grouped(ruler_new_tokens(task)), grouped(least + ruler_new_tokens(task)));
  int64_t low = draw.least, high = 2 * draw.least;
  while (count(high) <= tokens) {
    low = high;
    high *= 2;
  }
  while (high - low > 1) {
    const int64_t middle = low + (high - low) / 2;
    (count(middle) <= tokens ? low : high) = middle;
  }
  return draw.build(low);
}

// `count` of the numbers below n, ascending.
std::vector<int64_t> random_places(int64_t count, int64_t n, Rng rng) {
  std::set<int64_t> places;
  while (static_cast<int64_t>(places.size()) < count)
    places.insert(static_cast<int64_t>(rng.below(static_cast<uint64_t>(n))));
  return {places.begin(), places.end()};
}

template <typename T>
void shuffle(std::vector<T>& items, Rng rng) {
  for (size_t i = items.size(); i > 1; --i) std::swap(items[i - 1], items[rng.below(i)]);
}

std::string join(const std::vector<std::string>& items, std::string_view separator) {
  std::string text;
  for (const std::string& item : items) text.append(text.empty() ? "" : separator).append(item);
  return text;
}

// Inserts the items, in their order, at random places of a list at least as long as they are many.
void scatter(const std::vector<std::string>& items, std::vector<std::string>& list, Rng rng) {
  const auto places = random_places(static_cast<int64_t>(items.size()), static_cast<int64_t>(list.size()), rng);
  for (size_t i = items.size(); i-- > 0;) list.insert(list.begin() + places[i], items[i]);
}

// ---- needles --------------------------------------------------------------------------------------------------------

enum class Haystack : uint8_t { kNoise, kText, kNeedles };
enum class Name : uint8_t { kWord, kNumber, kUuid };

struct NeedleTask {
  Haystack haystack = Haystack::kNoise;
  Name key = Name::kWord, value = Name::kNumber;
  int keys = 1, values = 1, queries = 1;
};

NeedleTask needle_task(RulerTask task) {
  switch (task) {
    case RulerTask::kNiahSingle2: return {.haystack = Haystack::kText};
    case RulerTask::kNiahSingle3: return {.haystack = Haystack::kText, .value = Name::kUuid};
    case RulerTask::kNiahMultikey1: return {.haystack = Haystack::kText, .keys = 4};
    case RulerTask::kNiahMultikey2: return {.haystack = Haystack::kNeedles};
    case RulerTask::kNiahMultikey3: return {.haystack = Haystack::kNeedles, .key = Name::kUuid, .value = Name::kUuid};
    case RulerTask::kNiahMultivalue: return {.haystack = Haystack::kText, .values = 4};
    case RulerTask::kNiahMultiquery: return {.haystack = Haystack::kText, .keys = 4, .queries = 4};
    default: return {};
  }
}

std::string random_name(Rng& rng, Name kind) {
  switch (kind) {
    case Name::kWord: {
      const std::string first = made_up_word(rng);
      return first + "-" + made_up_word(rng);
    }
    case Name::kNumber: return random_number(rng, 7);
    case Name::kUuid: break;
  }
  return random_uuid(rng);
}

std::string needle(Name kind, const std::string& key, const std::string& value) {
  return fmt::format("One of the special magic {} for {} is: {}.", kind == Name::kUuid ? "uuids" : "numbers", key,
                     value);
}

std::string needle_question(const NeedleTask& t, const std::string& context, const std::string& query) {
  const bool one = t.queries * t.values == 1;
  const std::string what = std::string(t.value == Name::kUuid ? "uuid" : "number") + (one ? "" : "s");
  return one ? fmt::format(
                   "A special magic {0} is hidden within the following text. Make sure to memorize it. I will quiz "
                   "you about the {0} afterwards.\n{1}\nWhat is the special magic {0} for {2} mentioned in the "
                   "provided text? The special magic {0} for {2} mentioned in the provided text is",
                   what, context, query)
             : fmt::format(
                   "Some special magic {0} are hidden within the following text. Make sure to memorize it. I will "
                   "quiz you about the {0} afterwards.\n{1}\nWhat are all the special magic {0} for {2} mentioned "
                   "in the provided text? The special magic {0} for {2} mentioned in the provided text are",
                   what, context, query);
}

// A text's sentences, as far as full stops tell; white space becomes one blank.
std::vector<std::string> sentences_of(const std::string& text) {
  std::vector<std::string> sentences;
  std::string sentence;
  for (const char c : text) {
    const bool space = c == ' ' || (c >= '\t' && c <= '\r');
    if (!space) {
      sentence += c;
      continue;
    }
    if (sentence.empty() || sentence.back() == ' ') continue;
    if (std::string_view(".!?").find(sentence.back()) != std::string_view::npos) {
      sentences.push_back(std::move(sentence));
      sentence.clear();
    } else
      sentence += ' ';
  }
  if (!sentence.empty()) sentences.push_back(sentence);
  return sentences;
}

struct Needles {
  std::vector<std::string> lines, queries, answers;
  std::set<std::string> seen;  // all keys and values
};

Needles draw_needles(const NeedleTask& t, Rng& rng) {
  Needles n;
  for (int k = 0; k < t.keys; ++k) {
    const std::string key = distinct(n.seen, [&] { return random_name(rng, t.key); });
    const bool asked = k < t.queries;
    if (asked) n.queries.push_back(key);
    for (int v = 0; v < t.values; ++v) {
      const std::string value = distinct(n.seen, [&] { return random_name(rng, t.value); });
      n.lines.push_back(needle(t.value, key, value));
      if (asked) n.answers.push_back(value);
    }
  }
  shuffle(n.lines, Rng(rng.next()));
  return n;
}

Draw draw_niah(const NeedleTask& t, Rng& rng, const std::string& haystack) {
  const Needles n = draw_needles(t, rng);
  const uint64_t straw = rng.next(), places = rng.next();
  const bool in_text = t.haystack == Haystack::kText && !haystack.empty();
  const std::vector<std::string> sentences = in_text ? sentences_of(haystack) : std::vector<std::string>{};
  const auto straws = [=](int64_t size) {  // of equal draws, the longer list begins with the shorter one
    std::vector<std::string> list;
    Rng other(straw);
    std::set<std::string> seen = n.seen;
    const auto name = [&](Name kind) { return distinct(seen, [&] { return random_name(other, kind); }); };
    for (int64_t i = 0; i < size; ++i) {
      if (in_text) {
        list.push_back(sentences[static_cast<size_t>(i) % sentences.size()]);
      } else if (t.haystack == Haystack::kNeedles) {
        const std::string key = name(t.key);
        list.push_back(needle(t.value, key, name(t.value)));
      } else {
        list.emplace_back(kNoiseLine);
      }
    }
    return list;
  };
  std::string query = n.queries[0];
  for (size_t i = 1; i < n.queries.size(); ++i) query += (i + 1 < n.queries.size() ? ", " : ", and ") + n.queries[i];
  return {.least = static_cast<int64_t>(n.lines.size()), .build = [=](int64_t size) {
            std::vector<std::string> list = straws(size);
            scatter(n.lines, list, Rng(places));
            return RulerPrompt{needle_question(t, join(list, in_text ? " " : "\n"), query), n.answers};
          }};
}

// ---- variable tracking ----------------------------------------------------------------------------------------------

constexpr int kHops = 4;

// Five variables with one value; `letters` in a name. The prompt ends in the answer prefix, "assgined" as RULER has it.
Draw draw_chain(int64_t letters, Rng& rng) {
  std::vector<std::string> names, lines;
  std::set<std::string> seen;
  for (int i = 0; i <= kHops; ++i) names.push_back(distinct(seen, [&] { return random_letters(rng, letters, 'A'); }));
  const std::string value = random_number(rng, 5);
  lines.push_back(fmt::format("VAR {} = {}", names[0], value));
  for (size_t i = 1; i < names.size(); ++i) lines.push_back(fmt::format("VAR {} = VAR {} ", names[i], names[i - 1]));
  const uint64_t places = rng.next();
  return {
      .least = 1, .build = [=](int64_t size) {
        // Sentences where noise is too short to have room for the chain between its lines.
        std::vector<std::string> list;
        if (size > kHops + 1)
          list.assign(static_cast<size_t>(size), std::string(kNoiseLine) + "\n");
        else
          for (int64_t i = 0; i < size; ++i)
            for (const std::string& sentence : sentences_of(std::string(kNoiseLine))) list.push_back(sentence);
        scatter(lines, list, Rng(places));
        return RulerPrompt{
            fmt::format("Memorize and track the chain(s) of variable assignment hidden in the following text.\n\n{}\n"
                        "Question: Find all variables that are assigned the value {} in the text above. Answer: "
                        "According to the chain(s) of variable assignment in the text above, {} variables are assgined "
                        "the value {}, they are: ",
                        join(list, " "), value, names.size(), value),
            names};
      }};
}

// A solved example with short names, of at most 500 tokens, goes in front (RULER's length; a quarter of shorter
// prompts).
Draw draw_tracking(int64_t tokens, const text::Tokenizer& tokenizer, Rng& rng) {
  const Draw example_draw = draw_chain(3, rng);
  const int64_t room = std::min<int64_t>(500, tokens / 4);
  int64_t size = 1;
  while (static_cast<int64_t>(tokenizer.encode(example_draw.build(size + 1).text).size()) <= room) ++size;
  const RulerPrompt solved = example_draw.build(size);
  const std::string example = solved.text + " " + join(solved.answers, " ") + "\n\n\n\n";
  const Draw chain = draw_chain(5, rng);
  return {.least = chain.least, .build = [=](int64_t n) {
            RulerPrompt prompt = chain.build(n);
            prompt.text = example + prompt.text;
            return prompt;
          }};
}

// ---- words ----------------------------------------------------------------------------------------------------------

constexpr int kCommonWords = 10;

struct Repeats {
  int common = 0, uncommon = 0;
};

// Ten common words and `uncommon` others, numbered in random order.
RulerPrompt word_list(int64_t uncommon, Repeats repeats, uint64_t seed) {
  Rng rng(seed);
  std::set<std::string> seen;
  std::vector<std::string> common, list;
  for (int64_t i = 0; i < kCommonWords + uncommon; ++i) {
    const std::string word = distinct(seen, [&] { return made_up_word(rng); });
    if (i < kCommonWords) common.push_back(word);
    const int times = i < kCommonWords ? repeats.common : repeats.uncommon;
    list.insert(list.end(), static_cast<size_t>(times), word);
  }
  shuffle(list, Rng(seed, 1));
  std::string context;
  for (size_t i = 0; i < list.size(); ++i) context += fmt::format("{}{}. {}", i ? " " : "", i + 1, list[i]);
  return {
      fmt::format("Below is a numbered list of words. In these words, some appear more often than others. Memorize the "
                  "ones that appear most often.\n{}\nQuestion: What are the 10 most common words in the above list? "
                  "Answer: The top 10 words that appear most often in the list are:",
                  context),
      common};
}

Draw draw_common(int64_t tokens, Rng& rng) {
  const bool small = tokens + ruler_new_tokens(RulerTask::kCommonWords) < 4096;
  const RulerPrompt solved = word_list(small ? 10 : 30, small ? Repeats{3, 1} : Repeats{10, 3}, rng.next());
  std::string example = solved.text;
  for (size_t i = 0; i < solved.answers.size(); ++i) example += fmt::format(" {}. {}", i + 1, solved.answers[i]);
  const uint64_t seed = rng.next();
  return {.least = 1, .build = [=](int64_t size) {
            RulerPrompt prompt = word_list(size, small ? Repeats{6, 1} : Repeats{30, 3}, seed);
            prompt.text = example + "\n" + prompt.text;
            return prompt;
          }};
}

// Coded words, the k-th of them n / (zeta(2) k^2) times; the most frequent one is dots, and asked for are the next
// three.
Draw draw_frequent(int64_t tokens, Rng& rng) {
  constexpr double kZeta2 = std::numbers::pi * std::numbers::pi / 6;
  const int64_t vocabulary = std::max<int64_t>(5, (tokens + ruler_new_tokens(RulerTask::kFrequentWords)) / 50);
  std::set<std::string> seen;
  std::vector<std::string> words = {"..."};
  for (int64_t i = 1; i < vocabulary; ++i) words.push_back(distinct(seen, [&] { return random_letters(rng, 6, 'a'); }));
  const uint64_t order = rng.next();
  // From n = 74 on the fourth word is more frequent than the fifth: n / zeta(2) (1/16 - 1/25) >= 1.
  return {
      .least = 74, .build = [=](int64_t n) {
        std::vector<std::string> list;
        for (size_t k = 0; k < words.size(); ++k) {
          const auto rank = static_cast<double>(k + 1);
          list.insert(list.end(), static_cast<size_t>(static_cast<double>(n) / (kZeta2 * rank * rank)), words[k]);
        }
        shuffle(list, Rng(order));
        return RulerPrompt{
            fmt::format("Read the following coded text and track the frequency of each coded word. Find the three most "
                        "frequently appeared coded words. {}\nQuestion: Do not provide any explanation. Please ignore "
                        "the dots '....'. What are the three most frequently appeared words in the above coded text? "
                        "Answer: According to the coded text above, the three most frequently appeared words are:",
                        join(list, " ")),
            {words.begin() + 1, words.begin() + 4}};
      }};
}

// ---- facts ----------------------------------------------------------------------------------------------------------

std::string made_up_name(Rng& rng) {
  std::string name = made_up_word(rng);
  name[0] = static_cast<char>(name[0] - 'a' + 'A');
  return name;
}

// Three persons, each in three places, one after the other; in the task of two facts the one who is asked about takes a
// thing before their last way, and another person takes another thing.
struct Facts {
  std::vector<std::string> lines;
  std::string asked, answer;  // a person or a thing, and the place
};

Facts draw_facts(RulerTask task, Rng& rng) {
  constexpr size_t kPersons = 3, kPlaces = 3;
  std::set<std::string> seen;
  std::vector<std::string> persons, places, things;
  for (size_t i = 0; i < kPersons; ++i) persons.push_back(distinct(seen, [&] { return made_up_name(rng); }));
  for (size_t i = 0; i < kPersons * kPlaces; ++i) places.push_back(distinct(seen, [&] { return made_up_word(rng); }));
  for (size_t i = 0; i < 2; ++i) things.push_back(distinct(seen, [&] { return made_up_word(rng); }));
  const bool two = task == RulerTask::kFactTwo;
  std::vector<size_t> turns;  // whose way is next
  for (size_t i = 0; i < kPersons * kPlaces; ++i) turns.push_back(i % kPersons);
  shuffle(turns, Rng(rng.next()));
  Facts f{.lines = {}, .asked = two ? things[0] : persons[0], .answer = places[kPlaces - 1]};
  std::vector<size_t> went(kPersons, 0);
  for (const size_t p : turns) {
    if (two && p < things.size() && went[p] + 1 == kPlaces)
      f.lines.push_back(fmt::format("{} took the {}.", persons[p], things[p]));
    f.lines.push_back(fmt::format("{} went to the {}.", persons[p], places[p * kPlaces + went[p]++]));
  }
  return f;
}

Draw draw_fact(RulerTask task, Rng& rng, const std::string& haystack) {
  const Facts f = draw_facts(task, rng);
  const uint64_t places = rng.next();
  const std::vector<std::string> sentences = sentences_of(haystack.empty() ? std::string(kNoiseLine) : haystack);
  return {
      .least = static_cast<int64_t>(f.lines.size()), .build = [=](int64_t size) {
        std::vector<std::string> list;
        for (int64_t i = 0; i < size; ++i) list.push_back(sentences[static_cast<size_t>(i) % sentences.size()]);
        scatter(f.lines, list, Rng(places));
        return RulerPrompt{
            fmt::format("Facts about persons, places and things are hidden in the following text. Memorize them. Of "
                        "several places of a person, the last one counts.\n{}\nQuestion: Where is {} now? Answer: "
                        "{} is in the",
                        join(list, " "), (task == RulerTask::kFactTwo ? "the " : "") + f.asked,
                        (task == RulerTask::kFactTwo ? "The " : "") + f.asked),
            {f.answer}};
      }};
}

// ---- graphs ---------------------------------------------------------------------------------------------------------

// Edges of other nodes hide four: to the node asked about, from its parents; or from it to two nodes, and from these.
Draw draw_graph(RulerTask task, Rng& rng) {
  std::set<std::string> seen;
  const auto node = [&](Rng& from) { return distinct(seen, [&] { return random_letters(from, 6, 'a'); }); };
  std::vector<std::string> n;
  for (int i = 0; i < 5; ++i) n.push_back(node(rng));
  const bool steps = task == RulerTask::kGraphSteps;
  const auto edge = [](const std::string& from, const std::string& to) { return fmt::format("{} -> {}", from, to); };
  const std::vector<std::string> lines =
      steps ? std::vector{edge(n[0], n[1]), edge(n[0], n[2]), edge(n[1], n[3]), edge(n[2], n[4])}
            : std::vector{edge(n[1], n[0]), edge(n[2], n[0]), edge(n[0], n[3]), edge(n[0], n[4])};
  const std::vector<std::string> answers = steps ? std::vector{n[3], n[4]} : std::vector{n[1], n[2]};
  const std::string what =
      steps ? fmt::format("are exactly two steps from {}", n[0]) : fmt::format("have an edge to {}", n[0]);
  const uint64_t others = rng.next(), places = rng.next();
  return {.least = static_cast<int64_t>(lines.size()), .build = [=](int64_t size) {
            Rng other(others);
            std::set<std::string> names = seen;
            std::vector<std::string> list;
            std::string last = distinct(names, [&] { return random_letters(other, 6, 'a'); });
            for (int64_t i = 0; i < size; ++i) {  // a long way through other nodes
              std::string next = distinct(names, [&] { return random_letters(other, 6, 'a'); });
              list.push_back(fmt::format("{} -> {}", last, next));
              last = std::move(next);
            }
            shuffle(list, Rng(others, 1));
            std::vector<std::string> hidden = lines;
            shuffle(hidden, Rng(places, 1));
            scatter(hidden, list, Rng(places));
            return RulerPrompt{fmt::format("Below are the edges of a directed graph, one a line. Memorize them.\n{}\n"
                                           "Question: Which nodes {}? Answer: The nodes that {} are:",
                                           join(list, "\n"), what, what),
                               answers};
          }};
}

// ---- requests -------------------------------------------------------------------------------------------------------

std::string asked_and_answered(const std::string& topic, const std::string& answer) {
  return fmt::format("User: Write a line about {}.\nAssistant: {}.", topic, answer);
}

// Three answers to one request, among requests that are each made once.
Draw draw_requests(Rng& rng) {
  constexpr int kRepeats = 3, kWords = 4;
  std::set<std::string> seen;
  const std::string topic = distinct(seen, [&] { return made_up_word(rng); });
  std::vector<std::string> lines, wanted;
  for (int i = 0; i < kRepeats; ++i) {
    std::vector<std::string> words;
    for (int w = 0; w < kWords; ++w) words.push_back(distinct(seen, [&] { return made_up_word(rng); }));
    lines.push_back(asked_and_answered(topic, join(words, " ")));
    if (i == 1) wanted = words;
  }
  const uint64_t others = rng.next(), places = rng.next();
  return {.least = kRepeats, .build = [=](int64_t size) {
            Rng other(others);
            std::set<std::string> names = seen;
            const auto word = [&] { return distinct(names, [&] { return made_up_word(other); }); };
            std::vector<std::string> list;
            for (int64_t i = 0; i < size; ++i) {
              const std::string about = word();
              std::vector<std::string> words;
              for (int w = 0; w < kWords; ++w) words.push_back(word());
              list.push_back(asked_and_answered(about, join(words, " ")));
            }
            scatter(lines, list, Rng(places));
            return RulerPrompt{
                fmt::format("Below is a conversation. Memorize the answers.\n{}\nUser: Repeat your second "
                            "line about {}.\nAssistant:",
                            join(list, "\n"), topic),
                wanted};
          }};
}

}  // namespace

int64_t ruler_new_tokens(RulerTask task) {
  switch (task) {
    case RulerTask::kVariableTracking: return 30;
    case RulerTask::kCommonWords: return 120;
    case RulerTask::kFrequentWords: return 50;
    case RulerTask::kFactOne:
    case RulerTask::kFactTwo: return 15;
    case RulerTask::kGraphParents:
    case RulerTask::kGraphSteps: return 30;
    case RulerTask::kRepeatedRequest: return 60;
    default: return 128;
  }
}

RulerPrompt make_ruler_prompt(RulerTask task, int64_t tokens, const text::Tokenizer& tokenizer, Rng& rng,
                              const std::string& haystack) {
  const Draw draw = [&] {
    switch (task) {
      case RulerTask::kVariableTracking: return draw_tracking(tokens, tokenizer, rng);
      case RulerTask::kCommonWords: return draw_common(tokens, rng);
      case RulerTask::kFrequentWords: return draw_frequent(tokens, rng);
      case RulerTask::kFactOne:
      case RulerTask::kFactTwo: return draw_fact(task, rng, haystack);
      case RulerTask::kGraphParents:
      case RulerTask::kGraphSteps: return draw_graph(task, rng);
      case RulerTask::kRepeatedRequest: return draw_requests(rng);
      default: return draw_niah(needle_task(task), rng, haystack);
    }
  }();
  return largest(draw, tokens, tokenizer, task);
}

}  // namespace coca::data
