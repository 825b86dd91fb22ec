// SPDX-License-Identifier: Apache-2.0
#include "coca/ops/lora.h"

#include <cmath>

#include "coca/kernels/ref/lora.h"
#include "ops/op_test.h"

namespace coca::test::lora_test {
namespace {

struct Shape {
  int64_t M, K, N, R;
};
const std::vector<Shape> kShapes = {{1, 1, 1, 1}, {3, 5, 7, 2}, {17, 33, 65, 4}, {131, 67, 129, 16}, {70, 24, 8, 40}};

struct Case {
  Shape s;
  double scale, rate;
  std::vector<float> x, a, b, dy, y0, dx0, da0, db0;

  template <typename T>
  static Case of(const Shape& s, double rate) {
    Case c{.s = s, .scale = 0.5, .rate = rate};
    const auto seed = static_cast<uint64_t>(s.M * 1009 + s.N);
    c.x = as_stored<T>(random_values(s.M * s.K, seed));
    c.a = as_stored<T>(random_values(s.R * s.K, seed + 1));
    c.b = as_stored<T>(random_values(s.N * s.R, seed + 2));
    c.dy = as_stored<T>(random_values(s.M * s.N, seed + 3));
    c.y0 = as_stored<T>(random_values(s.M * s.N, seed + 4));
    c.dx0 = random_values(s.M * s.K, seed + 5);
    c.da0 = random_values(s.R * s.K, seed + 6);
    c.db0 = random_values(s.N * s.R, seed + 7);
    return c;
  }
  std::string text() const { return fmt::format("M={} K={} N={} R={} rate={}", s.M, s.K, s.N, s.R, rate); }
};

template <typename T>
struct Expected {
  std::vector<T> x, a, b, dy, y, dx, da, db;

  explicit Expected(const Case& c)
      : x(as<T>(c.x)),
        a(as<T>(c.a)),
        b(as<T>(c.b)),
        dy(as<T>(c.dy)),
        y(as<T>(c.y0)),
        dx(as<T>(c.dx0)),
        da(as<T>(c.da0)),
        db(as<T>(c.db0)) {
    const ref::LoraArgs<T> args{c.s.M, c.s.K, c.s.N, c.s.R, x.data(), a.data(), b.data(), c.scale, c.rate, 77};
    ref::lora_forward(args, y.data());
    ref::lora_backward(args, dy.data(), dx.data(), da.data(), db.data());
  }
};

template <typename T>
struct Results {
  std::vector<float> y, dx, da, db;

  Results(Context& cx, const Case& c) {
    const auto [M, K, N, R] = c.s;
    GuardedOf<T> gx(cx, M, K, c.x), a(cx, R, K, c.a), b(cx, N, R, c.b), dy_given(cx, M, N, c.dy, 3),
        gy(cx, M, N, c.y0, 5);
    Guarded gdx(cx, M, K, c.dx0), gda(cx, R, K, c.da0), gdb(cx, N, R, c.db0);
    const ops::Dropout dropout{.rate = static_cast<float>(c.rate), .key = 77};
    ops::lora_forward(cx,
                      {.x = gx.ref(), .a = a.ref(), .b = b.ref(), .scale = 0.5f, .dropout = dropout, .y = gy.ref()});
    ops::lora_backward(cx, {.x = gx.ref(),
                            .a = a.ref(),
                            .b = b.ref(),
                            .dy = dy_given.ref(),
                            .scale = 0.5f,
                            .dropout = dropout,
                            .dx = gdx.ref(),
                            .da = gda.ref(),
                            .db = gdb.ref()});
    gy.expect_intact(c.text());
    for (Guarded* out : {&gdx, &gda, &gdb}) out->expect_intact(c.text());
    y = gy.values();
    dx = gdx.values();
    da = gda.values();
    db = gdb.values();
  }
};

// Every number is a sum of products of two sums, of K and R terms (y), N and R (dx), N and M (da), K and M (db).
TEST(Lora, ValuesAndGradientsOnEveryTarget) {
  for (const Shape& shape : kShapes)
    for (const double rate : {0.0, 0.25}) {
      const Case c = Case::of<float>(shape, rate);
      const Expected<double> want(c);
      const Expected<float> naive(c);
      const auto rule = [](int64_t first, int64_t second) {
        return ErrorRule{.terms = static_cast<double>((first + 1) * (second + 1))};
      };
      for_each_way({"lora", "linear"}, [&](Context& cx) {
        const Results<float> ours(cx, c);
        expect_close(ours.y, want.y, naive.y, rule(shape.K, shape.R), "y " + c.text());
        expect_close(ours.dx, want.dx, naive.dx, rule(shape.N, shape.R), "dx " + c.text());
        expect_close(ours.da, want.da, naive.da, rule(shape.N, shape.M), "da " + c.text());
        expect_close(ours.db, want.db, naive.db, rule(shape.K, shape.M), "db " + c.text());
      });
    }
}

// Each term has at most four bf16 roundings (of dropout(x), h, dh and the result) of at most 2^-9 of its size; fp32
// sums add little. The sum of the terms' sizes is the reference's result for absolute values.
TEST(Lora, InBf16) {
  for (const Shape& shape : kShapes) {
    const Case c = Case::of<BF16>(shape, 0.25);
    Case sizes = c;
    for (auto* values : {&sizes.x, &sizes.a, &sizes.b, &sizes.dy, &sizes.y0, &sizes.dx0, &sizes.da0, &sizes.db0})
      for (float& v : *values) v = std::abs(v);
    const Expected<double> want(c), size(sizes);
    const auto near = [&](const std::vector<float>& ours, const std::vector<double>& exact,
                          const std::vector<double>& most, const char* name) {
      for (size_t i = 0; i < ours.size(); ++i)
        ASSERT_NEAR(ours[i], exact[i], (0x1p-7 + 0x1p-12) * most[i]) << name << " " << i << " " << c.text();
    };
    for_each_way({"lora", "linear"}, [&](Context& cx) {
      const Results<BF16> ours(cx, c);
      near(ours.y, want.y, size.y, "y");
      near(ours.dx, want.dx, size.dx, "dx");
      near(ours.da, want.da, size.da, "da");
      near(ours.db, want.db, size.db, "db");
    });
  }
}

TEST(Lora, ReferenceGradientIsTheComplexStep) {
  constexpr int64_t M = 3, K = 4, N = 5, R = 2;
  const auto x = as<double>(random_values(M * K, 1)), a = as<double>(random_values(R * K, 2)),
             b = as<double>(random_values(N * R, 3)), dy = as<double>(random_values(M * N, 4));
  const auto loss = [&](std::span<const Complex> at) {
    std::vector<Complex> y(M * N);
    ref::lora_forward<Complex>({M, K, N, R, at.data(), at.data() + M * K, at.data() + M * K + R * K, 0.7, 0.3, 5},
                               y.data());
    Complex sum = 0;
    for (size_t i = 0; i < y.size(); ++i) sum += y[i] * dy[i];
    return sum;
  };
  const std::vector<double> expected = complex_step_gradient(joined({x, a, b}), loss);
  std::vector<double> dx(M * K), da(R * K), db(N * R);
  ref::lora_backward<double>({M, K, N, R, x.data(), a.data(), b.data(), 0.7, 0.3, 5}, dy.data(), dx.data(), da.data(),
                             db.data());
  expect_gradient(joined({dx, da, db}), expected, "lora");
}

TEST(Lora, DropoutKeepsItsShareAndForgetsNothing) {
  for (const double rate : {0.1, 0.5}) {
    constexpr int64_t kCount = 20000;
    int64_t kept = 0, same = 0;
    for (int64_t i = 0; i < kCount; ++i) {
      const bool keeps = ops::dropout_keeps(1, i, ops::dropout_threshold(rate));
      kept += keeps;
      same += keeps == ops::dropout_keeps(2, i, ops::dropout_threshold(rate));
    }
    const auto near = [&](int64_t count, double share) {
      EXPECT_NEAR(count, share * kCount, 4 * std::sqrt(share * (1 - share) * kCount)) << rate;
    };
    near(kept, 1 - rate);
    near(same, rate * rate + (1 - rate) * (1 - rate));  // another key gives another mask
  }
}

TEST(Lora, WrongArgumentsAreNamed) {
  Context cx;
  Tensor x({2, 3}), a({1, 3}), b({4, 1}), y({2, 4}), wrong({4, 2});
  expect_error([&] { ops::lora_forward(cx, {.x = x, .a = a, .b = wrong, .y = y}); },
               "[lora] b has shape [4, 2]; expected [4, 1]");
  expect_error([&] { ops::lora_forward(cx, {.x = x, .a = a, .b = b, .dropout = {.rate = 1.0f}, .y = y}); },
               "dropout is 1");
}

}  // namespace
}  // namespace coca::test::lora_test
