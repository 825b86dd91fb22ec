// SPDX-License-Identifier: Apache-2.0
#include "coca/train/trained_model.h"

#include <algorithm>
#include <utility>

#include "coca/io/hash.h"
#include "coca/train/nonfinite.h"

namespace coca::train {

TrainedModel::TrainedModel(const model::ModelSpec& spec, model::Precision precision,
                           std::shared_ptr<model::Adapter> adapter)
    : spec_(spec),
      precision_(precision),
      adapter_(std::move(adapter)),
      params_(spec, adapter_ ? precision : model::Precision::kF32) {}

void TrainedModel::bind(Context& cx) {
  const bool rounded = precision_ != model::Precision::kF32;
  params_.move_to(cx.memory());
  if (adapter_) adapter_->tensors().move_to(cx.memory());
  if (rounded && adapter_) {
    adapter_copy_ = std::make_unique<model::TensorStore>(adapter_->tensors().infos(), precision_, cx.memory());
    model::copy_params(cx, adapter_->tensors(), *adapter_copy_);
  } else if (rounded) {
    copy_ = std::make_unique<model::ParamStore>(spec_, precision_, cx.memory());
    model::copy_params(cx, params_, *copy_);
  }
  weights_ = (copy_ ? *copy_ : params_).weights();
  if (adapter_) adapter_->bind(adapter_copy_ ? *adapter_copy_ : adapter_->tensors(), weights_);
}

model::TensorStore* TrainedModel::copy() { return adapter_ ? adapter_copy_.get() : copy_.get(); }

void TrainedModel::set_dropout(uint64_t key) {
  if (adapter_) adapter_->set_dropout(key, weights_);
}

void TrainedModel::clear_dropout() {
  if (adapter_) adapter_->clear_dropout(weights_);
}

std::string TrainedModel::fingerprint() const {
  constexpr size_t kBytes = 65536;
  uint32_t sum = 0;
  for (const model::ParamInfo& info : params_.infos()) {
    const TensorRef t = params_.at(info);
    sum = io::crc32c(t.data, std::min(t.bytes(), kBytes), sum);
  }
  return fmt::format("{:08x}", sum);
}

std::string TrainedModel::first_nonfinite() {
  std::string broken = first_nonfinite_tensor(params_, ListOrder::kForward);
  if (broken.empty() && adapter_) broken = first_nonfinite_tensor(master(), ListOrder::kForward);
  return broken;
}

}  // namespace coca::train
