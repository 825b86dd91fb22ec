// The memory of a decoder: forward in chunks of tokens, and training that recomputes activations. Neither may change a
// result.
// SPDX-License-Identifier: Apache-2.0
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <string>

#include "coca/base/parallel.h"
#include "coca/model/decoder.h"
#include "support/tiny_model.h"

namespace coca::model::decoder_memory_test {
namespace {

using test::TinyModel;

TensorRef ids_ref(const std::vector<int32_t>& ids, int64_t B) {
  return {ids.data(), DType::kI32, {B, static_cast<int64_t>(ids.size()) / B}, kHost};
}

enum class Products : uint8_t { kOneDnn, kPlainLoops };

std::vector<float> hidden_states(const TinyModel& m, const std::vector<int32_t>& ids, int64_t B, int64_t chunk_tokens,
                                 Products products = Products::kOneDnn) {
  Context cx;
  if (products == Products::kPlainLoops) cx.force_impl("linear", "ref");
  Decoder decoder(m.spec, m.params.weights(), {.chunk_tokens = chunk_tokens});
  const TensorRef hidden = decoder.forward(cx, ids_ref(ids, B));
  return {hidden.as<float>(), hidden.as<float>() + hidden.numel()};
}

class MemoryOfSpec : public testing::TestWithParam<test::NamedSpec> {
 protected:
  TinyModel m{GetParam().spec};
};
INSTANTIATE_TEST_SUITE_P(Specs, MemoryOfSpec, testing::ValuesIn(test::all_specs()), test::spec_test_name);

// Covers parts of 64 tokens without a remainder, with a remainder that joins the part before it, with one that stands
// alone, and with a single extra token; and chunks of several sequences, the last with fewer. Attention uses the same
// tiles, so chunks can affect only the products, which oneDNN sums in an order that depends on the number of rows.
TEST_P(MemoryOfSpec, ChunksChangeNothingButTheOrderInProducts) {
  struct Case {
    int64_t B, N, chunk_tokens;
  };
  for (const Case c : {Case{1, 192, 64}, {2, 150, 64}, {1, 300, 128}, {2, 65, 64}, {5, 30, 64}, {1, 63, 64}}) {
    const std::string at = fmt::format("{} x {} by {}", c.B, c.N, c.chunk_tokens);
    const std::vector<int32_t> ids = test::random_ids(c.B * c.N, m.spec.V, 7);
    EXPECT_TRUE(hidden_states(m, ids, c.B, c.chunk_tokens, Products::kPlainLoops) ==
                hidden_states(m, ids, c.B, 4096, Products::kPlainLoops))
        << at;
    const std::vector<float> chunks = hidden_states(m, ids, c.B, c.chunk_tokens),
                             whole = hidden_states(m, ids, c.B, 4096);
    float largest = 0;
    for (const float h : whole) largest = std::max(largest, std::abs(h));
    // Two layers of six products with sums of up to 40 terms: 480 roundings in either result.
    const double bound = 2 * std::sqrt(480.0) * 0x1p-24 * static_cast<double>(largest);
    for (size_t i = 0; i < whole.size(); ++i) ASSERT_NEAR(chunks[i], whole[i], bound) << at << ", " << i;
  }
}

TEST_P(MemoryOfSpec, RecomputationDoesNotChangeABit) {
  constexpr int64_t kB = 2, kN = 37;
  const std::vector<int32_t> ids = test::random_ids(kB * kN, m.spec.V, 5),
                             targets = test::random_ids(kB * kN, m.spec.V, 6);
  std::vector<std::vector<float>> all;
  for (const Recompute recompute : {Recompute::kNone, Recompute::kAttention, Recompute::kLayer}) {
    Context cx;
    ParamStore grads(m.spec);
    TrainingDecoder decoder(m.spec, kB, kN, {.recompute = recompute});
    for (int step = 0; step < 2; ++step) {  // the second step starts with old values in the shared tensors
      grads.zero();
      const TensorRef nll = decoder.forward_backward(cx, m.params.weights(), ids_ref(ids, kB), ids_ref(targets, kB),
                                                     0.5f, grads.tensors());
      const float* g = grads.flat().as<float>();
      all.emplace_back(g, g + grads.flat().numel());
      all.back().insert(all.back().end(), nll.as<float>(), nll.as<float>() + nll.numel());
    }
  }
  for (size_t i = 1; i < all.size(); ++i) EXPECT_TRUE(all[i] == all[0]) << i;
}

int64_t aligned(int64_t floats) { return (4 * floats + 63) / 64 * 64; }

// In addition to x: k_eff and v of one sequence, and one chunk.
TEST(DecoderMemory, HoldsTheStreamTheKeysAndAChunk) {
  const TinyModel m(test::tiny_llama(AttentionKind::kCocaSlack));
  const ModelSpec& s = m.spec;
  Context cx;
  for (const int64_t B : {1, 3})
    for (const int64_t N : {640, 6400, 6410}) {
      const std::vector<int32_t> ids = test::random_ids(B * N, s.V, 7);
      Decoder decoder(s, m.params.weights(), {.chunk_tokens = 128});
      decoder.forward(cx, ids_ref(ids, B));
      const int64_t n = N == 6410 ? 138 : 128, heads = s.H * s.D;
      const int64_t chunk = 4 * aligned(n * s.C)      // ln1, ln2 and the two branches
                            + aligned(n * s.C)        // mid
                            + 3 * aligned(n * heads)  // q, q_eff, o
                            + aligned(n * s.G * s.D)  // t
                            + 3 * aligned(n * s.F);   // gate, up, act
      EXPECT_EQ(static_cast<int64_t>(decoder.activation_bytes()),
                aligned(B * N * s.C) + 2 * aligned(N * s.G * s.D) + chunk)
          << B << " x " << N;
    }
}

// In bf16 the residual stream is still fp32. The hidden states returned reuse the memory of the last layer's tensors.
TEST(DecoderMemory, Bf16HalvesAllButTheStream) {
  const TinyModel m(test::tiny_llama(AttentionKind::kCocaSlack));
  const ModelSpec& s = m.spec;
  Context cx;
  ParamStore rounded(s, Precision::kBF16);
  copy_params(cx, m.params, rounded);
  constexpr int64_t kN = 6400, n = 128;
  const std::vector<int32_t> ids = test::random_ids(kN, s.V, 7);
  Decoder decoder(s, rounded.weights(), {.chunk_tokens = n});
  EXPECT_EQ(decoder.forward(cx, ids_ref(ids, 1)).dtype, DType::kBF16);
  const int64_t chunk = 4 * n * s.C + 3 * n * s.H * s.D + n * s.G * s.D + 3 * n * s.F;
  EXPECT_EQ(static_cast<int64_t>(decoder.activation_bytes()),
            4 * kN * s.C + 2 * (2 * kN * s.G * s.D) + 2 * chunk + 4 * n * s.C);  // the last term is mid
}

TEST(DecoderMemory, ChunksAreWholeTiles) {
  const TinyModel m(test::tiny_neox(AttentionKind::kRope));
  for (const int64_t bad : {0, -64, 63, 100})
    EXPECT_THAT([&] { Decoder(m.spec, m.params.weights(), {.chunk_tokens = bad}); },
                testing::ThrowsMessage<Error>(testing::HasSubstr("must be a positive multiple of 64")));
}

TEST(DecoderMemory, TheNumberOfThreadsDoesNotChangeABit) {
  const TinyModel m(test::tiny_neox(AttentionKind::kCocaSlack));
  const std::vector<int32_t> ids = test::random_ids(2 * 150, m.spec.V, 7);
  const int before = max_threads();
  set_max_threads(1);
  const std::vector<float> one = hidden_states(m, ids, 2, 64);
  for (const int threads : {2, 3}) {
    set_max_threads(threads);
    EXPECT_EQ(hidden_states(m, ids, 2, 64), one) << threads;
  }
  set_max_threads(before);
}

// Exactly what each policy keeps of a layer, in numbers per token (stat: two; lse: one per head).
TEST(TrainingMemory, EqualsWhatThePolicyKeeps) {
  for (const auto& [name, s] : test::all_specs()) {
    if (!s.modifiers.empty()) continue;
    constexpr int64_t kB = 2, kN = 32, kM = kB * kN;  // so that every tensor is a whole number of cache lines
    const bool rotary = transforms_keys(s.attention), sequential = s.residual == ResidualKind::kSequential;
    const int64_t effective = (s.H + s.G) * s.score_width();
    const int64_t q = s.H * s.D, k = s.G * s.key_width(), v = s.G * s.D, mlp = s.F * (s.mlp == Mlp::kSwiGlu ? 2 : 1);
    const bool head_norm = s.head_norm == HeadNorm::kRms;  // q and k are kept as they were before the norm
    const int64_t kept = q + k + v + q + s.H + 4 + (sequential ? s.C : 0) + mlp + (head_norm ? 2 * (s.H + s.G) : 0);
    const int64_t remade = 2 * s.C + (rotary ? effective : 0) + s.F + (head_norm ? q + k : 0);
    const int64_t grads =
        2 * s.C + 2 * q + k + v + (rotary ? effective : 0) + mlp + s.F + s.C;  // the last term is dnormed
    const int64_t whole = (s.L + 1) * s.C + s.C + 2 + 1 + s.C + grads;         // x, normed, stat, nll, stream
    const auto bytes = [&](Recompute recompute) {
      const size_t held = TrainingDecoder(s, kB, kN, {.recompute = recompute}).activation_bytes();
      EXPECT_EQ(TrainingDecoder::activation_bytes(s, kB, kN, {.recompute = recompute}), held);
      return static_cast<int64_t>(held);
    };
    EXPECT_EQ(bytes(Recompute::kNone), 4 * kM * (whole + s.L * (kept + remade))) << name;
    EXPECT_EQ(bytes(Recompute::kAttention), 4 * kM * (whole + s.L * kept + remade)) << name;
    EXPECT_EQ(bytes(Recompute::kLayer), 4 * kM * (whole + kept + remade)) << name;
  }
}

}  // namespace
}  // namespace coca::model::decoder_memory_test
