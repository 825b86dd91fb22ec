// SPDX-License-Identifier: Apache-2.0
#include "coca/ops/norm.h"

#include "coca/kernels/ref/norm.h"
#include "ops/op_test.h"

namespace coca::test::norm_test {
namespace {

enum class Bias { kYes, kNo };

struct Case {
  ops::NormKind kind;
  Bias bias;
  int64_t M, C;
  double offset = 0;  // added to x: the variance must stay accurate with a large mean
  std::vector<float> x, w, b, dy, dx0, dw0, db0;

  template <typename T>  // of y and dy
  static Case of(ops::NormKind kind, Bias bias, int64_t M, int64_t C, double offset) {
    Case c(kind, bias, M, C, offset);
    c.dy = as_stored<T>(c.dy);
    return c;
  }
  Case(ops::NormKind kind_, Bias bias_, int64_t M_, int64_t C_, double offset_)
      : kind(kind_), bias(bias_), M(M_), C(C_), offset(offset_) {
    x = random_values(M * C, 1, offset - 2, offset + 2);
    w = random_values(C, 2, 0.5, 1.5);
    b = random_values(C, 3);
    dy = random_values(M * C, 4);
    dx0 = random_values(M * C, 5);
    dw0 = random_values(C, 6);
    db0 = random_values(C, 7);
  }
  std::string text() const {
    return fmt::format("{} M={} C={} offset={}", kind == ops::NormKind::kLayerNorm ? "layer" : "rms", M, C, offset);
  }
};

template <typename T>
struct Expected {
  std::vector<T> y, stat, dx, dw, db;

  explicit Expected(const Case& c)
      : y(c.x.size()), stat(static_cast<size_t>(2 * c.M)), dx(as<T>(c.dx0)), dw(as<T>(c.dw0)), db(as<T>(c.db0)) {
    const auto x = as<T>(c.x), w = as<T>(c.w), b = as<T>(c.b), dy = as<T>(c.dy);
    const ref::NormArgs<T> args{c.kind == ops::NormKind::kLayerNorm ? ref::Norm::kLayer : ref::Norm::kRms,
                                1e-5f,
                                c.M,
                                c.C,
                                x.data(),
                                w.data(),
                                c.bias == Bias::kYes ? b.data() : nullptr};
    ref::norm_forward(args, y.data(), stat.data());
    ref::norm_backward(args, stat.data(), dy.data(), dx.data(), dw.data(), c.bias == Bias::kYes ? db.data() : nullptr);
  }
};

template <typename T>
void run_case(Context& context, const Case& c, const Expected<double>& want, const Expected<float>& naive) {
  Guarded x(context, c.M, c.C, c.x), w(context, 1, c.C, c.w), b(context, 1, c.C, c.b);
  GuardedOf<T> dy(context, c.M, c.C, c.dy), y(context, c.M, c.C);
  Guarded stat(context, c.M, 2), dx(context, c.M, c.C, c.dx0), dw(context, 1, c.C, c.dw0), db(context, 1, c.C, c.db0);
  const bool biased = c.bias == Bias::kYes;
  const MutTensorRef none;
  ops::norm_forward(context, {.kind = c.kind,
                              .x = x.ref(),
                              .w = w.vector(),
                              .b = biased ? b.vector() : none,
                              .y = y.ref(),
                              .stat = stat.ref()});
  ops::norm_backward(context, {.kind = c.kind,
                               .x = x.ref(),
                               .w = w.vector(),
                               .stat = stat.ref(),
                               .dy = dy.ref(),
                               .dx = dx.ref(),
                               .dw = dw.vector(),
                               .db = biased ? db.vector() : none});
  const ErrorRule row{.terms = static_cast<double>(c.C)}, column{.terms = static_cast<double>(c.M + 1)};
  expect_close(y.values(), want.y, naive.y, {.terms = row.terms, .stored = DTypeOf<T>::value}, "y");
  expect_close(stat.values(), want.stat, naive.stat, row, "stat");
  expect_close(dx.values(), want.dx, naive.dx, row, "dx");
  expect_close(dw.values(), want.dw, naive.dw, column, "dw");
  expect_close(db.values(), want.db, naive.db, column, "db");
  y.expect_intact(c.text());
  for (Guarded* out : {&stat, &dx, &dw, &db}) out->expect_intact(c.text());
  if constexpr (std::is_same_v<T, BF16>) return;
  const std::vector<float> apart = y.values();
  ops::norm_forward(context,
                    {.kind = c.kind, .x = x.ref(), .w = w.vector(), .b = biased ? b.vector() : none, .y = x.ref()});
  EXPECT_EQ(x.values(), apart) << "in place, without stat";
}

// x, y, dy and dx of one type, with dx overwriting dy: the norms of heads.
template <typename T>
void run_written(Context& context, const Case& c, const Expected<double>& want, const Expected<float>& naive) {
  GuardedOf<T> x(context, c.M, c.C, c.x), y(context, c.M, c.C),
      dx(context, c.M, c.C, c.dy);  // dx starts with dy: in place
  Guarded w(context, 1, c.C, c.w), stat(context, c.M, 2), dw(context, 1, c.C, c.dw0);
  ops::norm_forward(context, {.kind = c.kind, .x = x.ref(), .w = w.vector(), .y = y.ref(), .stat = stat.ref()});
  ops::norm_backward(context, {.kind = c.kind,
                               .x = x.ref(),
                               .w = w.vector(),
                               .stat = stat.ref(),
                               .dy = dx.ref(),
                               .dx = dx.ref(),
                               .dw = dw.vector(),
                               .dx_write = ops::Write::kAssign});
  const ErrorRule row{.terms = static_cast<double>(c.C), .stored = DTypeOf<T>::value},
      column{.terms = static_cast<double>(c.M + 1)};
  expect_close(y.values(), want.y, naive.y, row, "y");
  expect_close(dx.values(), want.dx, naive.dx, row, "dx");
  expect_close(dw.values(), want.dw, naive.dw, column, "dw");
  for (auto* out : {&y, &dx}) out->expect_intact(c.text());
  dw.expect_intact(c.text());
}

template <typename T>
void run_written_types(int64_t M, int64_t C) {
  Case c = Case::of<T>(ops::NormKind::kRmsNorm, Bias::kNo, M, C, 0);
  c.x = as_stored<T>(c.x);
  c.dx0.assign(c.dx0.size(), 0.0f);
  SCOPED_TRACE(fmt::format("{} all {}", c.text(), dtype_name(DTypeOf<T>::value)));
  const Expected<double> want(c);
  const Expected<float> naive(c);
  for_each_way({"norm"}, [&](Context& context) { run_written<T>(context, c, want, naive); });
}

template <typename T>
void run_types(ops::NormKind kind, Bias bias, int64_t M, int64_t C, double offset) {
  const Case c = Case::of<T>(kind, bias, M, C, offset);
  SCOPED_TRACE(fmt::format("{} y {}", c.text(), dtype_name(DTypeOf<T>::value)));
  const Expected<double> want(c);
  const Expected<float> naive(c);
  for_each_way({"norm"}, [&](Context& context) { run_case<T>(context, c, want, naive); });
}

TEST(Norm, ValuesAndGradientsOnEveryTarget) {
  const std::vector<std::pair<int64_t, int64_t>> shapes = {{3, 2},    {1, 3},     {5, 17},  {2, 64},
                                                           {131, 67}, {200, 129}, {3, 1031}};
  for (auto kind : {ops::NormKind::kLayerNorm, ops::NormKind::kRmsNorm})
    for (auto bias : {Bias::kYes, Bias::kNo})
      for (const auto& [M, C] : shapes)
        for (double offset : {0.0, 30.0}) {
          run_types<float>(kind, bias, M, C, offset);
          run_types<BF16>(kind, bias, M, C, offset);
        }
}

TEST(Norm, WritesDxInTheTypeOfX) {
  for (const auto& [M, C] : {std::pair<int64_t, int64_t>{3, 2}, {5, 17}, {131, 67}, {200, 128}}) {
    run_written_types<float>(M, C);
    run_written_types<BF16>(M, C);
  }
}

TEST(Norm, ReferenceGradientIsTheComplexStep) {
  constexpr int64_t M = 3, C = 5;
  for (auto kind : {ref::Norm::kLayer, ref::Norm::kRms}) {
    const auto x = as<double>(random_values(M * C, 1)), w = as<double>(random_values(C, 2)),
               b = as<double>(random_values(C, 3)), dy = as<double>(random_values(M * C, 4));
    const ref::NormArgs<double> args{kind, 1e-3, M, C, x.data(), w.data(), b.data()};
    std::vector<double> y(M * C), stat(2 * M), dx(M * C), dw(C), db(C);
    ref::norm_forward(args, y.data(), stat.data());
    ref::norm_backward(args, stat.data(), dy.data(), dx.data(), dw.data(), db.data());
    const auto expected = complex_step_gradient(joined({x, w, b}), [&](std::span<const Complex> at) {
      std::vector<Complex> yc(M * C);
      ref::norm_forward<Complex>({kind, 1e-3, M, C, at.data(), at.data() + M * C, at.data() + M * C + C}, yc.data(),
                                 nullptr);
      return weighted_sum(yc, dy);
    });
    expect_gradient(joined({dx, dw, db}), expected, "norm");
  }
}

TEST(Norm, BitsDoNotDependOnThreads) {
  constexpr int64_t M = 515, C = 100;
  const Tensor x = random_tensor({M, C}, 1), w = random_tensor({C}, 2), dy = random_tensor({M, C}, 3);
  expect_same_bits(
      [&] {
        Context context;
        Tensor y({M, C}), stat({M, 2}), dx({M, C}), dw({C}), db({C});
        ops::norm_forward(context, {.x = x, .w = w, .y = y, .stat = stat});
        ops::norm_backward(context, {.x = x, .w = w, .stat = stat, .dy = dy, .dx = dx, .dw = dw, .db = db});
        std::vector<float> all;
        for (const Tensor* t : {&y, &dx, &dw, &db})
          all.insert(all.end(), t->values<float>().begin(), t->values<float>().end());
        return all;
      },
      "norm");
}

TEST(Norm, NaNStaysInItsRow) {
  Context context;
  Tensor x = random_tensor({2, 37}, 1), w = random_tensor({37}, 2), y({2, 37});
  x.values<float>()[5] = std::numeric_limits<float>::quiet_NaN();
  ops::norm_forward(context, {.x = x, .w = w, .y = y});
  for (int64_t c = 0; c < 37; ++c) {
    EXPECT_TRUE(std::isnan(y.values<float>()[static_cast<size_t>(c)]));
    EXPECT_TRUE(std::isfinite(y.values<float>()[static_cast<size_t>(37 + c)]));
  }
}

TEST(Norm, Errors) {
  Context context;
  Tensor x({4, 8}), w({7}), w8({8}), y({4, 8}), stat({4, 2}), stat3({4, 3});
  Tensor half({4, 8}, DType::kBF16), ids({4, 8}, DType::kI32);
  const auto forward = [&](const ops::NormForward& a) { return [&context, a] { ops::norm_forward(context, a); }; };
  expect_error(forward({.x = half, .w = w8, .y = y}), "[norm] x is bf16 and y f32");
  expect_error(forward({.x = x, .w = w8, .y = ids}), "[norm] y has type I32; expected F32 or BF16");
  expect_error(forward({.x = x, .w = w, .y = y}), "[norm] w has shape [7]; expected [8]");
  expect_error(forward({.x = x, .w = w8, .b = w, .y = y}), "[norm] b has shape [7]; expected [8]");
  expect_error(forward({.x = x, .w = w8, .y = y, .stat = stat3}), "[norm] stat has shape [4, 3]; expected [4, 2]");
  expect_error(forward({.x = w8, .w = w8, .y = y}), "[norm] x [8] must have two dimensions");
  expect_error(forward({.x = x, .y = y}), "[norm] w is missing");
  expect_error([&] { ops::norm_backward(context, {.x = x, .w = w8, .stat = stat, .dy = y, .dx = y, .dw = w}); },
               "[norm] dw has shape [7]; expected [8]");
}

}  // namespace
}  // namespace coca::test::norm_test
