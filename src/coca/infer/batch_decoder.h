// coca/infer/batch_decoder.h - the decoder over caches, on the device where the weights lie. One step appends to any
// number of sequences, which may differ in length and in the number of new tokens. Matrix products process all new
// tokens together; attention processes each sequence with its own cache.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "coca/infer/middle_keys.h"
#include "coca/infer/sequence.h"
#include "coca/tensor/transfer.h"

namespace coca::infer {

struct BatchOptions {
  KvType cache = KvType::kF32;  // new tokens attend to the cached numbers, which are rounded to this type
  int64_t most_pages = 0;       // pages of 256 tokens in use by all sequences together; 0: no limit
};

// The new tokens of one sequence.
struct Piece {
  Sequence* sequence = nullptr;
  std::span<const int32_t> ids;  // at least one
  int64_t end = 0;  // for dynamic NTK: length of the prompt that this piece belongs to; 0: length after this piece
};

class BatchDecoder {
 public:
  // Spec and weights must outlive the decoder.
  BatchDecoder(const model::ModelSpec&, const model::Weights&, const BatchOptions& = {});

  // An empty sequence. It must not outlive the decoder.
  Sequence sequence(const SequenceOptions& = {}) const;

  // Appends to the sequences, each of which may occur only once. Returns the hidden states after the final norm, [M, C]
  // in the type of the matrices: the pieces one after another, valid until the next call.
  TensorRef append(Context&, std::span<const Piece>);
  // Logits [n, V] on the host, of the last token of these pieces, given by their index in the last call; valid until
  // the next call.
  TensorRef last_logits(Context&, std::span<const int64_t> pieces);

  const model::ModelSpec& spec() const { return spec_; }
  const KvPool& pool() const { return pool_; }

 private:
  class Caches;
  // A piece in the batch, with rows first .. first + N - 1 of the activations.
  struct Part {
    Sequence* sequence;
    int64_t first, N, held;  // held: tokens in the cache, including these
    int64_t globals;         // number of global tokens among these
    Sequence::Place place;
    model::LayerActs acts;  // views of the piece's rows
  };
  void check(std::span<const Piece>) const;
  void prepare(int64_t M);
  void begin(std::span<const Piece>, int64_t M);
  model::LayerActs rows_of(int64_t first, int64_t N) const;
  MutTensorRef hidden() const { return acts_.ln1; }  // the last layer no longer needs it, and its type is right
  void store(Context&, size_t layer);
  void modify_keys(Context&, size_t layer);
  void attend(Context&, size_t layer);
  void attend_globals(Context&, size_t layer, Part&);

  const model::ModelSpec& spec_;
  const model::Weights& weights_;
  DeviceMemory* memory_;
  KvPool pool_;
  model::PositionSource angles_;  // rotations, shared by the sequences
  int64_t M_ = 0;
  Arena arena_;
  model::LayerActs acts_;
  MutTensorRef x_, y_;  // [M, C] f32
  std::vector<Part> parts_;
  std::vector<ops::KvStore> stores_;
  std::vector<ops::DecodeSequence> sequences_;
  MiddleKeys middle_;
  Tensor last_, logits_;  // [n, C] [n, V]
  FetchedTensor fetched_;
};

}  // namespace coca::infer
