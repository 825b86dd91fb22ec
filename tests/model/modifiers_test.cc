// Every modifier of attention, alone and all at once, under every kind of attention that takes it: logits, in one piece
// and in chunks, and gradients equal the double reference's.
// SPDX-License-Identifier: Apache-2.0
#include "coca/model/modifier.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "coca/model/methods.h"
#include "support/against_reference.h"

namespace coca::model::modifiers_test {
namespace {

using ::testing::HasSubstr;

const Modifier& named(std::string_view name) { return *enum_from_name<const Modifier*>(name); }

// body(spec) for every kind of attention, in both architectures, that takes these modifiers.
template <typename Body>
int64_t for_each_kind(const std::vector<const Modifier*>& modifiers, const Body& body) {
  int64_t count = 0;
  for (const auto& kind : EnumTraits<AttentionKind>::names())
    for (ModelSpec s : {test::tiny_neox(kind.value), test::tiny_llama(kind.value)}) {
      bool taken = true;
      for (const Modifier* m : modifiers) taken = taken && refusal(s, kind.value, *m).empty();
      if (!taken) continue;
      s.L = 1;
      s.modifiers = modifiers;
      SCOPED_TRACE(fmt::format("{} {}", enum_name(s.architecture), kind.name));
      body(s);
      ++count;
    }
  return count;
}

template <typename Body>
void for_each_modifier(const Body& body) {
  for (const Modifier* m : all_modifiers()) {
    SCOPED_TRACE(m->info().name);
    EXPECT_GE(for_each_kind({m}, body), 8);
  }
  SCOPED_TRACE("all at once");
  const auto all = all_modifiers();
  EXPECT_GE(for_each_kind({all.begin(), all.end()}, body), 8);
}

TEST(Modifiers, LogitsAreTheReferences) {
  for_each_modifier([](const ModelSpec& s) { test::expect_reference_logits(s, 20); });
}

TEST(Modifiers, LogitsInChunksAreTheReferences) {
  for_each_modifier([](const ModelSpec& s) { test::expect_reference_logits(s, 150, {.chunk_tokens = 64}); });
}

TEST(Modifiers, GradientsAreTheReferences) {
  for (const Recompute recompute : {Recompute::kNone, Recompute::kAttention, Recompute::kLayer})
    for_each_modifier([&](const ModelSpec& s) { test::expect_reference_gradient(s, 12, recompute); });
}

TEST(Modifiers, GoWithNormsOfHeadsHalfTAndSlidingWindows) {
  const auto all = all_modifiers();
  for (const AttentionKind kind : {AttentionKind::kRope, AttentionKind::kCocaSlack, AttentionKind::kCocaStrict}) {
    ModelSpec normed = test::tiny_qwen3(kind), half = test::tiny_llama(kind), windowed = test::tiny_neox(kind);
    if (is_coca(kind)) half.t_width = TWidth::kHalf;
    windowed.layer_window.assign(static_cast<size_t>(windowed.L), 5);
    for (ModelSpec* s : {&normed, &half, &windowed}) {
      s->modifiers.assign(all.begin(), all.end());
      test::expect_reference_logits(*s, 20);
      test::expect_reference_gradient(*s, 12);
    }
  }
}

TEST(Modifiers, GoWithPatterns) {
  for_each_modifier([](const ModelSpec& plain) {
    for (const Pattern pattern : {Pattern::kStreamingLlm, Pattern::kLmInfinite, Pattern::kSelfExtend}) {
      ModelSpec s = plain;
      s.pattern = default_pattern(pattern, s.max_position);
      bool valid = true;
      try {
        validate(s);
      } catch (const Error&) {
        valid = false;  // which combinations are refused: methods_test
      }
      if (valid) test::expect_reference_logits(s, 26);
    }
  });
}

// Two documents in one row give what each gives alone.
TEST(Modifiers, PackedDocumentsDoNotMix) {
  constexpr int64_t kN = 14, kFirst = 6;
  for_each_modifier([](const ModelSpec& s) {
    const test::TinyModel m(s);
    const std::vector<int32_t> ids = test::random_ids(kN + 1, s.V, 9);
    std::vector<int32_t> start(kN, 0);
    std::fill(start.begin() + kFirst, start.end(), static_cast<int32_t>(kFirst));
    const auto of = [](const std::vector<int32_t>& v, int64_t first, int64_t n) {
      return TensorRef(v.data() + first, DType::kI32, {1, n}, kHost);
    };
    Context cx;
    const auto loss = [&](int64_t first, int64_t n, TensorRef starts, ParamStore& grads) {
      TrainingDecoder decoder(s, 1, n);
      const TensorRef nll = decoder.forward_backward(cx, m.params.weights(), of(ids, first, n), of(ids, first + 1, n),
                                                     1.0f, grads.tensors(), starts);
      return std::vector<float>(nll.as<float>(), nll.as<float>() + n);
    };
    ParamStore packed_grads(s), apart_grads(s);
    const std::vector<float> packed = loss(0, kN, of(start, 0, kN), packed_grads),
                             first = loss(0, kFirst, {}, apart_grads),
                             second = loss(kFirst, kN - kFirst, {}, apart_grads);
    // The same sums in the same order, but for how tokens lie in blocks.
    for (int64_t n = 0; n < kN; ++n)
      EXPECT_NEAR(packed[static_cast<size_t>(n)],
                  n < kFirst ? first[static_cast<size_t>(n)] : second[static_cast<size_t>(n - kFirst)],
                  test::kTermsPerLayer * 0x1p-24 * 8)
          << n;
    double difference = 0, size = 0;
    for (int64_t i = 0; i < packed_grads.flat().numel(); ++i) {
      const double a = static_cast<double>(packed_grads.flat().as<float>()[i]),
                   b = static_cast<double>(apart_grads.flat().as<float>()[i]);
      difference += (a - b) * (a - b);
      size += b * b;
    }
    EXPECT_LE(std::sqrt(difference), test::kTermsPerLayer * 0x1p-24 * std::sqrt(size));
  });
}

TEST(Modifiers, AreRefusedByReason) {
  const ModelSpec s = test::tiny_llama(AttentionKind::kAlibi);
  EXPECT_THAT(refusal(s, AttentionKind::kAlibi, named("phases")), HasSubstr("it turns rotary planes"));
  ModelSpec global = test::tiny_llama(AttentionKind::kRope);
  global.layer_window.assign(static_cast<size_t>(global.L), 4);
  global.global_tokens = 1;
  EXPECT_THAT(refusal(global, AttentionKind::kRope, named("sinks")), HasSubstr("1 global token"));
  EXPECT_THROW(ordered({&named("sinks"), &named("sinks")}), Error);
}

}  // namespace
}  // namespace coca::model::modifiers_test
