// Every benchmark at tiny sizes: the rows and counts of its results, and errors for invalid options. Times are not
// checked.
// SPDX-License-Identifier: Apache-2.0
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <set>

#include "coca/base/memory.h"
#include "coca/bench/attention.h"
#include "coca/bench/decode.h"
#include "coca/bench/eval.h"
#include "coca/bench/ring.h"
#include "coca/bench/train.h"
#include "coca/formats/model_folder.h"
#include "coca/io/safetensors.h"
#include "coca/model/decoder.h"
#include "support/message.h"
#include "support/paths.h"

namespace coca::bench::bench_test {
namespace {

using model::AttentionKind;
using test::message;
using testing::HasSubstr;

constexpr RepeatOptions kQuick{.repeats = 2, .warmup = 0, .sample_seconds = 0};
constexpr ModelShape kTiny{.preset = Preset::k0_86m, .layers = 1, .width = 16, .heads = 2, .vocab = 31};
// Bytes of the parameters in fp32; each tensor takes a whole number of cache lines.
int64_t bytes_of(const model::ModelSpec& spec) { return static_cast<int64_t>(model::ParamStore(spec).flat().bytes()); }

TEST(BenchAttention, EveryKindAndPass) {
  AttentionOptions o{
      .kind = {}, .against = AttentionForm::kRope, .lengths = {20, 9}, .heads = 4, .kv_heads = 2, .head_dim = 8};
  for (const auto& entry : EnumTraits<AttentionForm>::names()) o.kind.push_back(entry.value);
  o.repeat = kQuick;
  Context cx;
  int64_t done = 0, total = 0;
  const ProgressCounter counter{.sink = [&](const ProgressState& p) { done = p.done, total = p.total; }};
  const AttentionReport report = bench_attention(cx, o, counter);
  ASSERT_EQ(report.results.size(), 2 * 3 * o.kind.size());
  EXPECT_EQ(done, total);
  EXPECT_THAT(report.notes, testing::IsEmpty());
  for (const AttentionResult& r : report.results) {
    const double pairs = 4.0 * static_cast<double>(r.length * (r.length + 1)) / 2;
    const double products = r.pass == Pass::kForward ? 4 : r.pass == Pass::kBackward ? 10 : 14;
    EXPECT_NEAR(r.gflops * r.seconds.median * 1e9, products * 8 * pairs, 1e-3);
    EXPECT_NEAR(r.tokens_per_second * r.seconds.median, static_cast<double>(r.length), 1e-6);
    EXPECT_GT(r.matrix_gflops, 0);
    ASSERT_TRUE(r.ratio);
    EXPECT_EQ(r.ratio->median == 1, r.kind == AttentionForm::kRope) << enum_name(r.kind);
    EXPECT_EQ(to_json(r)["pass"], std::string(enum_name(r.pass)));
  }
  EXPECT_EQ(attention_table(o, report).rows.size(), report.results.size());
  EXPECT_THAT(report::to_text(attention_table(o, report)), HasSubstr("x rope"));
}

TEST(BenchAttention, BF16) {
  AttentionOptions o{
      .kind = {}, .lengths = {33}, .heads = 2, .head_dim = 16, .dtype = Precision::kBF16, .repeat = kQuick};
  for (const auto& entry : EnumTraits<AttentionForm>::names())
    if (!entry.name.starts_with("einsum")) o.kind.push_back(entry.value);
  Context cx;
  EXPECT_EQ(bench_attention(cx, o, {}).results.size(), 3 * o.kind.size());
}

// With windows and packed documents only visible pairs count.
TEST(BenchAttention, WindowsAndDocuments) {
  AttentionOptions o{.kind = {AttentionForm::kCocaSlack, AttentionForm::kAlibi},
                     .lengths = {100},
                     .heads = 2,
                     .head_dim = 8,
                     .repeat = {.repeats = 1, .warmup = 0, .sample_seconds = 0}};
  const auto pairs_with = [&](int64_t window, int64_t documents) {
    o.window = window;
    o.documents = documents;
    Context cx;
    const AttentionResult r = bench_attention(cx, o, {}).results.front();
    return r.gflops * r.seconds.median * 1e9 / (4.0 * 8 * 2);
  };
  EXPECT_NEAR(pairs_with(0, 1), 100 * 101 / 2, 1e-6);
  EXPECT_NEAR(pairs_with(10, 1), 10 * 11 / 2 + 90 * 10, 1e-6);
  EXPECT_NEAR(pairs_with(0, 4), 4 * 25 * 26 / 2, 1e-6);
  EXPECT_NEAR(pairs_with(0, 3), 34 * 35 / 2 + 2 * 33 * 34 / 2, 1e-6);
  EXPECT_NEAR(pairs_with(1, 1), 100, 1e-6) << "dq is zero there";
  EXPECT_NEAR(pairs_with(10, 4), 4 * (10 * 11 / 2 + 15 * 10), 1e-6);
}

TEST(BenchAttention, AnEinsumThatDoesNotFitIsLeftOut) {
  AttentionOptions o{.kind = {AttentionForm::kEinsum3d, AttentionForm::kCocaSlack},
                     .against = AttentionForm::kEinsum3d,
                     .pass = Pass::kForward,
                     .lengths = {64},
                     .heads = 1,
                     .head_dim = 2,
                     .memory_cap = 1e-6,
                     .repeat = kQuick};
  Context cx;
  int64_t done = 0, total = 0;
  const ProgressCounter counter{.sink = [&](const ProgressState& p) { done = p.done, total = p.total; }};
  const AttentionReport report = bench_attention(cx, o, counter);
  EXPECT_EQ(done, total);
  ASSERT_EQ(report.results.size(), 1u);
  EXPECT_FALSE(report.results[0].ratio);
  ASSERT_EQ(report.notes.size(), 1u);
  EXPECT_THAT(report.notes[0], HasSubstr("einsum-3d at length 64 is left out"));
}

TEST(BenchAttention, BadOptionsAreNamed) {
  Context cx;
  const auto error = [&](const AttentionOptions& o) { return message([&] { bench_attention(cx, o, {}); }); };
  EXPECT_THAT(error({.kind = {}}), HasSubstr("attention: none given"));
  EXPECT_THAT(error({.lengths = {}}), HasSubstr("lengths"));
  EXPECT_THAT(error({.lengths = {0}}), HasSubstr("lengths holds 0"));
  EXPECT_THAT(error({.heads = 3, .kv_heads = 2}), HasSubstr("kv_heads is 2; expected a divisor of heads, 3"));
  EXPECT_THAT(error({.head_dim = 7}), HasSubstr("head_dim is 7"));
  EXPECT_THAT(error({.kind = {AttentionForm::kEinsum}, .dtype = Precision::kBF16}), HasSubstr("F32 only"));
  EXPECT_THAT(error({.window = -1}), HasSubstr("window is -1"));
  EXPECT_THAT(error({.lengths = {9}, .documents = 10}), HasSubstr("documents is 10"));
  EXPECT_THAT(error({.kind = {AttentionForm::kEinsum}, .window = 5}), HasSubstr("einsum computes every pair"));
}

TEST(BenchTrain, EveryKind) {
  TrainOptions o{.kind = {AttentionKind::kCocaSlack, AttentionKind::kAlibi},
                 .against = AttentionKind::kRope,
                 .shape = kTiny,
                 .length = 12,
                 .batch = 3,
                 .repeat = kQuick};
  Context cx;
  const std::vector<TrainResult> results = bench_train(cx, o, {});
  ASSERT_EQ(results.size(), 3u);
  for (const TrainResult& r : results) {
    const model::ModelSpec spec = make_spec(o.shape, r.kind, 12);
    EXPECT_EQ(r.parameters, model::parameter_count(spec));
    EXPECT_NEAR(r.tokens_per_second * r.seconds.median, 36, 1e-6);
    EXPECT_NEAR(r.gflops * r.seconds.median * 1e9, 3 * 36 * model::forward_flops_per_token(spec, 12), 1e-3);
    EXPECT_EQ(r.state_bytes, 4 * bytes_of(spec));
    EXPECT_GT(r.activation_bytes, 0);
  }
  EXPECT_EQ(results[0].kind, AttentionKind::kRope);
  EXPECT_EQ(results[0].ratio->median, 1);
  EXPECT_EQ(train_table(o, results).rows.size(), 3u);
  EXPECT_TRUE(to_json(results[1])["ratio"].is_number());
}

TEST(BenchTrain, BF16AndRecomputation) {
  Context cx;
  TrainOptions o{.kind = {AttentionKind::kRope, AttentionKind::kCocaSlack},
                 .shape = kTiny,
                 .length = 12,
                 .batch = 3,
                 .repeat = kQuick};
  const int64_t kept = bench_train(cx, o, {})[1].activation_bytes;
  o.recompute = model::Recompute::kLayer;
  o.shape.layers = 4;
  const int64_t remade = bench_train(cx, o, {})[1].activation_bytes;
  EXPECT_LT(remade, 4 * kept);
  o.precision = Precision::kBF16;
  const TrainResult narrow = bench_train(cx, o, {})[1];
  EXPECT_LT(narrow.activation_bytes, remade);
  EXPECT_GT(narrow.state_bytes, 16 * narrow.parameters);  // in addition to the bf16 copy of the weights
  EXPECT_LE(narrow.state_bytes, 18 * narrow.parameters + 4096);
}

TEST(BenchTrain, TheExportedModelGivesTheExportedNumbers) {
  const test::TempDir dir;
  TrainOptions o{.shape = kTiny, .length = 12, .export_to = dir.path().string()};
  Context cx;
  export_models(cx, o);
  const model::Model m = formats::load_model(dir.path() / "coca-slack");
  const io::SafetensorsFile check(dir.path() / "coca-slack" / "check.safetensors");
  const TensorRef ids = check.at("ids").ref();
  ASSERT_EQ(ids.shape, (Dims{2, 12}));
  ASSERT_EQ(check.at("logits").shape, (Dims{2, 12, 31}));
  model::ParamStore grads(m.spec);
  model::TrainingDecoder decoder(m.spec, 2, 12);
  const TensorRef nll =
      decoder.forward_backward(cx, m.params->weights(), ids, check.at("targets").ref(), 1, grads.tensors());
  for (int64_t i = 0; i < 24; ++i) EXPECT_EQ(nll.as<float>()[i], check.at("nll").ref().as<float>()[i]);
  for (const model::ParamInfo& info : grads.infos()) {
    const io::StoredTensor& stored = check.at("grad." + info.name);
    ASSERT_EQ(stored.shape, info.shape);
    for (int64_t i = 0; i < info.shape.product(); ++i)
      ASSERT_EQ(stored.ref().as<float>()[i], grads.at(info).as<float>()[i]) << info.name;
  }
}

// The peak measured for a length must not include memory that was freed before the peak was reset.
TEST(BenchEval, ThePeakCanBeReset) {
  constexpr int64_t kBytes = int64_t{256} << 20;
  {
    Tensor large({kBytes / 4});
    for (float& v : large.values<float>()) v = 1;
  }
  const int64_t before = peak_resident_bytes();
  EXPECT_GT(before, kBytes);
  reset_peak_resident();
  EXPECT_LT(peak_resident_bytes(), before - kBytes / 2);
}

TEST(BenchEval, SpeedAndMemoryByLength) {
  EvalOptions o{.against = AttentionKind::kRope, .lengths = {16, 2048}, .shape = kTiny, .repeat = kQuick};
  Context cx;
  const std::vector<EvalResult> results = bench_eval(cx, o, {});
  ASSERT_EQ(results.size(), 4u);
  for (const EvalResult& r : results) {
    EXPECT_NEAR(r.tokens_per_second * r.seconds.median, static_cast<double>(r.length), 1e-6);
    EXPECT_EQ(r.weight_bytes, bytes_of(make_spec(o.shape, r.kind, r.length)));
    EXPECT_GT(r.peak_resident_bytes, r.weight_bytes);
  }
  EXPECT_EQ(eval_table(o, results).rows.size(), 4u);
  EXPECT_EQ(to_json(results[2])["length"], 2048);
  EXPECT_THAT(message([&] { bench_eval(cx, {.lengths = {1}}, {}); }), HasSubstr("lengths holds 1"));
}

TEST(BenchEval, BF16HalvesTheWeights) {
  Context cx;
  const EvalOptions o{.lengths = {40}, .shape = kTiny, .precision = Precision::kBF16, .repeat = kQuick};
  const std::vector<EvalResult> results = bench_eval(cx, o, {});
  EXPECT_LT(results[0].weight_bytes, 3 * results[0].parameters);
}

TEST(BenchDecode, SmallerCaches) {
  Context cx;
  DecodeOptions o{.lengths = {20}, .tokens = 2, .cache = KvType::kBF16, .shape = kTiny, .repeat = kQuick};
  EXPECT_EQ(bench_decode(cx, o, {})[0].cache_bytes_per_token, (16 + 8) * 2);
  o.cache = KvType::kInt8;
  EXPECT_EQ(bench_decode(cx, o, {})[0].cache_bytes_per_token, 16 + 8 + 2 * 2 * 4);  // plus two scales per head
}

TEST(BenchDecode, BF16HalvesTheWeights) {
  Context cx;
  DecodeOptions o{.lengths = {20}, .tokens = 2, .shape = kTiny, .repeat = kQuick};
  const auto bytes = [&] {
    const DecodeResult r = bench_decode(cx, o, {})[0];
    return r.gbytes_per_second * r.seconds.median * 1e9 - static_cast<double>(20 * r.cache_bytes_per_token);
  };
  const double f32 = bytes();
  o.precision = Precision::kBF16;
  for (const KvType type : {KvType::kF32, KvType::kBF16, KvType::kInt8}) {
    o.cache = type;
    EXPECT_LT(bytes(), 0.6 * f32);
    EXPECT_GE(bytes(), 0.5 * f32);
  }
}

TEST(BenchDecode, SpeedAndCacheByLength) {
  DecodeOptions o{.against = AttentionKind::kRope,
                  .lengths = {20, 5, 20},
                  .batch = 2,
                  .tokens = 3,
                  .prefill = 4,
                  .shape = kTiny,
                  .repeat = kQuick};
  Context cx;
  int64_t done = 0, total = 0;
  const ProgressCounter counter{.sink = [&](const ProgressState& p) { done = p.done, total = p.total; }};
  const std::vector<DecodeResult> results = bench_decode(cx, o, counter);
  EXPECT_EQ(done, total);
  ASSERT_EQ(results.size(), 4u);  // ascending, each length once
  EXPECT_EQ(results[0].length, 5);
  EXPECT_EQ(results[2].length, 20);
  EXPECT_EQ(results[0].cache_bytes_per_token, 2 * 16 * 4);    // keys and values of 16 numbers
  EXPECT_EQ(results[1].cache_bytes_per_token, (16 + 8) * 4);  // t folded
  for (const DecodeResult& r : results) {
    EXPECT_NEAR(r.tokens_per_second * r.seconds.median, 2, 1e-6);
    EXPECT_GT(r.memory_gbytes_per_second, 0);
    EXPECT_GT(r.prefill_tokens_per_second, 0);
  }
  const double bytes = results[2].gbytes_per_second * results[2].seconds.median * 1e9;
  const auto weights = static_cast<double>(results[2].parameters - 31 * 16);  // decoding reads one row of the embedding
  EXPECT_NEAR(bytes, 4 * weights + 2 * 20 * 2 * 16 * 4, 1e-3);
  EXPECT_EQ(decode_table(o, results).rows.size(), 4u);
  EXPECT_THAT(message([&] { bench_decode(cx, {.tokens = 0}, {}); }), HasSubstr("tokens is 0"));
}

// The bytes sent follow from the shapes: t and v take a quarter less than k and v. Gradients of the same shapes are
// summed in fp32.
TEST(BenchRing, BytesAndSimulatedTransfers) {
  const RingOptions o{.lengths = {64},
                      .machines = {1, 2, 4},
                      .heads = 4,
                      .kv_heads = 2,
                      .head_dim = 8,
                      .gbit = 2,
                      .latency_us = 5,
                      .repeat = kQuick};
  Context cx;
  int64_t done = 0, total = 0;
  const ProgressCounter counter{.sink = [&](const ProgressState& p) { done = p.done, total = p.total; }};
  const std::vector<RingResult> results = bench_ring(cx, o, counter);
  EXPECT_EQ(done, total);
  ASSERT_EQ(results.size(), 6u);
  for (const RingResult& r : results) {
    SCOPED_TRACE(fmt::format("{} over {}", enum_name(r.kind), r.machines));
    const int64_t K = r.machines, block = 64 / K * 2 * (r.kind == AttentionKind::kRope ? 8 + 8 : 4 + 8) * 4;
    EXPECT_EQ(r.forward.bytes, (K - 1) * block);
    EXPECT_EQ(r.backward.bytes, K == 1 ? 0 : (K - 1) * block + K * block);
    for (const RingPass* p : {&r.forward, &r.backward}) {
      const int messages = p == &r.forward ? static_cast<int>(K) - 1 : K == 1 ? 0 : static_cast<int>(K) + 1;
      EXPECT_NEAR(p->link, static_cast<double>(p->bytes) * 8 / 2e9 + messages * 5e-6, 1e-12);
      EXPECT_NEAR(p->apart, p->work.median + p->link, 1e-12);
      EXPECT_GE(p->hidden, std::max(p->work.median, p->link) - 1e-12);
      EXPECT_LE(p->hidden, p->apart + 1e-12);
    }
    ASSERT_TRUE(r.speedup && r.speedup_apart);
    EXPECT_LE(*r.speedup_apart, *r.speedup + 1e-9);
    if (K == 1) {
      EXPECT_EQ(*r.speedup, 1.0);
    }
    const nlohmann::ordered_json j = to_json(r);
    EXPECT_EQ(j.at("forward_bytes"), r.forward.bytes);
    EXPECT_EQ(j.at("machines"), K);
  }
  const report::Table table = ring_table(o, results);
  ASSERT_EQ(table.rows.size(), 6u);
  EXPECT_EQ(table.rows[0].size(), table.header.size());
  const auto refused = [&](auto change, const std::string& text) {
    RingOptions bad = o;
    change(bad);
    EXPECT_THAT(message([&] { bench_ring(cx, bad, {}); }), HasSubstr(text));
  };
  refused([](RingOptions& b) { b.machines = {0}; }, "machines holds 0; expected 1 to 4096");
  refused([](RingOptions& b) { b.gbit = 0; }, "gbit is 0; expected more than 0");
  refused([](RingOptions& b) { b.lengths = {}; }, "none given");
}

TEST(BenchShapes, PresetsAndSizes) {
  std::set<int64_t> sizes;
  for (const auto& preset : EnumTraits<Preset>::names())
    sizes.insert(model::parameter_count(make_spec({.preset = preset.value}, AttentionKind::kRope, 128)));
  EXPECT_EQ(sizes, (std::set<int64_t>{862'976, 10'038'400, 97'638'912, 508'880'896}));
  EXPECT_THAT(message([] { make_spec({.layers = -1}, AttentionKind::kRope, 8); }), HasSubstr("layers is -1"));
  EXPECT_THAT(message([] { make_spec({.width = 33}, AttentionKind::kRope, 8); }), HasSubstr("multiple of heads"));
  const model::ModelSpec llama =
      make_spec({.architecture = model::Architecture::kLlama, .kv_heads = 5}, AttentionKind::kCocaSlack, 8);
  EXPECT_EQ(llama.G, 5);
  EXPECT_EQ(
      make_check_spec({.architecture = model::Architecture::kLlama, .kv_heads = 5}, AttentionKind::kCocaSlack, 8).G, 1);
}

}  // namespace
}  // namespace coca::bench::bench_test
