// coca/eval/ruler.h - RULER's synthetic tasks (data/ruler.h) by task and length, decoded greedily. Protocol:
// docs/evaluation.md.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "coca/data/ruler.h"
#include "coca/dist/communicator.h"
#include "coca/eval/passkey.h"
#include "coca/eval/protocol.h"
#include "coca/model/params.h"
#include "coca/tensor/context.h"

namespace coca::eval {

// One prompt, answered.
struct RulerSample {
  data::RulerTask task{};
  int64_t length = 0, number = 0;  // asked for; of its cell
  int64_t tokens = 0;              // of bos and prompt
  data::RulerPrompt prompt;
  std::string prediction;  // the decoded text; decoding ends early once all answers are found
  double score = 0;        // share of the answers found in it; NaN where the logits are NaN or infinite
};

struct RulerOptions {
  std::vector<data::RulerTask> tasks;
  std::vector<int64_t> lengths;  // tokens of bos, prompt and what is generated, at most
  int64_t samples = 50;          // per task and length
  int64_t seed = 42;             // each prompt depends on seed, task, length and its number alone
  std::string haystack;          // text for the tasks that hide needles in one; empty: noise
  Bos bos = Bos::kAuto;
  std::optional<model::RopeScaling> scaling;                                      // instead of the spec's
  std::function<void(const RulerSample&, int64_t done, int64_t total)> progress;  // after each prompt; may be empty
  dist::Communicator& ranks = dist::alone();  // who share the prompts; all get the same results, and see all samples
};

struct RulerScore {
  int64_t samples = 0;
  double score = 0;  // mean
  // Wilson's 95 % interval for the mean; somewhat too wide if a prompt has several answers, whose shares vary less
  // than hits and misses do.
  Interval interval;
};

struct RulerCell {
  data::RulerTask task{};
  int64_t length = 0;
  RulerScore score;
  int64_t least_tokens = 0, most_tokens = 0;  // of the prompts, bos included
  double seconds = 0;
};
struct RulerResult {
  std::vector<RulerCell> cells;  // tasks in their order, within a task lengths in theirs
  std::vector<double> averages;  // over the tasks, per length; NaN where not all of it was done or a score is NaN
  std::optional<int32_t> bos;    // before every prompt
  // RULER's effective length: the longest up to which every average is at least 0.856, Llama-2-7B's at 4k; 0: none.
  int64_t effective_length = 0;

  const RulerCell* cell(data::RulerTask, int64_t length) const;  // null where nothing of it was done
};
inline constexpr double kRulerThreshold = 0.856;

// Share of the answers that occur in the text, ignoring case ("string_match_all").
double string_match_all(std::string_view text, std::span<const std::string> answers);

// The checks that ruler() makes before any prompt is run, as check_passkey().
void check_ruler(const model::ModelSpec&, const text::Tokenizer&, const RulerOptions&);

// The prompt of a place, with its answers.
data::RulerPrompt make_ruler_sample(const text::Tokenizer&, const RulerOptions&, std::optional<int32_t> bos,
                                    data::RulerTask, int64_t length, int64_t number);

// Throws Error kInterrupted on a request to stop. Where logits are NaN or infinite, the scores are NaN.
RulerResult ruler(Context&, const model::ModelSpec&, const model::Weights&, const text::Tokenizer&,
                  const RulerOptions&);
// The same; after an error, `result` has everything done so far. The lengths are done one after the other, and at each
// the tasks take turns, so that the cells of the last length have about equally many samples.
void ruler(Context&, const model::ModelSpec&, const model::Weights&, const text::Tokenizer&, const RulerOptions&,
           RulerResult& result);

}  // namespace coca::eval
