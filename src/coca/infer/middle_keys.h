// coca/infer/middle_keys.h - LM-Infinite's keys of the middle (model/pattern.h) while decoding: the cache holds them
// un-rotated, so a page at a time is read and placed as the pattern says. Two passes: keys, then the values of those
// that were picked.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "coca/model/decoder_layer.h"
#include "coca/tensor/kv_pages.h"

namespace coca::infer {

class MiddleKeys {
 public:
  // Of one sequence: the keys picked join the softmax behind acts.o and acts.lse. `cache` holds everything so far; the
  // queries are its last N.
  void attend(Context&, const model::ModelSpec&, const model::AttentionInputs&, const KvView& cache, model::LayerActs&);

 private:
  void prepare(const model::ModelSpec&, const model::Positions&, const KvLayout&);
  TensorRef placed(Context&, const model::ModelSpec&, int64_t tokens);

  Tensor stored_, placed_, values_;  // [1, 256, G, W], [1, 256, G, D] twice: a page
  Tensor cos_, sin_;                 // [1, 256, R/2]: of position 0
};

}  // namespace coca::infer
