// SPDX-License-Identifier: Apache-2.0
#include "coca/train/gradient_sum.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "coca/model/architecture.h"

namespace coca::train {

namespace {

// The bucket in which a tensor's gradient is complete.
int bucket_of(const model::ModelSpec& spec, const model::ParamInfo& info) {
  if (const int64_t layer = model::layer_of(spec, info.name); layer >= 0) return gradient_bucket(spec, layer);
  const model::TensorNames names = model::tensor_names(spec);
  const bool top = info.name.starts_with(names.norm + ".") ||
                   (spec.embeddings == model::Embeddings::kUntied && info.name.starts_with(names.head + "."));
  return top ? 0 : gradient_bucket(spec, -1);
}

}  // namespace

int gradient_bucket(const model::ModelSpec& spec, int64_t layer) { return static_cast<int>(spec.L - layer); }

// A tile on a border belongs to the bucket that is complete last.
optim::Partition partition_gradients(const model::ModelSpec& spec, const model::TensorStore& grads, int ranks) {
  const int64_t size = grads.flat().numel(), tile = optim::Partition::kTile;
  if (ranks == 1) return optim::Partition(size);
  std::vector<int> tile_bucket(static_cast<size_t>((size + tile - 1) / tile), 0);
  for (const model::ParamInfo& info : grads.infos()) {
    const auto offset = static_cast<int64_t>(info.offset);
    for (int64_t t = offset / tile; t * tile < offset + info.shape.product(); ++t) {
      int& bucket = tile_bucket[static_cast<size_t>(t)];
      bucket = std::max(bucket, bucket_of(spec, info));
    }
  }
  return optim::Partition(size, tile_bucket, gradient_bucket(spec, -1) + 1, ranks);
}

GradientSum::GradientSum(optim::Partition partition, dist::Communicator& ranks)
    : partition_(std::move(partition)),
      ranks_(ranks.duplicate()),
      owned_({optim::total_size(partition_.of(ranks.rank()))}) {
  int64_t at = 0;
  for (int bucket = 0; bucket < partition_.buckets(); ++bucket) {
    packed_.push_back(at);
    at += optim::total_size(partition_.of(bucket, ranks.rank()));
  }
}

void GradientSum::begin() {
  first_round_ = true;
  next_ = 0;
}

void GradientSum::done(int bucket, TensorRef grads) {
  if (ranks_->size() == 1) return;  // nothing has to be sent
  for (; next_ <= bucket; ++next_) background_.start([this, values = grads.as<float>(), b = next_] { add(b, values); });
}

void GradientSum::finish(TensorRef grads) {
  if (ranks_->size() == 1) add(0, grads.as<float>());
  done(partition_.buckets() - 1, grads);
  background_.wait();
  first_round_ = false;
  next_ = 0;
}

// Every rank sends each other rank the part of the bucket which that rank owns, directly from the gradients, and adds
// what it receives to its own in the order of the ranks. A rank sends and receives (K - 1) / K of the bucket, as in a
// ring.
void GradientSum::add(int bucket, const float* grads) {
  const int rank = ranks_->rank(), size = ranks_->size();
  const std::vector<optim::Range>& mine = partition_.of(bucket, rank);
  const int64_t count = optim::total_size(mine);
  received_.resize(static_cast<size_t>(count) * static_cast<size_t>(size));
  std::vector<dist::Send> sends;
  std::vector<dist::Receive> receives;
  for (int r = 0; r < size; ++r) {
    if (r == rank) continue;
    for (const optim::Range& range : partition_.of(bucket, r))
      sends.push_back({r, std::as_bytes(std::span(grads + range.begin, static_cast<size_t>(range.size())))});
    float* to = received_.data() + r * count;
    for (const optim::Range& range : mine) {
      receives.push_back({r, std::as_writable_bytes(std::span(to, static_cast<size_t>(range.size())))});
      to += range.size();
    }
  }
  ranks_->exchange(sends, receives);
  float* sum = owned_.values<float>().data() + packed_[static_cast<size_t>(bucket)];
  for (int r = 0; r < size; ++r) {
    float* to = sum;
    const float* from = received_.data() + r * count;
    for (const optim::Range& range : mine) {
      const float* part = r == rank ? grads + range.begin : from;
      if (r == 0 && first_round_)
        std::copy_n(part, range.size(), to);
      else
        std::transform(part, part + range.size(), to, to, [](float x, float y) { return y + x; });
      to += range.size();
      from += range.size();
    }
  }
}

}  // namespace coca::train
