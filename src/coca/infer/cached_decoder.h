// coca/infer/cached_decoder.h - B sequences of one length, fed together: prefill, then token by token.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "coca/infer/batch_decoder.h"

namespace coca::infer {

class CachedDecoder {
 public:
  // Spec and weights must outlive the decoder. planned_length (> 0) is needed with kRequest.
  CachedDecoder(const model::ModelSpec&, const model::Weights&, int64_t B, DynamicBase policy = DynamicBase::kStep,
                int64_t planned_length = 0, KvType cache = KvType::kF32);

  // Appends ids [B, N] i32; returns their hidden states after the final norm, [B, N, C] of the matrices' type, valid
  // until the next call. A piece of a longer prompt says where that ends (`end`: the length in tokens then; 0: here),
  // for dynamic NTK.
  TensorRef append(Context&, TensorRef ids, int64_t end = 0);
  // The same in pieces of at most `piece` tokens, whose activations alone are in memory; dynamic NTK reckons with the
  // length at the end of ids throughout. Only last_logits() is of use afterwards.
  void prefill(Context&, TensorRef ids, int64_t piece);
  // Logits [B, V] of the last appended token, valid until the next call.
  TensorRef last_logits(Context&);
  void truncate(int64_t length);  // Sequence::truncate

  const KvCache& cache() const { return sequences_.front().cache(); }  // of the first sequence
  int64_t length() const { return cache().length(); }

 private:
  int64_t batch() const { return static_cast<int64_t>(sequences_.size()); }
  void check_ids(TensorRef) const;
  // Columns first .. first + count - 1 of ids [B, N].
  TensorRef append(Context&, TensorRef ids, int64_t first, int64_t count, int64_t end);

  BatchDecoder decoder_;
  std::vector<Sequence> sequences_;
  std::vector<int64_t> all_;  // 0 .. B - 1 once something has been appended
};

}  // namespace coca::infer
