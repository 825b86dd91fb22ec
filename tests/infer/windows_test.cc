// Models with windows, dilated windows and global tokens, run in pieces through the cache, equal the whole sequence.
// SPDX-License-Identifier: Apache-2.0
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "coca/infer/cached_decoder.h"
#include "coca/infer/generate.h"
#include "coca/ops/linear.h"
#include "support/longformer_specs.h"
#include "support/numerics.h"
#include "support/reference_decoder.h"

namespace coca::infer::windows_test {
namespace {

constexpr int64_t kB = 2, kN = 17;

class Windowed : public testing::TestWithParam<test::NamedSpec> {
 protected:
  test::TinyModel m{GetParam().spec};
  Context cx;
  std::vector<int32_t> ids = test::random_ids(kB * kN, m.spec.V, 5);

  // Appends tokens in pieces from `from` on and writes their logits to all [B, N, V].
  void append(CachedDecoder& decoder, int64_t from, const std::vector<int64_t>& pieces, std::vector<float>& all) {
    for (const int64_t n : pieces) {
      std::vector<int32_t> part;
      for (int64_t b = 0; b < kB; ++b)
        part.insert(part.end(), ids.begin() + b * kN + from, ids.begin() + b * kN + from + n);
      const TensorRef hidden = decoder.append(cx, {part.data(), DType::kI32, {kB, n}, kHost});
      Tensor logits({kB * n, m.spec.V});
      ops::linear_forward(cx, {.x = hidden.reshape({kB * n, m.spec.C}), .w = m.params.weights().head, .y = logits});
      for (int64_t b = 0; b < kB; ++b)
        std::copy_n(logits.values<float>().begin() + b * n * m.spec.V, n * m.spec.V,
                    all.begin() + (b * kN + from) * m.spec.V);
      from += n;
    }
  }
};
INSTANTIATE_TEST_SUITE_P(Specs, Windowed, testing::ValuesIn(test::longformer_specs()), test::spec_test_name);

TEST_P(Windowed, ThroughTheCacheInAnyPieces) {
  test::ReferenceDecoder<double> exact(m.spec, m.params);
  test::ReferenceDecoder<float> naive(m.spec, m.params);
  const std::vector<double> right = test::run_rows(exact, ids, kB);
  const std::vector<float> rough = test::farthest_naive(right, [&](int64_t first_term) {
    naive.set_first_term(first_term);
    return test::run_rows(naive, ids, kB);
  });
  for (const std::vector<int64_t>& pieces : {std::vector<int64_t>(kN, 1), {kN}, {2, 1, 9, 1, 4}}) {
    CachedDecoder decoder(m.spec, m.params.weights(), kB, DynamicBase::kRequest, kN);
    std::vector<float> all(right.size());
    append(decoder, 0, pieces, all);
    test::expect_close(all, right, rough, {.terms = 800}, "cached");  // as in cached_decoder_test.cc
    decoder.truncate(1);                                              // back to the global tokens, then on again
    append(decoder, 1, {kN - 1}, all);
    test::expect_close(all, right, rough, {.terms = 800}, "cached again");
  }
}

TEST_P(Windowed, GeneratesAndRoundedCachesStayClose) {
  BatchDecoder decoder(m.spec, m.params.weights());
  const auto generated = generate(
      cx, decoder, {.prompt = {ids.begin(), ids.begin() + 4}, .max_new_tokens = 12, .sampling = {.temperature = 0}});
  EXPECT_EQ(generated.ids.size(), 12u);
  for (const KvType type : {KvType::kBF16, KvType::kInt8}) {
    CachedDecoder exact(m.spec, m.params.weights(), kB),
        rounded(m.spec, m.params.weights(), kB, DynamicBase::kStep, 0, type);
    std::vector<float> a(static_cast<size_t>(kB * kN * m.spec.V)), b(a.size());
    append(exact, 0, {7, 10}, a);
    append(rounded, 0, {7, 10}, b);
    double difference = 0, size = 0;
    for (size_t i = 0; i < a.size(); ++i) {
      difference += std::pow(a[i] - b[i], 2);
      size += static_cast<double>(a[i]) * a[i];
    }
    EXPECT_LT(std::sqrt(difference / size), 0.1)
        << enum_name(type);  // a wrong key or value would differ by as much as the logits
  }
}

}  // namespace
}  // namespace coca::infer::windows_test
