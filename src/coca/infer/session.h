// coca/infer/session.h - one request: a prompt, worked through in pieces, then token after token. The caller drives it
// step by step, and so may stop between any two steps, inside a long prompt too.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <atomic>
#include <cstdint>
#include <optional>
#include <vector>

#include "coca/infer/cached_decoder.h"
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
  KvType cache = KvType::kF32;
  int64_t prefill_tokens = kPrefillTokens;
};

enum class Finish : uint8_t { kLength, kStopId, kCallback, kInterrupted, kCancelled };

class Session {
 public:
  // Spec and weights must outlive the session. Error for an empty prompt or options out of range; ids outside the
  // vocabulary are an Error of the step that meets them.
  Session(const model::ModelSpec&, const model::Weights&, Request, const SessionOptions& = {});

  // Works through one piece of the prompt, or makes one token and returns it. Nothing when it has finished.
  std::optional<int32_t> step(Context&);
  // No step does anything from here on. May be called from another thread, while a step runs.
  void cancel() { cancelled_ = true; }

  bool finished() const { return finish_.has_value() || cancelled_; }
  Finish finish() const { return finish_.value_or(Finish::kCancelled); }  // once finished
  int64_t prompt_tokens_done() const { return done_; }
  const std::vector<int32_t>& ids() const { return ids_; }  // the new tokens so far
  const KvCache& cache() const { return decoder_.cache(); }

 private:
  void prefill(Context&);

  const model::ModelSpec& spec_;
  Request request_;
  SessionOptions options_;
  CachedDecoder decoder_;
  Rng rng_;
  int64_t done_ = 0;
  std::vector<int32_t> ids_, seen_;
  std::vector<float> logits_;
  std::optional<Finish> finish_;
  std::atomic<bool> cancelled_ = false;
};

}  // namespace coca::infer
