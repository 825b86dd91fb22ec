// coca/train/trained_model.h - the weights in training: those that the optimizer updates, and those that the model
// uses.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <string>

#include "coca/model/adapter.h"
#include "coca/model/params.h"

namespace coca::train {

class TrainedModel {
 public:
  // Without an adapter (null) the whole model may be trained; with one, only the adapter is. The spec must outlive this
  // object.
  TrainedModel(const model::ModelSpec&, model::Precision, std::shared_ptr<model::Adapter>);
  TrainedModel(const TrainedModel&) = delete;  // weights() refers to members
  TrainedModel& operator=(const TrainedModel&) = delete;

  // Call once params() and the adapter have their values, on the host: brings them to the context's device and prepares
  // the weights that the model uses.
  void bind(Context&);

  model::ParamStore& params() { return params_; }  // fp32; with an adapter frozen, in the precision of the run
  const model::ParamStore& params() const { return params_; }
  model::Adapter* adapter() const { return adapter_.get(); }
  model::TensorStore& master() {
    return adapter_ ? adapter_->tensors() : params_;
  }                            // the tensors that the optimizer updates
  model::TensorStore* copy();  // of these in the precision of the run; null for fp32
  const model::Weights& weights() const { return weights_; }

  // Sets the adapter's dropout for the following passes; does nothing without one.
  void set_dropout(uint64_t key);
  void clear_dropout();

  std::string fingerprint() const;  // of params(), from the first numbers of every tensor; before bind()
  std::string first_nonfinite();    // the first parameter that is not finite, in model order; "": none

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
