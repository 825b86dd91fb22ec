// Gradients of angles compared with complex steps through the rotations, for uneven and strided shapes and both types.
// SPDX-License-Identifier: Apache-2.0
#include "coca/ops/rope_angle.h"

#include "coca/kernels/ref/collinear.h"
#include "coca/kernels/ref/rope_angle.h"
#include "ops/op_test.h"

namespace coca::ops::rope_angle_test {
namespace {

using test::Complex;

struct Shape {
  int64_t B, N, H, E, R, rows;  // rows: B or 1
  int64_t content = 0;
};
const Shape kShapes[] = {
    {1, 1, 1, 2, 2, 1}, {2, 5, 3, 8, 8, 2}, {2, 3, 2, 10, 6, 1}, {1, 140, 4, 32, 16, 1}, {2, 3, 2, 11, 6, 2, 3}};

struct Case {
  Shape s;
  AngleOf kind;
  CollinearOptions form;
  int64_t width;               // of v
  std::vector<double> angles;  // [rows, N, R/2]
  Tensor cos, sin;

  Case(const Shape& shape, AngleOf of, Collinear form_kind)
      : s(shape),
        kind(of),
        form{.kind = form_kind, .content = s.content},
        width(of == AngleOf::kQuery ? query_width(form, s.E) : s.E),
        cos({s.rows, s.N, s.R / 2}),
        sin(cos.shape()) {
    for (const float a : test::random_values(cos.numel(), 3, -4, 4)) angles.push_back(static_cast<double>(a));
    for (size_t i = 0; i < angles.size(); ++i) {
      cos.values<float>()[i] = static_cast<float>(std::cos(angles[i]));
      sin.values<float>()[i] = static_cast<float>(std::sin(angles[i]));
    }
  }
  size_t row(int64_t b, int64_t n) const { return static_cast<size_t>(((s.rows == 1 ? 0 : b) * s.N + n) * (s.R / 2)); }
};

// The head v after rotation, as attention uses it: rotary for kRotated, otherwise q_eff.
std::vector<Complex> seen(const Case& c, const std::vector<Complex>& v, const std::vector<Complex>& angles) {
  std::vector<Complex> out(static_cast<size_t>(c.s.E));
  const auto cos = [&](int64_t j) { return std::cos(angles[static_cast<size_t>(j)]); };
  const auto sin = [&](int64_t j) { return std::sin(angles[static_cast<size_t>(j)]); };
  if (c.kind != AngleOf::kRotated) {
    with_form(c.form.kind, [&](auto form) {
      ref::collinear_query_head(form, {c.s.R, c.s.E, c.s.content}, v.data(), cos, sin, out.data());
    });
    return out;
  }
  out = v;
  const auto half = static_cast<size_t>(c.s.R / 2);
  for (size_t j = 0; j < half; ++j) {
    out[j] = v[j] * cos(static_cast<int64_t>(j)) - v[j + half] * sin(static_cast<int64_t>(j));
    out[j + half] = v[j + half] * cos(static_cast<int64_t>(j)) + v[j] * sin(static_cast<int64_t>(j));
  }
  return out;
}

// d sum(dy y) / d angle by complex steps: [B, N, R/2].
std::vector<double> exact(const Case& c, const std::vector<float>& v, const std::vector<float>& dy) {
  constexpr double kStep = 1e-50;
  std::vector<double> out;
  for (int64_t b = 0; b < c.s.B; ++b)
    for (int64_t n = 0; n < c.s.N; ++n)
      for (int64_t j = 0; j < c.s.R / 2; ++j) {
        std::vector<Complex> angles(c.angles.begin() + static_cast<std::ptrdiff_t>(c.row(b, n)),
                                    c.angles.begin() + static_cast<std::ptrdiff_t>(c.row(b, n)) + c.s.R / 2);
        angles[static_cast<size_t>(j)] += Complex(0, kStep);
        double sum = 0;
        for (int64_t h = 0; h < c.s.H; ++h) {
          const int64_t head = (b * c.s.N + n) * c.s.H + h;
          const auto at = v.begin() + head * c.width;
          const std::vector<Complex> y = seen(c, {at, at + c.width}, angles);
          for (int64_t d = 0; d < c.s.E; ++d)
            sum += y[static_cast<size_t>(d)].imag() / kStep *
                   static_cast<double>(dy[static_cast<size_t>(head * c.s.E + d)]);
        }
        out.push_back(sum);
      }
  return out;
}

// The op's input for heads v: v itself, or for kRotated the rotated v.
std::vector<float> op_input(const Case& c, const std::vector<float>& v) {
  if (c.kind != AngleOf::kRotated) return v;
  std::vector<float> y;
  for (int64_t i = 0; i < c.s.B * c.s.N * c.s.H; ++i) {
    const auto angles = c.angles.begin() + static_cast<std::ptrdiff_t>(c.row(i / c.s.H / c.s.N, i / c.s.H % c.s.N));
    for (const Complex& z : seen(c, {v.begin() + i * c.s.E, v.begin() + (i + 1) * c.s.E}, {angles, angles + c.s.R / 2}))
      y.push_back(static_cast<float>(z.real()));
  }
  return y;
}

template <typename T>
void run_case(const Case& c) {
  const Dims v_dims{c.s.B, c.s.N, c.s.H, c.width}, dims{c.s.B, c.s.N, c.s.H, c.s.E};
  const std::vector<float> v = test::as_stored<T>(test::random_values(v_dims.product(), 1)),
                           dy = test::as_stored<T>(test::random_values(dims.product(), 2));
  const Tensor x = test::tensor_of<T>(v_dims, op_input(c, v)), d = test::tensor_of<T>(dims, dy);
  const auto gradient = [&](Context& cx) {
    const test::RowsOn rows(cx, {c.cos, c.sin});
    const Tensor x_there = to_device(cx, x), d_there = to_device(cx, d);
    Tensor start({c.s.B, c.s.N, c.s.R / 2});
    std::ranges::fill(start.values<float>(), 0.5f);  // the op accumulates
    Tensor dangle = to_device(cx, start);
    rope_angle_backward(
        cx, {.kind = c.kind, .collinear = c.form, .rows = rows, .x = x_there, .dy = d_there, .dangle = dangle});
    return test::float_values(to_host(cx, dangle));
  };
  test::expect_same_bits(
      [&] {
        Context cx;
        return gradient(cx);
      },
      "rope_angle");
  const std::vector<double> wanted = exact(c, v, dy);
  // Six roundings per term and one for each of 2 H terms of size below 4, as a random walk. Rotated heads are inputs
  // rounded to T.
  const double ulp = c.kind == AngleOf::kRotated && DTypeOf<T>::value == DType::kBF16 ? 0x1p-8 : 0x1p-24;
  const double bound = 4 * ulp * 8 * std::sqrt(2.0 * static_cast<double>(c.s.H)) + 0x1p-22;
  test::for_each_way({"rope_angle"}, [&](Context& cx) {
    const std::vector<float> dangle = gradient(cx);
    for (size_t i = 0; i < wanted.size(); ++i) EXPECT_NEAR(dangle[i], wanted[i] + 0.5, bound) << i;
  });
}

#define COCA_KIND(X) Collinear::k##X,
TEST(RopeAngle, GradientsAreThoseOfComplexSteps) {
  for (const Shape& s : kShapes)
    for (const Collinear form : {COCA_FORMS(COCA_KIND)})
      for (const AngleOf kind : {AngleOf::kRotated, AngleOf::kQuery}) {
        if (kind == AngleOf::kRotated && form != Collinear::kSlack) continue;  // no matter of the form
        SCOPED_TRACE(fmt::format("{} {} N {} E {} R {}", kind == AngleOf::kQuery ? "query" : "rotated",
                                 form_info(form).name, s.N, s.E, s.R));
        run_case<float>(Case(s, kind, form));
        run_case<BF16>(Case(s, kind, form));
      }
}

#undef COCA_KIND

// q of a fused projection has different strides from a tensor of its own.
TEST(RopeAngle, StridedHeadsAreTheSame) {
  const Case c({2, 5, 3, 8, 8, 2}, AngleOf::kQuery, Collinear::kSlack);
  const Tensor fused = test::random_tensor({2, 5, 3, 3, 8}, 1), dy = test::random_tensor({2, 5, 3, 8}, 2);
  Tensor packed({2, 5, 3, 8});
  for (int64_t i = 0; i < 30; ++i)
    std::copy_n(fused.values<float>().data() + (3 * i + 1) * 8, 8, packed.values<float>().data() + 8 * i);
  test::for_each_way({"rope_angle"}, [&](Context& cx) {
    const test::RowsOn rows(cx, {c.cos, c.sin});
    const Tensor fused_there = to_device(cx, fused), packed_there = to_device(cx, packed), d = to_device(cx, dy);
    const auto gradient = [&](TensorRef x) {
      Tensor dangle({2, 5, 4}, DType::kF32, cx.memory());
      rope_angle_backward(cx, {.kind = c.kind, .collinear = c.form, .rows = rows, .x = x, .dy = d, .dangle = dangle});
      return test::float_values(to_host(cx, dangle));
    };
    const std::vector<float> of_view = gradient(fused_there.ref().select(3, 1));
    EXPECT_EQ(of_view, gradient(packed_there));
    EXPECT_NE(of_view, std::vector<float>(40));
  });
}

TEST(RopeAngle, MistakesAreNamed) {
  const Case c({2, 5, 3, 8, 8, 2}, AngleOf::kQuery, Collinear::kSlack);
  const Tensor x = test::random_tensor({2, 5, 3, 8}, 1), thin = test::random_tensor({2, 5, 3, 6}, 1);
  Tensor dangle({2, 5, 4}), wide({2, 5, 8});
  Context cx;
  test::expect_error(
      [&] {
        rope_angle_backward(
            cx, {.kind = c.kind, .collinear = c.form, .rows = {c.cos, c.sin}, .x = x, .dy = thin, .dangle = dangle});
      },
      "dy has shape");
  test::expect_error(
      [&] {
        rope_angle_backward(
            cx, {.kind = c.kind, .collinear = c.form, .rows = {c.cos, c.sin}, .x = x, .dy = x, .dangle = wide});
      },
      "dangle has shape");
}

}  // namespace
}  // namespace coca::ops::rope_angle_test
