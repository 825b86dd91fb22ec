// coca/train/step.h - one training step: the gradients of its micro-batches, slice by slice over the ranks, and the
// update.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "coca/model/select.h"
#include "coca/train/gradient_sum.h"
#include "coca/train/micro_batch.h"
#include "coca/train/trained_model.h"

namespace coca::train {

class Step {
 public:
  // All arguments must outlive this object. All ranks construct it together and make every call together.
  Step(const model::ModelSpec&, const LoopOptions&, const LoopData&, TrainedModel&, dist::Communicator&);

  // Creates the gradients and the optimizer for the parameters that this stage trains.
  void begin_stage(const Stage&);
  // Computes the gradients of all micro-batches. Returns the mean loss over the targets of the step; nullopt if a stop
  // was requested on any rank before it was complete (base/stop.h). Then the weights and the optimizer are those before
  // the step, and no other step may follow.
  std::optional<double> forward_backward(int64_t step);
  optim::UpdateReport update(double learning_rate);

  // Computes the step again, which gives the same numbers, and names the first value that is not finite, on the lowest
  // rank that has one.
  std::string locate_nonfinite(int64_t step);
  // Whether the loss of the step's windows is finite with the current weights and without dropout, as the model will be
  // used later.
  bool stays_finite(int64_t step);

  MicroBatch& batch() { return batch_; }
  optim::AdamW& optimizer() { return *optimizer_; }
  int64_t trained_parameters() const { return model::element_count(grads_->infos()); }  // in this stage
  size_t activation_bytes() const { return batch_.activation_bytes(); }

 private:
  enum class Add : uint8_t { kToSum, kNot };
  std::pair<int64_t, int64_t> parts_of(
      int64_t slice) const;  // the slice's micro-batches: the first, and one past the last
  std::optional<double> whole_step(int64_t step);
  std::optional<double> slice(int64_t step, int64_t slice, Add);
  bool stops_before(int64_t slice, int64_t part);
  std::string nonfinite_here(int64_t step);

  const model::ModelSpec& spec_;
  const LoopOptions& options_;
  const BatchSource& batches_;
  TrainedModel& model_;
  dist::Communicator& ranks_;
  MicroBatch batch_;
  std::unique_ptr<model::TensorStore> grads_;  // of the stage's parameters
  model::MutWeights grad_tensors_;             // the same, by their place in the model
  std::unique_ptr<optim::AdamW> optimizer_;
  std::unique_ptr<GradientSum> sum_;  // with several ranks or slices
};

}  // namespace coca::train
