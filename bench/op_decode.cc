// One new token over a cache: CoCA's folded keys (D/2 + D numbers per token and head) compared with keys and values (2
// D) in the same kernel, by storage type. Bytes are those of the cache; the rate of plain reading is measured too.
// SPDX-License-Identifier: Apache-2.0
#include <benchmark/benchmark.h>

#include <vector>

#include "coca/base/parallel.h"
#include "coca/base/rng.h"
#include "coca/ops/collinear.h"
#include "coca/ops/decode_attention.h"
#include "coca/ops/kv_store.h"
#include "coca/ops/rope.h"

namespace {

using coca::Context;
using coca::KvType;
using coca::Tensor;

void fill(Tensor& t, uint64_t seed, double low = -0.5) {
  coca::Rng rng(seed);
  for (float& x : t.values<float>()) x = static_cast<float>(low + rng.uniform());
}

// Sums 1 GiB with all threads, to measure the rate of reading memory.
void BM_ReadMemory(benchmark::State& state) {
  constexpr int64_t kWords = int64_t{1} << 27, kBlock = int64_t{1} << 17;
  Tensor memory({kWords, 2});
  const auto* words = static_cast<const uint64_t*>(memory.ref().data);
  std::vector<uint64_t> sums(static_cast<size_t>(kWords / kBlock));
  for (auto _ : state) {
    coca::parallel_for(kWords / kBlock, [&](int64_t block) {
      uint64_t s[8] = {};
      for (int64_t i = block * kBlock; i < (block + 1) * kBlock; i += 8)
        for (int64_t j = 0; j < 8; ++j) s[j] += words[i + j];
      for (const uint64_t x : s) sums[static_cast<size_t>(block)] += x;
    });
    benchmark::DoNotOptimize(sums.data());
  }
  state.counters["GB/s"] = benchmark::Counter(8e-9 * kWords, benchmark::Counter::kIsIterationInvariantRate);
}
BENCHMARK(BM_ReadMemory)->UseRealTime()->Unit(benchmark::kMillisecond);

enum class Keys { kRope, kCoca };
constexpr int64_t kLayers =
    4;  // used in turn, since in a model the other layers evict each cache from the last-level cache

// Args: S, H, G, D, new tokens
void BM_Decode(benchmark::State& state, Keys keys, KvType type) {
  const int64_t S = state.range(0), H = state.range(1), G = state.range(2), D = state.range(3), N = state.range(4);
  const bool coca = keys == Keys::kCoca;
  const int64_t W = coca ? D / 2 : D;
  coca::KvPages pages(coca::KvPool(
      {.type = type, .key_sign = coca ? coca::KeySign::kNonNegative : coca::KeySign::kSigned, .G = G, .W = W, .D = D},
      kLayers));
  pages.reserve(S);
  Context context;
  constexpr int64_t kPart = 1024;
  Tensor k({1, kPart, G, W}), v({1, kPart, G, D});
  fill(k, 1, coca ? 0.0 : -0.5);
  fill(v, 2);
  for (int64_t layer = 0; layer < kLayers; ++layer)
    for (int64_t first = 0; first < S; first += kPart)
      coca::ops::kv_store(context, {.keys = k, .values = v, .first = first, .cache = pages.mut_view(layer, first, S)});
  coca::ops::Rotation rotation;
  for (int64_t j = 0; j < D / 2; ++j)
    rotation.frequencies.push_back(std::pow(10000.0, -2.0 * static_cast<double>(j) / static_cast<double>(D)));
  coca::ops::KeyAngles angles;
  angles.build(rotation, S);
  Tensor q({1, N, H, D}), q_eff({1, N, H, D}), o({1, N, H, D}), cos({1, N, D / 2}), sin({1, N, D / 2});
  fill(q, 3);
  fill(cos, 4);
  fill(sin, 5);
  const coca::ops::DecodeAttentionOptions options{.score =
                                                      coca ? coca::ops::Score::kCollinear : coca::ops::Score::kRope};
  int64_t layer = 0;
  for (auto _ : state) {
    if (coca)
      coca::ops::collinear_query(context, {}, {.rows = {cos, sin}, .q = q, .q_eff = q_eff});
    else
      coca::ops::rope_forward(context, {.rows = {cos, sin}, .x = q, .y = q_eff});
    const coca::ops::DecodeSequence sequence{.q = q_eff, .angles = &angles, .cache = pages.view(layer, S), .o = o};
    coca::ops::decode_attention(context, options, {.sequences = {&sequence, 1}, .slopes = {}});
    layer = (layer + 1) % kLayers;
  }
  const double bytes = static_cast<double>(S * G) * static_cast<double>(pages.layout().head_bytes());
  using Counter = benchmark::Counter;
  state.counters["GB/s"] = Counter(1e-9 * bytes, Counter::kIsIterationInvariantRate);
  state.counters["tokens/s"] = Counter(static_cast<double>(N), Counter::kIsIterationInvariantRate);
  state.counters["GFLOP/s"] = Counter(4e-9 * static_cast<double>(S * N * H * D), Counter::kIsIterationInvariantRate);
}
void shapes(benchmark::internal::Benchmark* b) {
  b->Args({1024, 1, 1, 64, 1});  // stays in L2, so that only arithmetic counts
  for (const int64_t S : {2048, 8192, 32768}) b->Args({S, 16, 16, 64, 1})->Args({S, 32, 8, 128, 1});
  b->ArgNames({"S", "H", "G", "D", "N"})->UseRealTime()->Unit(benchmark::kMicrosecond);
}
BENCHMARK_CAPTURE(BM_Decode, rope_f32, Keys::kRope, KvType::kF32)->Apply(shapes);
BENCHMARK_CAPTURE(BM_Decode, coca_f32, Keys::kCoca, KvType::kF32)->Apply(shapes);
BENCHMARK_CAPTURE(BM_Decode, rope_bf16, Keys::kRope, KvType::kBF16)->Apply(shapes);
BENCHMARK_CAPTURE(BM_Decode, coca_bf16, Keys::kCoca, KvType::kBF16)->Apply(shapes);
BENCHMARK_CAPTURE(BM_Decode, rope_int8, Keys::kRope, KvType::kInt8)->Apply(shapes);
BENCHMARK_CAPTURE(BM_Decode, coca_int8, Keys::kCoca, KvType::kInt8)->Apply(shapes);

// Prefill with the same op: many new tokens at once.
BENCHMARK_CAPTURE(BM_Decode, prefill, Keys::kCoca, KvType::kF32)
    ->Args({2048, 16, 16, 64, 2048})
    ->ArgNames({"S", "H", "G", "D", "N"})
    ->UseRealTime()
    ->Unit(benchmark::kMicrosecond);

}  // namespace
