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

AdamW::AdamW(const model::ModelSpec& spec, const AdamWOptions& options) : options_(options), m_(spec), v_(spec) {
  check_adamw(options);
}

UpdateReport AdamW::step(Context& cx, double learning_rate, const model::ParamStore& grads, model::ParamStore& params,
                         model::ParamStore* copy) {
  UpdateReport report;
  report.grad_norm = std::sqrt(ops::sum_of_squares(cx, grads.flat()));
  if (!std::isfinite(report.grad_norm)) {
    report.outcome = UpdateReport::Outcome::kSkippedNonFinite;
    return report;
  }
  const double scale = options_.clip_norm > 0 && report.grad_norm > options_.clip_norm ? options_.clip_norm / report.grad_norm : 1.0;
  ++updates_;
  for (const model::ParamInfo& info : params.infos()) {
    const bool decays = info.role == model::ParamRole::kMatrix || info.role == model::ParamRole::kEmbedding;
    const Dims flat{info.shape.product()};
    MutTensorRef rounded;
    if (copy && copy->at(info).dtype == DType::kBF16) rounded = copy->at(info).reshape(flat);
    ops::adamw_step(cx, {.learning_rate = static_cast<float>(learning_rate),
                         .beta1 = static_cast<float>(options_.beta1),
                         .beta2 = static_cast<float>(options_.beta2),
                         .eps = static_cast<float>(options_.eps),
                         .weight_decay = decays ? static_cast<float>(options_.weight_decay) : 0.0f,
                         .grad_scale = static_cast<float>(scale),
                         .step = updates_,
                         .grad = grads.at(info).reshape(flat),
                         .param = params.at(info).reshape(flat),
                         .m = m_.at(info).reshape(flat),
                         .v = v_.at(info).reshape(flat),
                         .copy = rounded});
    if (copy && rounded.empty()) std::memcpy(copy->at(info).data, params.at(info).data, params.at(info).bytes());
  }
  return report;
}

}  // namespace coca::optim
