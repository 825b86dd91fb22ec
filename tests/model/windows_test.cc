// Longformer's windows, dilated windows and global tokens in whole models: values and gradients of every attention kind
// compared with the double reference, chunks, recomputation, names, and refused options.
// SPDX-License-Identifier: Apache-2.0
#include "coca/model/windows.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "coca/model/decoder.h"
#include "coca/ops/linear.h"
#include "support/longformer_specs.h"
#include "support/numerics.h"
#include "support/reference_decoder.h"

namespace coca::model::windows_test {
namespace {

using test::Complex;
using test::NamedSpec;
using test::TinyModel;
using testing::HasSubstr;
using testing::ThrowsMessage;

constexpr int64_t kB = 2, kN = 17;

std::vector<float> logits_of(Context& cx, const TinyModel& m, TensorRef hidden) {
  const int64_t rows = hidden.numel() / m.spec.C;
  Tensor logits({rows, m.spec.V});
  ops::linear_forward(cx, {.x = hidden.reshape({rows, m.spec.C}), .w = m.params.weights().head, .y = logits});
  return {logits.values<float>().begin(), logits.values<float>().end()};
}

class Windowed : public testing::TestWithParam<NamedSpec> {
 protected:
  TinyModel m{GetParam().spec};
  Context cx;
  std::vector<int32_t> ids = test::random_ids(kB * kN, m.spec.V, 5), targets = test::random_ids(kB * kN, m.spec.V, 6);
  TensorRef ids_ref() const { return {ids.data(), DType::kI32, {kB, kN}, kHost}; }
  TensorRef targets_ref() const { return {targets.data(), DType::kI32, {kB, kN}, kHost}; }
};
INSTANTIATE_TEST_SUITE_P(Specs, Windowed, testing::ValuesIn(test::trained_window_specs()), test::spec_test_name);

TEST_P(Windowed, LogitsAreThoseOfTheReference) {
  Decoder decoder(m.spec, m.params.weights());
  const std::vector<float> ours = logits_of(cx, m, decoder.forward(cx, ids_ref()));
  test::ReferenceDecoder<double> exact(m.spec, m.params);
  test::ReferenceDecoder<float> naive(m.spec, m.params);
  const std::vector<double> right = test::run_rows(exact, ids, kB);
  const std::vector<float> rough = test::farthest_naive(right, [&](int64_t first_term) {
    naive.set_first_term(first_term);
    return test::run_rows(naive, ids, kB);
  });
  test::expect_close(ours, right, rough, {.terms = 800}, "logits");  // two layers, as in cached_decoder_test.cc
}

// Compares the derivative along a random direction of all weights, as in methods_test.cc. Every gradient has the same
// bits under each recomputation policy.
TEST_P(Windowed, GradientsAreThoseOfTheReferenceAndOfEveryRecomputation) {
  ParamStore grads(m.spec);
  TrainingDecoder decoder(m.spec, kB, kN);
  decoder.forward_backward(cx, m.params.weights(), ids_ref(), targets_ref(), 1.0f, grads.tensors());
  for (const ParamInfo& info : grads.infos()) {  // every parameter has a gradient
    const TensorRef g = grads.at(info);
    EXPECT_TRUE(std::any_of(g.as<float>(), g.as<float>() + g.numel(), [](float x) { return x != 0.0f; })) << info.name;
  }
  test::ReferenceDecoder<Complex> exact(m.spec, m.params);
  Rng rng(7);
  constexpr double kStep = 1e-30;
  double ours = 0, size = 0;
  const float* g = grads.flat().as<float>();
  for (size_t i = 0; i < exact.weights().size(); ++i) {
    const double direction = rng.normal(), term = direction * static_cast<double>(g[i]);
    exact.weights()[i] += Complex(0, kStep * direction);
    ours += term;
    size += term * term;
  }
  const std::vector<Complex> logits = test::run_rows(exact, ids, kB);
  Complex loss(0);
  for (int64_t n = 0; n < kB * kN; ++n)
    loss += test::reference_nll(logits.data() + n * m.spec.V, m.spec.V, targets[static_cast<size_t>(n)]);
  // As in methods_test.cc, over two layers and two sequences.
  EXPECT_NEAR(ours, loss.imag() / kStep, 800 * 0x1p-24 * 4 * std::sqrt(size)) << std::sqrt(size);
  for (const Recompute policy : {Recompute::kAttention, Recompute::kLayer}) {
    ParamStore again(m.spec);
    TrainingDecoder other(m.spec, kB, kN, {.recompute = policy});
    other.forward_backward(cx, m.params.weights(), ids_ref(), targets_ref(), 1.0f, again.tensors());
    EXPECT_EQ(std::memcmp(grads.flat().data, again.flat().data, grads.flat().bytes()), 0) << enum_name(policy);
  }
}

TEST_P(Windowed, ChunksChangeNothing) {
  constexpr int64_t kLong = 200;
  const std::vector<int32_t> text = test::random_ids(kLong, m.spec.V, 6);
  const auto run = [&](int64_t chunk) {
    Decoder decoder(m.spec, m.params.weights(), {.chunk_tokens = chunk});
    return logits_of(cx, m, decoder.forward(cx, TensorRef(text.data(), DType::kI32, {1, kLong}, kHost)));
  };
  const std::vector<float> whole = run(1024), parts = run(64);
  for (size_t i = 0; i < whole.size(); ++i)  // products of other shapes round differently, as in packed_test.cc
    ASSERT_NEAR(whole[i], parts[i], 1e-4 * (1 + std::abs(whole[i]))) << i;
}

// Sequences no longer than the number of global tokens.
TEST_P(Windowed, ShortSequences) {
  const int64_t n = std::max<int64_t>(1, m.spec.global_tokens);
  Decoder decoder(m.spec, m.params.weights());
  const std::vector<float> ours =
      logits_of(cx, m, decoder.forward(cx, TensorRef(ids.data(), DType::kI32, {1, n}, kHost)));
  test::ReferenceDecoder<double> exact(m.spec, m.params);
  const std::vector<double> right = exact.run({ids.data(), static_cast<size_t>(n)}, n);
  for (size_t i = 0; i < right.size(); ++i) ASSERT_NEAR(ours[i], right[i], 1e-3 * (1 + std::abs(right[i]))) << i;
  ParamStore grads(m.spec);
  TrainingDecoder training(m.spec, 1, n);
  training.forward_backward(cx, m.params.weights(), TensorRef(ids.data(), DType::kI32, {1, n}, kHost),
                            TensorRef(targets.data(), DType::kI32, {1, n}, kHost), 1.0f, grads.tensors());
  const float* g = grads.flat().as<float>();
  EXPECT_TRUE(std::all_of(g, g + grads.flat().numel(), [](float x) { return std::isfinite(x); }));
}

TEST(Windows, FlagsBecomeLists) {
  ModelSpec s = test::tiny_llama(AttentionKind::kRope);  // L = 2, H = 4
  const ModelSpec one = with_windows({.layer_window = {5}}, s);
  EXPECT_THAT(one.layer_window, testing::ElementsAre(5, 5));
  const ModelSpec per_head = with_windows({.layer_window = {0, 7}, .dilation = {1, 1, 2, 2}}, s);
  EXPECT_THAT(per_head.dilation, testing::ElementsAre(1, 1, 1, 1, 1, 1, 2, 2));
  EXPECT_TRUE(with_windows({.layer_window = {0}}, one).layer_window.empty());
  EXPECT_TRUE(with_windows({.layer_window = {0}}, per_head).dilation.empty());
  const auto error = [&](const WindowOptions& o, const char* text) {
    EXPECT_THAT([&] { with_windows(o, s); }, ThrowsMessage<Error>(HasSubstr(text)));
  };
  error({.layer_window = {1, 2, 3}}, "layer_window has 3 numbers; expected 1 or 2");
  error({.layer_window = {-1}}, "sliding window -1 must be positive");
  error({.layer_window = {4}, .dilation = {2}}, "dilation has 1 number; expected 4, one per head, or 8");
  error({.dilation = {1, 1, 2, 2}}, "no layer has a window");
  error({.layer_window = {4}, .dilation = {1, 2, 2, 2}},
        "layer 0: head 1 has dilation 2, but shares its key/value head with one of 1");
  error({.layer_window = {4}, .dilation = {0, 0, 1, 1}}, "dilation 0 of layer 0, head 0; expected 1 to 2147483647");
  error({.layer_window = {0, 4}, .dilation = {2, 2, 1, 1, 1, 1, 1, 1}}, "layer 0 has dilation 2 but no window");
  error({.global_tokens = 65}, "global tokens 65; expected 0 to 64");
}

TEST(Windows, InvalidCombinationsAreRefused) {
  const auto error = [](ModelSpec s, const char* text) {
    EXPECT_THAT([&] { validate(s); }, ThrowsMessage<Error>(HasSubstr(text)));
  };
  ModelSpec qwen = test::tiny_qwen3(AttentionKind::kRope);
  qwen.global_tokens = 2;
  error(qwen, "global tokens cannot be combined with norms of heads (qwen3)");
  ModelSpec global = test::tiny_llama(AttentionKind::kRope);
  global.global_tokens = 2;
  global.pattern = default_pattern(Pattern::kStreamingLlm, 8);
  error(global, "the model has 2 global tokens");
  global.pattern = {};
  const std::vector<int32_t> ids = test::random_ids(8, global.V, 1), starts(8, 0);
  const TinyModel m(global);
  ParamStore grads(global);
  TrainingDecoder decoder(global, 1, 8);
  Context cx;
  const TensorRef row(ids.data(), DType::kI32, {1, 8}, kHost);
  EXPECT_THAT(
      [&] {
        decoder.forward_backward(cx, m.params.weights(), row, row, 1.0f, grads.tensors(),
                                 TensorRef(starts.data(), DType::kI32, {1, 8}, kHost));
      },
      ThrowsMessage<Error>(HasSubstr("packed documents: 2 global tokens")));
}

// Packed documents under dilated windows: each gives the same result as alone.
TEST(Windows, DilatedDocumentsDoNotSeeEachOther) {
  for (const AttentionKind kind : {AttentionKind::kRope, AttentionKind::kCocaSlack, AttentionKind::kAlibi}) {
    ModelSpec s = test::tiny_llama(kind);
    s.layer_window = {3, 4};
    s.dilation = {2, 2, 1, 1, 3, 3, 2, 2};
    const TinyModel m(s);
    const std::vector<int32_t> ids = test::random_ids(30, s.V, 2), targets = test::random_ids(30, s.V, 3);
    std::vector<int32_t> starts(30, 0);
    std::fill(starts.begin() + 13, starts.end(), 13);
    Context cx;
    TrainingDecoder both(s, 1, 30), first(s, 1, 13), second(s, 1, 17);
    const auto nll = [&](TrainingDecoder& decoder, int64_t at, int64_t n, TensorRef documents) {
      const TensorRef out = decoder.loss(cx, m.params.weights(), TensorRef(ids.data() + at, DType::kI32, {1, n}, kHost),
                                         TensorRef(targets.data() + at, DType::kI32, {1, n}, kHost), documents);
      return std::vector<float>(out.as<float>(), out.as<float>() + n);
    };
    const std::vector<float> packed = nll(both, 0, 30, TensorRef(starts.data(), DType::kI32, {1, 30}, kHost));
    std::vector<float> alone = nll(first, 0, 13, {});
    const std::vector<float> rest = nll(second, 13, 17, {});
    alone.insert(alone.end(), rest.begin(), rest.end());
    for (size_t i = 0; i < alone.size(); ++i)
      ASSERT_NEAR(packed[i], alone[i], 1e-4 * (1 + std::abs(alone[i]))) << enum_name(kind) << " " << i;
  }
}

// The work counted by forward_flops_per_token() follows the number of visible keys.
TEST(Windows, WorkFollowsWhatIsAttended) {
  ModelSpec full = test::tiny_llama(AttentionKind::kRope), window = full, dilated = full;
  window.layer_window = dilated.layer_window = {16, 16};
  dilated.dilation.assign(8, 4);
  const auto attention = [&](const ModelSpec& s, int64_t S) {
    return forward_flops_per_token(s, S) - forward_flops_per_token(full, 1) + 4.0 * 24 * 2 * 0.5;
  };
  EXPECT_DOUBLE_EQ(attention(full, 4096), 4.0 * 24 * 2 * 2048);
  EXPECT_NEAR(attention(window, 65536), 4.0 * 24 * 2 * 16, 1);
  EXPECT_NEAR(attention(dilated, 65536), 4.0 * 24 * 2 * 16, 2);
}

}  // namespace
}  // namespace coca::model::windows_test
