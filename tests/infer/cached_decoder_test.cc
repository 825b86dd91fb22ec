// Decoding in pieces equals running the whole sequence, for every kind of model. Under dynamic NTK it follows the
// chosen policy.
// SPDX-License-Identifier: Apache-2.0
#include "coca/infer/cached_decoder.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "coca/ops/linear.h"
#include "support/numerics.h"
#include "support/reference_decoder.h"
#include "support/tiny_clex.h"

namespace coca::infer::cached_decoder_test {
namespace {

using test::AttentionKind;
using test::NamedSpec;
using test::TinyModel;
using Chunks = std::vector<int64_t>;

constexpr int64_t kB = 2, kN = 19;

// A logit depends on two layers of about ten operations, each with sums of up to F = 40 terms: 800 roundings.
constexpr test::ErrorRule kRule{.terms = 800};

std::vector<float> logits_of(Context& cx, const TinyModel& m, TensorRef hidden) {
  const int64_t rows = hidden.numel() / m.spec.C;
  Tensor logits({rows, m.spec.V});
  ops::linear_forward(cx, {.x = hidden.reshape({rows, m.spec.C}), .w = m.params.weights().head, .y = logits});
  return {logits.values<float>().begin(), logits.values<float>().end()};
}

// Ids [B, N]; all rows differ.
std::vector<int32_t> batch_ids(const TinyModel& m) { return test::random_ids(kB * kN, m.spec.V, 5); }

// Logits [B, N, V] of a decoder fed in chunks.
std::vector<float> cached_logits(const TinyModel& m, const std::vector<int32_t>& ids, const Chunks& chunks,
                                 DynamicBase policy = DynamicBase::kStep, int64_t planned = 0) {
  Context cx;
  CachedDecoder decoder(m.spec, m.params.weights(), kB, policy, planned);
  std::vector<float> all(static_cast<size_t>(kB * kN * m.spec.V));
  int64_t begin = 0;
  for (const int64_t n : chunks) {
    std::vector<int32_t> part;
    for (int64_t b = 0; b < kB; ++b)
      part.insert(part.end(), ids.begin() + b * kN + begin, ids.begin() + b * kN + begin + n);
    const std::vector<float> logits = logits_of(cx, m, decoder.append(cx, {part.data(), DType::kI32, {kB, n}, kHost}));
    for (int64_t b = 0; b < kB; ++b)
      std::copy_n(logits.begin() + b * n * m.spec.V, n * m.spec.V, all.begin() + (b * kN + begin) * m.spec.V);
    const TensorRef last = decoder.last_logits(cx);  // must equal the last row of the logits
    for (int64_t b = 0; b < kB; ++b)
      for (int64_t v = 0; v < m.spec.V; ++v)
        EXPECT_NEAR(last.as<float>()[b * m.spec.V + v], logits[static_cast<size_t>((b * n + n - 1) * m.spec.V + v)],
                    1e-4);
    begin += n;
  }
  EXPECT_EQ(begin, kN);
  EXPECT_EQ(decoder.length(), kN);
  return all;
}

// The same from the reference; lengths[n] is the length that the step of token n uses.
template <typename T>
std::vector<T> reference_logits(const TinyModel& m, const std::vector<int32_t>& ids,
                                const std::vector<int64_t>& lengths, test::KeyMemory memory = test::KeyMemory::kPlain,
                                int64_t first_term = 0) {
  test::ReferenceDecoder<T> decoder(m.spec, m.params, memory);
  decoder.set_first_term(first_term);
  std::vector<T> all;
  for (int64_t b = 0; b < kB; ++b) {
    decoder.restart();
    for (int64_t n = 0; n < kN; ++n) {
      const std::vector<T> logits = decoder.step(ids[static_cast<size_t>(b * kN + n)], lengths[static_cast<size_t>(n)]);
      all.insert(all.end(), logits.begin(), logits.end());
    }
  }
  return all;
}

// The exact logits, and naive ones that set the scale of the error.
struct Expected {
  std::vector<double> exact;
  std::vector<float> naive;
};

Expected expected_logits(const TinyModel& m, const std::vector<int32_t>& ids, const std::vector<int64_t>& lengths) {
  Expected e{.exact = reference_logits<double>(m, ids, lengths), .naive = {}};
  e.naive = test::farthest_naive(e.exact, [&](int64_t first_term) {
    return reference_logits<float>(m, ids, lengths, test::KeyMemory::kPlain, first_term);
  });
  return e;
}

void expect_logits(const std::vector<float>& actual, const Expected& e, const std::string& what) {
  test::expect_close(actual, e.exact, e.naive, kRule, what);
}

double largest_difference(const auto& a, const auto& b) {
  double largest = 0;
  for (size_t i = 0; i < a.size(); ++i)
    largest = std::max(largest, std::abs(static_cast<double>(a[i]) - static_cast<double>(b[i])));
  return largest;
}

// Each step uses the number of tokens so far, including its whole chunk.
std::vector<int64_t> lengths_by_chunk(const Chunks& chunks) {
  std::vector<int64_t> lengths;
  for (const int64_t n : chunks)
    lengths.insert(lengths.end(), static_cast<size_t>(n), static_cast<int64_t>(lengths.size()) + n);
  return lengths;
}

const std::vector<Chunks>& chunkings() {
  static const std::vector<Chunks> all = {
      {19}, Chunks(19, 1), {5, 3, 5, 3, 3}, {7, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1}, {1, 17, 1}};
  return all;
}

class Cached : public testing::TestWithParam<NamedSpec> {};
INSTANTIATE_TEST_SUITE_P(Specs, Cached, testing::ValuesIn(test::all_specs()), test::spec_test_name);
class CachedRotary : public testing::TestWithParam<NamedSpec> {};
INSTANTIATE_TEST_SUITE_P(Specs, CachedRotary, testing::ValuesIn(test::rotary_specs()), test::spec_test_name);

TEST_P(Cached, EqualsTheWholeSequenceForAnyChunks) {
  const TinyModel m(GetParam().spec);
  const std::vector<int32_t> ids = batch_ids(m);
  const std::vector<int64_t> lengths(static_cast<size_t>(kN), kN);  // without scaling the length has no effect
  const Expected expected = expected_logits(m, ids, lengths);
  Context cx;
  model::Decoder whole(m.spec, m.params.weights());
  expect_logits(logits_of(cx, m, whole.forward(cx, {ids.data(), DType::kI32, {kB, kN}, kHost})), expected, "whole");
  for (const Chunks& chunks : chunkings()) {
    SCOPED_TRACE(testing::PrintToString(chunks));
    expect_logits(cached_logits(m, ids, chunks), expected, "cached");
  }
}

TEST_P(CachedRotary, LinearScaling) {
  TinyModel m(GetParam().spec);
  m.spec.rope_scaling = {model::Scaling::kLinear, 4.0};
  const std::vector<int32_t> ids = batch_ids(m);
  expect_logits(cached_logits(m, ids, {7, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1}),
                expected_logits(m, ids, std::vector<int64_t>(kN, kN)), "linear");
}

// With a fixed base per request, the result is that of one pass over the sequence with that length.
TEST_P(CachedRotary, DynamicNtkPerRequestEqualsOnePassAtThePlannedLength) {
  TinyModel m(GetParam().spec);
  m.spec.rope_scaling = {model::Scaling::kDynamic, 4.0};
  const std::vector<int32_t> ids = batch_ids(m);
  constexpr int64_t kPlanned = 24;
  const std::vector<int64_t> lengths(static_cast<size_t>(kN), kPlanned);
  Context cx;
  model::Decoder whole(m.spec, m.params.weights());
  const std::vector<float> once =
      logits_of(cx, m, whole.forward(cx, {ids.data(), DType::kI32, {kB, kN}, kHost}, kPlanned));
  const Expected expected = expected_logits(m, ids, lengths);
  expect_logits(once, expected, "one pass");
  for (const Chunks& chunks : chunkings()) {
    SCOPED_TRACE(testing::PrintToString(chunks));
    expect_logits(cached_logits(m, ids, chunks, DynamicBase::kRequest, kPlanned), expected, "cached");
  }
}

// CLEX chooses its table by the length, like dynamic NTK its base: with 8 trained tokens, 19 tokens use factor 3.
TEST(CachedClex, TakesTheTableOfTheLength) {
  for (const NamedSpec& named : test::clex_specs()) {
    SCOPED_TRACE(named.name);
    const TinyModel m = test::clex_model(named.spec);
    const std::vector<int32_t> ids = batch_ids(m);
    expect_logits(cached_logits(m, ids, {7, 1, 1, 10}, DynamicBase::kRequest, kN),
                  expected_logits(m, ids, std::vector<int64_t>(kN, kN)), "request");
    const Chunks chunks = {5, 3, 1, 6, 3, 1};
    expect_logits(cached_logits(m, ids, chunks), expected_logits(m, ids, lengths_by_chunk(chunks)), "step");
  }
}

// The base changes with every step beyond the trained length of 8, so the cache must rotate all its keys again.
TEST_P(CachedRotary, DynamicNtkPerStepRotatesAllKeysByTheBaseOfTheStep) {
  TinyModel m(GetParam().spec);
  m.spec.rope_scaling = {model::Scaling::kDynamic, 4.0};
  const std::vector<int32_t> ids = batch_ids(m);
  for (const Chunks& chunks :
       {Chunks(19, 1), Chunks{6, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1}, Chunks{5, 4, 1, 3, 1, 5}}) {
    SCOPED_TRACE(testing::PrintToString(chunks));
    const std::vector<int64_t> lengths = lengths_by_chunk(chunks);
    const std::vector<float> actual = cached_logits(m, ids, chunks);
    const Expected expected = expected_logits(m, ids, lengths);
    expect_logits(actual, expected, "per step");
    // Two wrong results to tell apart: keys that keep the rotation of their own step, and a base that never changes.
    const bool can_be_stale = m.spec.score_width() == m.spec.D && m.spec.modifiers.empty();  // in the reference
    const std::vector<double> stale =
        can_be_stale ? reference_logits<double>(m, ids, lengths, test::KeyMemory::kRotated) : std::vector<double>();
    const std::vector<double> frozen = reference_logits<double>(m, ids, std::vector<int64_t>(kN, kN));
    const double error = largest_difference(actual, expected.exact);
    if (can_be_stale) {
      EXPECT_GT(largest_difference(actual, stale), 100 * error);
    }
    EXPECT_GT(largest_difference(actual, frozen), 100 * error);
  }
}

TEST_P(Cached, GrowthBeyondTheCapacityChangesNoBit) {
  const TinyModel m(GetParam().spec);
  const std::vector<int32_t> ids = batch_ids(m);
  const Chunks chunks = {2, 3, 1, 1, 6, 6};
  EXPECT_EQ(cached_logits(m, ids, chunks, DynamicBase::kStep, 64),
            cached_logits(m, ids, chunks, DynamicBase::kStep, 0));
}

TEST_P(Cached, TruncatedTokensAreForgotten) {
  const TinyModel m(GetParam().spec);
  const std::vector<int32_t> ids = test::random_ids(12, m.spec.V, 8), other = test::random_ids(5, m.spec.V, 9);
  Context cx;
  CachedDecoder fresh(m.spec, m.params.weights(), 1), used(m.spec, m.params.weights(), 1);
  fresh.append(cx, {ids.data(), DType::kI32, {1, 6}, kHost});
  const std::vector<float> expected = logits_of(cx, m, fresh.append(cx, {ids.data() + 6, DType::kI32, {1, 6}, kHost}));
  used.append(cx, {ids.data(), DType::kI32, {1, 6}, kHost});
  used.append(cx, {other.data(), DType::kI32, {1, 5}, kHost});
  used.truncate(6);
  EXPECT_EQ(logits_of(cx, m, used.append(cx, {ids.data() + 6, DType::kI32, {1, 6}, kHost})), expected);
  // A call that ended at the same length with other tokens is no longer remembered.
  fresh.truncate(11);
  used.truncate(11);
  EXPECT_EQ(logits_of(cx, m, used.append(cx, {ids.data() + 11, DType::kI32, {1, 1}, kHost})),
            logits_of(cx, m, fresh.append(cx, {ids.data() + 11, DType::kI32, {1, 1}, kHost})));
}

// A rounded cache stays close to the exact one, and gives the same bits after tokens are truncated and appended again.
// tests/ops/decode_attention_test.cc checks that attention is exact for what the cache holds.
TEST_P(Cached, RoundedCachesStayNear) {
  const TinyModel m(GetParam().spec);
  const std::vector<int32_t> ids = test::random_ids(14, m.spec.V, 8);
  Context cx;
  std::vector<float> exact;
  double spread = 0;
  for (const KvType type : {KvType::kF32, KvType::kBF16, KvType::kInt8}) {
    SCOPED_TRACE(enum_name(type));
    CachedDecoder decoder(m.spec, m.params.weights(), 1, DynamicBase::kStep, 0, type);
    EXPECT_EQ(decoder.cache().type(), type);
    decoder.append(cx, {ids.data(), DType::kI32, {1, 6}, kHost});
    const auto rest = [&] {
      return logits_of(cx, m, decoder.append(cx, {ids.data() + 6, DType::kI32, {1, 8}, kHost}));
    };
    const std::vector<float> first = rest();
    decoder.truncate(6);
    EXPECT_EQ(rest(), first);
    if (type == KvType::kF32) {
      exact = first;
      for (const float x : exact) spread = std::max(spread, std::abs(static_cast<double>(x)));
      continue;
    }
    // Steps of 2^-8 (bf16, relative) and 1/127 (int8, of a head's largest number) are at most 1 % each. Over the keys
    // and values of two layers they add up to a few per cent, far below the effect of a wrong number.
    EXPECT_LT(largest_difference(first, exact), 0.1 * spread);
    EXPECT_GT(largest_difference(first, exact), 0.0);
  }
}

TEST(CachedDecoder, MisuseIsNamed) {
  const TinyModel m(test::tiny_neox(AttentionKind::kCocaSlack));
  Context cx;
  CachedDecoder decoder(m.spec, m.params.weights(), 1);
  const auto message = [](const char* text) { return testing::ThrowsMessage<Error>(testing::HasSubstr(text)); };
  EXPECT_THAT([&] { decoder.last_logits(cx); }, message("no token"));
  const std::vector<int32_t> ids = {1, 2, 23};
  EXPECT_THAT([&] { decoder.append(cx, {ids.data(), DType::kI32, {3, 1}, kHost}); }, message("[1, N]"));
  EXPECT_THAT([&] { decoder.append(cx, {ids.data(), DType::kI32, {1, 3}, kHost}); }, message("23"));
  EXPECT_EQ(decoder.length(), 0);  // the failed append changed nothing
  EXPECT_THAT([&] { CachedDecoder(m.spec, m.params.weights(), 1, DynamicBase::kRequest); }, message("planned length"));
}

}  // namespace
}  // namespace coca::infer::cached_decoder_test
