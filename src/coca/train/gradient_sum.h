// coca/train/gradient_sum.h - the gradients of a step's slices added up over the ranks, each of which gets the sum of what it
// owns (optim/partition.h). Slice s is made by rank s % K in round s / K, and slices are added in their order, so that the
// sum has the same bits for any number of ranks. Buckets travel in the background while the rest of the backward pass runs.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <vector>

#include "coca/dist/background.h"
#include "coca/dist/communicator.h"
#include "coca/model/spec.h"
#include "coca/model/params.h"
#include "coca/optim/partition.h"

namespace coca::train {

// Buckets in the order in which backward completes them: 0 the head and the final norm, then the layers from the top (layer
// i is bucket L - i), last the embeddings and all else.
int gradient_bucket(const model::ModelSpec&, int64_t layer);
// One bucket where there is one rank.
optim::Partition partition_gradients(const model::ModelSpec&, const model::TensorStore& grads, int ranks);

class GradientSum {
 public:
  // All ranks together. `ranks` must outlive this.
  GradientSum(optim::Partition, dist::Communicator& ranks);

  // A step begins: the sum is empty.
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
  std::vector<int64_t> packed_;  // where a bucket begins in owned_
  std::vector<float> received_;  // one bucket of the other ranks
  bool first_round_ = true;
  int next_ = 0;                 // bucket not yet sent
  dist::Background background_;  // last: it goes first
};

}  // namespace coca::train
