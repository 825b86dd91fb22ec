// coca/infer/middle_keys.h - LM-Infinite's middle keys (model/pattern.h) while decoding. The cache holds them
// un-rotated, so each page is read and rotated as the pattern requires. There are two passes: over keys, and over the
// values of the chosen keys.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "coca/model/decoder_layer.h"
#include "coca/tensor/kv_pages.h"
#include "coca/tensor/transfer.h"

namespace coca::infer {

class MiddleKeys {
 public:
  // For one sequence: adds the chosen keys to the softmax of acts.o and acts.lse. `cache` holds all tokens so far, and
  // the queries are its last N.
  void attend(Context&, const model::ModelSpec&, const model::LayerTensors<TensorRef>& w, const model::AttentionInputs&,
              const KvView& cache, model::LayerActs&);

 private:
  void prepare(Context&, const model::ModelSpec&, const model::Positions&, const KvLayout&);
  TensorRef placed(Context&, const model::ModelSpec&, int64_t tokens);

  Tensor stored_, placed_, values_;  // one page: [1, 256, G, W], and twice [1, 256, G, D]
  SentTensor cos_, sin_;             // [1, 256, R/2], all rows at position 0
  FetchedTensor fetched_;
};

}  // namespace coca::infer
