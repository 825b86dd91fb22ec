// coca/model/decoder.h - the whole decoder over full sequences: forward only (evaluation), and forward with backward
// (training). Cached decoding lives in infer/.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <vector>

#include "coca/model/decoder_layer.h"
#include "coca/model/rope_table.h"

namespace coca::model {

// Keeps the position tables of a spec: rows for `n` tokens from `start` of a sequence of seq_len.
class PositionSource {
 public:
  explicit PositionSource(const ModelSpec&);
  Positions at(int64_t start, int64_t n, int64_t seq_len);

 private:
  const ModelSpec& spec_;
  RopeTable table_;
  Tensor slopes_;
};

// Forward only, memory linear in the tokens of one call: the activations of one layer serve all. The spec and the
// weights must outlive the decoder.
class Decoder {
 public:
  Decoder(const ModelSpec&, const Weights&);

  // ids [B, N] i32. scaling_length is the sequence length dynamic NTK reckons with (0: N). Returns the hidden states after the final norm, [B * N, C], valid until the next call.
  // Trace names: hidden.<i> (input of layer i; the last one after the final norm), layer.<i>.<name of LayerActs>.
  TensorRef forward(Context&, TensorRef ids, int64_t scaling_length = 0);
  const ModelSpec& spec() const { return spec_; }
  const Weights& weights() const { return weights_; }
  size_t activation_bytes() const { return arena_.bytes(); }

 private:
  void prepare(int64_t B, int64_t N);

  const ModelSpec& spec_;
  const Weights& weights_;
  PositionSource positions_;
  int64_t B_ = 0, N_ = 0;
  Arena arena_;
  LayerActs acts_;
  MutTensorRef x_, y_;  // [M, C]
};

// Forward and backward for fixed B and N, all activations planned in one arena.
class TrainingDecoder {
 public:
  TrainingDecoder(const ModelSpec&, int64_t B, int64_t N);

  // ids, targets [B, N] i32 (targets may be ops::kIgnoreTarget). Adds scale * d(sum of nll) to the gradients and
  // returns the nll per position, [B * N], valid until the next call.
  TensorRef forward_backward(Context&, const Weights&, TensorRef ids, TensorRef targets, float scale, MutWeights& grads);
  size_t activation_bytes() const { return arena_.bytes(); }

 private:
  void forward(Context&, const Weights&, TensorRef ids);
  void backward(Context&, const Weights&, TensorRef ids, MutWeights& grads);

  const ModelSpec& spec_;
  int64_t B_, N_;
  PositionSource positions_;
  Arena arena_;
  std::vector<LayerActs> acts_;
  std::vector<MutTensorRef> x_;           // L + 1 of [M, C]: x_[i] is the input of layer i
  LayerActGrads grad_acts_;
  MutTensorRef normed_, norm_stat_, nll_;  // [M, C] [M, 2] [M]
  MutTensorRef dnormed_, stream_, branch_, branch2_;
};

}  // namespace coca::model
