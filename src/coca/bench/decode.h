// coca/bench/decode.h - `coca bench decode`: tokens one by one from a cache of a given length, for a random
// model: tokens/s, and the bytes each token must read against the rate at which this machine reads memory.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <vector>

#include "coca/base/sizes.h"
#include "coca/bench/model_shape.h"
#include "coca/bench/timing.h"
#include "coca/report/table.h"
#include "coca/tensor/context.h"

namespace coca::bench {

struct DecodeOptions {
  std::vector<model::AttentionKind> kind = {model::AttentionKind::kCocaSlack};
  std::optional<model::AttentionKind> against;
  std::vector<int64_t> lengths = {512, 2048, 8192};
  int64_t batch = 1, tokens = 16, prefill = 256;
  KvType cache = KvType::kF32;
  model::Precision precision = model::Precision::kF32;
  ModelShape shape;
  RepeatOptions repeat;

  template <class V>
  void visit(V&& v) {
    v.group("What");
    v("attention", "attention of the models to run", kind);
    v("against", "run this one too, in turns, and print the others' times divided by its time", against);
    v("lengths", "tokens in the cache when timing starts; filled in ascending order", lengths, Least{1});
    v("batch", "sequences at a time", batch, Least{1});
    v("tokens", "tokens of one timed run; the cache is cut back after it", tokens, Least{1});
    v("prefill", "tokens per piece while the cache is filled", prefill, Least{1});
    v("cache", "type of keys and values in the cache; bf16 takes half the memory, int8 about a quarter", cache);
    v("precision", "of matrices and activations; the cache has its own type", precision);
    shape.visit(v);
    repeat.visit(v);
  }
};

struct DecodeResult {
  int64_t length = 0;
  model::AttentionKind kind = model::AttentionKind::kRope;
  int64_t batch = 0, parameters = 0;
  Timing seconds;  // of one token of every sequence, its logits included
  double tokens_per_second = 0,
         prefill_tokens_per_second = 0;  // prefill: of the last tokens up to this length
  int64_t cache_bytes_per_token = 0;     // of one sequence
  // Read once for one token: the weights (of the embedding one row) and the cache. Against reading memory in
  // the same rounds.
  double gbytes_per_second = 0, memory_gbytes_per_second = 0;
  std::optional<Timing> ratio;
};

// Before timing, tokens one by one are compared with the whole sequence at once, for a small model.
std::vector<DecodeResult> bench_decode(Context&, const DecodeOptions&, ProgressCounter);
report::Table decode_table(const DecodeOptions&, const std::vector<DecodeResult>&);
nlohmann::ordered_json to_json(const DecodeResult&);

}  // namespace coca::bench
