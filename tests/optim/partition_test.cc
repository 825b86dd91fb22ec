// SPDX-License-Identifier: Apache-2.0
#include "coca/optim/partition.h"

#include <gtest/gtest.h>

#include <cmath>

#include "coca/dist/thread_group.h"
#include "coca/model/params.h"
#include "coca/optim/optimizer.h"
#include "support/numerics.h"

namespace coca::optim::partition_test {
namespace {

TEST(Partition, EveryTileHasOneOwnerAndBucketsAreSharedEqually) {
  const int64_t tile = Partition::kTile, size = 23 * tile + 17;
  std::vector<int> buckets;
  for (int t = 0; t < 24; ++t) buckets.push_back(t < 7 ? 2 : t % 3 == 0 ? 1 : 0);
  for (const int ranks : {1, 2, 3, 5, 30}) {
    const Partition partition(size, buckets, 3, ranks);
    std::vector<int> owners(static_cast<size_t>(size), 0);
    for (int bucket = 0; bucket < 3; ++bucket) {
      int64_t least = size, most = 0;
      for (int r = 0; r < ranks; ++r) {
        const std::vector<Range>& ranges = partition.of(bucket, r);
        for (const Range& range : ranges) {
          EXPECT_EQ(range.begin % tile, 0);
          EXPECT_TRUE(range.end % tile == 0 || range.end == size);
          for (int64_t i = range.begin; i < range.end; ++i) {
            ++owners[static_cast<size_t>(i)];
            EXPECT_EQ(buckets[static_cast<size_t>(i / tile)], bucket);
          }
        }
        least = std::min(least, total_size(ranges));
        most = std::max(most, total_size(ranges));
      }
      EXPECT_LE(most - least, 2 * tile) << ranks;
    }
    for (const int count : owners) ASSERT_EQ(count, 1) << ranks;
  }
}

// Several ranks that each update their share give the same bits as one.
TEST(SharedAdamW, EndsInTheBitsOfOneRank) {
  model::ModelSpec spec;
  spec.V = 101;
  spec.C = 32;
  spec.F = 64;
  spec.L = 2;
  spec.H = 2;
  spec.G = 2;
  spec.D = 16;
  spec.R = 16;
  const AdamWOptions options{.weight_decay = 0.2, .clip_norm = 0.5};
  const auto gradients = [&](int step, model::ParamStore& grads) {
    const auto values = test::random_values(grads.flat().numel(), static_cast<uint64_t>(step), -1.0, 1.0);
    for (const model::ParamInfo& info : grads.infos())
      std::copy_n(values.begin() + static_cast<std::ptrdiff_t>(info.offset), info.shape.product(),
                  grads.at(info).as<float>());
  };
  model::ParamStore expected(spec), expected_copy(spec, model::Precision::kBF16);
  model::initialise(spec, 1, expected);
  double norm = 0;
  Context context;
  AdamW one(spec, options);
  for (int step = 0; step < 3; ++step) {
    model::ParamStore grads(spec);
    gradients(step, grads);
    norm = one.step(context, 0.01, grads, expected, &expected_copy).grad_norm;
  }
  model::copy_params(context, expected, expected_copy);  // norms and biases too
  for (const int ranks : {2, 3, 7}) {
    dist::run_ranks(ranks, [&](dist::Communicator& here) {
      model::ParamStore params(spec), copy(spec, model::Precision::kBF16), grads(spec);
      model::initialise(spec, 1, params);
      Context cx;
      model::copy_params(cx, params, copy);
      std::vector<int> buckets(static_cast<size_t>((grads.flat().numel() + Partition::kTile - 1) / Partition::kTile));
      for (size_t i = 0; i < buckets.size(); ++i) buckets[i] = i % 2 == 0;
      const Partition partition(grads.flat().numel(), buckets, 2, ranks);
      AdamW optimizer(params.infos(), options, partition, here);
      EXPECT_EQ(optimizer.first_moment().numel(), total_size(partition.of(here.rank())));
      Tensor owned({total_size(partition.of(here.rank()))});
      for (int step = 0; step < 3; ++step) {
        gradients(step, grads);
        float* to = owned.values<float>().data();
        for (const Range& range : partition.of(here.rank()))
          to = std::copy_n(grads.flat().as<float>() + range.begin, range.size(), to);
        const UpdateReport report = optimizer.step_owned(cx, 0.01, owned, grads.flat(), params, &copy);
        EXPECT_EQ(report.grad_norm == norm, step == 2) << ranks;
      }
      EXPECT_EQ(std::memcmp(params.flat().data, expected.flat().data, expected.flat().bytes()), 0) << ranks;
      EXPECT_EQ(std::memcmp(copy.flat().data, expected_copy.flat().data, expected_copy.flat().bytes()), 0) << ranks;
    });
  }
}

TEST(SharedAdamW, ANonFiniteGradientOfOneRankChangesNothingOnAny) {
  model::ModelSpec spec;
  spec.V = 101;
  spec.C = 32;
  spec.F = 64;
  spec.L = 1;
  spec.H = 2;
  spec.G = 2;
  spec.D = 16;
  spec.R = 16;
  dist::run_ranks(3, [&](dist::Communicator& here) {
    model::ParamStore params(spec), before(spec), grads(spec);
    model::initialise(spec, 1, params);
    model::initialise(spec, 1, before);
    Context cx;
    const std::vector<int> buckets(
        static_cast<size_t>((grads.flat().numel() + Partition::kTile - 1) / Partition::kTile), 0);
    const Partition partition(grads.flat().numel(), buckets, 1, 3);
    AdamW optimizer(params.infos(), {}, partition, here);
    Tensor owned({total_size(partition.of(here.rank()))});
    if (here.rank() == 1) owned.values<float>()[5] = std::nanf("");
    const UpdateReport report = optimizer.step_owned(cx, 0.01, owned, grads.flat(), params);
    EXPECT_EQ(report.outcome, UpdateReport::Outcome::kSkippedNonFinite);
    EXPECT_EQ(std::memcmp(params.flat().data, before.flat().data, before.flat().bytes()), 0);
    EXPECT_EQ(optimizer.updates(), 0);
  });
}

}  // namespace
}  // namespace coca::optim::partition_test
