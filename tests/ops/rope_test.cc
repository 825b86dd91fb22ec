// RoPE compared with its reference, its inverse, and the relative-position property.
// SPDX-License-Identifier: Apache-2.0
#include "coca/ops/rope.h"

#include "coca/kernels/ref/rope.h"
#include "ops/op_test.h"
#include "support/views.h"

namespace coca::ops::rope_test {
namespace {

using test::as_view;

struct Shape {
  int64_t B, N, H, D, R;
};
const Shape kShapes[] = {{1, 1, 1, 2, 2},   {2, 5, 3, 8, 8},     {1, 7, 2, 48, 16},
                         {2, 3, 2, 80, 80}, {1, 130, 4, 64, 64}, {1, 2, 1, 34, 6}};

template <typename T>
void run_case(const Shape& s, bool back) {
  const test::Angles angles(s.N, s.R / 2, 3);
  const Dims dims{s.B, s.N, s.H, s.D};
  const Tensor x = test::tensor_of<T>(dims, test::random_values(dims.product(), 1));
  const auto xd = test::convert<double>(x);
  const auto xf = test::convert<float>(x);
  std::vector<double> expected(xd.size());
  std::vector<float> naive(xd.size());
  ref::rope<double, double>(angles.cos_d(), angles.sin_d(), as_view<const double, 4>(xd, dims),
                            as_view<double, 4>(expected, dims), back ? -1.0 : 1.0);
  ref::rope<float, float>(angles.cos_f(), angles.sin_f(), as_view<const float, 4>(xf, dims),
                          as_view<float, 4>(naive, dims), back ? -1.0 : 1.0);
  const auto check = [&](Context& context) {
    const test::RowsOn rows(context, angles.rows());
    const Tensor there = to_device(context, x);
    Tensor y(dims, DTypeOf<T>::value, context.memory());
    if (back)
      rope_backward(context, {.rows = rows, .dy = there, .dx = y});
    else
      rope_forward(context, {.rows = rows, .x = there, .y = y});
    test::expect_close(test::float_values(to_host(context, y)), expected, naive,
                       {.terms = 2, .stored = DTypeOf<T>::value}, "rope " + dims.text());
  };
  test::for_each_way({"rope"}, check);
}

TEST(Rope, ValuesAndGradientsMatchTheReferenceOnEveryTarget) {
  for (const Shape& s : kShapes)
    for (const bool back : {false, true}) {
      run_case<float>(s, back);
      run_case<BF16>(s, back);
    }
}

TEST(Rope, StridedViewsInPlaceInBF16EqualTheReferenceRounded) {
  const test::Angles angles(6, 8, 9);
  const Dims dims{2, 6, 3, 2, 24};
  const auto values = test::random_values(dims.product(), 5);
  Tensor plain = test::tensor_of<BF16>(dims, values);
  Context forced;
  forced.force_impl("rope", "ref");
  rope_forward(forced, {.rows = angles.rows(), .x = plain.ref().select(3, 0), .y = plain.ref().select(3, 0)});
  const std::vector<float> wanted = test::float_values(plain);
  test::for_each_way({"rope"}, [&](Context& context) {
    const test::RowsOn rows(context, angles.rows());
    Tensor ours = to_device(context, test::tensor_of<BF16>(dims, values));
    const MutTensorRef q = ours.ref().select(3, 0);
    rope_forward(context, {.rows = rows, .x = q, .y = q});
    // The float results differ by a few roundings of numbers below 2 (2^-22 in total) and may therefore round to
    // neighbouring bf16 numbers, which are at most 2^-7 of a number apart.
    const std::vector<float> got = test::float_values(to_host(context, ours));
    for (size_t i = 0; i < got.size(); ++i) ASSERT_NEAR(got[i], wanted[i], 0x1p-7 * std::abs(wanted[i]) + 0x1p-22) << i;
  });
}

TEST(Rope, BackwardUndoesForwardAlsoInPlaceAndOnStridedViews) {
  const test::Angles angles(6, 8, 9);
  // [B, N, H, q|k, D]: views as in a fused projection
  const Tensor before = test::random_tensor({2, 6, 3, 2, 24}, 5);
  test::for_each_way({"rope"}, [&](Context& context) {
    const test::RowsOn rows(context, angles.rows());
    Tensor fused = to_device(context, before);
    const MutTensorRef q = fused.ref().select(3, 0);
    rope_forward(context, {.rows = rows, .x = q, .y = q});
    rope_backward(context, {.rows = rows, .dy = q, .dx = q});
    const std::vector<float> after = test::float_values(to_host(context, fused));
    for (size_t i = 0; i < after.size(); ++i) ASSERT_NEAR(after[i], before.values<float>()[i], 4e-7) << i;
  });
}

TEST(Rope, BadShapesAreNamed) {
  const test::Angles angles(4, 8, 1);
  Tensor x({1, 4, 2, 8}), y({1, 4, 2, 8}), short_y({1, 3, 2, 8});
  Context context;
  Tensor half({1, 4, 2, 8}, DType::kBF16);
  EXPECT_THAT([&] { rope_forward(context, {.rows = test::Angles(4, 4, 1).rows(), .x = half, .y = y}); },
              testing::ThrowsMessage<Error>(testing::HasSubstr("[rope] y has type F32; expected BF16")));
  EXPECT_THAT([&] { rope_forward(context, {.rows = angles.rows(), .x = x, .y = y}); },
              testing::ThrowsMessage<Error>(testing::HasSubstr("16 rotary dims exceed the head dim 8")));
  const test::Angles fitting(4, 4, 1);
  EXPECT_THAT([&] { rope_forward(context, {.rows = fitting.rows(), .x = x, .y = short_y}); },
              testing::ThrowsMessage<Error>(testing::HasSubstr("y has shape [1, 3, 2, 8]; expected [1, 4, 2, 8]")));
}

}  // namespace
}  // namespace coca::ops::rope_test
