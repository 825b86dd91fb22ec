// The protocol of docs/evaluation.md compared with its simplest form: every window run by the reference decoder in
// double.
// SPDX-License-Identifier: Apache-2.0
#include "coca/eval/perplexity.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <cmath>
#include <limits>
#include <map>
#include <mutex>

#include "coca/base/stop.h"
#include "coca/dist/thread_group.h"
#include "coca/eval/key_tokens.h"
#include "support/numerics.h"
#include "support/reference_decoder.h"
#include "support/tiny_model.h"

namespace coca::eval::perplexity_test {
namespace {

using test::AttentionKind;
using test::TinyModel;
using Documents = std::vector<std::vector<int32_t>>;

auto message(const char* text) { return testing::ThrowsMessage<Error>(testing::HasSubstr(text)); }

Documents documents_of(const TinyModel& m, const std::vector<int64_t>& sizes) {
  Documents documents;
  for (size_t i = 0; i < sizes.size(); ++i) documents.push_back(test::random_ids(sizes[i], m.spec.V, 50 + i));
  return documents;
}

// Target p is scored in the first window [b, b + room) that contains it, where b is a multiple of the stride. The first
// token of a window is not scored unless a bos precedes it.
struct Expected {
  int64_t windows = 0, scored = 0;
  double nll = 0, perplexity = 0, window_mean = 0, standard_error = 0, tolerance = 0;
};
Expected brute_force(const TinyModel& m, const Documents& documents, int64_t W, int64_t stride,
                     std::optional<int32_t> bos) {
  const int64_t front = bos ? 1 : 0, room = W - front, S = std::min(stride, room);
  test::ReferenceDecoder<double> exact(m.spec, m.params);
  test::ReferenceDecoder<float> naive(m.spec, m.params);
  Expected e;
  std::vector<double> sums, counts;
  for (const std::vector<int32_t>& document : documents) {
    const auto N = static_cast<int64_t>(document.size());
    if (N < 2) continue;
    std::map<int64_t, std::vector<int64_t>> by_window;  // window begin -> targets
    for (int64_t p = 0; p < N; ++p) {
      int64_t b = 0;
      while (b + room <= p) b += S;
      if (p > b || bos) by_window[b].push_back(p);
    }
    for (const auto& [b, targets] : by_window) {
      std::vector<int32_t> ids(document.begin() + b, document.begin() + std::min(b + room, N));
      if (bos) ids.insert(ids.begin(), *bos);
      const auto length = static_cast<int64_t>(ids.size());
      const std::vector<double> logits = exact.run(ids, length);
      const std::vector<float> rough = naive.run(ids, length);
      double sum = 0;
      for (const int64_t p : targets) {
        const int64_t row = (p - b + front - 1) * m.spec.V;
        const int32_t target = document[static_cast<size_t>(p)];
        const double nll = test::reference_nll(logits.data() + row, m.spec.V, target);
        sum += nll;
        const double off =
            std::abs(static_cast<double>(test::reference_nll(rough.data() + row, m.spec.V, target)) - nll);
        e.tolerance = std::max(e.tolerance, off);
      }
      sums.push_back(sum);
      counts.push_back(static_cast<double>(targets.size()));
    }
  }
  e.windows = static_cast<int64_t>(sums.size());
  double scored = 0, means = 0;
  for (size_t i = 0; i < sums.size(); ++i) {
    e.nll += sums[i];
    scored += counts[i];
    means += sums[i] / counts[i];
  }
  e.scored = static_cast<int64_t>(scored);
  e.nll /= scored;
  e.perplexity = std::exp(e.nll);
  e.window_mean = std::exp(means / static_cast<double>(e.windows));
  for (size_t i = 0; i < sums.size(); ++i) e.standard_error += std::pow(sums[i] - counts[i] * e.nll, 2);
  e.standard_error =
      std::sqrt(e.standard_error * static_cast<double>(e.windows) / static_cast<double>(e.windows - 1)) / scored;
  // The error of a mean is at most that of its worst term. Allows twice the error of naive float arithmetic, plus the
  // rounding of an nll.
  e.tolerance = 2 * e.tolerance + 1e-6;
  return e;
}

std::vector<PerplexityResult> run(const TinyModel& m, const Documents& documents, const PerplexityOptions& options) {
  Context cx;
  return perplexity(cx, m.spec, m.params.weights(), documents, options);
}

struct Case {
  int64_t length, stride;
};

TEST(Perplexity, EqualsTheBruteForce) {
  for (const AttentionKind kind : {AttentionKind::kCocaSlack, AttentionKind::kRope, AttentionKind::kAlibi}) {
    TinyModel m(test::tiny_llama(kind));
    const Documents documents = documents_of(m, {40, 1, 12, 33, 0, 2, 17});
    for (const Case c : {Case{16, 4}, {16, 16}, {16, 500}, {16, 5}, {16, 1}, {2, 1}, {2, 2}, {12, 7}, {64, 8}}) {
      for (const bool with_bos : {false, true}) {
        SCOPED_TRACE(fmt::format("{} length {} stride {} bos {}", enum_name(kind), c.length, c.stride, with_bos));
        m.spec.bos_id = with_bos ? std::optional<int64_t>(7) : std::nullopt;
        const std::optional<int32_t> bos = with_bos ? std::optional<int32_t>(7) : std::nullopt;
        const Expected e = brute_force(m, documents, c.length, c.stride, bos);
        const PerplexityResult r = run(m, documents, {.protocol = {.lengths = {c.length}, .stride = c.stride}}).at(0);
        EXPECT_EQ(r.length, c.length);
        EXPECT_EQ(r.stride, std::min(c.stride, c.length - (with_bos ? 1 : 0)));
        EXPECT_EQ(r.documents, 5);
        EXPECT_EQ(r.skipped_documents, 2);
        EXPECT_EQ(r.windows, e.windows);
        EXPECT_EQ(r.scored_tokens, e.scored);
        EXPECT_EQ(r.bos, bos);
        EXPECT_NEAR(r.nll, e.nll, e.tolerance);
        EXPECT_NEAR(r.perplexity, e.perplexity, 1.01 * e.perplexity * e.tolerance);
        EXPECT_NEAR(r.window_mean_perplexity, e.window_mean, 1.01 * e.window_mean * e.tolerance);
        ASSERT_TRUE(r.standard_error);
        EXPECT_NEAR(*r.standard_error, e.standard_error, 2 * e.tolerance);
        EXPECT_EQ(r.perplexity == r.window_mean_perplexity || c.length == 2,
                  c.length == 2);  // a window of length 2 has one target
        EXPECT_EQ(r.value(Average::kTokens), r.perplexity);
        EXPECT_EQ(r.value(Average::kWindows), r.window_mean_perplexity);
      }
    }
  }
}

// Each window uses its own length for scaling, and options can replace the spec's scaling.
TEST(Perplexity, ScalingIsThatOfTheOptions) {
  for (const model::RopeScaling& scaling :
       {model::RopeScaling{model::Scaling::kDynamic, 4.0}, {model::Scaling::kLinear, 2.0}}) {
    TinyModel m(test::tiny_neox(AttentionKind::kCocaSlack));
    const Documents documents = documents_of(m, {40, 21});
    const PerplexityResult plain = run(m, documents, {.protocol = {.lengths = {24}, .stride = 8}}).at(0);
    const PerplexityResult scaled =
        run(m, documents, {.protocol = {.lengths = {24}, .stride = 8}, .scaling = scaling}).at(0);
    m.spec.rope_scaling = scaling;
    const Expected e = brute_force(m, documents, 24, 8, std::nullopt);
    EXPECT_NEAR(scaled.nll, e.nll, e.tolerance);
    EXPECT_GT(std::abs(plain.nll - e.nll), 10 * e.tolerance);
    EXPECT_EQ(
        run(m, documents, {.protocol = {.lengths = {24}, .stride = 8}, .scaling = model::RopeScaling{}}).at(0).nll,
        plain.nll);
  }
}

TEST(Perplexity, CountsByHand) {
  const TinyModel m(test::tiny_neox(AttentionKind::kRope));
  // 10 tokens, windows of 4, stride 2: [0,4) scores 1..3, [2,6) 4..5, [4,8) 6..7, [6,10) 8..9.
  PerplexityResult r = run(m, documents_of(m, {10}), {.protocol = {.lengths = {4}, .stride = 2}}).at(0);
  EXPECT_EQ(r.windows, 4);
  EXPECT_EQ(r.scored_tokens, 9);
  EXPECT_EQ(r.run_tokens, 16);
  // No overlap: tokens 0, 4 and 8 have no predecessor in their window.
  r = run(m, documents_of(m, {10}), {.protocol = {.lengths = {4}, .stride = 4}}).at(0);
  EXPECT_EQ(r.windows, 3);
  EXPECT_EQ(r.scored_tokens, 7);
  // 9 tokens: the last window would hold only token 8, which nothing predicts.
  r = run(m, documents_of(m, {9}), {.protocol = {.lengths = {4}, .stride = 4}}).at(0);
  EXPECT_EQ(r.windows, 2);
  EXPECT_EQ(r.scored_tokens, 6);
}

TEST(Perplexity, NothingDependsOnTheBatch) {
  model::ModelSpec spec = test::tiny_llama(AttentionKind::kCocaSlack);
  spec.C = 48;
  spec.D = 12;
  spec.R = 12;
  spec.F = 130;
  spec.V = 300;
  const TinyModel m(spec);
  const Documents documents = documents_of(m, {400, 150, 33, 400, 7});
  const std::vector<int64_t> lengths = {8, 32, 100};
  const auto results = [&](int64_t batch_tokens, const char* linear) {
    Context cx;
    cx.force_impl("linear", linear);
    std::vector<double> all;
    for (const PerplexityResult& r :
         perplexity(cx, m.spec, m.params.weights(), documents,
                    {.protocol = {.lengths = lengths, .stride = 16}, .batch_tokens = batch_tokens}))
      all.insert(all.end(), {r.nll, r.window_mean_perplexity, *r.standard_error});
    return all;
  };
  // oneDNN chooses its kernel by the number of rows, so its last bits depend on the batch. An nll of about 8 after 800
  // roundings (two layers of ten operations with sums of about 40 terms) may change by sqrt(800) eps 16 = 5e-5, for
  // logits up to 16. Our own code must give the same bits.
  const std::vector<double> one = results(1, "ref"), fast = results(1, "onednn");
  for (const int64_t batch_tokens : {64, 100, 1000, 8192}) {
    EXPECT_EQ(results(batch_tokens, "ref"), one) << batch_tokens;
    const std::vector<double> other = results(batch_tokens, "onednn");
    for (size_t i = 0; i < other.size(); i += 3) EXPECT_NEAR(other[i], fast[i], 5e-5);
  }
}

TEST(Perplexity, ShortDocumentsAreEvaluatedAndCounted) {
  const TinyModel m(test::tiny_neox(AttentionKind::kCocaStrict));
  const Documents documents = documents_of(m, {20, 50, 1, 64});
  const std::vector<PerplexityResult> r = run(m, documents, {.protocol = {.lengths = {32, 64, 128}, .stride = 32}});
  EXPECT_EQ(r[0].short_documents, 1);
  EXPECT_EQ(r[1].short_documents, 2);
  EXPECT_EQ(r[2].short_documents, 3);
  EXPECT_TRUE(r[0].reaches_length());
  EXPECT_TRUE(r[1].reaches_length());
  EXPECT_FALSE(r[2].reaches_length());
  EXPECT_EQ(r[2].longest_window, 64);
  EXPECT_EQ(r[2].windows, 3);  // a window that holds a whole document reaches the length
  EXPECT_EQ(r[2].scored_tokens, 19 + 49 + 63);
  EXPECT_EQ(r[2].skipped_documents, 1);
  EXPECT_GT(r[2].peak_resident_bytes, 0);
  EXPECT_GT(r[2].tokens_per_second, 0);
}

// Keeps the middle of each document, or its start if requested.
TEST(Perplexity, LimitsCutDocumentsAndTheirNumber) {
  const TinyModel m(test::tiny_neox(AttentionKind::kRope));
  const Documents documents = documents_of(m, {1, 50, 40, 30});
  for (const Cut which : {Cut::kMiddle, Cut::kStart}) {
    const std::ptrdiff_t first = which == Cut::kMiddle ? 12 : 0, second = which == Cut::kMiddle ? 7 : 0;
    const Documents cut = {{documents[1].begin() + first, documents[1].begin() + first + 25},
                           {documents[2].begin() + second, documents[2].begin() + second + 25}};
    const PerplexityResult limited =
        run(m, documents,
            {.protocol = {.lengths = {16}, .stride = 8, .max_tokens = 25, .cut = which, .max_documents = 2}})
            .at(0);
    EXPECT_EQ(limited.documents, 2);
    EXPECT_EQ(limited.nll, run(m, cut, {.protocol = {.lengths = {16}, .stride = 8}}).at(0).nll);
  }
}

TEST(Perplexity, BitsPerByteCountTheBytesOfWhatIsScored) {
  const TinyModel m(test::tiny_neox(AttentionKind::kRope));
  const Documents documents = documents_of(m, {30});
  PerplexityOptions options{.protocol = {.lengths = {8}, .stride = 4}};
  EXPECT_FALSE(run(m, documents, options).at(0).bits_per_byte);
  for (int32_t id = 0; id < 23; ++id) options.id_text.push_back({.bytes = id % 5});
  int64_t bytes = 0;
  for (size_t p = 1; p < 30; ++p) bytes += documents[0][p] % 5;  // all tokens but the first are scored
  const PerplexityResult r = run(m, documents, options).at(0);
  EXPECT_DOUBLE_EQ(r.bits_per_byte.value(), r.nll * 29 / std::log(2.0) / static_cast<double>(bytes));
}

TEST(Perplexity, BosRules) {
  TinyModel m(test::tiny_neox(AttentionKind::kRope));
  const Documents documents = documents_of(m, {20});
  EXPECT_EQ(run(m, documents, {.protocol = {.lengths = {8}}}).at(0).bos, std::nullopt);
  EXPECT_THAT([&] { run(m, documents, {.protocol = {.lengths = {8}, .bos = Bos::kAlways}}); }, message("bos_token_id"));
  m.spec.bos_id = 3;
  EXPECT_EQ(run(m, documents, {.protocol = {.lengths = {8}}}).at(0).bos, 3);
  EXPECT_EQ(run(m, documents, {.protocol = {.lengths = {8}, .bos = Bos::kAlways}}).at(0).bos, 3);
  const PerplexityResult never = run(m, documents, {.protocol = {.lengths = {8}, .bos = Bos::kNever}}).at(0);
  EXPECT_EQ(never.bos, std::nullopt);
  EXPECT_EQ(never.scored_tokens, 20 - 3);
  EXPECT_EQ(run(m, documents, {.protocol = {.lengths = {8}}}).at(0).scored_tokens,
            20);  // the first token is scored too
}

// NaN and infinite results are reported as they are.
TEST(Perplexity, ValuesThatAreNotFiniteAreReported) {
  TinyModel m(test::tiny_neox(AttentionKind::kRope));
  const Documents documents = documents_of(m, {20});
  float* head = m.params.tensors().head.as<float>();
  const int32_t target = documents[0][5];
  for (int64_t c = 0; c < m.spec.C; ++c) head[target * m.spec.C + c] = std::numeric_limits<float>::quiet_NaN();
  EXPECT_TRUE(std::isnan(run(m, documents, {.protocol = {.lengths = {8}}}).at(0).nll));
  for (int64_t i = 0; i < m.spec.V * m.spec.C; ++i) head[i] = 1e30f * static_cast<float>(1 + i % 7);
  const PerplexityResult r = run(m, documents, {.protocol = {.lengths = {8}}}).at(0);
  EXPECT_FALSE(r.perplexity < 1e30);  // huge, infinite or NaN, but no crash
}

// When a run is stopped, all ranks keep what is done: the finished lengths, and the windows of the last length that
// were run.
TEST(Perplexity, KeepsFinishedWindows) {
  const TinyModel m(test::tiny_neox(AttentionKind::kRope));
  const Documents documents = documents_of(m, {60});
  PerplexityOptions options{.protocol = {.lengths = {8, 16, 32}, .stride = 4}, .batch_tokens = 16};
  const std::vector<PerplexityResult> whole = run(m, documents, options);
  // The windows of length 16 that are run first are at the beginning of the text, one per rank, since a batch holds one
  // window.
  const auto beginning = [&](int64_t windows) {
    return run(m, {{documents[0].begin(), documents[0].begin() + 16 + 4 * (windows - 1)}},
               {.protocol = {.lengths = {16}, .stride = 4}, .batch_tokens = 16})
        .at(0);
  };
  const PerplexityResult beginnings[] = {beginning(1), beginning(2)};
  for (const int ranks : {1, 2}) {
    std::atomic<int> ended = 0;
    dist::run_ranks(ranks, [&](dist::Communicator& all) {
      PerplexityOptions shared{.protocol = options.protocol, .batch_tokens = 16, .ranks = all};
      shared.progress = [&](const PerplexityProgress& p) {
        if (p.length == 16 && all.rank() == 0) request_stop();
      };
      std::vector<PerplexityResult> results;
      Context cx;
      try {
        perplexity(cx, m.spec, m.params.weights(), documents, shared, results);
        ADD_FAILURE() << "it went on";
      } catch (const Error& error) {
        EXPECT_EQ(error.kind(), ErrorKind::kInterrupted);
        EXPECT_THAT(error.what(), testing::HasSubstr("stopped at length 16"));
      }
      ASSERT_EQ(results.size(), 2u);
      EXPECT_EQ(results[0].length, 8);
      EXPECT_TRUE(results[0].whole());
      EXPECT_EQ(results[0].nll, whole[0].nll);
      const PerplexityResult &part = results[1], &of_beginning = beginnings[ranks - 1];
      EXPECT_EQ(part.length, 16);
      EXPECT_EQ(part.windows, ranks);
      EXPECT_EQ(part.planned_windows, whole[1].windows);
      EXPECT_FALSE(part.whole());
      EXPECT_EQ(part.nll, of_beginning.nll);
      EXPECT_EQ(part.scored_tokens, of_beginning.scored_tokens);
      EXPECT_EQ(part.by_document.at(0).sums.scored_tokens, of_beginning.scored_tokens);
      ++ended;
    });
    clear_stop();
    EXPECT_EQ(ended, ranks);
  }
}

TEST(Perplexity, StopsWhenAsked) {
  const TinyModel m(test::tiny_neox(AttentionKind::kRope));
  int64_t calls = 0;
  PerplexityOptions options{.protocol = {.lengths = {8}, .stride = 4}, .batch_tokens = 8};
  options.progress = [&](const PerplexityProgress&) {
    if (++calls == 3) request_stop();
  };
  try {
    run(m, documents_of(m, {100}), options);
    ADD_FAILURE() << "it went on";
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::kInterrupted);
  }
  clear_stop();
  EXPECT_EQ(calls, 3);
}

TEST(Perplexity, ProgressCountsTheTokensOfAllLengths) {
  const TinyModel m(test::tiny_neox(AttentionKind::kRope));
  int64_t done = 0, total = 0;
  PerplexityOptions options{.protocol = {.lengths = {8, 16}, .stride = 4}, .batch_tokens = 20};
  options.progress = [&](const PerplexityProgress& p) {
    EXPECT_GT(p.done_tokens, done);
    EXPECT_GT(p.perplexity, 1);
    done = p.done_tokens;
    total = p.total_tokens;
  };
  int64_t run_tokens = 0;
  for (const PerplexityResult& r : run(m, documents_of(m, {40, 13}), options)) run_tokens += r.run_tokens;
  EXPECT_EQ(done, total);
  EXPECT_EQ(done, run_tokens);
}

TEST(Perplexity, MistakesAreNamed) {
  const TinyModel m(test::tiny_neox(AttentionKind::kRope));
  const Documents good = documents_of(m, {20});
  EXPECT_THAT([&] { run(m, good, {.protocol = {.lengths = {}}}); }, message("lengths: none given"));
  EXPECT_THAT([&] { run(m, good, {.protocol = {.lengths = {8, 1}}}); }, message("lengths holds 1;"));
  EXPECT_THAT([&] { run(m, good, {.protocol = {.lengths = {8}, .stride = -1}}); }, message("stride is -1;"));
  EXPECT_THAT([&] { run(m, good, {.protocol = {.lengths = {8}, .max_tokens = 1}}); }, message("max_tokens is 1;"));
  EXPECT_THAT([&] { run(m, good, {.protocol = {.lengths = {8}}, .batch_tokens = 0}); }, message("batch_tokens is 0;"));
  EXPECT_THAT(
      [&] {
        run(m, good, {.protocol = {.lengths = {8}}, .scaling = model::RopeScaling{model::Scaling::kLinear, 0.5}});
      },
      message("factor 0.5"));
  EXPECT_THAT(
      [&] {
        run(m, {{5}, {}}, {.protocol = {.lengths = {8}}});
      },
      message("text: of 2 documents none has two tokens"));
  EXPECT_THAT([&] { run(m, {{5, 23, 1}}, {.protocol = {.lengths = {8}}}); }, message("23"));
}

TEST(TargetLosses, RangesOfContextAreTwoAnOctave) {
  EXPECT_EQ(context_bounds(1), (std::vector<int64_t>{1, 2}));
  EXPECT_EQ(context_bounds(5), (std::vector<int64_t>{1, 2, 3, 4, 6}));
  EXPECT_EQ(context_bounds(7), (std::vector<int64_t>{1, 2, 3, 4, 6, 8}));
  EXPECT_EQ(context_bounds(16), (std::vector<int64_t>{1, 2, 3, 4, 6, 8, 12, 16, 17}));
}

// Mean 8 / 4 = 2; the groups are off by -2 and 2, so the half width is 12.706 sqrt(2 (4 + 4)) / 4.
TEST(TargetLosses, IntervalOverDocumentsByHand) {
  const GroupedMean m = mean_over_groups(std::vector<GroupSum>{{2, 2}, {0, 0}, {6, 2}});
  EXPECT_EQ(m.items, 4);
  EXPECT_EQ(m.groups, 2);
  EXPECT_DOUBLE_EQ(m.mean, 2);
  EXPECT_NEAR(m.interval.value().low, 2 - student_t(1), 1e-12);
  EXPECT_NEAR(m.interval.value().high, 2 + student_t(1), 1e-12);
  EXPECT_FALSE(mean_over_groups(std::vector<GroupSum>{{2, 2}, {0, 0}}).interval);
  EXPECT_TRUE(std::isnan(mean_over_groups({}).mean));
}

// The nll of every target of one window, by the reference; [0] has one token of context.
std::vector<double> window_losses(const TinyModel& m, std::vector<int32_t> ids) {
  test::ReferenceDecoder<double> exact(m.spec, m.params);
  const std::vector<double> logits = exact.run(ids, static_cast<int64_t>(ids.size()));
  std::vector<double> losses;
  for (size_t i = 1; i < ids.size(); ++i)
    losses.push_back(test::reference_nll(logits.data() + static_cast<int64_t>(i - 1) * m.spec.V, m.spec.V, ids[i]));
  return losses;
}
std::vector<double> window_losses(const TinyModel& m, const std::vector<int32_t>& ids, int64_t begin, int64_t end) {
  return window_losses(m, {ids.begin() + begin, ids.begin() + end});
}
// Losses of at most about 8 from logits up to 16: sqrt(800) eps 16, as in NothingDependsOnTheBatch.
constexpr double kLossError = 5e-5;

// Windows [0, 8), [4, 12) and [8, 14) of one document, [0, 5) of another; the targets that are not scored count too.
TEST(TargetLosses, ByPositionAreTheMeansOverAllWindows) {
  const TinyModel m(test::tiny_llama(AttentionKind::kCocaSlack));
  const Documents documents = documents_of(m, {14, 5});
  PerplexityOptions options{.protocol = {.lengths = {8}, .stride = 4}};
  const PerplexityResult plain = run(m, documents, options).at(0);
  EXPECT_TRUE(plain.positions.empty());
  options.by_position = ByPosition::kYes;
  const PerplexityResult r = run(m, documents, options).at(0);
  EXPECT_EQ(r.nll, plain.nll);  // the same bits
  const std::vector<double> a = window_losses(m, documents[0], 0, 8), b = window_losses(m, documents[0], 4, 12),
                            c = window_losses(m, documents[0], 8, 14), d = window_losses(m, documents[1], 0, 5);
  ASSERT_EQ(r.positions.size(), 5u);  // 1, 2, 3, 4-5, 6-7
  EXPECT_EQ(r.positions[0].from, 1);
  EXPECT_EQ(r.positions[0].to, 1);
  EXPECT_EQ(r.positions[0].loss.items, 4);
  EXPECT_EQ(r.positions[0].loss.groups, 2);
  EXPECT_NEAR(r.positions[0].loss.mean, (a[0] + b[0] + c[0] + d[0]) / 4, kLossError);
  EXPECT_EQ(r.positions[3].from, 4);
  EXPECT_EQ(r.positions[3].to, 5);
  EXPECT_EQ(r.positions[3].loss.items, 7);
  EXPECT_NEAR(r.positions[3].loss.mean, (a[3] + a[4] + b[3] + b[4] + c[3] + c[4] + d[3]) / 7, kLossError);
  EXPECT_EQ(r.positions[4].loss.items, 4);
  EXPECT_EQ(r.positions[4].loss.groups, 1);
  EXPECT_FALSE(r.positions[4].loss.interval);
  EXPECT_NEAR(r.positions[4].loss.mean, (a[5] + a[6] + b[5] + b[6]) / 4, kLossError);
}

// A bos is a token of context, so that the document's first token has one.
TEST(TargetLosses, BosCountsAsContext) {
  TinyModel m(test::tiny_llama(AttentionKind::kRope));
  m.spec.bos_id = 7;
  const Documents documents = documents_of(m, {12});
  for (const BosPlace place : {BosPlace::kEveryWindow, BosPlace::kTextStart}) {
    const PerplexityResult r = run(m, documents,
                                   {.protocol = {.lengths = {16}, .stride = 16, .bos_place = place},
                                    .by_position = ByPosition::kYes,
                                    .keep_losses = KeepLosses::kYes})
                                   .at(0);
    std::vector<int32_t> ids = documents[0];
    ids.insert(ids.begin(), 7);
    const std::vector<double> exact = window_losses(m, ids);
    EXPECT_EQ(r.positions.at(0).loss.items, 1);
    EXPECT_NEAR(r.positions.at(0).loss.mean, exact[0], kLossError);
    ASSERT_EQ(r.losses.size(), 1u);
    EXPECT_EQ(r.losses[0].first_target, 0);  // whether or not the bos is in the text
    ASSERT_EQ(r.losses[0].nll.size(), 12u);
    for (size_t i = 0; i < 12; ++i) EXPECT_NEAR(r.losses[0].nll[i], exact[i], kLossError);
  }
}

TEST(KeyTokens, AreThoseThatTheLongContextPredictsBetter) {
  const TinyModel m(test::tiny_llama(AttentionKind::kCocaSlack));
  const Documents documents = documents_of(m, {30, 9});
  const KeyTokenRule rule{.long_context = 16, .short_context = 4, .gain = 0.05, .least = -3.2};
  Context cx;
  int64_t done = 0, total = 0;
  PerplexityOptions options;
  options.progress = [&](const PerplexityProgress& p) {
    EXPECT_GT(p.done_tokens, done);
    done = p.done_tokens;
    total = p.total_tokens;
  };
  const KeyTokens keys = find_key_tokens(cx, m.spec, m.params.weights(), documents, options, rule);
  EXPECT_EQ(done, total);
  EXPECT_EQ(keys.compared, 29 + 8);
  int64_t found = 0, apart = 0;
  for (size_t d = 0; d < documents.size(); ++d) {
    const auto N = static_cast<int64_t>(documents[d].size());
    const auto loss = [&](int64_t token, int64_t window, int64_t stride) {
      int64_t begin = 0;
      while (begin + window <= token) begin += stride;
      return window_losses(m, documents[d], begin, token + 1).back();
    };
    for (int64_t i = 1; i < N; ++i) {
      const double far = loss(i, 16, 4), near = loss(i, 4, 2);
      const bool key = near - far > rule.gain && -far > rule.least;
      found += keys.holds(static_cast<int64_t>(d), i);
      if (std::abs(near - far - rule.gain) < 2 * kLossError || std::abs(far + rule.least) < kLossError) continue;
      ++apart;
      EXPECT_EQ(keys.holds(static_cast<int64_t>(d), i), key) << d << " " << i << " " << near << " " << far;
    }
  }
  EXPECT_EQ(keys.found, found);
  EXPECT_GT(found, 0);
  EXPECT_LT(found, apart);
  EXPECT_GT(apart, 30);
  EXPECT_FALSE(keys.holds(0, 0));
  EXPECT_FALSE(keys.holds(1, 100));
  EXPECT_FALSE(keys.holds(5, 1));
}

// Tokens 3 and 6 of one document and 2 of another: their mean, over windows of 8 with stride 4.
TEST(KeyTokens, LongPerplexityIsOverThemAlone) {
  const TinyModel m(test::tiny_llama(AttentionKind::kRope));
  const Documents documents = documents_of(m, {10, 5});
  const KeyTokens keys{.of_document = {{0, {false, false, false, true, false, false, true}}, {1, {false, false, true}}},
                       .compared = 13,
                       .found = 3};
  const PerplexityOptions options{.protocol = {.lengths = {8}, .stride = 4}, .key_tokens = &keys};
  const PerplexityResult r = run(m, documents, options).at(0);
  const std::vector<double> a = window_losses(m, documents[0], 0, 8), b = window_losses(m, documents[1], 0, 5);
  ASSERT_TRUE(r.key);
  EXPECT_EQ(r.key->loss.items, 3);
  EXPECT_DOUBLE_EQ(r.key->share, 3.0 / 13);
  const double first = a[2] + a[5], second = b[1], mean = (first + second) / 3;
  EXPECT_NEAR(r.key->loss.mean, mean, kLossError);
  EXPECT_NEAR(r.key->perplexity().value(), std::exp(mean), 1.01 * kLossError * std::exp(mean));
  // Two groups are off by the same amount in opposite directions: sqrt(2 * 2 off^2) = 2 |off|.
  const double half = student_t(1) * 2 * std::abs(second - mean) / 3;
  EXPECT_NEAR(r.key->loss.interval.value().high, mean + half, (2 + 2 * student_t(1)) * kLossError);
  const KeyTokens none;
  const PerplexityResult without = run(m, documents, {.protocol = options.protocol, .key_tokens = &none}).at(0);
  EXPECT_EQ(without.key->perplexity(), std::nullopt);
  EXPECT_EQ(without.key->share, 0);
  EXPECT_FALSE(run(m, documents, {.protocol = options.protocol}).at(0).key);
}

// Ranks that share windows, or the tokens of each, have the losses of all.
TEST(TargetLosses, AreThoseOfOneRank) {
  const TinyModel m(test::tiny_llama(AttentionKind::kCocaSlack));
  const Documents documents = documents_of(m, {50, 21});
  PerplexityOptions options{.protocol = {.lengths = {16}, .stride = 8},
                            .batch_tokens = 32,
                            .by_position = ByPosition::kYes,
                            .keep_losses = KeepLosses::kYes};
  const PerplexityResult one = run(m, documents, options).at(0);
  for (const Share share : {Share::kWindows, Share::kTokens}) {
    std::mutex mutex;
    dist::run_ranks(2, [&](dist::Communicator& ranks) {
      PerplexityOptions mine{.protocol = options.protocol,
                             .batch_tokens = 32,
                             .ranks = ranks,
                             .share = share,
                             .by_position = ByPosition::kYes,
                             .keep_losses = KeepLosses::kYes};
      const PerplexityResult r = run(m, documents, mine).at(0);
      const std::lock_guard lock(mutex);
      ASSERT_EQ(r.positions.size(), one.positions.size());
      for (size_t i = 0; i < one.positions.size(); ++i) {
        EXPECT_EQ(r.positions[i].loss.items, one.positions[i].loss.items);
        EXPECT_NEAR(r.positions[i].loss.mean, one.positions[i].loss.mean, kLossError);
      }
      ASSERT_EQ(r.losses.size(), one.losses.size());
      for (size_t w = 0; w < one.losses.size(); ++w) {
        EXPECT_EQ(r.losses[w].document, one.losses[w].document);
        EXPECT_EQ(r.losses[w].first_target, one.losses[w].first_target);
        ASSERT_EQ(r.losses[w].nll.size(), one.losses[w].nll.size());
        for (size_t i = 0; i < one.losses[w].nll.size(); ++i)
          EXPECT_NEAR(r.losses[w].nll[i], one.losses[w].nll[i], kLossError);
      }
    });
  }
}

TEST(KeyTokens, MistakesAreNamed) {
  EXPECT_THAT([] { check_rule({.long_context = 8, .short_context = 1}); }, message("key_short is 1;"));
  EXPECT_THAT([] { check_rule({.long_context = 8, .short_context = 8}); }, message("key_long is 8 and key_short 8;"));
  EXPECT_THAT([] { check_rule({.long_context = 8, .short_context = 4, .gain = std::nan("")}); },
              message("key_gain is nan;"));
}

}  // namespace
}  // namespace coca::eval::perplexity_test
