// coca/train/gradient_sum.h - adds up the gradients of a step's slices over the ranks; each rank gets the sum of the
// part it owns (optim/partition.h). Slice s is computed by rank s % K in round s / K, and slices are added in their
// order, so the sum has the same bits for any number of ranks. Buckets are sent in the background while the backward
// pass continues.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <vector>

#include "coca/dist/background.h"
#include "coca/dist/communicator.h"
#include "coca/model/params.h"
#include "coca/model/spec.h"
#include "coca/optim/partition.h"

namespace coca::train {

// Buckets in the order in which the backward pass completes them: 0 the head and the final norm, then the layers from
// the last to the first (layer i is bucket L - i), and finally the embeddings and everything else.
int gradient_bucket(const model::ModelSpec&, int64_t layer);
// One bucket if there is only one rank.
optim::Partition partition_gradients(const model::ModelSpec&, const model::TensorStore& grads, int ranks);

class GradientSum {
 public:
  // All ranks construct it together. `ranks` must outlive this.
  GradientSum(optim::Partition, dist::Communicator& ranks);

  // Begins a step with an empty sum.
  void begin();
  // All buckets up to this one are complete in `grads` [size], this rank's slice of the present round, and may be sent.
  void done(int bucket, TensorRef grads);
  // The slice is complete. On return `grads` may be overwritten.
  void finish(TensorRef grads);
  // Packed in the order of partition.of(rank).
  MutTensorRef owned() { return owned_; }

 private:
  void add(int bucket, const float* grads);

  optim::Partition partition_;
  std::unique_ptr<dist::Communicator> ranks_;  // a channel of its own
  Tensor owned_;
  std::vector<int64_t> packed_;  // where each bucket begins in owned_
  std::vector<float> received_;  // one bucket of the other ranks
  bool first_round_ = true;
  int next_ = 0;                 // the first bucket that has not been sent
  dist::Background background_;  // last member, so that it is destroyed first
};

}  // namespace coca::train
