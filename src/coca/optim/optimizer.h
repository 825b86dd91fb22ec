// coca/optim/optimizer.h - AdamW over a model's parameters, with clipping by the global norm and decay groups
// (matrices and embeddings decay; norms and biases do not). The state may be shared among ranks, each of which then keeps
// the moments of what it owns and updates that alone (ZeRO, Rajbhandari et al. 2020, stage 1).
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
  double clex_rate = 1.0;  // times the learning rate, for CLEX's network
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
  // The moments of what rank ranks.rank() owns of the flat vector of their gradients. `ranks` must outlive this.
  AdamW(std::vector<model::ParamInfo> trained, const AdamWOptions&, Partition, dist::Communicator& ranks);

  // One update of the parameters that have a gradient: the list the optimizer was made for. All others of params keep
  // their bits. A non-finite gradient norm changes nothing and is reported. Grads and params are fp32; a bf16 copy of the
  // params is written in the same pass where one is given.
  UpdateReport step(Context&, double learning_rate, const model::TensorStore& grads, model::TensorStore& params,
                    model::TensorStore* copy = nullptr);
  // The same by all ranks together, each with the gradients it owns, packed in the order of its ranges; they are lost. On
  // return every rank has all updated parameters. room: as many floats as the gradients have, lost too.
  UpdateReport step_owned(Context&, double learning_rate, MutTensorRef owned, MutTensorRef room, model::TensorStore& params,
                          model::TensorStore* copy = nullptr);

  int64_t updates() const { return updates_; }  // applied so far: the step of the bias corrections
  void set_updates(int64_t updates) { updates_ = updates; }

  // The moments owned here, packed in the order of owned().
  MutTensorRef first_moment() { return m_; }
  MutTensorRef second_moment() { return v_; }
  // Elements [begin, end) of a flattened tensor, and where they stand in what is packed.
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
  UpdateReport update(Context&, double learning_rate, TensorRef owned, model::TensorStore& params, model::TensorStore* copy);
  void share(Context&, MutTensorRef owned, MutTensorRef room, model::TensorStore& params, model::TensorStore* copy) const;

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
