// coca/train/trained_model.h - the weights of a training: those that the optimizer moves, and those with which the
// model runs.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <string>

#include "coca/model/adapter.h"
#include "coca/model/params.h"

namespace coca::train {

class TrainedModel {
 public:
  // Without an adapter (null) all of the model may be trained; with one, only the adapter is. The spec must outlive
  // this.
  TrainedModel(const model::ModelSpec&, model::Precision, std::shared_ptr<model::Adapter>);
  TrainedModel(const TrainedModel&) = delete;  // weights() refers to members
  TrainedModel& operator=(const TrainedModel&) = delete;

  // Once params() and the adapter have their values: makes what the model runs with.
  void bind(Context&);

  model::ParamStore& params() { return params_; }  // fp32; under an adapter frozen, in the precision of the run
  const model::ParamStore& params() const { return params_; }
  model::Adapter* adapter() const { return adapter_.get(); }
  model::TensorStore& master() { return adapter_ ? adapter_->tensors() : params_; }  // what the optimizer moves
  model::TensorStore* copy();  // of it in the precision of the run; null in fp32
  const model::Weights& weights() const { return weights_; }

  // Of an adapter, for the passes to come; nothing without one.
  void set_dropout(uint64_t key);
  void clear_dropout();

  std::string fingerprint() const;  // of params(), from the beginning of every tensor
  std::string first_nonfinite();    // the first parameter that is not finite, in the order of the model; "": none

 private:
  const model::ModelSpec& spec_;
  model::Precision precision_;
  std::shared_ptr<model::Adapter> adapter_;
  model::ParamStore params_;
  std::unique_ptr<model::ParamStore> copy_;
  std::unique_ptr<model::TensorStore> adapter_copy_;
  model::Weights weights_;
};

}  // namespace coca::train
