// SPDX-License-Identifier: Apache-2.0
#include "coca/optim/optimizer.h"

#include <cmath>
#include <cstring>
#include <utility>

namespace coca::optim {

void check_adamw(const AdamWOptions& o) {
  COCA_CHECK(o.beta1 >= 0 && o.beta1 < 1 && o.beta2 >= 0 && o.beta2 < 1, "AdamW betas {} and {} must be in [0, 1)", o.beta1, o.beta2);
  COCA_CHECK(o.eps > 0, "AdamW eps {} must be positive", o.eps);
  COCA_CHECK(o.weight_decay >= 0 && o.clip_norm >= 0, "weight decay {} and clip norm {} must not be negative", o.weight_decay, o.clip_norm);
}

AdamW::AdamW(const model::ModelSpec& spec, const AdamWOptions& options) : AdamW(model::parameter_list(spec), options) {}

AdamW::AdamW(const std::vector<model::ParamInfo>& trained, const AdamWOptions& options) : options_(options), m_(trained), v_(trained) {
  check_adamw(options);
}

UpdateReport AdamW::step(Context& cx, double learning_rate, const model::TensorStore& grads, model::TensorStore& params,
                         model::TensorStore* copy) {
  UpdateReport report;
  report.grad_norm = std::sqrt(ops::sum_of_squares(cx, grads.flat()));
  if (!std::isfinite(report.grad_norm)) {
    report.outcome = UpdateReport::Outcome::kSkippedNonFinite;
    return report;
  }
  const double scale = options_.clip_norm > 0 && report.grad_norm > options_.clip_norm ? options_.clip_norm / report.grad_norm : 1.0;
  ++updates_;
  for (const model::ParamInfo& info : grads.infos()) {
    const bool decays = info.role == model::ParamRole::kMatrix || info.role == model::ParamRole::kEmbedding;
    ops::AdamWStep update{.learning_rate = static_cast<float>(learning_rate),
                          .beta1 = static_cast<float>(options_.beta1),
                          .beta2 = static_cast<float>(options_.beta2),
                          .eps = static_cast<float>(options_.eps),
                          .weight_decay = decays ? static_cast<float>(options_.weight_decay) : 0.0f,
                          .grad_scale = static_cast<float>(scale),
                          .step = updates_};
    const Dims flat{info.shape.product()};
    const TensorRef grad = grads.at(info).reshape(flat);
    const MutTensorRef m = m_.at(info).reshape(flat), v = v_.at(info).reshape(flat);
    const std::vector<MutTensorRef> blocks = params.blocks(info), copies = copy ? copy->blocks(info) : std::vector<MutTensorRef>{};
    for (size_t i = 0; i < blocks.size(); ++i) {
      const int64_t count = blocks[i].numel(), at = static_cast<int64_t>(i) * count;
      update.grad = grad.narrow(0, at, count);
      update.param = blocks[i];
      update.m = m.narrow(0, at, count);
      update.v = v.narrow(0, at, count);
      update.copy = copy && copies[i].dtype == DType::kBF16 ? copies[i] : MutTensorRef();
      ops::adamw_step(cx, update);
      if (copy && update.copy.empty()) std::memcpy(copies[i].data, blocks[i].data, blocks[i].bytes());
    }
  }
  return report;
}

}  // namespace coca::optim
