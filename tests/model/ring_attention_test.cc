// Sequences split over ranks compared with one process: losses, gradients, bytes sent, and refused options. The ranks
// are threads here; tests/e2e/ranks_test.cc uses processes.
// SPDX-License-Identifier: Apache-2.0
#include "coca/model/ring_attention.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <mutex>

#include "coca/base/parallel.h"
#include "coca/dist/thread_group.h"
#include "coca/model/decoder.h"
#include "coca/ops/cross_entropy.h"
#include "coca/ops/table.h"
#include "support/numerics.h"
#include "support/reference_decoder.h"
#include "support/tiny_clex.h"
#include "support/tiny_model.h"

namespace coca::model::ring_attention_test {
namespace {

using test::TinyModel;

// All attention kinds without windows, and scalings that depend on the length, which must be that of the whole sequence
// rather than of a rank's part.
std::vector<test::NamedSpec> ring_specs() {
  std::vector<test::NamedSpec> all = test::all_specs();
  std::erase_if(all, [](const test::NamedSpec& s) {
    return !s.spec.layer_window.empty() || has_stage(s.spec, Stage::kKeys) || has_stage(s.spec, Stage::kDecay);
  });
  ModelSpec flat = test::tiny_neox(AttentionKind::kCocaStrict);
  flat.rope_layers = {1, 0};
  all.push_back({"layer_without_positions", flat});
  ModelSpec headed = test::tiny_qwen3(AttentionKind::kCocaSlack);
  headed.layer_window = {};
  all.push_back({"head_norms", headed});
  for (const Scaling scaling : {Scaling::kDynamic, Scaling::kLongRope})
    for (const AttentionKind kind : {AttentionKind::kRope, AttentionKind::kCocaSlack}) {
      ModelSpec s = test::tiny_llama(kind);
      s.rope_scaling = test::tiny_scaling(scaling, s.R / 2);
      s.max_position = 16;
      s.rope_scaling.original_max_position = scaling == Scaling::kLongRope ? 16 : 0;
      all.push_back({fmt::format("{}_{}", scaling == Scaling::kDynamic ? "dynamic" : "longrope",
                                 kind == AttentionKind::kRope ? "rope" : "coca"),
                     s});
    }
  return all;
}

struct Batch {
  int64_t B, N;
  std::vector<int32_t> ids, targets;

  Batch(const ModelSpec& s, int64_t B_, int64_t N_)
      : B(B_), N(N_), ids(test::random_ids(B * N, s.V, 5)), targets(test::random_ids(B * N, s.V, 6)) {
    targets[1] = ops::kIgnoreTarget;
  }
};
TensorRef rows(const std::vector<int32_t>& values, int64_t B) {
  return {values.data(), DType::kI32, {B, static_cast<int64_t>(values.size()) / B}, kHost};
}

struct Outcome {
  std::vector<float> nll;  // [B, N]
  ParamStore grads;
};

Outcome alone(const ModelSpec& spec, const ParamStore& params, const Batch& batch, bool plain = false) {
  Outcome out{{}, ParamStore(spec)};
  Context cx;
  for (const ops::OpTable& op : ops::op_tables())
    if (plain && op.has("ref")) cx.force_impl(std::string(op.op), "ref");
  TrainingDecoder decoder(spec, batch.B, batch.N, {.precision = params.precision()});
  const TensorRef nll = decoder.forward_backward(cx, params.weights(), rows(batch.ids, batch.B),
                                                 rows(batch.targets, batch.B), 1.0f, out.grads.tensors());
  out.nll.assign(nll.as<float>(), nll.as<float>() + nll.numel());
  return out;
}

void add(const ParamStore& more, ParamStore& sum) {
  const std::span<float> to{sum.flat().as<float>(), static_cast<size_t>(sum.flat().numel())};
  for (size_t i = 0; i < to.size(); ++i) to[i] += more.flat().as<float>()[i];
}

// Puts the losses of all ranks back in order and sums their gradients.
template <typename T>
void scatter(const RingSplit& split, int rank, const T* part, int64_t B, std::vector<T>& whole) {
  for (int64_t b = 0; b < B; ++b)
    for (const double at : split.positions(rank))
      whole[static_cast<size_t>(b * split.length()) + static_cast<size_t>(at)] = *part++;
}

Outcome over_ranks(const ModelSpec& spec, const ParamStore& params, const Batch& batch, int K,
                   Recompute recompute = Recompute::kNone, bool plain = false) {
  Outcome out{std::vector<float>(batch.ids.size()), ParamStore(spec)};
  std::mutex mutex;
  dist::run_ranks(K, [&](dist::Communicator& ranks) {
    set_max_threads(1);  // per rank
    RingAttention ring(spec, ranks, batch.N);
    const std::vector<int32_t> ids = ring.split().take<int32_t>(batch.ids, ranks.rank()),
                               targets = ring.split().take<int32_t>(batch.targets, ranks.rank());
    Context cx;
    for (const ops::OpTable& op : ops::op_tables())
      if (plain && op.has("ref")) cx.force_impl(std::string(op.op), "ref");
    TrainingDecoder decoder(spec, batch.B, ring.tokens(), {.recompute = recompute, .precision = params.precision()});
    decoder.set_ring(&ring);
    ParamStore grads(spec);
    const TensorRef nll = decoder.forward_backward(cx, params.weights(), rows(ids, batch.B), rows(targets, batch.B),
                                                   1.0f, grads.tensors());
    const std::lock_guard lock(mutex);
    scatter(ring.split(), ranks.rank(), nll.as<float>(), batch.B, out.nll);
    add(grads, out.grads);
  });
  return out;
}

std::vector<float> values(const ParamStore& p, const ParamInfo& info) {
  const float* v = p.at(info).as<float>();
  return {v, v + info.shape.product()};
}

double distance(std::span<const float> a, std::span<const float> b) {
  double squares = 0;
  for (size_t i = 0; i < a.size(); ++i) squares += std::pow(static_cast<double>(a[i]) - static_cast<double>(b[i]), 2);
  return std::sqrt(squares);
}
double length(std::span<const float> a) { return distance(a, std::vector<float>(a.size())); }

// Losses must satisfy the error rule against plain loops in double, with the errors of one process for scale.
void expect_losses(const TinyModel& m, const Batch& batch, std::span<const float> ours,
                   std::span<const float> one_process, const std::string& what) {
  test::ReferenceDecoder<double> exact(m.spec, m.params);
  const std::vector<double> logits = test::run_rows(exact, batch.ids, batch.B);
  std::vector<double> nll;
  for (size_t i = 0; i < batch.targets.size(); ++i)
    nll.push_back(batch.targets[i] < 0 ? 0.0
                                       : test::reference_nll(logits.data() + static_cast<int64_t>(i) * m.spec.V,
                                                             m.spec.V, batch.targets[i]));
  test::expect_close(ours, nll, one_process, {.terms = 800}, what);  // roundings behind a logit: decoder_test.cc
}

// As in the error rule, with the gradients of one process as the exact ones: allows twice the difference between one
// process and its plain loops. In case that is small by chance, also allows the bound of decoder_test.cc for nine
// tokens: 2000 roundings, and another factor of ten for products of three. Relative to the largest number of each
// tensor.
void expect_same_gradients(const ParamStore& ours, const ParamStore& one_process, const ParamStore& plain,
                           const std::string& what) {
  for (const ParamInfo& info : ours.infos()) {
    const std::vector<float> a = values(ours, info), b = values(one_process, info), c = values(plain, info);
    double largest = 0, away = 0;
    for (size_t i = 0; i < b.size(); ++i) {
      largest = std::max(largest, std::abs(static_cast<double>(b[i])));
      away = std::max(away, std::abs(static_cast<double>(b[i]) - static_cast<double>(c[i])));
    }
    ASSERT_GT(largest, 0.0) << what << " " << info.name;
    for (size_t i = 0; i < a.size(); ++i)
      ASSERT_NEAR(a[i], b[i], 2 * away + 1e-4 * largest) << what << " " << info.name << " " << i;
  }
}

// d(sum of nll) by complex steps through the plain loops, as in decoder_test.cc.
double exact_gradient(test::ReferenceDecoder<test::Complex>& decoder, const Batch& batch, int64_t V, size_t at) {
  constexpr double kStep = 1e-50;
  decoder.weights()[at] += test::Complex(0, kStep);
  const std::vector<test::Complex> logits = test::run_rows(decoder, batch.ids, batch.B);
  test::Complex loss = 0;
  for (size_t i = 0; i < batch.targets.size(); ++i)
    if (batch.targets[i] >= 0)
      loss += test::reference_nll(logits.data() + static_cast<int64_t>(i) * V, V, batch.targets[i]);
  decoder.weights()[at] = decoder.weights()[at].real();
  return loss.imag() / kStep;
}

class RingOfSpec : public testing::TestWithParam<test::NamedSpec> {};
INSTANTIATE_TEST_SUITE_P(Specs, RingOfSpec, testing::ValuesIn(ring_specs()), test::spec_test_name);

struct Case {
  int K;
  int64_t B, N;
};
// One rank, the fewest tokens, uneven chunks, and chunks longer than a tile of attention.
constexpr Case kCases[] = {{1, 2, 29}, {2, 1, 4}, {2, 1, 300}, {3, 2, 29}, {4, 1, 43}};

TEST_P(RingOfSpec, LossesAndGradientsAreThoseOfOneProcess) {
  const TinyModel m(GetParam().spec);
  for (const auto& [K, B, N] : kCases) {
    const std::string what = fmt::format("{} ranks, {} x {}", K, B, N);
    const Batch batch(m.spec, B, N);
    const Outcome expected = alone(m.spec, m.params, batch), plain = alone(m.spec, m.params, batch, true),
                  ours = over_ranks(m.spec, m.params, batch, K);
    expect_losses(m, batch, ours.nll, expected.nll, what);
    expect_same_gradients(ours.grads, expected.grads, plain.grads, what);
  }
}

TEST_P(RingOfSpec, GradientsAreThoseOfPlainLoops) {
  const TinyModel m(GetParam().spec);
  const Batch batch(m.spec, 1, 9);  // as in decoder_test.cc, whose bound applies
  const ParamStore grads = over_ranks(m.spec, m.params, batch, 2).grads;
  test::ReferenceDecoder<test::Complex> reference(m.spec, m.params);
  for (const ParamInfo& info : grads.infos()) {
    const std::vector<float> ours = values(grads, info);
    const auto largest = std::ranges::max_element(ours, {}, [](float x) { return std::abs(x); });
    const double expected =
        exact_gradient(reference, batch, m.spec.V, info.offset + static_cast<size_t>(largest - ours.begin()));
    EXPECT_NEAR(*largest, expected, 1e-4 * std::abs(expected)) << info.name;
  }
}

// In evaluation, chunked passes give the same hidden states bit by bit if products are plain loops, and all are close
// to those of one process.
TEST_P(RingOfSpec, TheDecoderGivesTheSameHiddenStates) {
  const TinyModel m(GetParam().spec);
  const Batch batch(m.spec, 2, 600);
  Context cx;
  cx.force_impl("linear", "ref");
  Decoder whole(m.spec, m.params.weights());
  const TensorRef h = whole.forward(cx, rows(batch.ids, batch.B));
  const std::vector<float> expected(h.as<float>(), h.as<float>() + h.numel());
  std::vector<float> by_chunk[2] = {std::vector<float>(expected.size()), std::vector<float>(expected.size())};
  for (const size_t chunked : {0u, 1u})
    dist::run_ranks(2, [&](dist::Communicator& ranks) {
      set_max_threads(1);
      RingAttention ring(m.spec, ranks, batch.N);
      const std::vector<int32_t> ids = ring.split().take<int32_t>(batch.ids, ranks.rank());
      Context own;
      own.force_impl("linear", "ref");
      Decoder decoder(m.spec, m.params.weights(), {.chunk_tokens = chunked ? 64 : 1024});
      decoder.set_ring(&ring);
      const TensorRef part = decoder.forward(own, rows(ids, batch.B));
      const float* at = part.as<float>();
      for (int64_t b = 0; b < batch.B; ++b)
        for (const double place : ring.split().positions(ranks.rank())) {
          std::copy_n(at, m.spec.C, by_chunk[chunked].begin() + (b * batch.N + static_cast<int64_t>(place)) * m.spec.C);
          at += m.spec.C;
        }
    });
  EXPECT_EQ(by_chunk[0], by_chunk[1]);
  double largest = 0;
  for (const float x : expected) largest = std::max(largest, std::abs(static_cast<double>(x)));
  for (size_t i = 0; i < expected.size(); ++i)
    ASSERT_NEAR(by_chunk[0][i], expected[i], 1e-4 * largest) << i;  // the bound for gradients
}

TEST_P(RingOfSpec, RecomputationDoesNotChangeABit) {
  const TinyModel m(GetParam().spec);
  const Batch batch(m.spec, 1, 43);
  const Outcome none = over_ranks(m.spec, m.params, batch, 1);
  for (const Recompute recompute : {Recompute::kAttention, Recompute::kLayer}) {
    const Outcome again = over_ranks(m.spec, m.params, batch, 1, recompute);
    EXPECT_EQ(again.nll, none.nll);
    for (const ParamInfo& info : none.grads.infos())
      EXPECT_EQ(values(again.grads, info), values(none.grads, info)) << info.name;
  }
  const Outcome three = over_ranks(m.spec, m.params, batch, 3,
                                   Recompute::kLayer);  // the order of summation over ranks varies here
  expect_same_gradients(three.grads, none.grads, alone(m.spec, m.params, batch, true).grads, "three ranks");
  EXPECT_EQ(three.nll, over_ranks(m.spec, m.params, batch, 3).nll);
}

// At most twice the error of one process in bf16, see bf16_test.cc. CoCA's tbar is rounded once more than k_eff.
TEST_P(RingOfSpec, Bf16IsAsNearAsOneProcess) {
  TinyModel m(GetParam().spec);
  ParamStore rounded(m.spec, Precision::kBF16);
  Context cx;
  copy_params(cx, m.params, rounded);
  copy_params(cx, rounded, m.params);
  const Batch batch(m.spec, 2, 70);
  const Outcome exact = alone(m.spec, m.params, batch), one = alone(m.spec, rounded, batch),
                naive = alone(m.spec, rounded, batch, true);
  const auto expect_as_near = [](std::span<const float> ours, std::span<const float> a, std::span<const float> b,
                                 std::span<const float> right, const std::string& what) {
    EXPECT_LE(distance(ours, right), 2 * std::max(distance(a, right), distance(b, right)) + 0x1p-9 * length(right))
        << what;
    EXPECT_GT(distance(ours, right), 0.0) << what;
  };
  for (const int K : {1, 3}) {
    const Outcome ours = over_ranks(m.spec, rounded, batch, K);
    expect_as_near(ours.nll, one.nll, naive.nll, exact.nll, fmt::format("losses, {} ranks", K));
    for (const ParamInfo& info : exact.grads.infos())
      if (info.role == ParamRole::kMatrix || info.role == ParamRole::kEmbedding)
        expect_as_near(values(ours.grads, info), values(one.grads, info), values(naive.grads, info),
                       values(exact.grads, info), fmt::format("{}, {} ranks", info.name, K));
  }
}

TEST(Ring, PlainLoopsGiveTheSame) {
  for (const AttentionKind kind :
       {AttentionKind::kRope, AttentionKind::kCocaSlack, AttentionKind::kCocaStrict, AttentionKind::kAlibi}) {
    const TinyModel m(test::tiny_llama(kind));
    const Batch batch(m.spec, 2, 29);
    const Outcome plain = over_ranks(m.spec, m.params, batch, 2, Recompute::kNone, true);
    const Outcome one = alone(m.spec, m.params, batch), one_plain = alone(m.spec, m.params, batch, true);
    expect_same_gradients(plain.grads, one_plain.grads, one.grads, std::string(enum_name(kind)));
    expect_losses(m, batch, plain.nll, one_plain.nll, std::string(enum_name(kind)));
  }
}

// CLEX uses the factor of the whole sequence. Its network can be evaluated but not trained.
TEST(Ring, ClexUsesTheWholeLength) {
  for (const AttentionKind kind : {AttentionKind::kRope, AttentionKind::kCocaSlack}) {
    const TinyModel m = test::clex_model(test::clex_spec(test::tiny_llama(kind)));
    const Batch batch(m.spec, 1, 29);
    Context cx;
    TrainingDecoder decoder(m.spec, 1, 29);
    const TensorRef nll = decoder.loss(cx, m.params.weights(), rows(batch.ids, 1), rows(batch.targets, 1));
    const std::vector<float> expected(nll.as<float>(), nll.as<float>() + 29);
    std::vector<float> ours(29);
    std::mutex mutex;
    dist::run_ranks(2, [&](dist::Communicator& ranks) {
      set_max_threads(1);
      RingAttention ring(m.spec, ranks, 29);
      const std::vector<int32_t> ids = ring.split().take<int32_t>(batch.ids, ranks.rank()),
                                 targets = ring.split().take<int32_t>(batch.targets, ranks.rank());
      Context own;
      TrainingDecoder part(m.spec, 1, ring.tokens());
      part.set_ring(&ring);
      const TensorRef mine = part.loss(own, m.params.weights(), rows(ids, 1), rows(targets, 1));
      {
        const std::lock_guard lock(mutex);
        scatter(ring.split(), ranks.rank(), mine.as<float>(), 1, ours);
      }
      ParamStore grads(m.spec);
      EXPECT_THAT(
          [&] {
            part.forward_backward(own, m.params.weights(), rows(ids, 1), rows(targets, 1), 1.0f, grads.tensors());
          },
          testing::ThrowsMessage<Error>(testing::HasSubstr("the network of CLEX is not trained over ranks")));
    });
    expect_losses(m, batch, ours, expected, std::string(enum_name(kind)));
  }
}

TEST(RingSplit, EveryTokenHasOneRankAndAllHaveTheSameWork) {
  for (const auto& [N, K] : {std::pair<int64_t, int>{2, 1}, {8, 4}, {29, 3}, {1000, 7}, {int64_t{1} << 20, 4}}) {
    const RingSplit split(N, K);
    std::vector<int64_t> seen(static_cast<size_t>(K));
    int64_t tokens = 0;
    for (int r = 0; r < K; ++r) {
      tokens += split.tokens(r);
      for (const auto& c : split.chunks(r))
        seen[static_cast<size_t>(r)] += c.count * c.begin + c.count * (c.count + 1) / 2;
      EXPECT_EQ(split.chunks(r)[0].index + split.chunks(r)[1].index, 2 * K - 1);
    }
    EXPECT_EQ(tokens, N);
    // Chunks differ by at most one token, and each of its queries sees at most N keys.
    EXPECT_LE(*std::ranges::max_element(seen) - *std::ranges::min_element(seen), 2 * N) << N << " over " << K;
  }
  const std::vector<int32_t> ids = {0, 1, 2, 3, 4, 5, 6, 7, 10, 11, 12, 13, 14, 15, 16, 17};
  EXPECT_THAT(RingSplit(8, 2).take<int32_t>(ids, 1), testing::ElementsAre(2, 3, 4, 5, 12, 13, 14, 15));
  EXPECT_THAT([] { RingSplit(7, 4); },
              testing::ThrowsMessage<Error>(testing::HasSubstr("7 tokens do not make the 8 chunks of 4 ranks")));
}

// A quarter less than K and V, in the forward pass (keys and values) and in the backward pass (these and their
// gradients in fp32).
TEST(Ring, CocaSendsThreeQuartersOfTheBytes) {
  constexpr int K = 4;
  constexpr int64_t N = 64;
  const auto bytes = [](AttentionKind kind, Precision precision, bool backward) {
    const ModelSpec spec = test::tiny_llama(kind);
    ParamStore params(spec, precision);
    initialise(spec, 1, params);
    const Batch batch(spec, 1, N);
    std::vector<int64_t> sent(K);
    dist::run_ranks(K, [&](dist::Communicator& ranks) {
      set_max_threads(1);
      RingAttention ring(spec, ranks, N);
      const std::vector<int32_t> ids = ring.split().take<int32_t>(batch.ids, ranks.rank());
      Context cx;
      TrainingDecoder decoder(spec, 1, ring.tokens(), {.precision = precision});
      decoder.set_ring(&ring);
      ParamStore grads(spec);
      if (backward)
        decoder.forward_backward(cx, params.weights(), rows(ids, 1), rows(ids, 1), 1.0f, grads.tensors());
      else
        decoder.loss(cx, params.weights(), rows(ids, 1), rows(ids, 1));
      sent[static_cast<size_t>(ranks.rank())] = ring.counts().bytes;
    });
    EXPECT_EQ(sent, std::vector<int64_t>(K, sent[0]));
    return sent[0];
  };
  const ModelSpec s = test::tiny_llama(AttentionKind::kRope);
  for (const Precision precision : {Precision::kF32, Precision::kBF16}) {
    const int64_t number = precision == Precision::kF32 ? 4 : 2, block = N / K * s.G * 2 * s.D;
    const int64_t forward = bytes(AttentionKind::kRope, precision, false),
                  both = bytes(AttentionKind::kRope, precision, true);
    EXPECT_EQ(forward, s.L * (K - 1) * block * number);
    EXPECT_EQ(both - forward, s.L * ((K - 1) * block * number + K * block * 4));
    EXPECT_EQ(4 * bytes(AttentionKind::kCocaSlack, precision, false), 3 * forward);
    EXPECT_EQ(4 * bytes(AttentionKind::kCocaSlack, precision, true), 3 * both);
  }
}

TEST(Ring, UnsupportedModelsAreNamed) {
  const auto refused = [](const ModelSpec& s, const char* text) {
    EXPECT_THAT([&] { RingAttention(s, dist::alone(), 16); }, testing::ThrowsMessage<Error>(testing::HasSubstr(text)));
  };
  ModelSpec s = test::tiny_qwen3(AttentionKind::kRope);
  refused(s, "layer 1 has a window of 3 tokens");
  s = test::tiny_llama(AttentionKind::kRope);
  s.global_tokens = 2;
  refused(s, "2 global tokens");
  s = test::tiny_llama(AttentionKind::kRope);
  s.direction = Direction::kBidirectional;
  refused(s, "bidirectional attention is not split over ranks");
  s = test::tiny_llama(AttentionKind::kRope);
  s.pattern = default_pattern(Pattern::kStreamingLlm, 8);
  refused(s, "pattern streaming-llm is not split over ranks");

  const TinyModel m(test::tiny_llama(AttentionKind::kRope));
  RingAttention ring(m.spec, dist::alone(), 8);
  TrainingDecoder other(m.spec, 1, 9), decoder(m.spec, 1, 8);
  EXPECT_THAT([&] { other.set_ring(&ring); },
              testing::ThrowsMessage<Error>(testing::HasSubstr("planned for 9 tokens; this rank holds 8 of 8")));
  decoder.set_ring(&ring);
  Context cx;
  const std::vector<int32_t> ids(8), starts(8);
  EXPECT_THAT([&] { decoder.loss(cx, m.params.weights(), rows(ids, 1), rows(ids, 1), rows(starts, 1)); },
              testing::ThrowsMessage<Error>(testing::HasSubstr("packed documents are not split over ranks")));
  const std::vector<double> places(8);
  EXPECT_THAT([&] { decoder.loss(cx, m.params.weights(), rows(ids, 1), rows(ids, 1), {}, {.positions = places}); },
              testing::ThrowsMessage<Error>(testing::HasSubstr("drawn positions are not split over ranks")));
}

}  // namespace
}  // namespace coca::model::ring_attention_test
