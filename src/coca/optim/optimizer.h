// coca/optim/optimizer.h - AdamW over a model's parameters, with clipping by the global norm and decay groups
// (matrices and embeddings decay; norms and biases do not).
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <vector>

#include "coca/model/params.h"
#include "coca/ops/adamw.h"

namespace coca::optim {

struct AdamWOptions {
  double beta1 = 0.9, beta2 = 0.95, eps = 1e-8;
  double weight_decay = 0.1;
  double clip_norm = 1.0;  // 0: no clipping
};
void check_adamw(const AdamWOptions&);

struct UpdateReport {
  double grad_norm = 0;  // before clipping
  enum class Outcome : uint8_t { kApplied, kSkippedNonFinite } outcome = Outcome::kApplied;
};

class AdamW {
 public:
  AdamW(const model::ModelSpec&, const AdamWOptions&);
  AdamW(const std::vector<model::ParamInfo>& trained, const AdamWOptions&);  // moments of these alone

  // One update of the parameters that have a gradient: the list the optimizer was made for. All others of params keep
  // their bits. A non-finite gradient norm changes nothing and is reported. Grads and params are fp32; a bf16 copy of the
  // params is written in the same pass where one is given.
  UpdateReport step(Context&, double learning_rate, const model::TensorStore& grads, model::TensorStore& params,
                    model::TensorStore* copy = nullptr);

  int64_t updates() const { return updates_; }  // applied so far: the step of the bias corrections
  void set_updates(int64_t updates) { updates_ = updates; }
  model::TensorStore& first_moment() { return m_; }
  model::TensorStore& second_moment() { return v_; }

 private:
  AdamWOptions options_;
  model::TensorStore m_, v_;
  int64_t updates_ = 0;
};

}  // namespace coca::optim
