// coca/infer/cached_decoder.h - B sequences of the same length, processed together: prefill, then token by token.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "coca/infer/batch_decoder.h"

namespace coca::infer {

class CachedDecoder {
 public:
  // Spec and weights must outlive the decoder. kRequest needs planned_length > 0.
  CachedDecoder(const model::ModelSpec&, const model::Weights&, int64_t B, DynamicBase policy = DynamicBase::kStep,
                int64_t planned_length = 0, KvType cache = KvType::kF32);

  // Appends ids [B, N] i32 on the host. Returns their hidden states after the final norm, [B, N, C] in the type of the
  // matrices, valid until the next call. end: for dynamic NTK, the length of the prompt that this piece belongs to; 0:
  // the length after this piece.
  TensorRef append(Context&, TensorRef ids, int64_t end = 0);
  // The same in pieces of at most `piece` tokens, so that only their activations are in memory. Dynamic NTK uses the
  // length at the end of ids for all pieces. Afterwards only last_logits() is available.
  void prefill(Context&, TensorRef ids, int64_t piece);
  // Logits [B, V] on the host, of the last appended token, valid until the next call.
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
  std::vector<int64_t> all_;  // 0 .. B - 1; empty until something is appended
};

}  // namespace coca::infer
