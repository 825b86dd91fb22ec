// coca/eval/stream.h - perplexity of one endless text through the cache, as StreamingLLM reports it (eval_long_ppl.py
// of the official code): documents one after another, the cache never reset. docs/evaluation.md.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <vector>

#include "coca/eval/protocol.h"
#include "coca/infer/cached_decoder.h"

namespace coca::eval {

// The state after some number of tokens.
struct StreamPoint {
  int64_t tokens = 0;            // scored so far
  double nll = 0, part_nll = 0;  // mean of all of them, and of those since the last point
  double seconds = 0;
  int64_t cache_tokens = 0;                     // held
  int64_t cache_bytes = 0, resident_bytes = 0;  // resident_bytes: the process's peak

  double perplexity() const;
  double part_perplexity() const;
};

struct StreamOptions {
  int64_t tokens = 0;                         // to score; 0: all there are
  int64_t chunk = 128;                        // tokens run together. Figures do not depend on it, but for rounding
  int64_t interval = 10000;                   // tokens from point to point
  Bos bos = Bos::kAuto;                       // before each document
  std::optional<model::RopeScaling> scaling;  // instead of the spec's; dynamic NTK uses the length so far
  KvType cache = KvType::kF32;
  std::function<void(const StreamPoint&)> progress;  // after each chunk; may be empty
};

struct StreamResult {
  std::optional<int32_t> bos;
  int64_t documents = 0;            // begun
  std::vector<StreamPoint> points;  // the last one is of all tokens
};

// All tokens of a document except the first are scored, given everything in the cache, earlier documents included. A
// leading bos makes the first token a target too. The last token of a document is not run, because nothing follows it.
// Documents of one token are skipped. Error if nothing can be scored, kInterrupted on a request to stop.
StreamResult stream_perplexity(Context&, const model::ModelSpec&, const model::Weights&,
                               std::span<const std::vector<int32_t>> documents, const StreamOptions&);
// The same; after an error, `result` has the points until then; the last one covers all scored tokens.
void stream_perplexity(Context&, const model::ModelSpec&, const model::Weights&,
                       std::span<const std::vector<int32_t>> documents, const StreamOptions&, StreamResult& result);

}  // namespace coca::eval
