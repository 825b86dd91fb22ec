// The collinear prologue: values, gradients, the cache's pieces, and the paper's identities.
// SPDX-License-Identifier: Apache-2.0
#include "coca/ops/collinear.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "coca/kernels/ref/collinear.h"
#include "support/numerics.h"
#include "support/targets.h"
#include "support/views.h"

namespace coca::ops::collinear_test {
namespace {

using test::as_view;
using test::Complex;

struct Shape {
  int64_t B, N, H, G, D, R;
};
const Shape kShapes[] = {{1, 1, 1, 1, 2, 2},   {2, 5, 4, 2, 8, 8},    {1, 7, 3, 1, 48, 16},
                         {1, 3, 2, 2, 80, 80}, {2, 65, 2, 1, 64, 64}, {1, 4, 2, 2, 34, 6}};
const Collinear kKinds[] = {Collinear::kSlack, Collinear::kStrict, Collinear::kTied};

// The reference over whole tensors, in any scalar.
template <typename T>
struct Reference {
  Shape s;
  int64_t width;  // of t: D, or D/2 folded
  int kind;
  bool official;
  const test::Angles& angles;

  template <typename Body>
  void each(int64_t heads, const Body& body) const {
    for (int64_t b = 0; b < s.B; ++b)
      for (int64_t n = 0; n < s.N; ++n)
        for (int64_t h = 0; h < heads; ++h)
          body((b * s.N + n) * heads + h, [this, n](int64_t j) { return angles.cos_d()(0, n, j); },
               [this, n](int64_t j) { return angles.sin_d()(0, n, j); });
  }
  void forward(const T* q, const T* t, T* q_eff, T* k_eff) const {
    each(s.H, [&](int64_t head, auto cos, auto sin) {
      const int64_t at = head * s.D;
      if (official)
        ref::collinear_official_head<T>(q + at, nullptr, s.R, s.D, cos, sin, q_eff + at, nullptr);
      else
        ref::collinear_query_head(kind, q + at, s.R, s.D, cos, sin, q_eff + at);
    });
    std::vector<T> tbar(static_cast<size_t>(s.D / 2));
    each(s.G, [&](int64_t head, auto cos, auto sin) {
      if (official) {
        ref::collinear_official_head<T>(nullptr, t + head * s.D, s.R, s.D, cos, sin, nullptr, k_eff + head * s.D);
        return;
      }
      ref::collinear_fold_head(t + head * width, width, s.R, s.D, tbar.data());
      ref::collinear_key_head(kind, tbar.data(), s.R, s.D, cos, sin, k_eff + head * s.D);
    });
  }
  void backward(const T* q, const T* t, const T* dq_eff, const T* dk_eff, T* dq, T* dt) const {
    each(s.H, [&](int64_t head, auto cos, auto sin) {
      const int64_t at = head * s.D;
      ref::collinear_query_head_backward<T>(kind, q + at, dq_eff + at, s.R, s.D, cos, sin, dq + at);
    });
    std::vector<T> dtbar(static_cast<size_t>(s.D / 2));
    each(s.G, [&](int64_t head, auto cos, auto sin) {
      ref::collinear_key_head_backward<T>(kind, t + head * width, dk_eff + head * s.D, width, s.R, s.D, cos, sin,
                                          dtbar.data(), dt + head * width);
    });
  }
};

void expect_complex_step_gradients(const Shape& s, Collinear kind, int64_t width) {
  const test::Angles angles(s.N, s.R / 2, 4);
  const Reference<double> real{s, width, static_cast<int>(kind), false, angles};
  const Reference<Complex> complex{s, width, static_cast<int>(kind), false, angles};
  const int64_t tokens = s.B * s.N;
  const auto nq = static_cast<size_t>(tokens * s.H * s.D), nt = static_cast<size_t>(tokens * s.G * width),
             nk = static_cast<size_t>(tokens * s.G * s.D);
  const auto x_values = test::random_values(static_cast<int64_t>(nq + nt), 8);
  const auto weights = test::random_values(static_cast<int64_t>(nq + nk), 9);
  const std::vector<double> x(x_values.begin(), x_values.end()), weight(weights.begin(), weights.end());
  const auto loss = [&](std::span<const Complex> at) {
    std::vector<Complex> out(nq + nk);
    complex.forward(at.data(), at.data() + nq, out.data(), out.data() + nq);
    Complex sum(0);
    for (size_t i = 0; i < out.size(); ++i) sum += weight[i] * out[i];
    return sum;
  };
  std::vector<double> actual(nq + nt);
  real.backward(x.data(), x.data() + nq, weight.data(), weight.data() + nq, actual.data(), actual.data() + nq);
  test::expect_gradient(actual, test::complex_step_gradient(x, loss), "collinear");
}

TEST(Collinear, ReferenceGradientsMatchComplexStep) {
  for (const Shape& s : {Shape{1, 2, 2, 1, 8, 8}, Shape{1, 2, 2, 2, 12, 4}})
    for (const Collinear kind : kKinds)
      for (const int64_t width : {s.D, s.D / 2}) expect_complex_step_gradients(s, kind, width);
}

TEST(Collinear, OfficialFoldGradientMatchesComplexStep) {
  constexpr int64_t R = 4, D = 12;
  const test::Angles angles(1, R / 2, 4);
  const auto cos = [&](int64_t j) { return angles.cos_d()(0, 0, j); };
  const auto sin = [&](int64_t j) { return angles.sin_d()(0, 0, j); };
  const auto values = test::random_values(4 * D, 8);
  const std::vector<double> x(values.begin(), values.begin() + 2 * D), weight(values.begin() + 2 * D, values.end());
  const auto loss = [&](std::span<const Complex> at) {
    std::vector<Complex> out(2 * D);
    ref::collinear_official_head<Complex>(at.data(), at.data() + D, R, D, cos, sin, out.data(), out.data() + D);
    Complex sum(0);
    for (size_t i = 0; i < out.size(); ++i) sum += weight[i] * out[i];
    return sum;
  };
  std::vector<double> actual(2 * D), scratch(D);
  ref::collinear_official_head_backward<double>(x.data(), x.data() + D, weight.data(), weight.data() + D, R, D, cos,
                                                sin, actual.data(), actual.data() + D, scratch.data());
  test::expect_gradient(actual, test::complex_step_gradient(x, loss), "official fold");
}

template <typename T>
struct Outputs {
  std::vector<T> q_eff, k_eff, dq, dt;
};

template <typename T>
Outputs<T> expected_outputs(const Shape& s, Collinear kind, const test::Angles& angles, const Tensor& q,
                            const Tensor& t, const Tensor& gq, const Tensor& gk) {
  const auto qx = test::convert<T>(q), tx = test::convert<T>(t), gqx = test::convert<T>(gq), gkx = test::convert<T>(gk);
  Outputs<T> out{std::vector<T>(qx.size()), std::vector<T>(gkx.size()), std::vector<T>(qx.size()),
                 std::vector<T>(tx.size())};
  const Reference<T> reference{s, t.size(3), static_cast<int>(kind), false, angles};
  reference.forward(qx.data(), tx.data(), out.q_eff.data(), out.k_eff.data());
  reference.backward(qx.data(), tx.data(), gqx.data(), gkx.data(), out.dq.data(), out.dt.data());
  return out;
}

// T is the type of q, t and what is made of them.
template <typename T>
void run_case(const Shape& s, Collinear kind, int64_t width) {
  constexpr DType kType = DTypeOf<T>::value;
  const test::Angles angles(s.N, s.R / 2, 2);
  const Dims qd{s.B, s.N, s.H, s.D}, kd{s.B, s.N, s.G, s.D}, td{s.B, s.N, s.G, width};
  const Tensor q = test::tensor_of<T>(qd, test::random_values(qd.product(), 1)),
               t = test::tensor_of<T>(td, test::random_values(td.product(), 2)),
               gq = test::tensor_of<T>(qd, test::random_values(qd.product(), 3)),
               gk = test::tensor_of<T>(kd, test::random_values(kd.product(), 4));
  const auto expected = expected_outputs<double>(s, kind, angles, q, t, gq, gk);
  const auto naive = expected_outputs<float>(s, kind, angles, q, t, gq, gk);
  const auto check = [&](Context& context) {
    Tensor q_eff(qd, kType), k_eff(kd, kType), dq(qd, kType), dt(td, kType);
    collinear_forward(context, {.kind = kind}, {.rows = angles.rows(), .q = q, .t = t, .q_eff = q_eff, .k_eff = k_eff});
    collinear_backward(context, {.kind = kind},
                       {.rows = angles.rows(), .q = q, .t = t, .dq_eff = gq, .dk_eff = gk, .dq = dq, .dt = dt});
    const test::ErrorRule rule{.terms = 4, .stored = kType},
        folded{.terms = 4, .zero_share = 0.9, .stored = kType};  // ReLU closes about half
    test::expect_close(test::float_values(q_eff), expected.q_eff, naive.q_eff, rule, "q_eff " + qd.text());
    test::expect_close(test::float_values(k_eff), expected.k_eff, naive.k_eff, folded, "k_eff " + kd.text());
    test::expect_close(test::float_values(dq), expected.dq, naive.dq, rule, "dq " + qd.text());
    test::expect_close(test::float_values(dt), expected.dt, naive.dt, folded, "dt " + td.text());

    // In two steps by way of dtbar, which adds up: twice a half of dk_eff.
    Tensor dtbar({s.B, s.N, s.G, s.D / 2}), dt_later(td, kType),
        gk_half = test::tensor_of<float>(kd, test::float_values(gk));
    for (float& g : gk_half.values<float>()) g *= 0.5f;
    std::ranges::fill(dtbar.values<float>(), 0.0f);
    for (int i = 0; i < 2; ++i)
      collinear_key_backward(context, {.kind = kind}, {.rows = angles.rows(), .dk_eff = gk_half, .dtbar = dtbar});
    collinear_fold_backward(context, {.kind = kind}, {.R = s.R, .t = t, .dtbar = dtbar, .dt = dt_later});
    test::expect_close(test::float_values(dt_later), expected.dt, naive.dt, folded, "dt by way of dtbar " + td.text());

    // The cache's way: fold, keep half the width, rotate later. With an fp32 tbar the bits are those of the direct way.
    Tensor tbar({s.B, s.N, s.G, s.D / 2}), k_later(kd, kType);
    collinear_fold(context, {.kind = kind}, {.R = s.R, .t = t, .tbar = tbar});
    collinear_key(context, {.kind = kind}, {.rows = angles.rows(), .tbar = tbar, .k_eff = k_later});
    ASSERT_EQ(test::float_values(k_later), test::float_values(k_eff));
    // A bf16 tbar is the fp32 one rounded, and keys of it are those of its fp32 copy.
    Tensor tbar16(tbar.shape(), DType::kBF16), k16(kd, kType);
    collinear_fold(context, {.kind = kind}, {.R = s.R, .t = t, .tbar = tbar16});
    ASSERT_EQ(test::float_values(tbar16), test::as_stored<BF16>(test::float_values(tbar)));
    collinear_key(context, {.kind = kind}, {.rows = angles.rows(), .tbar = tbar16, .k_eff = k16});
    const Tensor promoted = test::tensor_of<float>(tbar.shape(), test::float_values(tbar16));
    collinear_key(context, {.kind = kind}, {.rows = angles.rows(), .tbar = promoted, .k_eff = k_later});
    ASSERT_EQ(test::float_values(k16), test::float_values(k_later));
  };
  test::for_each_way({"collinear"}, check);
}

TEST(Collinear, ValuesAndGradientsMatchTheReferenceOnEveryTarget) {
  for (const Shape& s : kShapes)
    for (const Collinear kind : kKinds)
      for (const int64_t width : {s.D, s.D / 2}) {
        run_case<float>(s, kind, width);
        run_case<BF16>(s, kind, width);
      }
}

// The official fold runs its reference, in fp32 between a load and one rounding.
TEST(Collinear, OfficialQuirkInBF16IsTheFloatOneRounded) {
  const Dims dims{1, 3, 2, 12};
  const test::Angles angles(3, 2, 3);
  const CollinearOptions options{.fold = Fold::kOfficial};
  const auto run = [&](DType type) {
    const auto input = [&](uint64_t seed) {
      const auto values = test::as_stored<BF16>(test::random_values(dims.product(), seed));
      return type == DType::kBF16 ? test::tensor_of<BF16>(dims, values) : test::tensor_of<float>(dims, values);
    };
    const Tensor q = input(1), t = input(2), gq = input(3), gk = input(4);
    Tensor q_eff(dims, type), k_eff(dims, type), dq(dims, type), dt(dims, type);
    Context context;
    collinear_forward(context, options, {.rows = angles.rows(), .q = q, .t = t, .q_eff = q_eff, .k_eff = k_eff});
    collinear_backward(context, options,
                       {.rows = angles.rows(), .q = q, .t = t, .dq_eff = gq, .dk_eff = gk, .dq = dq, .dt = dt});
    std::vector<float> all;
    for (const Tensor* out : {&q_eff, &k_eff, &dq, &dt}) {
      const auto values = test::as_stored<BF16>(test::float_values(*out));
      all.insert(all.end(), values.begin(), values.end());
    }
    return all;
  };
  EXPECT_EQ(run(DType::kBF16), run(DType::kF32));
}

// Score of query position m and key position n, as attention forms it.
double score(Collinear kind, const std::vector<double>& q, const std::vector<double>& t, double m, double n,
             const std::vector<double>& theta) {
  const auto D = static_cast<int64_t>(q.size());
  std::vector<double> tbar(q.size() / 2), q_eff(q.size()), k_eff(q.size());
  ref::collinear_fold_head(t.data(), D, D, D, tbar.data());
  const auto c = [&](double at) { return [&, at](int64_t j) { return std::cos(at * theta[static_cast<size_t>(j)]); }; };
  const auto s = [&](double at) { return [&, at](int64_t j) { return std::sin(at * theta[static_cast<size_t>(j)]); }; };
  ref::collinear_query_head(static_cast<int>(kind), q.data(), D, D, c(m), s(m), q_eff.data());
  ref::collinear_key_head(static_cast<int>(kind), tbar.data(), D, D, c(n), s(n), k_eff.data());
  double sum = 0;
  for (size_t i = 0; i < q.size(); ++i) sum += q_eff[i] * k_eff[i];
  return sum;
}

TEST(Collinear, PaperIdentities) {
  const std::vector<double> theta{1.0, 0.1, 0.01};
  const auto values = test::random_values(12, 77);
  std::vector<double> q(values.begin(), values.begin() + 6), t{0.4, 0.9, -0.2, 0.1, -0.3, 0.8};
  const double m = 11, n = 4;
  double strict = 0, difference = 0;
  for (size_t j = 0; j < 3; ++j) {
    const double tb = std::max(0.0, (t[j] + t[j + 3]) / 2), a = q[j], b = q[j + 3];
    strict += tb * (a * a + b * b) * std::cos((m - n) * theta[j]);  // paper equation 17
    difference += tb * ((a * a - b * b) * std::cos(m * theta[j]) * std::sin(n * theta[j]) +
                        (a - b) * (a - b) * std::sin(m * theta[j]) * std::sin(n * theta[j]));
  }
  EXPECT_NEAR(score(Collinear::kStrict, q, t, m, n, theta), strict, 1e-14);
  // strict - slack in closed form; zero at n = 0
  EXPECT_NEAR(score(Collinear::kSlack, q, t, m, n, theta), strict - difference, 1e-14);
  EXPECT_NEAR(score(Collinear::kSlack, q, t, m, 0, theta), score(Collinear::kStrict, q, t, m, 0, theta), 1e-14);
  // Only strict is invariant under a shift of both positions.
  EXPECT_NEAR(score(Collinear::kStrict, q, t, m + 50, n + 50, theta), strict, 1e-13);
  EXPECT_GT(std::abs(score(Collinear::kSlack, q, t, m + 50, n + 50, theta) - (strict - difference)), 1e-3);
  // Theorem 1: with q's halves tied, slack equals strict.
  std::vector<double> tied(6);
  for (size_t j = 0; j < 3; ++j) tied[j] = tied[j + 3] = (q[j] + q[j + 3]) / 2;
  EXPECT_NEAR(score(Collinear::kTied, q, t, m, n, theta), score(Collinear::kStrict, tied, t, m, n, theta), 1e-14);
}

TEST(Collinear, OfficialFoldEqualsOursWithFullRotaryAndDiffersWithPartial) {
  const Dims dims{1, 5, 2, 16};
  Tensor q = test::random_tensor(dims, 1), t = test::random_tensor(dims, 2), q1(dims), k1(dims), q2(dims), k2(dims);
  Context context;
  const auto both = [&](const test::Angles& angles) {
    collinear_forward(context, {.fold = Fold::kRotary},
                      {.rows = angles.rows(), .q = q, .t = t, .q_eff = q1, .k_eff = k1});
    collinear_forward(context, {.fold = Fold::kOfficial},
                      {.rows = angles.rows(), .q = q, .t = t, .q_eff = q2, .k_eff = k2});
    double difference = 0;
    for (size_t i = 0; i < 160; ++i)
      difference += std::abs(k1.values<float>()[i] - k2.values<float>()[i]) +
                    std::abs(q1.values<float>()[i] - q2.values<float>()[i]);
    return difference;
  };
  EXPECT_EQ(both(test::Angles(5, 8, 3)), 0.0);
  EXPECT_GT(both(test::Angles(5, 2, 3)), 1.0);
  EXPECT_THAT(
      [&] {
        const test::Angles angles(5, 2, 3);
        collinear_forward(context, {.kind = Collinear::kStrict, .fold = Fold::kOfficial},
                          {.rows = angles.rows(), .q = q, .t = t, .q_eff = q1, .k_eff = k1});
      },
      testing::ThrowsMessage<Error>(testing::HasSubstr("slack only")));
}

TEST(Collinear, OfficialQuirkThroughTheCacheAndBackward) {
  const Dims dims{1, 3, 2, 12};
  const test::Angles angles(3, 2, 3);
  Tensor q = test::random_tensor(dims, 1), t = test::random_tensor(dims, 2), q_eff(dims), k_eff(dims), later(dims);
  Tensor tbar({1, 3, 2, 6}), dq(dims), dt(dims), gq = test::random_tensor(dims, 5), gk = test::random_tensor(dims, 6);
  const CollinearOptions options{.fold = Fold::kOfficial};
  Context context;
  collinear_forward(context, options, {.rows = angles.rows(), .q = q, .t = t, .q_eff = q_eff, .k_eff = k_eff});
  collinear_fold(context, options, {.R = 4, .t = t, .tbar = tbar});
  collinear_key(context, options, {.rows = angles.rows(), .tbar = tbar, .k_eff = later});
  for (size_t i = 0; i < 72; ++i) ASSERT_FLOAT_EQ(later.values<float>()[i], k_eff.values<float>()[i]);
  collinear_backward(context, options,
                     {.rows = angles.rows(), .q = q, .t = t, .dq_eff = gq, .dk_eff = gk, .dq = dq, .dt = dt});
  const auto expect_gradient_at = [&](Tensor& input, const Tensor& gradient, size_t i) {
    const auto loss = [&](float change) {
      input.values<float>()[i] += change;
      collinear_forward(context, options, {.rows = angles.rows(), .q = q, .t = t, .q_eff = q_eff, .k_eff = k_eff});
      input.values<float>()[i] -= change;
      double sum = 0;
      for (size_t e = 0; e < 72; ++e)
        sum += q_eff.values<float>()[e] * gq.values<float>()[e] + k_eff.values<float>()[e] * gk.values<float>()[e];
      return sum;
    };
    // Central differences of a quadratic are exact; what is left is float rounding over 2 h = 1/64.
    ASSERT_NEAR((loss(1.0f / 128) - loss(-1.0f / 128)) * 64, gradient.values<float>()[i], 2e-4) << i;
  };
  for (size_t i = 0; i < 72; i += 5) expect_gradient_at(q, dq, i);
}

// A projection of half the width gives the mean of the two halves: the same keys, and twice the gradient of each half,
// in the arithmetic of either fold.
TEST(Collinear, FoldedTGivesTheSameKeys) {
  const Dims dims{1, 3, 2, 12}, half_dims{1, 3, 2, 6};
  const test::Angles angles(3, 2, 3);  // R = 4
  const Tensor q = test::random_tensor(dims, 1), t = test::random_tensor(dims, 2), gq = test::random_tensor(dims, 5),
               gk = test::random_tensor(dims, 6);
  for (const Fold fold : {Fold::kRotary, Fold::kOfficial}) {
    const CollinearOptions options{.fold = fold};
    const int64_t R = fold == Fold::kOfficial ? 12 : 4;
    Tensor half(half_dims), q_eff(dims), k_eff(dims), k_half(dims), dq(dims), dt(dims), dt_half(half_dims);
    const auto member = [&](const Tensor& x, int64_t head, int64_t d) {
      return x.values<float>()[static_cast<size_t>(head * 12 + d)];
    };
    for (int64_t head = 0; head < 6; ++head)
      for (int64_t j = 0; j < 6; ++j) {
        const ref::Pair p = ref::collinear_pair(j, R, 12);
        half.values<float>()[static_cast<size_t>(head * 6 + j)] = 0.5f * (member(t, head, p.a) + member(t, head, p.b));
      }
    Context context;
    collinear_forward(context, options, {.rows = angles.rows(), .q = q, .t = t, .q_eff = q_eff, .k_eff = k_eff});
    collinear_forward(context, options, {.rows = angles.rows(), .q = q, .t = half, .q_eff = q_eff, .k_eff = k_half});
    EXPECT_EQ(test::float_values(k_half), test::float_values(k_eff));
    collinear_backward(context, options,
                       {.rows = angles.rows(), .q = q, .t = t, .dq_eff = gq, .dk_eff = gk, .dq = dq, .dt = dt});
    collinear_backward(context, options,
                       {.rows = angles.rows(), .q = q, .t = half, .dq_eff = gq, .dk_eff = gk, .dq = dq, .dt = dt_half});
    for (int64_t head = 0; head < 6; ++head)
      for (int64_t j = 0; j < 6; ++j)
        EXPECT_EQ(dt_half.values<float>()[static_cast<size_t>(head * 6 + j)],
                  2 * member(dt, head, ref::collinear_pair(j, R, 12).a));
  }
}

TEST(Collinear, BadShapesAreNamed) {
  const test::Angles angles(4, 4, 1);
  Tensor q({1, 4, 2, 8}), t({1, 4, 1, 6}), out({1, 4, 2, 8});
  Context context;
  Tensor half({1, 4, 2, 8}, DType::kBF16);
  EXPECT_THAT(
      [&] { collinear_forward(context, {}, {.rows = angles.rows(), .q = q, .t = half, .q_eff = out, .k_eff = half}); },
      testing::ThrowsMessage<Error>(testing::HasSubstr("[collinear] t has type BF16; expected F32")));
  EXPECT_THAT(
      [&] {
        collinear_forward(context, {}, {.rows = angles.rows(), .q = half, .t = half, .q_eff = out, .k_eff = half});
      },
      testing::ThrowsMessage<Error>(testing::HasSubstr("[collinear] q_eff has type F32; expected BF16")));
  EXPECT_THAT(
      [&] { collinear_forward(context, {}, {.rows = angles.rows(), .q = q, .t = t, .q_eff = out, .k_eff = t}); },
      testing::ThrowsMessage<Error>(testing::HasSubstr("t has shape [1, 4, 1, 6]; expected [1, 4, 1, 8]")));
}

}  // namespace
}  // namespace coca::ops::collinear_test
