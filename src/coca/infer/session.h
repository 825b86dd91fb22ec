// coca/infer/session.h - one request: a prompt processed in pieces, then one token after another. The caller runs one
// session or several together, step by step, and may stop between any two steps, even within a long prompt.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <cstdint>
#include <exception>
#include <optional>
#include <span>
#include <vector>

#include "coca/infer/batch_decoder.h"
#include "coca/infer/sampling.h"

namespace coca::infer {

// Tokens of a prompt that go through the model at a time; their activations are in memory together.
inline constexpr int64_t kPrefillTokens = 1024;

struct Request {
  std::vector<int32_t> prompt;  // at least one id, all in the vocabulary
  int64_t max_new_tokens = 128;
  SamplingOptions sampling;
  uint64_t seed = 0;
  std::vector<int32_t> stop_ids;  // generation ends when one of them is drawn; it is not part of the text
};

struct SessionOptions {
  DynamicBase dynamic_base = DynamicBase::kStep;
  int64_t prefill_tokens = kPrefillTokens;
};

enum class Finish : uint8_t { kLength, kStopId, kCallback, kInterrupted, kCancelled, kFailed };

class Session {
 public:
  // The decoder must outlive the session. Throws an error for an empty prompt, ids outside the vocabulary or options
  // out of range.
  Session(BatchDecoder&, Request, const SessionOptions& = {});
  // `begun` already holds the beginning of the prompt, but not its last token, for example as a fork of another
  // session's sequence. With dynamic NTK beyond the trained length, its hidden states keep the base that was used for
  // them.
  Session(BatchDecoder&, Request, Sequence begun, const SessionOptions& = {});

  // Processes one piece of the prompt, or generates one token and returns it. Returns nothing if finished. Throws if
  // the session fails, for example because its logits are NaN.
  std::optional<int32_t> step(Context&);
  // The same for several sessions of one decoder, in a single pass through the model. A session that fails keeps its
  // error and does not affect the others. Throws if the pass itself fails, for example because all cache pages are in
  // use. In that case no session has changed, and the step may be repeated.
  static void step(Context&, std::span<Session* const>);
  // Makes all further steps do nothing. May be called from another thread while a step runs.
  void cancel() { cancelled_ = true; }

  bool finished() const { return finish_.has_value() || cancelled_; }
  Finish finish() const { return finish_.value_or(Finish::kCancelled); }  // once finished
  std::exception_ptr error() const { return error_; }                     // set if kFailed
  int64_t prompt_tokens_done() const { return done_; }
  const std::vector<int32_t>& ids() const { return ids_; }  // new tokens so far
  const Sequence& sequence() const { return sequence_; }    // the prompt and all new tokens but the last

 private:
  bool in_prompt() const { return done_ < static_cast<int64_t>(request_.prompt.size()); }
  std::optional<Piece> next_piece();
  void sample_next();

  BatchDecoder& decoder_;
  Request request_;
  SessionOptions options_;
  Sequence sequence_;
  Rng rng_;
  int64_t done_ = 0;
  std::vector<int32_t> ids_, seen_;
  std::vector<float> logits_;  // [V], of the next token; valid after the prompt
  std::optional<Finish> finish_;
  std::exception_ptr error_;
  std::atomic<bool> cancelled_ = false;
};

}  // namespace coca::infer
