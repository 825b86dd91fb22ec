// Sums of gradients over ranks: their values, and that they are sent before the backward pass ends.
// SPDX-License-Identifier: Apache-2.0
#include "coca/train/gradient_sum.h"

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <thread>

#include "coca/dist/thread_group.h"
#include "coca/model/select.h"
#include "support/numerics.h"
#include "support/tiny_model.h"

namespace coca::train::gradient_sum_test {
namespace {

model::ModelSpec spec_of_several_tiles() {
  model::ModelSpec s = test::tiny_neox(model::AttentionKind::kCocaSlack);
  s.C = 72;
  s.F = 160;
  s.L = 3;
  s.V = 101;
  s.D = 24;
  s.R = 24;
  return s;
}

std::vector<float> gradients(int slice, int64_t size) {
  const auto values = test::random_values(size, static_cast<uint64_t>(slice) + 1, -1.0, 1.0);
  return {values.begin(), values.end()};
}

TEST(GradientSum, AddsSlicesInTheirOrderForAnyNumberOfRanks) {
  const model::ModelSpec spec = spec_of_several_tiles();
  const model::ParamStore like(spec);
  const int64_t size = like.flat().numel(), slices = 12;
  std::vector<float> expected = gradients(0, size);
  for (int s = 1; s < slices; ++s) {
    const std::vector<float> more = gradients(s, size);
    for (size_t i = 0; i < expected.size(); ++i) expected[i] += more[i];
  }
  for (const int ranks : {1, 2, 3, 4}) {
    std::vector<float> sum(static_cast<size_t>(size));
    dist::run_ranks(ranks, [&](dist::Communicator& here) {
      const optim::Partition partition = partition_gradients(spec, like, ranks);
      GradientSum all(partition, here);
      Tensor grads({size});
      for (int step = 0; step < 2; ++step) {  // the second step must not include the first
        all.begin();
        for (int s = here.rank(); s < slices; s += ranks) {
          const std::vector<float> mine = gradients(s + 100 * (1 - step), size);
          std::copy(mine.begin(), mine.end(), grads.values<float>().begin());
          if (s % 2 == 0)
            for (int64_t layer = spec.L; layer >= 0; --layer) all.done(gradient_bucket(spec, layer), grads);
          all.finish(grads);
        }
      }
      const float* from = all.owned().as<float>();
      for (const optim::Range& range : partition.of(here.rank())) {
        std::copy_n(from, range.size(), sum.begin() + range.begin);
        from += range.size();
      }
    });
    EXPECT_TRUE(sum == expected) << ranks;
  }
}

// A bucket may contain only gradients that are complete when the backward pass hands it over. `complete` is the first
// bucket at which a tensor is complete.
TEST(GradientSum, ABucketHoldsOnlyFinishedGradients) {
  for (const model::Embeddings tied : {model::Embeddings::kTied, model::Embeddings::kUntied}) {
    model::ModelSpec spec = spec_of_several_tiles();
    spec.embeddings = tied;
    const model::ParamStore grads(spec);
    const optim::Partition partition = partition_gradients(spec, grads, 2);
    ASSERT_EQ(partition.buckets(), spec.L + 2);
    for (const model::ParamInfo& info : grads.infos()) {
      const int64_t layer = model::layer_of(spec, info.name);
      const bool top = info.name.find("final_layer_norm") != std::string::npos ||
                       (info.name.starts_with("embed_out") && tied == model::Embeddings::kUntied);
      const int complete = layer >= 0 ? static_cast<int>(spec.L - layer) : top ? 0 : static_cast<int>(spec.L) + 1;
      const auto begin = static_cast<int64_t>(info.offset), end = begin + info.shape.product();
      for (int bucket = 0; bucket < partition.buckets(); ++bucket)
        for (int rank = 0; rank < 2; ++rank)
          for (const optim::Range& range : partition.of(bucket, rank)) {
            const bool here = range.begin < end && begin < range.end;
            EXPECT_TRUE(!here || bucket >= complete) << info.name;
          }
    }
  }
}

class Counting : public dist::Communicator {
 public:
  Counting(dist::Communicator& ranks, std::atomic<int>& exchanges) : ranks_(ranks), exchanges_(exchanges) {}
  int rank() const override { return ranks_.rank(); }
  int size() const override { return ranks_.size(); }
  void exchange(std::span<const dist::Send> sends, std::span<const dist::Receive> receives) override {
    ranks_.exchange(sends, receives);
    ++exchanges_;
  }
  std::unique_ptr<Communicator> duplicate() override {
    other_ = ranks_.duplicate();
    return std::make_unique<Counting>(*other_, exchanges_);
  }

 private:
  dist::Communicator& ranks_;
  std::unique_ptr<dist::Communicator> other_;
  std::atomic<int>& exchanges_;
};

TEST(GradientSum, LayersAreSentWhileBackwardRuns) {
  const model::ModelSpec spec = spec_of_several_tiles();
  const model::ParamStore like(spec);
  dist::run_ranks(2, [&](dist::Communicator& here) {
    std::atomic<int> exchanges = 0;
    Counting counting(here, exchanges);
    GradientSum sum(partition_gradients(spec, like, 2), counting);
    Tensor grads({like.flat().numel()});
    sum.begin();
    for (int64_t layer = spec.L; layer >= 0; --layer) {
      sum.done(gradient_bucket(spec, layer), grads);
      // The backward pass would continue with the next layer here. The gradients handed over are exchanged meanwhile,
      // without further calls.
      const auto limit = std::chrono::steady_clock::now() + std::chrono::seconds(30);
      while (exchanges < spec.L - layer + 1 && std::chrono::steady_clock::now() < limit) std::this_thread::yield();
      EXPECT_EQ(exchanges, spec.L - layer + 1);
    }
    sum.finish(grads);
  });
}

}  // namespace
}  // namespace coca::train::gradient_sum_test
