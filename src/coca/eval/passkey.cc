// SPDX-License-Identifier: Apache-2.0
#include "coca/eval/passkey.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <map>
#include <string>

#include "coca/base/clock.h"
#include "coca/base/memory.h"
#include "coca/base/rng.h"
#include "coca/base/stop.h"
#include "coca/infer/cached_decoder.h"
#include "coca/ops/linear.h"

namespace coca::eval {

namespace {

constexpr int32_t kNoToken = -1;  // what NaN logits choose

struct Trial {
  PasskeyTrial prompt;
  size_t cell = 0;
  bool correct = false;
  double digits_right = 0, nll = 0;  // share of the digits; mean over the answer's tokens

  int64_t tokens() const { return static_cast<int64_t>(prompt.ids.size()); }
};

// The largest logit (the lowest id among equals) and -log softmax of the target.
struct Choice {
  int32_t id = kNoToken;
  double nll = 0;
};
Choice choose(const float* logits, int64_t V, int32_t target) {
  int64_t best = 0;
  bool nan = false;
  for (int64_t v = 0; v < V; ++v) {
    nan = nan || std::isnan(logits[v]);
    if (logits[v] > logits[best]) best = v;
  }
  if (nan) return {kNoToken, std::nan("")};
  double sum = 0;
  for (int64_t v = 0; v < V; ++v)
    sum += std::exp(static_cast<double>(logits[v]) - static_cast<double>(logits[best]));
  return {static_cast<int32_t>(best),
          std::log(sum) + static_cast<double>(logits[best]) - static_cast<double>(logits[target])};
}

// Runs prompts of one shape: `start` tokens of prompt, then A of answer.
class TrialRunner {
 public:
  TrialRunner(Context& cx, const model::ModelSpec& spec, const model::Weights& weights,
              const text::Tokenizer& tokenizer)
      : cx_(cx), spec_(spec), weights_(weights), tokenizer_(tokenizer) {}

  void run(std::span<Trial*> batch) {
    batch_ = batch;
    B_ = static_cast<int64_t>(batch.size());
    start_ = batch[0]->prompt.answer_start;
    A_ = batch[0]->tokens() - start_;
    chosen_.assign(static_cast<size_t>(B_ * A_), kNoToken);
    // The base of dynamic NTK is that of the whole sequence throughout: what running it at once would see.
    infer::CachedDecoder decoder(spec_, weights_, B_, infer::DynamicBase::kRequest, start_ + A_);
    const int64_t first_wrong = force(decoder);
    if (first_wrong + 1 < A_) decode_freely(decoder, first_wrong);
    for (int64_t b = 0; b < B_; ++b) judge(b);
  }

 private:
  int32_t& chosen(int64_t b, int64_t i) { return chosen_[static_cast<size_t>(b * A_ + i)]; }
  int32_t answer(int64_t b, int64_t i) const {
    return batch_[static_cast<size_t>(b)]->prompt.ids[static_cast<size_t>(start_ + i)];
  }

  // ids [begin, begin + count) of every prompt.
  TensorRef columns(int64_t begin, int64_t count) {
    ids_.clear();
    for (const Trial* t : batch_)
      ids_.insert(ids_.end(), t->prompt.ids.begin() + begin, t->prompt.ids.begin() + begin + count);
    return {ids_.data(), DType::kI32, {B_, count}};
  }

  // Prompt and answer with the right tokens; returns the first position at which any row is wrong, or A.
  int64_t force(infer::CachedDecoder& decoder) {
    for (Trial* t : batch_) t->nll = 0;
    int64_t first_wrong = A_;
    const auto take = [&](int64_t b, int64_t i, const float* logits) {
      const Choice choice = choose(logits, spec_.V, answer(b, i));
      chosen(b, i) = choice.id;
      batch_[static_cast<size_t>(b)]->nll += choice.nll / static_cast<double>(A_);
      if (choice.id != answer(b, i)) first_wrong = std::min(first_wrong, i);
    };
    decoder.append(cx_, columns(0, start_));
    const float* first = decoder.last_logits(cx_).as<float>();
    for (int64_t b = 0; b < B_; ++b) take(b, 0, first + b * spec_.V);
    if (A_ == 1) return first_wrong;
    const TensorRef hidden = decoder.append(cx_, columns(start_, A_ - 1)).reshape({B_ * (A_ - 1), spec_.C});
    if (logits_.empty() || logits_.size(0) != B_ * (A_ - 1)) logits_ = Tensor({B_ * (A_ - 1), spec_.V});
    ops::linear_forward(cx_, {.x = hidden, .w = weights_.head, .y = logits_});
    const float* logits = logits_.ref().as<float>();
    for (int64_t b = 0; b < B_; ++b)
      for (int64_t i = 1; i < A_; ++i) take(b, i, logits + (b * (A_ - 1) + i - 1) * spec_.V);
    return first_wrong;
  }

  // Greedy from position `from` on, whose choices were made after right tokens alone. Rows that were right throughout
  // choose the same again.
  void decode_freely(infer::CachedDecoder& decoder, int64_t from) {
    decoder.cache().truncate(start_ + from);
    for (int64_t i = from + 1; i < A_; ++i) {
      ids_.clear();
      for (int64_t b = 0; b < B_; ++b) ids_.push_back(std::max(chosen(b, i - 1), 0));
      decoder.append(cx_, {ids_.data(), DType::kI32, {B_, 1}});
      const float* logits = decoder.last_logits(cx_).as<float>();
      for (int64_t b = 0; b < B_; ++b)
        chosen(b, i) = chosen(b, i - 1) == kNoToken ? kNoToken : choose(logits + b * spec_.V, spec_.V, 0).id;
    }
  }

  void judge(int64_t b) {
    Trial& t = *batch_[static_cast<size_t>(b)];
    t.correct = true;
    std::string text;
    text::DecodeState inside{.at_start = false};  // the answer's leading space is kept
    for (int64_t i = 0; i < A_; ++i) {
      t.correct = t.correct && chosen(b, i) == answer(b, i);
      if (chosen(b, i) == kNoToken || chosen(b, i) >= tokenizer_.vocab_size())
        break;  // a padding row of the embedding
      tokenizer_.append_decoded(chosen(b, i), inside, text);
    }
    const std::string& right = t.prompt.answer;
    int64_t digits = 0, hits = 0;
    for (size_t i = 0; i < right.size(); ++i) {
      if (right[i] < '0' || right[i] > '9') continue;
      ++digits;
      hits += i < text.size() && text[i] == right[i];
    }
    t.digits_right = static_cast<double>(hits) / static_cast<double>(digits);
  }

  Context& cx_;
  const model::ModelSpec& spec_;
  const model::Weights& weights_;
  const text::Tokenizer& tokenizer_;
  std::span<Trial*> batch_;
  int64_t B_ = 0, start_ = 0, A_ = 0;
  std::vector<int32_t> ids_, chosen_;  // chosen_ [B, A]
  Tensor logits_;
};

void add(PasskeyScore& score, const Trial& trial) {
  ++score.trials;
  score.correct += trial.correct;
  score.digit_accuracy += trial.digits_right;
  score.nll += trial.nll;
}

void finish(PasskeyScore& score) {
  const auto n = static_cast<double>(score.trials);
  score.accuracy = static_cast<double>(score.correct) / n;
  score.digit_accuracy /= n;
  score.nll /= n;
  const Interval interval = wilson_interval(score.correct, score.trials);
  score.accuracy_low = interval.low;
  score.accuracy_high = interval.high;
}

// Appends the cells of one length.
PasskeyTotal summarise(const std::vector<Trial>& trials, int64_t length, const std::vector<double>& depths,
                       std::vector<PasskeyCell>& cells) {
  PasskeyTotal total{
      .length = length, .least_tokens = trials[0].tokens(), .most_tokens = trials[0].tokens()};
  const size_t first = cells.size();
  for (const double depth : depths) cells.push_back({.length = length, .depth = depth});
  for (const Trial& t : trials) {
    add(cells[first + t.cell].score, t);
    add(total.score, t);
    total.least_tokens = std::min(total.least_tokens, t.tokens());
    total.most_tokens = std::max(total.most_tokens, t.tokens());
  }
  for (size_t i = first; i < cells.size(); ++i) finish(cells[i].score);
  finish(total.score);
  return total;
}

void check_options(const PasskeyOptions& o) {
  COCA_CHECK(!o.lengths.empty(), "passkey: no length given");
  COCA_CHECK(!o.depths.empty(), "passkey: no depth given");
  for (const int64_t length : o.lengths)
    COCA_CHECK(length >= 2, "passkey: length {} must be at least 2", length);
  for (const double depth : o.depths)
    COCA_CHECK(depth >= 0 && depth <= 1, "passkey: depth {} must be from 0 to 1", depth);
  COCA_CHECK(o.trials >= 1, "passkey: trials {} must be at least 1", o.trials);
  COCA_CHECK(o.batch_tokens >= 1, "passkey: batch_tokens {} must be at least 1", o.batch_tokens);
}

}  // namespace

Interval wilson_interval_of_mean(double mean, int64_t trials) {
  COCA_CHECK(trials >= 1 && mean >= 0 && mean <= 1, "wilson interval: mean {} of {}", mean, trials);
  constexpr double z = 1.959963984540054;  // the normal distribution's 97.5 % quantile
  const auto n = static_cast<double>(trials);
  const double z2 = z * z / n, middle = (mean + z2 / 2) / (1 + z2),
               half = z * std::sqrt(mean * (1 - mean) / n + z2 / (4 * n)) / (1 + z2);
  return {mean == 0 ? 0.0 : std::max(0.0, middle - half), mean == 1 ? 1.0 : std::min(1.0, middle + half)};
}

Interval wilson_interval(int64_t successes, int64_t trials) {
  COCA_CHECK(trials >= 1 && successes >= 0 && successes <= trials, "wilson interval: {} of {}", successes, trials);
  return wilson_interval_of_mean(static_cast<double>(successes) / static_cast<double>(trials), trials);
}

PasskeyTrial make_passkey_trial(const text::Tokenizer& tokenizer, const PasskeyOptions& o,
                                std::optional<int32_t> bos, int64_t length, double depth, int64_t trial) {
  const uint64_t cell = mix64(mix64(static_cast<uint64_t>(length)) ^ std::bit_cast<uint64_t>(depth + 0.0));
  Rng rng(static_cast<uint64_t>(o.seed), mix64(cell ^ mix64(static_cast<uint64_t>(trial))));
  const int64_t front = bos ? 1 : 0;
  const data::PasskeyPrompt prompt =
      data::make_passkey_prompt(o.wording, length - front, depth, tokenizer, rng, o.digits);
  const std::vector<int32_t> both = tokenizer.encode(prompt.text + prompt.answer),
                             alone = tokenizer.encode(prompt.text);
  const auto part = std::mismatch(both.begin(), both.end(), alone.begin(), alone.end()).first;
  PasskeyTrial out{.answer_start = front + (part - both.begin()), .answer = prompt.answer};
  if (bos) out.ids.push_back(*bos);
  out.ids.insert(out.ids.end(), both.begin(), both.end());
  COCA_CHECK(out.answer_start >= 1 && out.answer_start < static_cast<int64_t>(out.ids.size()),
             "passkey: the tokenizer ({}) makes no answer of \"{}\"", tokenizer.kind(), prompt.answer);
  return out;
}

PasskeyResult passkey(Context& cx, const model::ModelSpec& model_spec, const model::Weights& weights,
                      const text::Tokenizer& tokenizer, const PasskeyOptions& o) {
  check_options(o);
  check_tokenizer(tokenizer, model_spec);
  const model::ModelSpec spec = with_scaling(model_spec, o.scaling);
  PasskeyResult result{.bos = bos_token(spec, o.bos)};
  // A length without room for the prompt fails before any work is done.
  make_passkey_trial(tokenizer, o, result.bos, *std::min_element(o.lengths.begin(), o.lengths.end()),
                     o.depths[0], 0);
  TrialRunner runner(cx, spec, weights, tokenizer);
  const auto cells = static_cast<int64_t>(o.depths.size());
  PasskeyProgress progress{.total = static_cast<int64_t>(o.lengths.size()) * cells * o.trials};
  const auto stop_here = [&](int64_t length) {
    COCA_CHECK_AS(kInterrupted, !stop_requested(), "passkey: stopped at length {}, {} of {} prompts done",
                  length, progress.done, progress.total);
  };
  for (const int64_t length : o.lengths) {
    const Stopwatch watch;
    progress.length = length;
    progress.correct = progress.tried = 0;
    std::vector<Trial> trials;
    for (size_t d = 0; d < o.depths.size(); ++d)
      for (int64_t t = 0; t < o.trials; ++t) {
        stop_here(length);
        trials.push_back(
            {.prompt = make_passkey_trial(tokenizer, o, result.bos, length, o.depths[d], t), .cell = d});
      }
    // Prompts of one shape run together, most tokens first.
    std::map<std::pair<int64_t, int64_t>, std::vector<Trial*>, std::greater<>> shapes;
    for (Trial& t : trials) shapes[{t.tokens(), t.prompt.answer_start}].push_back(&t);
    for (auto& [shape, list] : shapes)
      for (size_t i = 0; i < list.size();) {
        stop_here(length);
        const auto most = static_cast<size_t>(std::max<int64_t>(1, o.batch_tokens / shape.first));
        const size_t count = std::min(most, list.size() - i);
        runner.run(std::span(list).subspan(i, count));
        for (const size_t end = i + count; i < end; ++i) {
          progress.correct += list[i]->correct;
          ++progress.tried;
          ++progress.done;
        }
        if (o.progress) o.progress(progress);
      }
    PasskeyTotal total = summarise(trials, length, o.depths, result.cells);
    total.seconds = watch.seconds();
    total.peak_resident_bytes = peak_resident_bytes();
    result.totals.push_back(total);
  }
  return result;
}

}  // namespace coca::eval
