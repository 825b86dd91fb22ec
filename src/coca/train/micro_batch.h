// coca/train/micro_batch.h - the windows that this rank processes, and the passes of the model over them: whole
// windows, or with a ring this rank's tokens of each window.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "coca/dist/communicator.h"
#include "coca/model/ring_attention.h"
#include "coca/tensor/transfer.h"
#include "coca/train/loop_options.h"

namespace coca::train {

class TrainedModel;

class MicroBatch {
 public:
  // All arguments must outlive this object.
  MicroBatch(const model::ModelSpec&, const LoopOptions&, const LoopData&, dist::Communicator&);
  MicroBatch(const MicroBatch&) = delete;  // the decoder keeps references to members
  MicroBatch& operator=(const MicroBatch&) = delete;

  bool shares_tokens() const { return ring_ != nullptr; }  // each rank has its own tokens of all windows
  size_t activation_bytes() const { return decoder_.activation_bytes(); }
  Context& context() { return context_; }

  // Fills in the windows of a training step.
  void fill(int64_t step, int64_t part);
  // Fills in validation windows: `windows` of them starting at `first`, where window_at(i) gives the i-th. Remaining
  // rows have no targets.
  void fill_validation(int64_t first, int64_t windows, const std::function<int64_t(int64_t)>& window_at);

  struct Loss {
    double nll = 0;       // sum over this rank's targets
    int64_t targets = 0;  // their number
  };
  Loss loss(const model::Weights&);
  // Adds scale times the gradient of the sum of the nll to grads, without waiting for the device. on_gradients: see
  // TrainingDecoder::on_gradients; empty: no calls.
  void forward_backward(const model::Weights&, float scale, model::MutWeights& grads,
                        const std::function<void(int64_t layer)>& on_gradients = {});
  // The sum of the nll of the calls of forward_backward() since the last nll(); waits for the device.
  double nll();

 private:
  std::pair<TensorRef, TensorRef> tokens_here();  // ids and targets [B, n]
  TensorRef starts() const { return packed_ ? starts_.ref() : TensorRef(); }
  model::DrawnPositions drawn() const;

  const LoopOptions& options_;
  const LoopData& data_;
  dist::Communicator& ranks_;
  Context context_;
  std::unique_ptr<model::RingAttention> ring_;
  model::TrainingDecoder decoder_;
  Tensor ids_, targets_, starts_;             // of whole windows
  std::vector<int32_t> my_ids_, my_targets_;  // this rank's tokens of them, with a ring
  std::vector<double> positions_;             // [B, N]; only if the batches draw positions
  FetchedTensor fetched_;
  std::vector<FetchedTensor> nll_;  // of the calls since the last nll(), `calls_` of them
  size_t calls_ = 0;
  bool packed_ = false;       // whether the current batch is packed
  int64_t drawn_length_ = 0;  // of the current batch; 0: plain positions
};

// Mean loss over `windows` windows of data.validation, spread evenly over all of them, so that it represents the whole
// text and not just its beginning. Ranks take batches in turn, or each takes its tokens of every batch. The results are
// added in the order of the batches.
double validation_loss(MicroBatch&, const ValidationSource&, int64_t windows, int64_t batch, TrainedModel&,
                       dist::Communicator&);

}  // namespace coca::train
