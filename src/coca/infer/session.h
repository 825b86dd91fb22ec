// coca/infer/session.h - one request: a prompt, worked through in pieces, then token after token. The caller drives
// sessions step by step, one alone or many together, and so may stop between any two steps, inside a long prompt too.
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

// Tokens of a prompt that go through the model at a time: the activations of so many are in memory.
inline constexpr int64_t kPrefillTokens = 1024;

struct Request {
  std::vector<int32_t> prompt;  // at least one id, all in the vocabulary
  int64_t max_new_tokens = 128;
  SamplingOptions sampling;
  uint64_t seed = 0;
  std::vector<int32_t> stop_ids;  // the text ends where one of them is drawn; it is not part of the text
};

struct SessionOptions {
  DynamicBase dynamic_base = DynamicBase::kStep;
  int64_t prefill_tokens = kPrefillTokens;
};

enum class Finish : uint8_t { kLength, kStopId, kCallback, kInterrupted, kCancelled, kFailed };

class Session {
 public:
  // The decoder must outlive the session. Error for an empty prompt, ids outside the vocabulary, or options out of
  // range.
  Session(BatchDecoder&, Request, const SessionOptions& = {});
  // `begun` has been through the beginning of the prompt, at least one token less than all of it: a fork of another
  // session's sequence, for example. With dynamic NTK beyond the trained length its hidden states are those of the base
  // that was in force then.
  Session(BatchDecoder&, Request, Sequence begun, const SessionOptions& = {});

  // Works through one piece of the prompt, or makes one token and returns it. Nothing when it has finished. Throws
  // where the session fails: its logits are NaN, for example.
  std::optional<int32_t> step(Context&);
  // The same for each of these sessions of one decoder, in one pass through the model. A session that fails keeps its
  // error and disturbs no other. Throws where the pass itself cannot be made (the pages of the cache are used up, for
  // example); then no session has moved, and the step may be repeated.
  static void step(Context&, std::span<Session* const>);
  // No step does anything from here on. May be called from another thread, while a step runs.
  void cancel() { cancelled_ = true; }

  bool finished() const { return finish_.has_value() || cancelled_; }
  Finish finish() const { return finish_.value_or(Finish::kCancelled); }  // once finished
  std::exception_ptr error() const { return error_; }                     // of kFailed
  int64_t prompt_tokens_done() const { return done_; }
  const std::vector<int32_t>& ids() const { return ids_; }  // the new tokens so far
  const Sequence& sequence() const { return sequence_; }    // all of the prompt and the new tokens but the last

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
  std::vector<float> logits_;  // [V] of the next token, once the prompt is done
  std::optional<Finish> finish_;
  std::exception_ptr error_;
  std::atomic<bool> cancelled_ = false;
};

}  // namespace coca::infer
