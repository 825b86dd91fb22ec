// coca/model/decoder.h - the whole decoder over full sequences: forward only (evaluation), and forward with backward
// (training). Cached decoding lives in infer/.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <span>
#include <utility>
#include <vector>

#include "coca/model/decoder_layer.h"
#include "coca/model/position_source.h"
#include "coca/model/ring_attention.h"

namespace coca::model {

struct DecoderOptions {
  int64_t chunk_tokens = 1024;  // tokens at work at a time; a multiple of 64, as the tiles of attention
};

// Forward only, on the device where the weights lie. Each layer is one causal pass over chunks of tokens: beside the
// weights live the stream x [M, C], k_eff and v of one layer and one sequence, and the activations of one chunk. The
// activations have the type of the matrices (params.h). Chunks change no result beyond the rounding of the matrix
// products. The spec and the weights must outlive the decoder.
class Decoder {
 public:
  Decoder(const ModelSpec&, const Weights&, const DecoderOptions& = {});

  // ids [B, N] i32, on the host or the device. scaling_length is the sequence length dynamic NTK reckons with (0: N).
  // Returns the hidden states after the final norm, [B * N, C] of the matrices' type, valid until the next call. Trace
  // names: hidden.<i> (input of layer i; the last one after the final norm), layer.<i>.<name of LayerActs>. While
  // tracing, a chunk is the whole batch.
  TensorRef forward(Context&, TensorRef ids, int64_t scaling_length = 0);
  const ModelSpec& spec() const { return spec_; }
  const Weights& weights() const { return weights_; }
  // From here on sequences are split over ranks: ids are this rank's tokens, and all ranks make the same calls. The
  // ring must outlive the decoder; null: whole sequences again.
  void set_ring(RingAttention*);
  size_t activation_bytes() const { return arena_.bytes(); }
  // What forward() of ids [B, N] would need.
  static size_t activation_bytes(const ModelSpec&, int64_t B, int64_t N, Precision, const DecoderOptions& = {});

 private:
  struct Buffers {
    int64_t sequences = 0, tokens = 0;  // of a chunk: several whole sequences, or a part of one
    LayerActs acts;
    LayerKeys keys;       // chunks that are a part of a sequence only
    MutTensorRef x;       // [M, C] f32
    MutTensorRef hidden;  // [M, C]: x, or bf16 in the place of a layer's activations
    // Of a whole layer of this rank's tokens, with a ring: queries, and what attention makes of them.
    MutTensorRef q_eff, o, lse;  // [B, N, H, D] [B, N, H, D] f32 [B, H, N]
  };
  static void plan(const ModelSpec&, DType, int64_t B, int64_t N, int64_t chunk, Buffers&, ArenaPlan&);
  void prepare(int64_t B, int64_t N, int64_t chunk);
  void layer(Context&, size_t i, const AttentionInputs&);
  static void plan_ring(const ModelSpec&, DType, int64_t B, int64_t N, int64_t chunk, Buffers&, ArenaPlan&);
  void ring_layer(Context&, size_t i, const AttentionInputs&);

  const ModelSpec& spec_;
  const Weights& weights_;
  DecoderOptions options_;
  DeviceMemory* memory_;
  RingAttention* ring_ = nullptr;
  PositionSource positions_;
  int64_t B_ = 0, N_ = 0, chunk_ = 0;
  Arena arena_;
  Buffers buffers_;
};

// Tokens that do not stand one after the other: their positions, [1 or B, N], and the sequence length that dynamic NTK
// and longrope reckon with. Without positions: plain.
struct DrawnPositions {
  std::span<const double> positions;
  int64_t scaling_length = 0;
};

struct TrainingOptions {
  Recompute recompute = Recompute::kNone;
  Precision precision = Precision::kF32;  // of the weights passed in
  DeviceMemory* memory = nullptr;         // where these lie; null: the host's
};

// Forward and backward for fixed B and N, all activations planned in one arena. Gradients have the same bits under
// every Recompute.
class TrainingDecoder {
 public:
  TrainingDecoder(const ModelSpec&, int64_t B, int64_t N, const TrainingOptions& = {});

  // ids, targets [B, N] i32 on the host (targets may be ops::kIgnoreTarget). Adds scale * d(sum of nll) to the
  // gradients and returns the nll per position, [B * N] on the device, valid until the next call. Nothing waits for the
  // device (but training CLEX's network does). Gradients that are empty are not computed, and the backward pass ends at
  // the lowest layer that has one. document_start [B, N] i32: packed documents (ops/attention.h), each with positions
  // from 0 on; empty: one a row. Drawn positions and packed documents exclude each other.
  TensorRef forward_backward(Context&, const Weights&, TensorRef ids, TensorRef targets, float scale, MutWeights& grads,
                             TensorRef document_start = {}, const DrawnPositions& = {});
  // The nll alone.
  TensorRef loss(Context&, const Weights&, TensorRef ids, TensorRef targets, TensorRef document_start = {},
                 const DrawnPositions& = {});
  // From here on sequences are split over ranks, of which this one holds N tokens: ids and targets are these, and all
  // ranks make the same calls. Gradients are this rank's share: their sum over ranks is the gradient. The ring must
  // outlive the decoder; null: whole sequences again.
  void set_ring(RingAttention*);
  size_t activation_bytes() const { return arena_.bytes(); }
  // The same without allocating them.
  static size_t activation_bytes(const ModelSpec&, int64_t B, int64_t N, const TrainingOptions&);
  // Called within forward_backward() as soon as it has added all it will to the gradients of the head and the final
  // norm (layer L; but not of tied embeddings), and of each layer from there down. Empty: nothing is called.
  void on_gradients(std::function<void(int64_t layer)> hook) { on_gradients_ = std::move(hook); }

 private:
  void gradients_done(int64_t layer) const {
    if (on_gradients_) on_gradients_(layer);
  }
  enum class Memory : uint8_t { kBound, kPlanned };
  TrainingDecoder(const ModelSpec&, int64_t B, int64_t N, const TrainingOptions&, Memory);
  void plan(Memory);
  void check(const Weights&, TensorRef ids, TensorRef targets) const;
  void prepare_clex(Context&, const Weights&, int64_t seq_len);
  AttentionInputs inputs(Context&, const Weights&, TensorRef document_start, const DrawnPositions&);
  MutTensorRef angle_gradient(const MutWeights& grads);
  void clex_backward(Context&, const Weights&, TensorRef document_start, const DrawnPositions&, MutWeights& grads);
  KeySource& keys() { return ring_ ? static_cast<KeySource&>(*ring_) : own_keys_; }
  void forward(Context&, const Weights&, const AttentionInputs&, TensorRef ids);
  void backward(Context&, const Weights&, const AttentionInputs&, TensorRef ids, MutWeights& grads);

  const ModelSpec& spec_;
  int64_t B_, N_;
  TrainingOptions options_;
  RingAttention* ring_ = nullptr;
  WholeSequences own_keys_;
  PositionSource positions_;
  size_t planned_bytes_ = 0;
  Arena arena_;
  std::vector<LayerActs> acts_;  // those of all layers share what is remade
  std::vector<MutTensorRef> x_;  // L + 1 of [M, C]: x_[i] is the input of layer i
  LayerActGrads grad_acts_;
  MutTensorRef normed_, norm_stat_, nll_;  // [M, C] [M, 2] [M]
  MutTensorRef dnormed_, stream_;
  std::vector<double> clex_path_;  // of this step's length factor; Scaling::kClex
  Tensor dangle_;                  // [B, N, R/2]
  std::function<void(int64_t)> on_gradients_;
};

}  // namespace coca::model
