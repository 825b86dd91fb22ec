// Perplexity of windows split over ranks equals that of whole windows.
// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <mutex>

#include "coca/base/parallel.h"
#include "coca/dist/thread_group.h"
#include "coca/eval/perplexity.h"
#include "support/tiny_model.h"

namespace coca::eval::context_parallel_test {
namespace {

using test::AttentionKind;
using test::TinyModel;

std::vector<PerplexityResult> run(const TinyModel& m, const std::vector<std::vector<int32_t>>& documents,
                                  const PerplexityOptions& options) {
  Context cx;
  return perplexity(cx, m.spec, m.params.weights(), documents, options);
}

TEST(ContextParallel, IsThePerplexityOfOneProcess) {
  constexpr int K = 3;
  for (const AttentionKind kind : {AttentionKind::kRope, AttentionKind::kCocaSlack, AttentionKind::kAlibi})
    for (const Bos bos : {Bos::kNever, Bos::kAlways}) {
      TinyModel m(test::tiny_llama(kind));
      m.spec.bos_id = 1;
      const std::vector<std::vector<int32_t>> documents = {test::random_ids(150, m.spec.V, 1),
                                                           test::random_ids(67, m.spec.V, 2)};
      // Covers windows too short for six chunks, windows of uneven length, overlapping windows that score only some
      // rows, and several windows per batch.
      const PerplexityOptions options{.protocol = {.lengths = {4, 29, 64, 200}, .stride = 20, .bos = bos},
                                      .batch_tokens = 130};
      const std::vector<PerplexityResult> one = run(m, documents, options);
      std::vector<std::vector<PerplexityResult>> all(K);
      std::mutex mutex;
      dist::run_ranks(K, [&](dist::Communicator& ranks) {
        set_max_threads(1);
        auto results = run(m, documents,
                           {.protocol = options.protocol,
                            .batch_tokens = options.batch_tokens,
                            .ranks = ranks,
                            .share = Share::kTokens});
        const std::lock_guard lock(mutex);
        all[static_cast<size_t>(ranks.rank())] = std::move(results);
      });
      for (const auto& results : all)
        for (size_t i = 0; i < one.size(); ++i) {
          EXPECT_EQ(results[i].windows, one[i].windows);
          EXPECT_EQ(results[i].scored_tokens, one[i].scored_tokens);
          EXPECT_NEAR(results[i].nll, one[i].nll, 1e-5)
              << one[i].length;  // a few roundings of values up to about 20, as for one token
          EXPECT_EQ(results[i].nll, all[0][i].nll) << "ranks disagree";
          ASSERT_EQ(results[i].by_document.size(), one[i].by_document.size());
          for (size_t d = 0; d < one[i].by_document.size(); ++d)
            EXPECT_NEAR(results[i].by_document[d].sums.mean_nll(), one[i].by_document[d].sums.mean_nll(), 1e-5);
        }
    }
}

}  // namespace
}  // namespace coca::eval::context_parallel_test
