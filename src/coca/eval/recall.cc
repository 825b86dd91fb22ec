// SPDX-License-Identifier: Apache-2.0
#include "coca/eval/recall.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <ranges>

#include "coca/base/clock.h"
#include "coca/base/count.h"
#include "coca/eval/choice.h"
#include "coca/eval/share.h"
#include "coca/model/decoder.h"
#include "coca/model/windows.h"
#include "coca/ops/linear.h"
#include "coca/tensor/transfer.h"

namespace coca::eval {

namespace {

bool is_letter(char c) {
  return (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || static_cast<unsigned char>(c) >= 0x80;
}

std::string small(std::string_view word) {
  std::string out(word);
  for (char& c : out)
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  return out;
}

// An occurrence of a word, in tokens.
struct Place {
  int64_t begin = 0, end = 0;
};

// A document's text, and the token that each byte is of.
struct Decoded {
  std::string text;
  std::vector<int64_t> token_of;
};
Decoded decode(const text::Tokenizer& tokenizer, const std::vector<int32_t>& ids) {
  Decoded d;
  text::DecodeState inside{.at_start = false};
  for (size_t i = 0; i < ids.size(); ++i) {
    if (ids[i] < tokenizer.vocab_size()) tokenizer.append_decoded(ids[i], inside, d.text);
    d.token_of.resize(d.text.size(), static_cast<int64_t>(i));
  }
  return d;
}

// The tokens of the word [begin, end), if they hold nothing more but white space before it.
std::optional<Place> tokens_of(const Decoded& d, size_t begin, size_t end) {
  const int64_t first = d.token_of[begin], last = d.token_of[end - 1];
  if (end < d.text.size() && d.token_of[end] == last) return std::nullopt;
  for (size_t i = begin; i > 0 && d.token_of[i - 1] == first; --i)
    if (d.text[i - 1] != ' ' && d.text[i - 1] != '\n') return std::nullopt;
  return Place{first, last + 1};
}

struct Word {
  int64_t times = 0;                // in the document, in any tokens
  std::vector<Place> places;        // those that fill tokens; an occurrence that does not ends what comes before it
  std::vector<bool> after_another;  // by place: whether one without tokens of its own stands before it
};
std::map<std::string, Word> words_of(const Decoded& d) {
  std::map<std::string, Word> words;
  std::map<std::string, bool> broken;
  for (size_t at = 0; at < d.text.size();) {
    if (!is_letter(d.text[at])) {
      ++at;
      continue;
    }
    size_t end = at;
    while (end < d.text.size() && is_letter(d.text[end])) ++end;
    if (const std::string word = d.text.substr(at, end - at); word.size() >= 3) {
      Word& of = words[word];
      ++of.times;
      bool& hidden = broken[word];
      if (const std::optional<Place> place = tokens_of(d, at, end)) {
        of.places.push_back(*place);
        of.after_another.push_back(hidden);
        hidden = false;
      } else {
        hidden = true;
      }
    }
    at = end;
  }
  return words;
}

bool wanted(const std::string& word, const Word& of, const std::map<std::string, Word>& all, RecallWords kind) {
  if (kind == RecallWords::kRare) return of.times >= 2 && of.times <= 3;
  return word[0] >= 'A' && word[0] <= 'Z' && !all.contains(small(word));
}

void add_pairs(const Word& word, int64_t document, const std::vector<int32_t>& ids, const RecallOptions& o,
               int64_t front, std::vector<RecallPair>& pairs) {
  for (size_t i = 1; i < word.places.size(); ++i) {
    const Place &first = word.places[i - 1], &second = word.places[i];
    const int64_t tokens = second.end - second.begin;
    const auto id = ids.begin();
    if (word.after_another[i] || word.after_another[i - 1] || first.end - first.begin != tokens ||
        !std::equal(id + first.begin, id + first.end, id + second.begin))
      continue;
    if (o.given == RecallGiven::kFirst && tokens < 2) continue;
    const int64_t before = i > 1 ? word.places[i - 2].end : 0;
    const int64_t begin = std::max(before, first.begin - o.lead);
    if (first.begin - begin + front < 1) continue;
    pairs.push_back(
        {.document = document, .begin = begin, .first = first.begin, .second = second.begin, .tokens = tokens});
  }
}

struct Outcome {
  double first = 0, second = 0;  // sums of the nll over the scored tokens; NaN for logits that are not finite
  bool first_right = false, second_right = false;
};
struct Item {
  RecallPair pair;
  Outcome outcome;
  bool done = false;
};
struct Plan {
  RecallResult result;
  std::vector<Item> items;
};

class PairRunner {
 public:
  PairRunner(Context& cx, const model::ModelSpec& spec, const model::Weights& weights,
             std::span<const std::vector<int32_t>> documents, const RecallOptions& o, std::optional<int32_t> bos)
      : cx_(cx), weights_(weights), decoder_(spec, weights), documents_(documents), o_(o), bos_(bos) {}

  void run(Item& item) {
    const RecallPair& pair = item.pair;
    const std::vector<int32_t>& ids = documents_[static_cast<size_t>(pair.document)];
    ids_.clear();
    if (bos_) ids_.push_back(*bos_);
    ids_.insert(ids_.end(), ids.begin() + pair.begin, ids.begin() + pair.end() - 1);  // the last one predicts nothing
    const auto N = static_cast<int64_t>(ids_.size());
    const TensorRef hidden = decoder_.forward(cx_, {ids_.data(), DType::kI32, {1, N}, kHost});
    const int64_t shift = (bos_ ? 1 : 0) - pair.begin;
    score(hidden, ids, pair.first, shift, pair.tokens, item.outcome.first, item.outcome.first_right);
    score(hidden, ids, pair.second, shift, pair.tokens, item.outcome.second, item.outcome.second_right);
  }

 private:
  // The word at `at` of the document, whose tokens lie `shift` further in the window: the row before each predicts it.
  void score(TensorRef hidden, const std::vector<int32_t>& ids, int64_t at, int64_t shift, int64_t tokens, double& nll,
             bool& right) {
    const int64_t given = o_.given == RecallGiven::kFirst ? 1 : 0, n = tokens - given, V = decoder_.spec().V;
    if (logits_.empty() || logits_.size(0) != n) logits_ = Tensor({n, V}, DType::kF32, cx_.memory());
    ops::linear_forward(cx_, {.x = hidden.narrow(0, at + given + shift - 1, n), .w = weights_.head, .y = logits_});
    const float* logits = fetched_.now(cx_, logits_).as<float>();
    nll = 0;
    right = true;
    for (int64_t i = 0; i < n; ++i) {
      const int32_t target = ids[static_cast<size_t>(at + given + i)];
      const Choice choice = choose(logits + i * V, V, target);
      nll += choice.nll;
      right = right && choice.id == target;
    }
  }

  Context& cx_;
  const model::Weights& weights_;
  model::Decoder decoder_;
  std::span<const std::vector<int32_t>> documents_;
  const RecallOptions& o_;
  std::optional<int32_t> bos_;
  std::vector<int32_t> ids_;
  Tensor logits_;
  FetchedTensor fetched_;
};

std::vector<Plan> plan_all(const model::ModelSpec& spec, const text::Tokenizer& tokenizer,
                           std::span<const std::vector<int32_t>> documents, const RecallOptions& o) {
  model::require_causal(spec, "recall");
  check_tokenizer(tokenizer, spec);
  COCA_CHECK(!o.lengths.empty(), "lengths: none given");
  for (const int64_t length : o.lengths)
    COCA_CHECK(length >= 8, "lengths holds {}; expected at least 8 tokens", length);
  COCA_CHECK(o.pairs >= 1, "pairs is {}; expected at least 1", o.pairs);
  COCA_CHECK(o.lead >= 1, "lead is {}; expected at least 1 token", o.lead);
  const int64_t front = bos_token(spec, o.bos) ? 1 : 0;
  const std::vector<RecallPair> pairs = find_pairs(tokenizer, documents, o, front);
  std::vector<Plan> plans;
  for (const int64_t length : o.lengths) {
    std::vector<RecallPair> fitting;
    for (const RecallPair& p : pairs)
      if (const int64_t window = front + p.end() - p.begin; window <= length && window > length / 2)
        fitting.push_back(p);
    const auto found = static_cast<int64_t>(fitting.size()), most = std::min(found, o.pairs);
    Plan& plan = plans.emplace_back();
    plan.result.length = length;
    plan.result.found = found;
    plan.result.planned = most;
    for (int64_t i = 0; i < most; ++i)  // the middle ones of `most` equal parts
      plan.items.push_back({.pair = fitting[static_cast<size_t>((2 * i + 1) * found / (2 * most))]});
  }
  const auto none = [](const Plan& plan) { return plan.items.empty(); };
  COCA_CHECK(!std::ranges::all_of(plans, none),
             "text: {} with no word that occurs twice at the distances of these lengths; give longer texts or other "
             "lengths, or choose other words",
             counted(documents.size(), "document"));
  return plans;
}

// Over the finished items.
void summarise(const Plan& plan, int64_t given, RecallResult& r) {
  struct Sums {
    GroupSum first, second, gain;
  };
  std::map<int64_t, Sums> by_document;
  int64_t first_right = 0, second_right = 0;
  r.least_distance = r.most_distance = 0;
  for (const Item& item : plan.items) {
    if (!item.done) continue;
    const int64_t distance = item.pair.distance(), n = item.pair.tokens - given;
    r.least_distance = r.pairs == 0 ? distance : std::min(r.least_distance, distance);
    r.most_distance = std::max(r.most_distance, distance);
    ++r.pairs;
    first_right += item.outcome.first_right;
    second_right += item.outcome.second_right;
    Sums& sums = by_document[item.pair.document];
    for (const auto& [sum, value] :
         {std::pair(&sums.first, item.outcome.first), std::pair(&sums.second, item.outcome.second),
          std::pair(&sums.gain, item.outcome.first - item.outcome.second)}) {
      sum->sum += value;
      sum->items += n;
    }
  }
  const auto mean_of = [&](GroupSum Sums::*of) {
    std::vector<GroupSum> groups;
    for (const Sums& sums : std::views::values(by_document)) groups.push_back(sums.*of);
    return mean_over_groups(groups);
  };
  const auto score = [&](GroupSum Sums::*of, int64_t right) {
    RecallScore s{.nll = mean_of(of)};
    s.accuracy = static_cast<double>(right) / static_cast<double>(r.pairs);
    s.interval = wilson_interval(right, r.pairs);
    if (!std::isnan(s.nll.mean)) return s;
    s.accuracy = s.interval.low = s.interval.high = std::nan("");
    return s;
  };
  r.first = score(&Sums::first, first_right);
  r.second = score(&Sums::second, second_right);
  r.gain = mean_of(&Sums::gain);
}

}  // namespace

std::vector<RecallPair> find_pairs(const text::Tokenizer& tokenizer, std::span<const std::vector<int32_t>> documents,
                                   const RecallOptions& o, int64_t front) {
  std::vector<RecallPair> pairs;
  for (size_t d = 0; d < documents.size(); ++d) {
    const std::map<std::string, Word> words = words_of(decode(tokenizer, documents[d]));
    const auto begin = static_cast<std::ptrdiff_t>(pairs.size());
    for (const auto& [word, of] : words)
      if (wanted(word, of, words, o.words)) add_pairs(of, static_cast<int64_t>(d), documents[d], o, front, pairs);
    std::ranges::stable_sort(pairs.begin() + begin, pairs.end(), {}, &RecallPair::first);
  }
  return pairs;
}

std::vector<RecallResult> plan_recall(const model::ModelSpec& spec, const text::Tokenizer& tokenizer,
                                      std::span<const std::vector<int32_t>> documents, const RecallOptions& o) {
  std::vector<RecallResult> results;
  for (const Plan& plan : plan_all(spec, tokenizer, documents, o)) results.push_back(plan.result);
  return results;
}

void recall(Context& cx, const model::ModelSpec& model_spec, const model::Weights& weights,
            const text::Tokenizer& tokenizer, std::span<const std::vector<int32_t>> documents, const RecallOptions& o,
            std::vector<RecallResult>& results) {
  const model::ModelSpec spec = with_scaling(model_spec, o.scaling);
  std::vector<Plan> plans = plan_all(spec, tokenizer, documents, o);
  PairRunner runner(cx, spec, weights, documents, o, bos_token(spec, o.bos));
  int64_t done = 0, total = 0;
  for (const Plan& plan : plans) total += plan.result.planned;
  const auto K = static_cast<size_t>(o.ranks.size()), rank = static_cast<size_t>(o.ranks.rank());
  for (Plan& plan : plans) {
    const Stopwatch watch;
    const auto close = [&] {
      if (done == 0 || !plan.items.front().done) return;
      summarise(plan, o.given == RecallGiven::kFirst ? 1 : 0, plan.result);
      plan.result.seconds = watch.seconds();
      results.push_back(plan.result);
    };
    const auto stopped = [&] {
      return fmt::format("recall: stopped at length {}, {} of {} done", plan.result.length, grouped(done),
                         counted(total, "window"));
    };
    std::vector<std::vector<Item*>> batches;
    for (Item& item : plan.items) batches.push_back({&item});
    if (batches.empty()) continue;
    try {
      for (size_t first = 0; first < batches.size(); first += K) {
        const size_t end = std::min(first + K, batches.size());
        do_round(o.ranks, stopped, [&] {
          if (first + rank < end) runner.run(*batches[first + rank][0]);
        });
        share_batches<Item>(o.ranks, std::span(batches).subspan(first, end - first), &Item::outcome);
        for (size_t i = first; i < end; ++i) batches[i][0]->done = true;
        done += static_cast<int64_t>(end - first);
        if (o.progress) o.progress(plan.result.length, done, total);
      }
    } catch (...) {
      close();
      throw;
    }
    close();
  }
}

}  // namespace coca::eval
