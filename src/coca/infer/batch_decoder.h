// coca/infer/batch_decoder.h - the decoder over caches: one step appends to any number of sequences, each with a length
// of its own and any number of new tokens. Matrix products take all new tokens together; attention takes each
// sequence's with its own cache.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "coca/infer/middle_keys.h"
#include "coca/infer/sequence.h"

namespace coca::infer {

struct BatchOptions {
  KvType cache = KvType::kF32;  // what is appended attends to the cache's numbers, rounded to this type
  int64_t most_pages = 0;       // pages of 256 tokens that all sequences hold together; 0: no limit
};

// The new tokens of one sequence.
struct Piece {
  Sequence* sequence = nullptr;
  std::span<const int32_t> ids;  // at least one
  int64_t end = 0;               // of a piece of a longer prompt, where that ends, for dynamic NTK; 0: here
};

class BatchDecoder {
 public:
  // Spec and weights must outlive the decoder.
  BatchDecoder(const model::ModelSpec&, const model::Weights&, const BatchOptions& = {});

  // An empty sequence. It must not outlive the decoder.
  Sequence sequence(const SequenceOptions& = {}) const;

  // Appends to sequences, each of which may be there once. Returns the hidden states after the final norm, [M, C] of
  // the matrices' type, pieces one behind the other, valid until the next call.
  TensorRef append(Context&, std::span<const Piece>);
  // Logits [n, V] of the last token of these pieces of the last call, by number; valid until the next call.
  TensorRef last_logits(Context&, std::span<const int64_t> pieces);

  const model::ModelSpec& spec() const { return spec_; }
  const KvPool& pool() const { return pool_; }

 private:
  class Caches;
  // A piece in the batch: rows first .. first + N - 1 of the activations.
  struct Part {
    Sequence* sequence;
    int64_t first, N, held;  // held: tokens in the cache with these
    int64_t globals;         // global tokens among these
    Sequence::Place place;
    model::LayerActs acts;  // views of its rows
  };
  void check(std::span<const Piece>) const;
  void prepare(int64_t M);
  void begin(std::span<const Piece>, int64_t M);
  model::LayerActs rows_of(int64_t first, int64_t N) const;
  MutTensorRef hidden() const { return acts_.ln1; }  // of the last layer no longer needed, and of the right type
  void store(Context&, size_t layer);
  void attend(Context&, size_t layer);
  void attend_globals(Context&, size_t layer, Part&);

  const model::ModelSpec& spec_;
  const model::Weights& weights_;
  KvPool pool_;
  model::PositionSource angles_;  // rotations, which sequences have in common
  int64_t M_ = 0;
  Arena arena_;
  model::LayerActs acts_;
  MutTensorRef x_, y_;  // [M, C] f32
  std::vector<Part> parts_;
  std::vector<ops::KvStore> stores_;
  std::vector<ops::DecodeSequence> sequences_;
  MiddleKeys middle_;
  Tensor last_, logits_;  // [n, C] [n, V]
};

}  // namespace coca::infer
