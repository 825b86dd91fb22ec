// SPDX-License-Identifier: Apache-2.0
#include "coca/eval/ruler.h"

#include <algorithm>
#include <cmath>

#include "coca/base/clock.h"
#include "coca/base/count.h"
#include "coca/base/rng.h"
#include "coca/base/sizes.h"
#include "coca/eval/share.h"
#include "coca/infer/generate.h"
#include "coca/model/windows.h"

namespace coca::eval {

namespace {

std::string lower(std::string_view text) {
  std::string out(text);
  for (char& c : out)
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  return out;
}

// Answers prompts of one model.
class Answerer {
 public:
  Answerer(Context& cx, const model::ModelSpec& spec, const model::Weights& weights, const text::Tokenizer& tokenizer,
           std::optional<int32_t> bos)
      : cx_(cx), decoder_(spec, weights), tokenizer_(tokenizer), bos_(bos) {}

  void answer(RulerSample& sample) {
    std::vector<int32_t> ids = tokenizer_.encode(sample.prompt.text);
    if (bos_) ids.insert(ids.begin(), *bos_);
    sample.tokens = static_cast<int64_t>(ids.size());
    text::DecodeState inside{.at_start = false};
    // A found answer stays found: what would follow once all are there changes nothing.
    const auto on_token = [&](int32_t id) {
      if (id < tokenizer_.vocab_size()) tokenizer_.append_decoded(id, inside, sample.prediction);
      sample.score = string_match_all(sample.prediction, sample.prompt.answers);
      return sample.score < 1;
    };
    try {
      infer::generate(cx_, decoder_,
                      {.prompt = ids,
                       .max_new_tokens = data::ruler_new_tokens(sample.task),
                       .sampling = {.temperature = 0},
                       .stop_ids = tokenizer_.eos_ids()},
                      {.dynamic_base = infer::DynamicBase::kRequest}, on_token);
    } catch (const Error& error) {
      if (error.kind() != ErrorKind::kNumeric) throw;
      sample.score = std::nan("");  // the model's numbers are not finite: it cannot be measured here
    }
  }

 private:
  Context& cx_;
  infer::BatchDecoder decoder_;
  const text::Tokenizer& tokenizer_;
  std::optional<int32_t> bos_;
};

void check_options(const RulerOptions& o) {
  COCA_CHECK(!o.tasks.empty(), "tasks: none given");
  COCA_CHECK(!o.lengths.empty(), "lengths: none given");
  COCA_CHECK(o.samples >= 1, "samples is {}; expected at least 1", o.samples);
  const bool in_text = std::find(o.tasks.begin(), o.tasks.end(), data::RulerTask::kNiahSingle2) != o.tasks.end();
  COCA_CHECK(!in_text || !o.haystack.empty(),
             "tasks holds niah_single_2, which needs text; without text it is the same as niah_single_1");
}

// Sample r was answered by rank r.
void share_answers(std::vector<RulerSample>& round, dist::Communicator& ranks) {
  struct Answer {
    int64_t tokens = 0;
    double score = 0;
  };
  const auto mine = static_cast<size_t>(ranks.rank());
  const bool have = mine < round.size();
  const std::vector<std::string> texts = dist::gather_texts(ranks, have ? round[mine].prediction : "");
  const std::vector<Answer> answers =
      dist::all_gather_value(ranks, have ? Answer{round[mine].tokens, round[mine].score} : Answer{});
  for (size_t r = 0; r < round.size(); ++r) {
    round[r].prediction = texts[r];
    round[r].tokens = answers[r].tokens;
    round[r].score = answers[r].score;
  }
}

// Over the lengths of which every task has all its samples.
void summarise(RulerResult& result, const RulerOptions& o) {
  bool holds = true;
  for (const int64_t length : o.lengths) {
    double sum = 0;
    for (const data::RulerTask task : o.tasks) {
      const RulerCell* cell = result.cell(task, length);
      sum += cell && cell->score.samples == o.samples ? cell->score.score : std::nan("");
    }
    result.averages.push_back(sum / static_cast<double>(o.tasks.size()));
    holds = holds && result.averages.back() >= kRulerThreshold;
    if (holds) result.effective_length = std::max(result.effective_length, length);
  }
}

struct RunningCell {
  RulerCell cell;
  double sum = 0;  // of the scores
};

// Answers samples of a cell from number `first` on, one for each rank.
void run_round(Answerer& answerer, const text::Tokenizer& tokenizer, const RulerOptions& o, std::optional<int32_t> bos,
               int64_t first, int64_t& done, RunningCell& running) {
  const Stopwatch watch;
  RulerCell& cell = running.cell;
  const int64_t total = static_cast<int64_t>(o.tasks.size() * o.lengths.size()) * o.samples;
  const auto stopped = [&] {
    return fmt::format("ruler: stopped at {}, length {}, {} of {} done", enum_name(cell.task), cell.length,
                       grouped(done), counted(total, "prompt"));
  };
  std::vector<RulerSample> round;
  do_round(o.ranks, stopped, [&] {
    for (int64_t i = first; i < std::min(first + o.ranks.size(), o.samples); ++i) {
      round.push_back({.task = cell.task, .length = cell.length, .number = i});
      round.back().prompt = make_ruler_sample(tokenizer, o, bos, cell.task, cell.length, i);
    }
    const auto mine = static_cast<size_t>(o.ranks.rank());
    if (mine < round.size()) answerer.answer(round[mine]);
  });
  share_answers(round, o.ranks);
  for (const RulerSample& sample : round) {
    running.sum += sample.score;
    ++cell.score.samples;
    cell.least_tokens = sample.number == 0 ? sample.tokens : std::min(cell.least_tokens, sample.tokens);
    cell.most_tokens = std::max(cell.most_tokens, sample.tokens);
  }
  cell.seconds += watch.seconds();
  for (const RulerSample& sample : round)
    if (o.progress) o.progress(sample, ++done, total);
}

// Adds the cell as far as it came.
void close(const RunningCell& running, RulerResult& result) {
  RulerCell cell = running.cell;
  if (cell.score.samples == 0) return;
  cell.score.score = running.sum / static_cast<double>(cell.score.samples);
  cell.score.interval = {std::nan(""), std::nan("")};
  if (!std::isnan(running.sum)) cell.score.interval = wilson_interval_of_mean(cell.score.score, cell.score.samples);
  result.cells.push_back(cell);
}

}  // namespace

double string_match_all(std::string_view text, std::span<const std::string> answers) {
  const std::string said = lower(text);
  int64_t found = 0;
  for (const std::string& answer : answers) found += said.find(lower(answer)) != std::string::npos;
  return static_cast<double>(found) / static_cast<double>(answers.size());
}

data::RulerPrompt make_ruler_sample(const text::Tokenizer& tokenizer, const RulerOptions& o, std::optional<int32_t> bos,
                                    data::RulerTask task, int64_t length, int64_t number) {
  const uint64_t cell = mix64(mix64(static_cast<uint64_t>(length)) ^ static_cast<uint64_t>(task));
  Rng rng(static_cast<uint64_t>(o.seed), mix64(cell ^ mix64(static_cast<uint64_t>(number))));
  const int64_t room = length - (bos ? 1 : 0) - data::ruler_new_tokens(task);
  return data::make_ruler_prompt(task, room, tokenizer, rng, o.haystack);
}

const RulerCell* RulerResult::cell(data::RulerTask task, int64_t length) const {
  const auto found =
      std::ranges::find_if(cells, [&](const RulerCell& c) { return c.task == task && c.length == length; });
  return found == cells.end() ? nullptr : &*found;
}

void check_ruler(const model::ModelSpec& model_spec, const text::Tokenizer& tokenizer, const RulerOptions& o) {
  check_options(o);
  check_tokenizer(tokenizer, model_spec);
  model::require_causal(model_spec, "generation");
  const model::ModelSpec spec = with_scaling(model_spec, o.scaling);
  for (const int64_t N : o.lengths)  // a byte a number at least; patterns keep less
    if (!spec.pattern.far())
      check_memory("the cache",
                   {{"lengths", N}, {"layers", spec.L}, {"key/value heads", spec.G}, {"numbers", 2 * spec.D}},
                   "ask for shorter ones");
  const int64_t shortest = *std::min_element(o.lengths.begin(), o.lengths.end());
  try {
    for (const data::RulerTask task : o.tasks)
      make_ruler_sample(tokenizer, o, bos_token(spec, o.bos), task, shortest, 0);
  } catch (const Error& error) {
    fail(error.kind(), "lengths holds {}: {}{}; give greater lengths", shortest, error.what(),
         bos_token(spec, o.bos) ? ", and bos is one more" : "");
  }
}

RulerResult ruler(Context& cx, const model::ModelSpec& spec, const model::Weights& weights,
                  const text::Tokenizer& tokenizer, const RulerOptions& o) {
  RulerResult result;
  ruler(cx, spec, weights, tokenizer, o, result);
  return result;
}

void ruler(Context& cx, const model::ModelSpec& model_spec, const model::Weights& weights,
           const text::Tokenizer& tokenizer, const RulerOptions& o, RulerResult& result) {
  check_ruler(model_spec, tokenizer, o);
  const model::ModelSpec spec = with_scaling(model_spec, o.scaling);
  result.bos = bos_token(spec, o.bos);
  Answerer answerer(cx, spec, weights, tokenizer, result.bos);
  const size_t lengths = o.lengths.size();
  std::vector<RunningCell> cells;
  for (const data::RulerTask task : o.tasks)
    for (const int64_t length : o.lengths) cells.push_back({.cell = {.task = task, .length = length}});
  const auto finish = [&] {
    for (const RunningCell& cell : cells) close(cell, result);
    summarise(result, o);
  };
  int64_t done = 0;
  try {
    for (size_t l = 0; l < lengths; ++l)
      for (int64_t first = 0; first < o.samples; first += o.ranks.size())
        for (size_t t = 0; t < o.tasks.size(); ++t)  // in turn, so that a part of them is balanced
          run_round(answerer, tokenizer, o, result.bos, first, done, cells[t * lengths + l]);
  } catch (...) {
    finish();
    throw;
  }
  finish();
}

}  // namespace coca::eval
