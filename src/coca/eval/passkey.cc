// SPDX-License-Identifier: Apache-2.0
#include "coca/eval/passkey.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <map>
#include <string>

#include "coca/base/clock.h"
#include "coca/base/count.h"
#include "coca/base/memory.h"
#include "coca/base/rng.h"
#include "coca/base/sizes.h"
#include "coca/base/stop.h"
#include "coca/eval/choice.h"
#include "coca/eval/share.h"
#include "coca/infer/cached_decoder.h"
#include "coca/infer/session.h"
#include "coca/model/windows.h"
#include "coca/ops/linear.h"
#include "coca/tensor/transfer.h"

namespace coca::eval {

namespace {

struct Outcome {
  bool correct = false;
  // NaN for logits that are NaN or infinite. Share of the digits; mean over the answer's tokens, with rule exact
  double digits_right = 0, nll = 0;
};

struct Trial {
  PasskeyTrial prompt;
  size_t cell = 0;
  Outcome outcome;
  bool done = false;

  int64_t tokens() const { return static_cast<int64_t>(prompt.ids.size()); }
};

// Runs prompts of one shape: `start` tokens of prompt, then A of answer, or A to generate.
class TrialRunner {
 public:
  TrialRunner(Context& cx, const model::ModelSpec& spec, const model::Weights& weights,
              const text::Tokenizer& tokenizer, const PasskeyProtocol& protocol)
      : cx_(cx),
        spec_(spec),
        weights_(weights),
        tokenizer_(tokenizer),
        protocol_(protocol),
        ends_(tokenizer.eos_ids()) {}

  void run(std::span<Trial*> batch) {
    batch_ = batch;
    B_ = static_cast<int64_t>(batch.size());
    start_ = batch[0]->prompt.answer_start;
    const bool exact = protocol_.rule == PasskeyRule::kExact;
    A_ = exact ? batch[0]->tokens() - start_ : protocol_.new_tokens;
    chosen_.assign(static_cast<size_t>(B_ * A_), kNoToken);
    // The base of dynamic NTK is that of the whole sequence throughout, as if it ran at once.
    infer::CachedDecoder decoder(spec_, weights_, B_, infer::DynamicBase::kRequest, start_ + A_);
    if (exact) {
      const int64_t first_wrong = force(decoder);
      if (first_wrong + 1 < A_) {
        decoder.truncate(start_ + first_wrong);
        decode_freely(decoder, first_wrong);
      }
    } else {
      decoder.prefill(cx_, columns(0, start_), prefill_tokens());
      const float* logits = decoder.last_logits(cx_).as<float>();
      for (int64_t b = 0; b < B_; ++b) chosen(b, 0) = choose(logits + b * spec_.V, spec_.V, 0).id;
      decode_freely(decoder, 0);
    }
    for (int64_t b = 0; b < B_; ++b) judge(b);
  }

 private:
  int32_t& chosen(int64_t b, int64_t i) { return chosen_[static_cast<size_t>(b * A_ + i)]; }
  int32_t answer(int64_t b, int64_t i) const {
    return batch_[static_cast<size_t>(b)]->prompt.ids[static_cast<size_t>(start_ + i)];
  }

  // Of each prompt at a time, so that all of them together are a session's piece.
  int64_t prefill_tokens() const { return std::max<int64_t>(1, infer::kPrefillTokens / B_); }

  // ids [begin, begin + count) of every prompt.
  TensorRef columns(int64_t begin, int64_t count) {
    ids_.clear();
    for (const Trial* t : batch_)
      ids_.insert(ids_.end(), t->prompt.ids.begin() + begin, t->prompt.ids.begin() + begin + count);
    return {ids_.data(), DType::kI32, {B_, count}, kHost};
  }

  // Prompt and answer with the right tokens; returns the first position at which any row is wrong, or A.
  int64_t force(infer::CachedDecoder& decoder) {
    for (Trial* t : batch_) t->outcome.nll = 0;
    int64_t first_wrong = A_;
    const auto take = [&](int64_t b, int64_t i, const float* logits) {
      const Choice choice = choose(logits, spec_.V, answer(b, i));
      chosen(b, i) = choice.id;
      batch_[static_cast<size_t>(b)]->outcome.nll += choice.nll / static_cast<double>(A_);
      if (choice.id != answer(b, i)) first_wrong = std::min(first_wrong, i);
    };
    decoder.prefill(cx_, columns(0, start_), prefill_tokens());
    const float* first = decoder.last_logits(cx_).as<float>();
    for (int64_t b = 0; b < B_; ++b) take(b, 0, first + b * spec_.V);
    if (A_ == 1) return first_wrong;
    const TensorRef hidden = decoder.append(cx_, columns(start_, A_ - 1)).reshape({B_ * (A_ - 1), spec_.C});
    if (logits_.empty() || logits_.size(0) != B_ * (A_ - 1))
      logits_ = Tensor({B_ * (A_ - 1), spec_.V}, DType::kF32, cx_.memory());
    ops::linear_forward(cx_, {.x = hidden, .w = weights_.head, .y = logits_});
    const float* logits = fetched_.now(cx_, logits_).as<float>();
    for (int64_t b = 0; b < B_; ++b)
      for (int64_t i = 1; i < A_; ++i) take(b, i, logits + (b * (A_ - 1) + i - 1) * spec_.V);
    return first_wrong;
  }

  // Greedy from position `from` on, whose choices were made after right tokens alone. Rows that were right throughout
  // choose the same again.
  void decode_freely(infer::CachedDecoder& decoder, int64_t from) {
    for (int64_t i = from + 1; i < A_; ++i) {
      ids_.clear();
      for (int64_t b = 0; b < B_; ++b) ids_.push_back(std::max(chosen(b, i - 1), 0));
      decoder.append(cx_, {ids_.data(), DType::kI32, {B_, 1}, kHost});
      const float* logits = decoder.last_logits(cx_).as<float>();
      for (int64_t b = 0; b < B_; ++b)
        chosen(b, i) = chosen(b, i - 1) == kNoToken ? kNoToken : choose(logits + b * spec_.V, spec_.V, 0).id;
    }
  }

  // What row b wrote, up to an end token, an id without text or NaN.
  std::string written(int64_t b) {
    std::string text;
    text::DecodeState inside{.at_start = false};  // the answer's leading space is kept
    for (int64_t i = 0; i < A_; ++i) {
      const int32_t id = chosen(b, i);
      if (id == kNoToken || id >= tokenizer_.vocab_size()) break;  // a padding row of the embedding
      if (protocol_.rule != PasskeyRule::kExact && std::find(ends_.begin(), ends_.end(), id) != ends_.end()) break;
      tokenizer_.append_decoded(id, inside, text);
    }
    return text;
  }

  void judge(int64_t b) {
    Trial& t = *batch_[static_cast<size_t>(b)];
    const std::string text = written(b);
    if (protocol_.rule == PasskeyRule::kExact) {
      t.outcome.correct = true;
      for (int64_t i = 0; i < A_; ++i) t.outcome.correct = t.outcome.correct && chosen(b, i) == answer(b, i);
    } else {
      t.outcome.correct = counts(protocol_.rule, text, t.prompt.key);
    }
    const std::string& right = t.prompt.answer;
    int64_t digits = 0, hits = 0;
    for (size_t i = 0; i < right.size(); ++i) {
      if (right[i] < '0' || right[i] > '9') continue;
      ++digits;
      hits += i < text.size() && text[i] == right[i];
    }
    t.outcome.digits_right = static_cast<double>(hits) / static_cast<double>(digits);
    bool broken = std::isnan(t.outcome.nll);
    for (int64_t i = 0; i < A_; ++i) broken = broken || chosen(b, i) == kNoToken;
    if (broken) t.outcome.digits_right = std::nan("");
  }

  Context& cx_;
  const model::ModelSpec& spec_;
  const model::Weights& weights_;
  const text::Tokenizer& tokenizer_;
  const PasskeyProtocol& protocol_;
  std::vector<int32_t> ends_;
  std::span<Trial*> batch_;
  int64_t B_ = 0, start_ = 0, A_ = 0;
  std::vector<int32_t> ids_, chosen_;  // chosen_ [B, A]
  Tensor logits_;
  FetchedTensor fetched_;
};

void add(PasskeyScore& score, const Trial& trial) {
  ++score.trials;
  score.correct += trial.outcome.correct;
  score.digit_accuracy += trial.outcome.digits_right;
  score.nll = score.nll.value_or(0) + trial.outcome.nll;
}

void finish(PasskeyScore& score, PasskeyRule rule) {
  if (score.trials == 0) {  // of a measurement that ended early
    score.accuracy = score.digit_accuracy = std::nan("");
    return;
  }
  const auto n = static_cast<double>(score.trials);
  score.accuracy = static_cast<double>(score.correct) / n;
  score.digit_accuracy /= n;
  score.nll = rule == PasskeyRule::kExact ? std::optional(*score.nll / n) : std::nullopt;
  if (std::isnan(score.digit_accuracy)) {  // the model cannot be measured here
    score.accuracy = score.accuracy_low = score.accuracy_high = std::nan("");
    return;
  }
  const Interval interval = wilson_interval(score.correct, score.trials);
  score.accuracy_low = interval.low;
  score.accuracy_high = interval.high;
}

// The cells of a length: its depths, or the one of random places.
std::vector<std::optional<double>> cell_depths(const PasskeyProtocol& p) {
  if (p.place != PasskeyPlace::kDepths) return {std::nullopt};
  return {p.depths.begin(), p.depths.end()};
}

// Prompts of one shape run together, in the order of the first of them.
std::vector<std::vector<Trial*>> batches_of(std::vector<Trial>& trials, int64_t batch_tokens) {
  std::map<std::pair<int64_t, int64_t>, std::vector<Trial*>, std::greater<>> shapes;
  for (Trial& t : trials) shapes[{t.tokens(), t.prompt.answer_start}].push_back(&t);
  std::vector<std::vector<Trial*>> batches;
  for (const auto& [shape, list] : shapes) {
    const auto most = static_cast<size_t>(std::max<int64_t>(1, batch_tokens / shape.first));
    for (size_t i = 0; i < list.size(); i += most)
      batches.emplace_back(list.begin() + static_cast<std::ptrdiff_t>(i),
                           list.begin() + static_cast<std::ptrdiff_t>(std::min(i + most, list.size())));
  }
  std::ranges::sort(batches, {}, [](const std::vector<Trial*>& batch) { return batch.front(); });
  return batches;
}

// Appends a length of which some trials at least are done, and its cells.
void summarise(const std::vector<Trial>& trials, int64_t length, const PasskeyProtocol& p, double seconds,
               PasskeyResult& result) {
  const auto any = std::ranges::find(trials, true, &Trial::done);
  if (any == trials.end()) return;
  PasskeyTotal total{.length = length,
                     .least_tokens = any->tokens(),
                     .most_tokens = any->tokens(),
                     .seconds = seconds,
                     .peak_resident_bytes = peak_resident_bytes()};
  std::vector<PasskeyCell>& cells = result.cells;
  const size_t first = cells.size();
  for (const std::optional<double> depth : cell_depths(p)) cells.push_back({.length = length, .depth = depth});
  for (size_t i = first; i < cells.size(); ++i) {
    for (const Trial& t : trials) {
      if (!t.done || first + t.cell != i) continue;
      add(cells[i].score, t);
      add(total.score, t);
      PasskeyCell& cell = cells[i];
      cell.least_tokens = cell.score.trials == 1 ? t.tokens() : std::min(cell.least_tokens, t.tokens());
      cell.most_tokens = std::max(cell.most_tokens, t.tokens());
      total.least_tokens = std::min(total.least_tokens, t.tokens());
      total.most_tokens = std::max(total.most_tokens, t.tokens());
    }
    finish(cells[i].score, p.rule);
  }
  finish(total.score, p.rule);
  result.totals.push_back(total);
}

// A published script's prompt: so much garbage, parted at the depth or at random.
data::PasskeyPrompt published_prompt(const PasskeyProtocol& p, int64_t garbage, std::optional<double> depth, Rng& rng) {
  const int64_t places = p.place == PasskeyPlace::kRandomInside ? std::max<int64_t>(1, garbage) : garbage + 1;
  const int64_t before = depth ? std::llround(*depth * static_cast<double>(garbage))
                               : static_cast<int64_t>(rng.below(static_cast<uint64_t>(places)));
  const int64_t key =
      p.keys.least + static_cast<int64_t>(rng.below(static_cast<uint64_t>(p.keys.most - p.keys.least) + 1));
  return data::passkey_prompt_of(p.wording, {.control = p.length_control, .before = before, .after = garbage - before},
                                 key);
}

}  // namespace

PasskeyPlan plan_passkey(const text::Tokenizer& tokenizer, const PasskeyOptions& o, std::optional<int32_t> bos,
                         int64_t length) {
  const PasskeyProtocol& p = o.protocol;
  if (p.length_control == data::PasskeyLength::kTokens) return {.length = length};
  return {.length = length,
          .garbage = data::passkey_garbage(p.length_control, p.wording, length, bos ? 1 : 0, tokenizer)};
}

PasskeyTrial make_passkey_trial(const text::Tokenizer& tokenizer, const PasskeyOptions& o, std::optional<int32_t> bos,
                                const PasskeyPlan& plan, std::optional<double> depth, int64_t trial) {
  const PasskeyProtocol& p = o.protocol;
  const uint64_t cell =
      mix64(mix64(static_cast<uint64_t>(plan.length)) ^ std::bit_cast<uint64_t>(depth.value_or(-1.0) + 0.0));
  Rng rng(static_cast<uint64_t>(o.seed), mix64(cell ^ mix64(static_cast<uint64_t>(trial))));
  const int64_t front = bos ? 1 : 0;
  data::PasskeyPrompt prompt;
  if (p.length_control == data::PasskeyLength::kTokens) {
    const double where = depth ? *depth : rng.uniform();
    prompt = data::make_passkey_prompt(p.wording, plan.length - front, where, tokenizer, rng, p.keys);
  } else {
    prompt = published_prompt(p, plan.garbage, depth, rng);
  }
  const std::vector<int32_t> alone = tokenizer.encode(prompt.text);
  PasskeyTrial out{
      .answer_start = front + static_cast<int64_t>(alone.size()), .answer = prompt.answer, .key = prompt.key};
  if (bos) out.ids.push_back(*bos);
  if (p.rule != PasskeyRule::kExact) {
    out.ids.insert(out.ids.end(), alone.begin(), alone.end());
    return out;
  }
  const std::vector<int32_t> both = tokenizer.encode(prompt.text + prompt.answer);
  const auto part = std::mismatch(both.begin(), both.end(), alone.begin(), alone.end()).first;
  out.answer_start = front + (part - both.begin());
  out.ids.insert(out.ids.end(), both.begin(), both.end());
  COCA_CHECK(out.answer_start >= 1 && out.answer_start < static_cast<int64_t>(out.ids.size()),
             "passkey: the tokenizer ({}) makes no answer of \"{}\"", tokenizer.kind(), prompt.answer);
  return out;
}

namespace {

// The prompts of one length, run in rounds of a batch for each rank.
void run_length(std::vector<Trial>& trials, TrialRunner& runner, const PasskeyOptions& o,
                const std::function<std::string()>& stopped, PasskeyProgress& progress) {
  const auto K = static_cast<size_t>(o.ranks.size());
  std::vector<std::vector<Trial*>> batches = batches_of(trials, o.batch_tokens);
  for (size_t first = 0; first < batches.size(); first += K) {
    const size_t end = std::min(first + K, batches.size()), mine = first + static_cast<size_t>(o.ranks.rank());
    do_round(o.ranks, stopped, [&] {
      if (mine < end) runner.run(batches[mine]);
    });
    const auto round = std::span<const std::vector<Trial*>>(batches).subspan(first, end - first);
    share_batches(o.ranks, round, &Trial::outcome);
    for (const std::vector<Trial*>& batch : round)
      for (Trial* t : batch) {
        t->done = true;
        progress.correct += t->outcome.correct;
        ++progress.tried;
        ++progress.done;
      }
    if (o.progress) o.progress(progress);
  }
}

}  // namespace

void check_passkey(const model::ModelSpec& model_spec, const text::Tokenizer& tokenizer, const PasskeyOptions& o) {
  check_protocol(o.protocol);
  COCA_CHECK(o.batch_tokens >= 1, "batch_tokens is {}; expected at least 1", o.batch_tokens);
  check_tokenizer(tokenizer, model_spec);
  model::require_causal(model_spec, "generation");
  const model::ModelSpec spec = with_scaling(model_spec, o.scaling);
  for (const int64_t N : o.protocol.lengths)  // a byte a number at least; patterns keep less
    if (!spec.pattern.far())
      check_memory("the cache",
                   {{"lengths", N}, {"layers", spec.L}, {"key/value heads", spec.G}, {"numbers", 2 * spec.D}},
                   "ask for shorter ones");
  const int64_t shortest = *std::min_element(o.protocol.lengths.begin(), o.protocol.lengths.end());
  const std::optional<int32_t> bos = bos_token(spec, o.protocol.bos);
  try {
    make_passkey_trial(tokenizer, o, bos, plan_passkey(tokenizer, o, bos, shortest), cell_depths(o.protocol)[0], 0);
  } catch (const Error& error) {
    const bool counts_bos = bos && o.protocol.length_control == data::PasskeyLength::kTokens;
    fail(error.kind(), "lengths holds {} ({}{}): {}", shortest, enum_name(o.protocol.length_control),
         counts_bos ? ", of which bos is one" : "", error.what());
  }
}

PasskeyResult passkey(Context& cx, const model::ModelSpec& spec, const model::Weights& weights,
                      const text::Tokenizer& tokenizer, const PasskeyOptions& o) {
  PasskeyResult result;
  passkey(cx, spec, weights, tokenizer, o, result);
  return result;
}

void passkey(Context& cx, const model::ModelSpec& model_spec, const model::Weights& weights,
             const text::Tokenizer& tokenizer, const PasskeyOptions& o, PasskeyResult& result) {
  check_passkey(model_spec, tokenizer, o);
  const model::ModelSpec spec = with_scaling(model_spec, o.scaling);
  result.bos = bos_token(spec, o.protocol.bos);
  const std::vector<std::optional<double>> depths = cell_depths(o.protocol);
  TrialRunner runner(cx, spec, weights, tokenizer, o.protocol);
  const auto cells = static_cast<int64_t>(depths.size());
  PasskeyProgress progress{.total = static_cast<int64_t>(o.protocol.lengths.size()) * cells * o.protocol.trials};
  for (const int64_t length : o.protocol.lengths) {
    const auto stopped = [&] {
      return fmt::format("passkey: stopped at length {}, {} of {} done", length, grouped(progress.done),
                         counted(progress.total, "prompt"));
    };
    const Stopwatch watch;
    progress.length = length;
    progress.correct = progress.tried = 0;
    std::vector<Trial> trials;
    try {
      do_round(o.ranks, stopped, [&] {
        const PasskeyPlan prompts = plan_passkey(tokenizer, o, result.bos, length);
        for (int64_t t = 0; t < o.protocol.trials; ++t)  // the depths in turn, so that a part of them is balanced
          for (size_t d = 0; d < depths.size(); ++d) {
            COCA_CHECK_AS(kInterrupted, !stop_requested(), "{}", stopped());
            trials.push_back(
                {.prompt = make_passkey_trial(tokenizer, o, result.bos, prompts, depths[d], t), .cell = d});
          }
      });
      run_length(trials, runner, o, stopped, progress);
    } catch (...) {
      summarise(trials, length, o.protocol, watch.seconds(), result);
      throw;
    }
    summarise(trials, length, o.protocol, watch.seconds(), result);
  }
}

}  // namespace coca::eval
