// SPDX-License-Identifier: Apache-2.0
#include "coca/optim/optimizer.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>
#include <utility>

#include "coca/ops/cast.h"
#include "coca/tensor/transfer.h"

namespace coca::optim {

namespace {

int64_t flat_size(const std::vector<model::ParamInfo>& infos) {
  return infos.empty() ? 0 : (static_cast<int64_t>(infos.back().offset) + infos.back().shape.product() + 15) / 16 * 16;
}

// Calls visit(part of a block, its place in the piece) for the parts of a parameter's blocks (model/params.h) in a
// piece.
template <typename Visit>
void for_each_block(model::TensorStore& store, const AdamW::Piece& piece, const Visit& visit) {
  int64_t at = 0;
  for (const MutTensorRef& block : store.blocks(*piece.info)) {
    const int64_t begin = std::max(piece.begin, at), end = std::min(piece.end, at + block.numel());
    if (begin < end) visit(block.narrow(0, begin - at, end - begin), begin - piece.begin);
    at += block.numel();
  }
}

}  // namespace

void check_adamw(const AdamWOptions& o) {
  COCA_CHECK(o.beta1 >= 0 && o.beta1 < 1, "beta1 is {}; expected at least 0 and less than 1", o.beta1);
  COCA_CHECK(o.beta2 >= 0 && o.beta2 < 1, "beta2 is {}; expected at least 0 and less than 1", o.beta2);
  COCA_CHECK(o.eps > 0, "adam_eps is {}; expected more than 0", o.eps);
  COCA_CHECK(o.clex_rate > 0 && o.clex_rate <= 1, "clex_rate is {}; expected more than 0 and at most 1", o.clex_rate);
  COCA_CHECK(o.weight_decay >= 0, "weight_decay is {}; expected at least 0", o.weight_decay);
  COCA_CHECK(o.clip_norm >= 0, "clip_norm is {}; expected at least 0", o.clip_norm);
}

AdamW::AdamW(const model::ModelSpec& spec, const AdamWOptions& options) : AdamW(model::parameter_list(spec), options) {}

AdamW::AdamW(const std::vector<model::ParamInfo>& trained, const AdamWOptions& options, DeviceMemory* memory)
    : AdamW(trained, options, Partition(flat_size(trained)), dist::alone(), memory) {}

AdamW::AdamW(std::vector<model::ParamInfo> trained, const AdamWOptions& options, Partition partition,
             dist::Communicator& ranks, DeviceMemory* memory)
    : options_(options),
      infos_(std::move(trained)),
      partition_(std::move(partition)),
      ranks_(ranks),
      owned_(partition_.of(ranks.rank())),
      pieces_(pieces_in(owned_)),
      m_({total_size(owned_)}, DType::kF32, memory,
         "the optimizer's first moments (training fewer parameters needs less)"),
      v_({total_size(owned_)}, DType::kF32, memory,
         "the optimizer's second moments (training fewer parameters needs less)") {
  check_adamw(options);
  COCA_CHECK_AS(kInternal, partition_.size() == flat_size(infos_) && partition_.ranks() == ranks.size(),
                "[adamw] a partition of {} floats for {} ranks; the parameters have {}, the job {}", partition_.size(),
                partition_.ranks(), flat_size(infos_), ranks.size());
}

std::vector<AdamW::Piece> AdamW::pieces_in(const std::vector<Range>& ranges) const {
  std::vector<Piece> pieces;
  int64_t packed = 0;
  for (const Range& range : ranges) {
    for (const model::ParamInfo& info : infos_) {
      const auto offset = static_cast<int64_t>(info.offset);
      const int64_t begin = std::max(range.begin, offset), end = std::min(range.end, offset + info.shape.product());
      if (begin < end) pieces.push_back({&info, begin - offset, end - offset, packed + begin - range.begin});
    }
    packed += range.size();
  }
  return pieces;
}

// Tile by tile and then over the tiles in their order in the vector: the same bits however the vector is divided.
double AdamW::sum_of_squares(Context& cx, TensorRef owned) const {
  if (memory()) return ops::sum_of_squares(cx, owned);  // one rank: larger tiles, so that few numbers are fetched
  const auto tiles_of = [](const Range& range) {
    return static_cast<size_t>((range.size() + Partition::kTile - 1) / Partition::kTile);
  };
  std::vector<std::vector<double>> sums(static_cast<size_t>(ranks_.size()));
  for (int r = 0; r < ranks_.size(); ++r)
    for (const Range& range : partition_.of(r))
      sums[static_cast<size_t>(r)].resize(sums[static_cast<size_t>(r)].size() + tiles_of(range));
  std::vector<double>& mine = sums[static_cast<size_t>(ranks_.rank())];
  size_t tile = 0;
  int64_t packed = 0;
  for (const Range& range : owned_) {
    ops::tile_sums_of_squares(cx, owned.narrow(0, packed, range.size()), Partition::kTile,
                              std::span(mine).subspan(tile, tiles_of(range)));
    tile += tiles_of(range);
    packed += range.size();
  }
  std::vector<dist::Send> sends;
  std::vector<dist::Receive> receives;
  for (int r = 0; r < ranks_.size(); ++r) {
    if (r == ranks_.rank()) continue;
    sends.push_back({r, std::as_bytes(std::span(mine))});
    receives.push_back({r, std::as_writable_bytes(std::span(sums[static_cast<size_t>(r)]))});
  }
  ranks_.exchange(sends, receives);
  std::vector<double> in_order(static_cast<size_t>((partition_.size() + Partition::kTile - 1) / Partition::kTile));
  for (int r = 0; r < ranks_.size(); ++r) {
    auto from = sums[static_cast<size_t>(r)].begin();
    for (const Range& range : partition_.of(r)) {
      const auto count = static_cast<std::ptrdiff_t>(tiles_of(range));
      std::copy_n(from, count, in_order.begin() + range.begin / Partition::kTile);
      from += count;
    }
  }
  return std::accumulate(in_order.begin(), in_order.end(), 0.0);
}

UpdateReport AdamW::step(Context& cx, double learning_rate, const model::TensorStore& grads, model::TensorStore& params,
                         model::TensorStore* copy) {
  COCA_CHECK_AS(kInternal, ranks_.size() == 1,
                "[adamw] a step of one rank's whole gradients; the state is shared by {}", ranks_.size());
  return update(cx, learning_rate, grads.flat(), params, copy);
}

UpdateReport AdamW::step_owned(Context& cx, double learning_rate, MutTensorRef owned, MutTensorRef room,
                               model::TensorStore& params, model::TensorStore* copy) {
  const UpdateReport report = update(cx, learning_rate, owned, params, copy);
  if (report.outcome == UpdateReport::Outcome::kApplied) share(cx, owned, room, params, copy);
  return report;
}

UpdateReport AdamW::update(Context& cx, double learning_rate, TensorRef owned, model::TensorStore& params,
                           model::TensorStore* copy) {
  UpdateReport report;
  report.grad_norm = std::sqrt(sum_of_squares(cx, owned));
  if (!std::isfinite(report.grad_norm)) {
    report.outcome = UpdateReport::Outcome::kSkippedNonFinite;
    return report;
  }
  const double scale =
      options_.clip_norm > 0 && report.grad_norm > options_.clip_norm ? options_.clip_norm / report.grad_norm : 1.0;
  ++updates_;
  for (const Piece& piece : pieces_) {
    const bool decays =
        piece.info->role == model::ParamRole::kMatrix || piece.info->role == model::ParamRole::kEmbedding;
    const double share = model::is_clex(piece.info->role) ? options_.clex_rate : 1.0;
    ops::AdamWStep one{.learning_rate = static_cast<float>(share * learning_rate),
                       .beta1 = static_cast<float>(options_.beta1),
                       .beta2 = static_cast<float>(options_.beta2),
                       .eps = static_cast<float>(options_.eps),
                       .weight_decay = decays ? static_cast<float>(options_.weight_decay) : 0.0f,
                       .grad_scale = static_cast<float>(scale),
                       .step = updates_};
    std::vector<MutTensorRef> copies;
    if (copy) for_each_block(*copy, piece, [&](MutTensorRef block, int64_t) { copies.push_back(block); });
    size_t i = 0;
    for_each_block(params, piece, [&](MutTensorRef block, int64_t at) {
      const auto part = [&](auto packed) { return packed.narrow(0, piece.packed + at, block.numel()); };
      one.grad = part(owned);
      one.param = block;
      one.m = part(m_.ref());
      one.v = part(v_.ref());
      one.copy = copy && copies[i].dtype == DType::kBF16 ? copies[i] : MutTensorRef();
      ops::adamw_step(cx, one);
      if (copy && one.copy.empty()) transfer(cx, copies[i], block);
      ++i;
    });
  }
  return report;
}

// Every rank sends the parameters it has updated to all others, packed.
void AdamW::share(Context& cx, MutTensorRef owned, MutTensorRef room, model::TensorStore& params,
                  model::TensorStore* copy) const {
  if (ranks_.size() == 1) return;
  COCA_CHECK_AS(kInternal, room.numel() == partition_.size(), "[adamw] room for {} floats; {} needed", room.numel(),
                partition_.size());
  for (const Piece& piece : pieces_)
    for_each_block(params, piece, [&](MutTensorRef block, int64_t at) {
      std::memcpy(owned.narrow(0, piece.packed + at, block.numel()).data, block.data, block.bytes());
    });
  const auto bytes_of = [](MutTensorRef t) { return std::span(static_cast<std::byte*>(t.data), t.bytes()); };
  std::vector<dist::Send> sends;
  std::vector<dist::Receive> receives;
  std::vector<MutTensorRef> theirs;
  int64_t at = 0;
  for (int r = 0; r < ranks_.size(); ++r) {
    const int64_t count = total_size(partition_.of(r));
    theirs.push_back(room.narrow(0, at, count));
    at += count;
    if (r == ranks_.rank()) continue;
    sends.push_back({r, bytes_of(owned)});
    receives.push_back({r, bytes_of(theirs.back())});
  }
  ranks_.exchange(sends, receives);
  for (int r = 0; r < ranks_.size(); ++r) {
    if (r == ranks_.rank()) continue;
    for (const Piece& piece : pieces_in(partition_.of(r))) {
      const auto part = [&](int64_t place, int64_t count) {
        return theirs[static_cast<size_t>(r)].narrow(0, piece.packed + place, count);
      };
      for_each_block(params, piece, [&](MutTensorRef block, int64_t place) {
        std::memcpy(block.data, part(place, block.numel()).data, block.bytes());
      });
      if (copy)
        for_each_block(*copy, piece, [&](MutTensorRef block, int64_t place) {
          const TensorRef x = part(place, block.numel());
          if (block.dtype == x.dtype)
            std::memcpy(block.data, x.data, block.bytes());
          else
            ops::cast(cx, {.x = x, .y = block});
        });
    }
  }
}

}  // namespace coca::optim
