// coca/eval/passkey.h - passkey retrieval by length and depth, decoded greedily. Protocol: docs/evaluation.md.
//
// With the rules first-number and contains, the prompt is run and continued greedily, token by token, up to the given
// number of tokens or an end token. With the rule exact, prompt and answer are encoded together; the answer's ids begin
// where the prompt's own encoding ends. The prompt is run once into the cache, followed by the answer. By induction
// over the positions, greedy decoding from the prompt writes exactly the answer if and only if the argmax before each
// answer token, given the right tokens before it, is that token. So one pass decides. Only if it fails is the answer
// decoded freely, from the first wrong token on, to count the digits that are still right.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "coca/dist/communicator.h"
#include "coca/eval/interval.h"
#include "coca/eval/passkey_protocol.h"
#include "coca/model/params.h"
#include "coca/tensor/context.h"

namespace coca::eval {

struct PasskeyProgress {
  int64_t done = 0, total = 0;  // prompts, over all lengths
  int64_t length = 0;
  int64_t correct = 0, tried = 0;  // at this length so far
};

struct PasskeyOptions {
  PasskeyProtocol protocol;
  int64_t seed = 0;  // each prompt depends on seed, length, depth and its number alone
  std::optional<model::RopeScaling>
      scaling;                  // instead of the spec's; dynamic NTK uses the length of the whole sequence
  int64_t batch_tokens = 8192;  // prompts of equal length run together up to about this many tokens
  std::function<void(const PasskeyProgress&)> progress;  // may be empty
  dist::Communicator& ranks = dist::alone();             // who share the prompts; all get the same results
};

// If any trial's logits are NaN or infinite, all but the counts are NaN.
struct PasskeyScore {
  int64_t trials = 0, correct = 0;
  double accuracy = 0;
  double accuracy_low = 0, accuracy_high = 1;  // Wilson's 95 % interval
  double digit_accuracy = 0;                   // share of the key's digits right and in place, freely decoded
  std::optional<double> nll;  // mean per answer token, given the right tokens before it; rule exact only
};

struct PasskeyCell {
  int64_t length = 0;
  std::optional<double> depth;                // nothing: random
  int64_t least_tokens = 0, most_tokens = 0;  // of bos and prompt, with rule exact the answer too; 0: no trial
  PasskeyScore score;
};
struct PasskeyTotal {
  int64_t length = 0;
  int64_t least_tokens = 0, most_tokens = 0;  // over all depths
  PasskeyScore score;                         // over all depths
  double seconds = 0;
  int64_t peak_resident_bytes = 0;  // of the process until then
};
struct PasskeyResult {
  std::vector<PasskeyCell> cells;    // lengths in their order, within a length depths in theirs
  std::vector<PasskeyTotal> totals;  // one per length
  std::optional<int32_t> bos;        // before every prompt
};

// Throws Error kInterrupted when asked to stop; logits that are NaN or infinite make the scores NaN.
PasskeyResult passkey(Context&, const model::ModelSpec&, const model::Weights&, const text::Tokenizer&,
                      const PasskeyOptions&);
// The same; after an error, `result` has the finished lengths, and the cells of the last one as far as they are done:
// with fewer trials, perhaps none (then the accuracy is NaN).
void passkey(Context&, const model::ModelSpec&, const model::Weights&, const text::Tokenizer&, const PasskeyOptions&,
             PasskeyResult& result);

// The checks that passkey() makes before any prompt is run: invalid options, lengths without room for a prompt, the
// tokenizer of another model, a cache that exceeds all memory.
void check_passkey(const model::ModelSpec&, const text::Tokenizer&, const PasskeyOptions&);

// The prompt `trial` of a cell as ids. `garbage` is data::passkey_garbage() of its length; not used with kTokens.
struct PasskeyTrial {
  std::vector<int32_t> ids;  // bos, prompt; with rule exact the answer too
  int64_t answer_start = 0;  // where the answer's first id is, or belongs; with rule exact it ends the ids
  std::string answer;        // " 73914"
  int64_t key = 0;
};
struct PasskeyPlan {
  int64_t length = 0, garbage = 0;
};
PasskeyPlan plan_passkey(const text::Tokenizer&, const PasskeyOptions&, std::optional<int32_t> bos, int64_t length);
PasskeyTrial make_passkey_trial(const text::Tokenizer&, const PasskeyOptions&, std::optional<int32_t> bos,
                                const PasskeyPlan&, std::optional<double> depth, int64_t trial);

}  // namespace coca::eval
