// SPDX-License-Identifier: Apache-2.0
#include "coca/ops/linear.h"

#include "coca/kernels/ref/linear.h"
#include "ops/op_test.h"

namespace coca::test::linear_test {
namespace {

struct Shape {
  int64_t M, N, K;
};
const std::vector<Shape> kShapes = {{1, 1, 1},      {1, 33, 17},  {3, 5, 7},   {7, 1, 64},   {17, 33, 65},
                                    {131, 67, 129}, {5, 70, 333}, {8, 9, 257}, {2, 601, 31}, {577, 3, 19}};

template <typename T>
TensorView<T, 2> matrix(std::vector<T>& v, int64_t rows, int64_t cols) {
  return {v.data(), {rows, cols}, {cols, 1}};
}
template <typename T>
TensorView<const T, 2> matrix(const std::vector<T>& v, int64_t rows, int64_t cols) {
  return {v.data(), {rows, cols}, {cols, 1}};
}
template <typename T>
TensorView<const T, 1> row(const std::vector<T>& v) {
  return {v.data(), {static_cast<int64_t>(v.size())}, {1}};
}

// Inputs of one case. y, dx, dw and db start from given values, so that accumulation can be checked.
struct Case {
  Shape s;
  std::vector<float> x, w, b, dy, y0, dx0, dw0, db0;

  // Operands rounded to T; the initial values of y and dx rounded to O.
  template <typename T, typename O>
  static Case of(Shape shape) {
    Case c(shape);
    for (auto* operand : {&c.x, &c.w, &c.dy}) *operand = as_stored<T>(*operand);
    for (auto* added : {&c.y0, &c.dx0}) *added = as_stored<O>(*added);
    return c;
  }
  explicit Case(Shape shape) : s(shape) {
    const uint64_t seed = static_cast<uint64_t>(s.M * 1000003 + s.N * 1009 + s.K);
    x = random_values(s.M * s.K, seed);
    w = random_values(s.N * s.K, seed + 1);
    b = random_values(s.N, seed + 2);
    dy = random_values(s.M * s.N, seed + 3);
    y0 = random_values(s.M * s.N, seed + 4);
    dx0 = random_values(s.M * s.K, seed + 5);
    dw0 = random_values(s.N * s.K, seed + 6);
    db0 = random_values(s.N, seed + 7);
  }
  std::string text() const { return fmt::format("M={} N={} K={}", s.M, s.N, s.K); }
};

template <typename T>
struct Expected {
  std::vector<T> y, y_added, dx, dx_added, dw, db;

  explicit Expected(const Case& c)
      : y(c.y0.size()),
        y_added(as<T>(c.y0)),
        dx(c.dx0.size()),
        dx_added(as<T>(c.dx0)),
        dw(as<T>(c.dw0)),
        db(as<T>(c.db0)) {
    const auto [M, N, K] = c.s;
    const auto x = as<T>(c.x), w = as<T>(c.w), b = as<T>(c.b), dy = as<T>(c.dy);
    for (auto* out : {&y, &y_added})
      ref::linear_forward<T>(matrix(x, M, K), matrix(w, N, K), row(b), matrix(*out, M, N));
    for (auto* out : {&dx, &dx_added}) ref::linear_backward_x<T>(matrix(w, N, K), matrix(dy, M, N), matrix(*out, M, K));
    ref::linear_backward_w<T>(matrix(x, M, K), matrix(dy, M, N), matrix(dw, N, K));
    ref::linear_backward_b<T>(matrix(dy, M, N), TensorView<T, 1>{db.data(), {N}, {1}});
  }
};

template <typename T, typename O>
void run_case(Context& context, const Case& c, const Expected<double>& want, const Expected<float>& naive,
              int64_t gap) {
  const auto [M, N, K] = c.s;
  const auto terms = [](int64_t n, DType stored = DTypeOf<O>::value) {
    return ErrorRule{.terms = static_cast<double>(n + 1), .stored = stored};
  };
  GuardedOf<T> x(context, M, K, c.x, gap), w(context, N, K, c.w), dy(context, M, N, c.dy, gap);
  GuardedOf<O> y(context, M, N, gap), y_added(context, M, N, c.y0, gap), dx(context, M, K, gap),
      dx_added(context, M, K, c.dx0, gap);
  Guarded b(context, 1, N, c.b), dw(context, N, K, c.dw0), db(context, 1, N, c.db0);
  ops::linear_forward(context, {.x = x.ref(), .w = w.ref(), .b = b.vector(), .y = y.ref()});
  ops::linear_forward(
      context, {.x = x.ref(), .w = w.ref(), .b = b.vector(), .y = y_added.ref(), .y_write = ops::Write::kAccumulate});
  ops::linear_backward(context,
                       {.x = x.ref(), .w = w.ref(), .dy = dy.ref(), .dx = dx.ref(), .dw = dw.ref(), .db = db.vector()});
  ops::linear_backward(
      context, {.x = x.ref(), .w = w.ref(), .dy = dy.ref(), .dx = dx_added.ref(), .dx_write = ops::Write::kAccumulate});
  expect_close(y.values(), want.y, naive.y, terms(K), "y " + c.text());
  expect_close(y_added.values(), want.y_added, naive.y_added, terms(K), "y += " + c.text());
  expect_close(dx.values(), want.dx, naive.dx, terms(N), "dx " + c.text());
  expect_close(dx_added.values(), want.dx_added, naive.dx_added, terms(N), "dx += " + c.text());
  expect_close(dw.values(), want.dw, naive.dw, terms(M, DType::kF32), "dw " + c.text());
  expect_close(db.values(), want.db, naive.db, terms(M, DType::kF32), "db " + c.text());
  for (GuardedOf<O>* out : {&y, &y_added, &dx, &dx_added}) out->expect_intact(c.text());
  for (Guarded* out : {&dw, &db}) out->expect_intact(c.text());
}

// Runs on every target with each implementation that can be forced.
template <typename T, typename O>
void run_types(const Shape& shape) {
  const Case c = Case::of<T, O>(shape);
  SCOPED_TRACE(fmt::format("{} operands, {} results", dtype_name(DTypeOf<T>::value), dtype_name(DTypeOf<O>::value)));
  const Expected<double> want(c);
  const Expected<float> naive(c);
  for_each_way({"linear"}, [&](Context& context) {
    for (int64_t gap : {0, 5}) run_case<T, O>(context, c, want, naive, gap);
  });
  SCOPED_TRACE("widened");
  Context forced;
  forced.force_impl("linear", "widened");
  run_case<T, O>(forced, c, want, naive, 3);
}

TEST(Linear, ValuesAndGradientsOnEveryTarget) {
  for (const Shape& shape : kShapes) {
    run_types<float, float>(shape);
    run_types<float, BF16>(shape);
    run_types<BF16, float>(shape);
    run_types<BF16, BF16>(shape);
  }
}

TEST(Linear, ReferenceGradientIsTheComplexStep) {
  constexpr int64_t M = 3, N = 4, K = 5;
  const auto x = as<double>(random_values(M * K, 1)), w = as<double>(random_values(N * K, 2));
  const auto b = as<double>(random_values(N, 3)), dy = as<double>(random_values(M * N, 4));
  const auto loss = [&](std::span<const Complex> at) {
    const std::vector<Complex> xc(at.begin(), at.begin() + M * K), wc(at.begin() + M * K, at.end() - N),
        bc(at.end() - N, at.end());
    std::vector<Complex> y(M * N);
    ref::linear_forward<Complex>(matrix(xc, M, K), matrix(wc, N, K), row(bc), matrix(y, M, N));
    return weighted_sum(y, dy);
  };
  std::vector<double> dx(M * K), dw(N * K), db(N);
  ref::linear_backward_x<double>(matrix(w, N, K), matrix(dy, M, N), matrix(dx, M, K));
  ref::linear_backward_w<double>(matrix(x, M, K), matrix(dy, M, N), matrix(dw, N, K));
  ref::linear_backward_b<double>(matrix(dy, M, N), TensorView<double, 1>{db.data(), {N}, {1}});
  expect_gradient(joined({dx, dw, db}), complex_step_gradient(joined({x, w, b}), loss), "linear");
}

TEST(Linear, BitsDoNotDependOnThreads) {
  // For a whole product of this shape oneDNN splits the sum between threads; for tiles it must not.
  constexpr int64_t M = 64, N = 128, K = 1100;
  const auto run = [&](const Tensor& x, const Tensor& w, const Tensor& dy, const char* impl) {
    const Tensor b = random_tensor({N}, 3);
    expect_same_bits(
        [&] {
          Context context;
          if (impl) context.force_impl("linear", impl);
          Tensor y({M, N}), dx({M, K}, x.dtype()), dw({N, K}), db({N});
          ops::linear_forward(context, {.x = x, .w = w, .b = b, .y = y});
          ops::linear_backward(context, {.x = x, .w = w, .dy = dy, .dx = dx, .dw = dw, .db = db});
          std::vector<float> all;
          for (const Tensor* t : {&y, &dx, &dw, &db}) {
            const std::vector<float> values = float_values(*t);
            all.insert(all.end(), values.begin(), values.end());
          }
          return all;
        },
        "linear");
  };
  const auto x = random_values(M * K, 1), w = random_values(N * K, 2), dy = random_values(M * N, 4);
  run(tensor_of<float>({M, K}, x), tensor_of<float>({N, K}, w), tensor_of<float>({M, N}, dy), nullptr);
  for (const char* impl : {"onednn", "widened"})
    run(tensor_of<BF16>({M, K}, x), tensor_of<BF16>({N, K}, w), tensor_of<BF16>({M, N}, dy), impl);
}

TEST(Linear, NoRowsIsNoWork) {
  Context context;
  Tensor w = random_tensor({3, 2}, 1), dw = random_tensor({3, 2}, 2), db = random_tensor({3}, 3);
  const auto dw_before = convert<float>(dw), db_before = convert<float>(db);
  const Tensor x({0, 2}), dy({0, 3});
  Tensor y({0, 3});
  ops::linear_forward(context, {.x = x, .w = w, .y = y});
  ops::linear_backward(context, {.x = x, .w = w, .dy = dy, .dw = dw, .db = db});
  EXPECT_EQ(convert<float>(dw), dw_before);
  EXPECT_EQ(convert<float>(db), db_before);
}

TEST(Linear, Errors) {
  Context context;
  Tensor x({4, 8}), w({3, 7}), w8({3, 8}), y({4, 3}), y5({5, 3}), b({4}), ids({4, 8}, DType::kI32);
  const auto forward = [&](const ops::LinearForward& a) { return [&context, a] { ops::linear_forward(context, a); }; };
  expect_error(forward({.x = x, .w = w, .y = y}), "[linear] x [4, 8] and w [3, 7]: K differs (8 and 7)");
  expect_error(forward({.x = x, .w = w8, .y = y5}), "[linear] x [4, 8] and y [5, 3]: M differs (4 and 5)");
  expect_error(forward({.x = x, .w = w8, .y = x}), "[linear] w [3, 8] and y [4, 8]: N differs (3 and 8)");
  expect_error(forward({.x = x, .w = w8, .b = b, .y = y}), "[linear] b has shape [4]; expected [3]");
  expect_error(forward({.x = x, .w = w8}), "[linear] y is missing");
  expect_error(forward({.x = ids, .w = w8, .y = y}), "[linear] x has type I32; expected F32 or BF16");
  Tensor half({4, 8}, DType::kBF16);
  expect_error(forward({.x = half, .w = w8, .y = y}), "[linear] w has type F32; expected BF16");
  expect_error([&] { ops::linear_backward(context, {.x = x, .w = w8, .dy = y, .dw = half}); },
               "[linear] dw has type BF16; expected F32");
  expect_error(forward({.x = b, .w = w8, .y = y}), "[linear] x [4] must have two dimensions");
  const TensorRef turned(x.ref().data, DType::kF32, {4, 8}, {1, 4}, kHost);
  expect_error(forward({.x = turned, .w = w8, .y = y}), "[linear] x [4, 8] has strides [1, 4]");
  expect_error([&] { ops::linear_backward(context, {.x = x, .w = w8, .dy = y, .dx = y}); },
               "[linear] x [4, 8] and dx [4, 3]: K differs (8 and 3)");
  expect_error([&] { ops::linear_backward(context, {.x = x, .w = w8, .dy = y, .dw = w}); },
               "[linear] w [3, 8] and dw [3, 7]: K differs (8 and 7)");
  context.force_impl("linear", "magic");
  expect_error(forward({.x = x, .w = w8, .y = y}), "implementation \"magic\" forced for op \"linear\"");
}

}  // namespace
}  // namespace coca::test::linear_test
