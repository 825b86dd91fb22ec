// Heads with any strides are zeroed, copied and added in place of the heads between them; types mix, and sums are
// rounded once.
// SPDX-License-Identifier: Apache-2.0
#include "coca/ops/heads.h"

#include <gtest/gtest.h>

#include "coca/base/rng.h"
#include "coca/tensor/tensor.h"

namespace coca::test::heads_test {
namespace {

constexpr int64_t B = 2, N = 3, H = 2, D = 5;

Tensor random(const Dims& shape, DType type, uint64_t seed) {
  Tensor t(shape, type);
  Rng rng(seed, 0);
  for (int64_t i = 0; i < shape.product(); ++i) {
    const auto x = static_cast<float>(rng.normal());
    if (type == DType::kF32)
      t.ref().as<float>()[i] = x;
    else
      t.ref().as<BF16>()[i] = BF16(x);
  }
  return t;
}

float at(TensorRef t, int64_t b, int64_t n, int64_t h, int64_t d) {
  return t.dtype == DType::kF32 ? t.view<float, 4>()(b, n, h, d) : static_cast<float>(t.view<BF16, 4>()(b, n, h, d));
}

// expected(b, n, h, d) in the heads of `part`, which are every other one of `whole`; the others as they were.
template <typename Expected>
void expect_heads(const Tensor& whole, const Tensor& before, const Expected& expected) {
  for (int64_t b = 0; b < B; ++b)
    for (int64_t n = 0; n < N; ++n)
      for (int64_t h = 0; h < 2 * H; ++h)
        for (int64_t d = 0; d < D; ++d)
          EXPECT_EQ(at(whole, b, n, h, d), h < H ? expected(b, n, h, d) : at(before, b, n, h, d)) << b << n << h << d;
}

TEST(Heads, ZeroCopyAndAddOnlyTheirHeads) {
  Context cx;
  for (const DType from_type : {DType::kF32, DType::kBF16})
    for (const DType to_type : {DType::kF32, DType::kBF16}) {
      SCOPED_TRACE(std::string(dtype_name(from_type)) + " to " + std::string(dtype_name(to_type)));
      const Tensor from = random({B, N, H, D}, from_type, 1), before = random({B, N, 2 * H, D}, to_type, 2);
      const auto rounded = [&](float x) { return to_type == DType::kF32 ? x : static_cast<float>(BF16(x)); };
      Tensor to = random({B, N, 2 * H, D}, to_type, 2);
      const MutTensorRef part = to.ref().narrow(2, 0, H);
      ops::add_heads(cx, from, part);
      expect_heads(to, before, [&](auto... i) { return rounded(at(before, i...) + at(from, i...)); });
      ops::copy_heads(cx, from, part);
      expect_heads(to, before, [&](auto... i) { return rounded(at(from, i...)); });
      ops::zero_heads(cx, part);
      expect_heads(to, before, [](auto...) { return 0.0f; });
    }
}

TEST(Heads, ShapesAreChecked) {
  Context cx;
  Tensor a({B, N, H, D}), b({B, N, H, D + 1});
  EXPECT_THROW(ops::add_heads(cx, a, b), Error);
  EXPECT_THROW(ops::copy_heads(cx, a, b), Error);
  EXPECT_THROW(ops::zero_heads(cx, MutTensorRef()), Error);
}

}  // namespace
}  // namespace coca::test::heads_test
