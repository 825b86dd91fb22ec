// coca/optim/optimizer.h - AdamW over a model's parameters, with clipping by the global norm and decay groups
// (matrices and embeddings decay; norms and biases do not). The state may be split over ranks: each keeps the moments
// of the parameters it owns, and updates only those (ZeRO, Rajbhandari et al. 2020, stage 1).
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <vector>

#include "coca/dist/communicator.h"
#include "coca/model/params.h"
#include "coca/ops/adamw.h"
#include "coca/optim/partition.h"

namespace coca::optim {

struct AdamWOptions {
  double beta1 = 0.9, beta2 = 0.95, eps = 1e-8;
  double weight_decay = 0.1;
  double clip_norm = 1.0;  // 0: no clipping
  double clex_rate = 1.0;  // factor of the learning rate for CLEX's network
};
void check_adamw(const AdamWOptions&);

struct UpdateReport {
  double grad_norm = 0;  // before clipping
  enum class Outcome : uint8_t { kApplied, kSkippedNonFinite } outcome = Outcome::kApplied;
};

class AdamW {
 public:
  AdamW(const model::ModelSpec&, const AdamWOptions&);
  // Has moments of these only, where the parameters and gradients lie: in this memory (null: the host's).
  AdamW(const std::vector<model::ParamInfo>& trained, const AdamWOptions&, DeviceMemory* = nullptr);
  // Has the moments of that part of the flat vector of gradients which rank ranks.rank() owns. `ranks` must outlive
  // this.
  AdamW(std::vector<model::ParamInfo> trained, const AdamWOptions&, Partition, dist::Communicator& ranks,
        DeviceMemory* = nullptr);

  // One update of the parameters that have a gradient, those for which the optimizer was made. All others of params
  // keep their bits. A non-finite gradient norm changes nothing and is reported. Grads and params are fp32; a bf16 copy
  // of the params, if given, is written in the same pass.
  UpdateReport step(Context&, double learning_rate, const model::TensorStore& grads, model::TensorStore& params,
                    model::TensorStore* copy = nullptr);
  // The same by all ranks together, on the CPU, each with the gradients it owns, packed in the order of its ranges. On
  // return every rank has all updated parameters, and the gradients and `room` (as many floats) are overwritten.
  UpdateReport step_owned(Context&, double learning_rate, MutTensorRef owned, MutTensorRef room,
                          model::TensorStore& params, model::TensorStore* copy = nullptr);

  int64_t updates() const { return updates_; }  // applied so far; the step in the bias corrections
  void set_updates(int64_t updates) { updates_ = updates; }

  DeviceMemory* memory() const { return m_.memory(); }  // where the moments lie; null: the host's
  // The moments owned here, packed in the order of owned().
  MutTensorRef first_moment() { return m_; }
  MutTensorRef second_moment() { return v_; }
  // Elements [begin, end) of a flattened tensor, and their place among the packed moments.
  struct Piece {
    const model::ParamInfo* info;
    int64_t begin, end, packed;
  };
  const std::vector<Piece>& pieces() const { return pieces_; }
  const std::vector<Range>& owned() const { return owned_; }
  const Partition& partition() const { return partition_; }

 private:
  std::vector<Piece> pieces_in(const std::vector<Range>&) const;
  double sum_of_squares(Context&, TensorRef owned) const;
  UpdateReport update(Context&, double learning_rate, TensorRef owned, model::TensorStore& params,
                      model::TensorStore* copy);
  void share(Context&, MutTensorRef owned, MutTensorRef room, model::TensorStore& params,
             model::TensorStore* copy) const;

  AdamWOptions options_;
  std::vector<model::ParamInfo> infos_;
  Partition partition_;
  dist::Communicator& ranks_;
  std::vector<Range> owned_;
  std::vector<Piece> pieces_;  // of owned_
  Tensor m_, v_;               // [owned floats]
  int64_t updates_ = 0;
};

}  // namespace coca::optim
