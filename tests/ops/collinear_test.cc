// The collinear prologue: values, gradients, the functions used by the cache, and the paper's identities.
// SPDX-License-Identifier: Apache-2.0
#include "coca/ops/collinear.h"

#include <filesystem>
#include <set>

#include "coca/kernels/ref/collinear.h"
#include "coca/ops/heads.h"
#include "ops/op_test.h"
#include "support/views.h"

namespace coca::ops::collinear_test {
namespace {

using test::as_view;
using test::Complex;

struct Shape {
  int64_t B, N, H, G, E, R, C = 0;
};
const Shape kShapes[] = {{1, 1, 1, 1, 2, 2},   {2, 5, 4, 2, 8, 8},    {1, 7, 3, 1, 48, 16},
                         {1, 3, 2, 2, 80, 80}, {2, 65, 2, 1, 64, 64}, {1, 4, 2, 2, 34, 6}};
const Shape kContentShapes[] = {
    {1, 3, 2, 1, 5, 2, 3}, {1, 3, 2, 1, 10, 0, 4}, {2, 5, 4, 2, 48, 16, 16}, {1, 4, 2, 2, 37, 10, 11}};
const Shape kOfficialShapes[] = {{1, 3, 2, 2, 12, 4}, {2, 5, 4, 2, 32, 16}};  // R < E
#define COCA_KIND(X) Collinear::k##X,
const Collinear kKinds[] = {COCA_FORMS(COCA_KIND)};
#undef COCA_KIND
const Magnitude kMagnitudes[] = {Magnitude::kRelu, Magnitude::kSoftplus};

// The widths that t may have.
std::vector<int64_t> t_widths(const Shape& s, const CollinearOptions& options) {
  if (form_info(options.kind).members == 2) return {s.E, stored_width(options, s.E)};
  return {stored_width(options, s.E)};
}

std::string name_of(const CollinearOptions& options) {
  return fmt::format("{} {} content {}", form_info(options.kind).name,
                     options.magnitude == Magnitude::kRelu ? "relu" : "softplus", options.content);
}

// The reference over whole tensors, in any scalar.
template <typename T>
struct Reference {
  Shape s;
  int64_t width;  // of t
  CollinearOptions options;
  const test::Angles& angles;
  bool official = options.fold == Fold::kOfficial && s.R != s.E;
  ref::CollinearHead layout{s.R, s.E, options.content}, fold{official ? s.E : s.R, s.E, options.content};
  KeyDirection direction = key_direction(options.kind);
  int64_t query = query_width(options, s.E);

  template <typename Body>
  void each(int64_t heads, const Body& body) const {
    for (int64_t b = 0; b < s.B; ++b)
      for (int64_t n = 0; n < s.N; ++n)
        for (int64_t h = 0; h < heads; ++h)
          body((b * s.N + n) * heads + h, [this, n](int64_t j) { return angles.cos_d()(0, n, j); },
               [this, n](int64_t j) { return angles.sin_d()(0, n, j); });
  }
  void forward(const T* q, const T* t, T* q_eff, T* k_eff) const {
    with_form(options.kind, [&](auto form) {
      each(s.H, [&](int64_t head, auto cos, auto sin) {
        const T* in = q + head * query;
        if (official)
          ref::collinear_official_head<T>(in, nullptr, s.R, s.E, cos, sin, q_eff + head * s.E, nullptr);
        else
          ref::collinear_query_head(form, layout, in, cos, sin, q_eff + head * s.E);
      });
    });
    std::vector<T> tbar(static_cast<size_t>(s.E));
    each(s.G, [&](int64_t head, auto cos, auto sin) {
      ref::collinear_fold_head(options.magnitude, fold, t + head * width, width, tbar.data());
      if (official) {
        std::copy_n(tbar.begin(), s.E / 2, tbar.begin() + s.E / 2);  // folding [tbar, tbar] gives tbar again
        ref::collinear_official_head<T>(nullptr, tbar.data(), s.R, s.E, cos, sin, nullptr, k_eff + head * s.E);
      } else {
        ref::collinear_key_head(direction, layout, tbar.data(), cos, sin, k_eff + head * s.E);
      }
    });
  }
  void backward(const T* q, const T* t, const T* dq_eff, const T* dk_eff, T* dq, T* dt) const {
    const std::vector<T> zeros(static_cast<size_t>(s.E));
    std::vector<T> scratch(zeros), sink(zeros), dtbar(zeros);
    with_form(options.kind, [&](auto form) {
      each(s.H, [&](int64_t head, auto cos, auto sin) {
        const T *in = q + head * query, *g = dq_eff + head * s.E;
        if (official)
          ref::collinear_official_head_backward<T>(in, zeros.data(), g, zeros.data(), s.R, s.E, cos, sin,
                                                   dq + head * query, sink.data(), scratch.data());
        else
          ref::collinear_query_head_backward(form, layout, in, g, cos, sin, dq + head * query);
      });
    });
    each(s.G, [&](int64_t head, auto cos, auto sin) {
      const T *t_head = t + head * width, *g = dk_eff + head * s.E;
      if (official && width == s.E)
        return ref::collinear_official_head_backward<T>(zeros.data(), t_head, zeros.data(), g, s.R, s.E, cos, sin,
                                                        sink.data(), dt + head * width, scratch.data());
      std::fill(dtbar.begin(), dtbar.end(), T(0));
      if (official)
        ref::collinear_official_tbar_head_backward(g, s.R, s.E, cos, sin, dtbar.data());
      else
        ref::collinear_tbar_head_backward(direction, layout, g, cos, sin, dtbar.data());
      ref::collinear_fold_head_backward(options.magnitude, fold, t_head, dtbar.data(), width, dt + head * width);
    });
  }
};

void expect_complex_step_gradients(const Shape& s, const CollinearOptions& options, int64_t width) {
  const test::Angles angles(s.N, s.R / 2, 4);
  const Reference<double> real{s, width, options, angles};
  const Reference<Complex> complex{s, width, options, angles};
  const int64_t tokens = s.B * s.N;
  const auto nq = static_cast<size_t>(tokens * s.H * real.query), ne = static_cast<size_t>(tokens * s.H * s.E),
             nt = static_cast<size_t>(tokens * s.G * width), nk = static_cast<size_t>(tokens * s.G * s.E);
  const auto x_values = test::random_values(static_cast<int64_t>(nq + nt), 8);
  const auto weights = test::random_values(static_cast<int64_t>(ne + nk), 9);
  const std::vector<double> x(x_values.begin(), x_values.end()), weight(weights.begin(), weights.end());
  const auto loss = [&](std::span<const Complex> at) {
    std::vector<Complex> out(ne + nk);
    complex.forward(at.data(), at.data() + nq, out.data(), out.data() + ne);
    Complex sum(0);
    for (size_t i = 0; i < out.size(); ++i) sum += weight[i] * out[i];
    return sum;
  };
  std::vector<double> actual(nq + nt);
  real.backward(x.data(), x.data() + nq, weight.data(), weight.data() + ne, actual.data(), actual.data() + nq);
  test::expect_gradient(actual, test::complex_step_gradient(x, loss), name_of(options));
}

TEST(Collinear, ReferenceGradientsMatchComplexStep) {
  for (const Shape& s : {Shape{1, 2, 2, 1, 8, 8}, Shape{1, 2, 2, 2, 12, 4}, Shape{1, 2, 2, 1, 11, 4, 3}})
    for (const Collinear kind : kKinds)
      for (const Magnitude magnitude : kMagnitudes) {
        const CollinearOptions options{.kind = kind, .magnitude = magnitude, .content = s.C};
        for (const int64_t width : t_widths(s, options)) expect_complex_step_gradients(s, options, width);
      }
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

struct Inputs {
  Tensor q, t, gq, gk;
  template <typename T>
  static Inputs of(const Shape& s, const CollinearOptions& options, int64_t width) {
    const auto tensor = [&](int64_t heads, int64_t dims, uint64_t seed) {
      return test::tensor_of<T>({s.B, s.N, heads, dims}, test::random_values(s.B * s.N * heads * dims, seed));
    };
    return {tensor(s.H, query_width(options, s.E), 1), tensor(s.G, width, 2), tensor(s.H, s.E, 3), tensor(s.G, s.E, 4)};
  }
  Inputs on(Context& cx) const { return {to_device(cx, q), to_device(cx, t), to_device(cx, gq), to_device(cx, gk)}; }
};

template <typename T>
Outputs<T> expected_outputs(const Shape& s, const CollinearOptions& options, const test::Angles& angles,
                            const Inputs& in) {
  const auto qx = test::convert<T>(in.q), tx = test::convert<T>(in.t), gqx = test::convert<T>(in.gq),
             gkx = test::convert<T>(in.gk);
  Outputs<T> out{std::vector<T>(gqx.size()), std::vector<T>(gkx.size()), std::vector<T>(qx.size()),
                 std::vector<T>(tx.size())};
  const Reference<T> reference{s, in.t.size(3), options, angles};
  reference.forward(qx.data(), tx.data(), out.q_eff.data(), out.k_eff.data());
  reference.backward(qx.data(), tx.data(), gqx.data(), gkx.data(), out.dq.data(), out.dt.data());
  return out;
}

// Calls every function on the context's device. T is the type of q and t and of the results.
template <typename T>
struct Run {
  static constexpr DType kType = DTypeOf<T>::value;
  Context& cx;
  const Shape& s;
  const CollinearOptions& options;
  const Inputs& in;  // on the host
  const test::Angles& angles;
  const Outputs<double>& expected;
  const Outputs<float>& naive;
  test::RowsOn rows{cx, angles.rows()};
  Inputs there = in.on(cx);
  std::vector<float> k_eff{};

  // With softplus: exp within 2 ulp, log1p (or a quotient) within 2, and an addition, so 5 eps = sqrt(25) eps.
  const double terms =
      options.magnitude == Magnitude::kSoftplus || form_info(options.kind).magnitude == Magnitude::kSoftplus ? 25 : 4;
  const test::ErrorRule rule{.terms = terms, .stored = kType},
      folded{.terms = terms, .zero_share = 0.9, .stored = kType};  // ReLU sets about half to zero

  Tensor empty(const Dims& shape, DType type = kType) const { return Tensor(shape, type, cx.memory()); }
  std::vector<float> values(const Tensor& t) const { return test::float_values(to_host(cx, t)); }
  Dims folded_shape() const { return {s.B, s.N, s.G, stored_width(options, s.E)}; }

  void direct() {
    Tensor q_eff = empty(in.gq.shape()), k = empty(in.gk.shape()), dq = empty(in.q.shape()), dt = empty(in.t.shape());
    collinear_forward(cx, options, {.rows = rows, .q = there.q, .t = there.t, .q_eff = q_eff, .k_eff = k});
    collinear_backward(
        cx, options,
        {.rows = rows, .q = there.q, .t = there.t, .dq_eff = there.gq, .dk_eff = there.gk, .dq = dq, .dt = dt});
    k_eff = values(k);
    test::expect_close(values(q_eff), expected.q_eff, naive.q_eff, rule, "q_eff " + q_eff.shape().text());
    test::expect_close(k_eff, expected.k_eff, naive.k_eff, folded, "k_eff " + k.shape().text());
    test::expect_close(values(dq), expected.dq, naive.dq, rule, "dq " + dq.shape().text());
    test::expect_close(values(dt), expected.dt, naive.dt, folded, "dt " + dt.shape().text());
  }

  // In two steps through dtbar, which accumulates: half of dk_eff is added twice.
  void gradient_by_dtbar() {
    Tensor gk_half = test::tensor_of<float>(in.gk.shape(), test::float_values(in.gk));
    for (float& g : gk_half.values<float>()) g *= 0.5f;
    const Tensor half_there = to_device(cx, gk_half);
    Tensor dtbar = empty(folded_shape(), DType::kF32), dt = empty(in.t.shape());
    for (int i = 0; i < 2; ++i)
      collinear_key_backward(cx, options, {.rows = rows, .dk_eff = half_there, .dtbar = dtbar});
    collinear_fold_backward(cx, options, {.R = s.R, .t = there.t, .dtbar = dtbar, .dt = dt});
    test::expect_close(values(dt), expected.dt, naive.dt, folded, "dt by way of dtbar " + dt.shape().text());
  }

  // As the cache does: fold, keep half the width, rotate later. With an fp32 tbar the bits are the same as for the
  // direct call. With the official fold a compiler may fuse one of two products with their sum.
  void by_tbar() {
    Tensor tbar = empty(folded_shape(), DType::kF32), k_later = empty(in.gk.shape());
    collinear_fold(cx, options, {.R = s.R, .t = there.t, .tbar = tbar});
    collinear_key(cx, options, {.rows = rows, .tbar = tbar, .k_eff = k_later});
    if (options.fold == Fold::kOfficial)
      test::expect_close(values(k_later), expected.k_eff, naive.k_eff, folded, "k_eff by way of tbar");
    else
      ASSERT_EQ(values(k_later), k_eff);
    // A bf16 tbar is the rounded fp32 one, and its keys equal those of its fp32 copy.
    Tensor tbar16 = empty(tbar.shape(), DType::kBF16), k16 = empty(in.gk.shape());
    collinear_fold(cx, options, {.R = s.R, .t = there.t, .tbar = tbar16});
    ASSERT_EQ(values(tbar16), test::as_stored<BF16>(values(tbar)));
    collinear_key(cx, options, {.rows = rows, .tbar = tbar16, .k_eff = k16});
    const Tensor promoted = to_device(cx, test::tensor_of<float>(tbar.shape(), values(tbar16)));
    collinear_key(cx, options, {.rows = rows, .tbar = promoted, .k_eff = k_later});
    ASSERT_EQ(values(k16), values(k_later));
  }
};

template <typename T>
void run_case(const Shape& s, const CollinearOptions& options, int64_t width) {
  SCOPED_TRACE(
      fmt::format("{} E {} R {} width {} {}", name_of(options), s.E, s.R, width, dtype_name(DTypeOf<T>::value)));
  const test::Angles angles(s.N, s.R / 2, 2);
  const Inputs in = Inputs::of<T>(s, options, width);
  const auto expected = expected_outputs<double>(s, options, angles, in);
  const auto naive = expected_outputs<float>(s, options, angles, in);
  test::for_each_way({"collinear"}, [&](Context& context) {
    Run<T> run{context, s, options, in, angles, expected, naive};
    run.direct();
    run.gradient_by_dtbar();
    run.by_tbar();
  });
}

TEST(Collinear, ValuesAndGradientsMatchTheReferenceOnEveryTarget) {
  const auto run = [](const Shape& s, const CollinearOptions& options) {
    for (const int64_t width : t_widths(s, options)) {
      run_case<float>(s, options, width);
      run_case<BF16>(s, options, width);
    }
  };
  for (const Collinear kind : kKinds) {
    for (const Shape& s : kShapes) run(s, {.kind = kind});
    for (const Shape& s : kContentShapes)
      for (const Magnitude magnitude : kMagnitudes) run(s, {.kind = kind, .magnitude = magnitude, .content = s.C});
  }
}

TEST(Collinear, TheOfficialFoldMatchesItsReference) {
  for (const Shape& s : kOfficialShapes)
    for (const int64_t width : {s.E, s.E / 2}) {
      run_case<float>(s, {.fold = Fold::kOfficial}, width);
      run_case<BF16>(s, {.fold = Fold::kOfficial}, width);
    }
}

// Views of a fused projection, key rows of their own (xPos), separate angles for each sequence, and gradients written
// over their inputs give the same results as separate tensors.
template <typename T>
void run_views(Context& cx, const Shape& s, const CollinearOptions& options) {
  SCOPED_TRACE(fmt::format("{} E {} {}", name_of(options), s.E, dtype_name(DTypeOf<T>::value)));
  constexpr DType kType = DTypeOf<T>::value;
  const auto rows_of = [&](const test::Angles& angles) {
    const Dims shape{s.B, s.N, s.R / 2};
    return test::RowsOn(cx, {angles.rows().cos.reshape(shape), angles.rows().sin.reshape(shape)});
  };
  const test::Angles query_angles(s.B * s.N, s.R / 2, 5), key_angles(s.B * s.N, s.R / 2, 6);
  const test::RowsOn rows = rows_of(query_angles), key_rows = rows_of(key_angles);
  const Dims dims{s.B, s.N, s.H, s.E}, fused{s.B, s.N, s.H, 2, s.E};
  const Tensor qt = to_device(cx, test::tensor_of<T>(fused, test::random_values(fused.product(), 1)));
  Tensor g = to_device(cx, test::tensor_of<T>(fused, test::random_values(fused.product(), 2)));
  Tensor out(fused, kType, cx.memory());
  const auto packed = [&](const Tensor& from, int64_t i) {
    Tensor to(dims, kType, cx.memory());
    copy_heads(cx, from.ref().select(3, i), to);
    return to;
  };
  const Tensor q = packed(qt, 0), t = packed(qt, 1), gq = packed(g, 0), gk = packed(g, 1);
  Tensor q_eff(dims, kType, cx.memory()), k_eff(dims, kType, cx.memory()), dq(dims, kType, cx.memory()),
      dt(dims, kType, cx.memory()), unused(dims, kType, cx.memory());
  collinear_forward(cx, options, {.rows = rows, .q = q, .t = t, .q_eff = q_eff, .k_eff = unused});
  collinear_forward(cx, options, {.rows = key_rows, .q = q, .t = t, .q_eff = unused, .k_eff = k_eff});
  collinear_backward(cx, options, {.rows = rows, .q = q, .t = t, .dq_eff = gq, .dk_eff = gk, .dq = dq, .dt = unused});
  collinear_backward(cx, options,
                     {.rows = key_rows, .q = q, .t = t, .dq_eff = gq, .dk_eff = gk, .dq = unused, .dt = dt});
  const TensorRef q_view = qt.ref().select(3, 0), t_view = qt.ref().select(3, 1);
  const MutTensorRef gq_view = g.ref().select(3, 0), gk_view = g.ref().select(3, 1);
  collinear_forward(cx, options,
                    {.rows = rows,
                     .key_rows = key_rows,
                     .q = q_view,
                     .t = t_view,
                     .q_eff = out.ref().select(3, 0),
                     .k_eff = out.ref().select(3, 1)});
  collinear_backward(cx, options,
                     {.rows = rows,
                      .key_rows = key_rows,
                      .q = q_view,
                      .t = t_view,
                      .dq_eff = gq_view,
                      .dk_eff = gk_view,
                      .dq = gq_view,
                      .dt = gk_view});
  // Up to six roundings of numbers below 4 may differ; bf16 may then round to a neighbour.
  const auto expect_same = [&](const Tensor& apart, const Tensor& view, const char* what) {
    const auto a = test::float_values(to_host(cx, apart)), b = test::float_values(to_host(cx, view));
    const float step = kType == DType::kBF16 ? 0x1p-7f : 0.0f;
    for (size_t i = 0; i < a.size(); ++i) ASSERT_NEAR(a[i], b[i], 0x1p-19f + step * std::abs(a[i])) << what << i;
  };
  expect_same(q_eff, packed(out, 0), "q_eff ");
  expect_same(k_eff, packed(out, 1), "k_eff ");
  expect_same(dq, packed(g, 0), "dq ");
  expect_same(dt, packed(g, 1), "dt ");
}

TEST(Collinear, ViewsInPlaceAndRowsOfTheKeys) {
  test::for_each_way({"collinear", "heads"}, [](Context& cx) {
    for (const Collinear kind : kKinds) {
      if (form_info(kind).members == 1) continue;  // q_eff is wider than q
      for (const int64_t content : {0, 4}) {
        const CollinearOptions options{.kind = kind, .content = content};
        run_views<float>(cx, {2, 3, 2, 2, 24 + content, 8}, options);
        run_views<BF16>(cx, {2, 3, 2, 2, 24 + content, 8}, options);
      }
    }
    for (const Shape& s : kOfficialShapes) {
      run_views<float>(cx, {s.B, s.N, s.H, s.H, s.E, s.R}, {.fold = Fold::kOfficial});
      run_views<BF16>(cx, {s.B, s.N, s.H, s.H, s.E, s.R}, {.fold = Fold::kOfficial});
    }
  });
}

// Score of a query at position m and a key at position n, as attention computes it.
double score(Collinear kind, const std::vector<double>& q, const std::vector<double>& t, double m, double n,
             const std::vector<double>& theta) {
  const auto D = static_cast<int64_t>(q.size());
  std::vector<double> tbar(q.size() / 2), q_eff(q.size()), k_eff(q.size());
  const ref::CollinearHead head{D, D};
  ref::collinear_fold_head(Magnitude::kRelu, head, t.data(), D, tbar.data());
  const auto c = [&](double at) { return [&, at](int64_t j) { return std::cos(at * theta[static_cast<size_t>(j)]); }; };
  const auto s = [&](double at) { return [&, at](int64_t j) { return std::sin(at * theta[static_cast<size_t>(j)]); }; };
  with_form(kind, [&](auto form) { ref::collinear_query_head(form, head, q.data(), c(m), s(m), q_eff.data()); });
  ref::collinear_key_head(key_direction(kind), head, tbar.data(), c(n), s(n), k_eff.data());
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
  // With |q| in place of |q|^2, the score of a query twice as long is twice as large.
  std::vector<double> twice = q;
  for (double& x : twice) x *= 2;
  EXPECT_NEAR(score(Collinear::kAbs, twice, t, m, n, theta), 2 * score(Collinear::kAbs, q, t, m, n, theta), 1e-14);
  EXPECT_NEAR(score(Collinear::kStrict, twice, t, m, n, theta), 4 * strict, 1e-14);
}

// Every header of the folder is a form of the list, with a name of its own and widths that fit together.
TEST(Collinear, EveryHeaderIsAForm) {
  std::set<std::string_view> names;
  for (const Collinear kind : kKinds) {
    const FormInfo& form = form_info(kind);
    EXPECT_TRUE(names.insert(form.name).second) << form.name;
    EXPECT_FALSE(form.summary.empty() || form.source.empty()) << form.name;
    EXPECT_TRUE(form.members == 1 || form.members == 2) << form.name;
    const CollinearOptions options{.kind = kind, .content = 5};
    EXPECT_TRUE(stored_width(options, 21) == 13 && effective_width(options, 13) == 21) << form.name;
    EXPECT_EQ(query_width(options, 21), 8 * form.members + 5);
  }
  size_t headers = 0;
  for (const auto& file : std::filesystem::directory_iterator(COCA_SOURCE_DIR "/src/coca/kernels/args/forms"))
    headers += file.path().extension() == ".h";
  EXPECT_EQ(names.size(), headers);
}

// q_eff is linear in (c, s), on which gradients of angles and decoding rest.
TEST(Collinear, QueriesAreLinearInCosAndSin) {
  for (const Collinear kind : kKinds)
    with_form(kind, [](auto form) {
      const Plane<double> x = form.query(0.7, -0.4, 1.0, 0.0), y = form.query(0.7, -0.4, 0.0, 1.0),
                          sum = form.query(0.7, -0.4, 2.0, -3.0);
      EXPECT_NEAR(sum.x, 2 * x.x - 3 * y.x, 1e-15) << form.kInfo.name;
      EXPECT_NEAR(sum.y, 2 * x.y - 3 * y.y, 1e-15) << form.kInfo.name;
    });
}

// softplus and its derivative are right at both ends, where exp over- and underflows.
TEST(Collinear, LengthsOfExtremeNumbers) {
  const std::vector<float> values{-3e38f, -200, -104, -88, -20, -1, -1e-8f, 0, 1e-8f, 1, 20, 88, 104, 200, 3e38f, 0.3f};
  const Dims dims{1, 1, 1, 16};
  const Tensor t_values = test::tensor_of<float>(dims, values),
               ones = test::tensor_of<float>(dims, std::vector<float>(16, 1.0f));
  const CollinearOptions options{.kind = Collinear::kPope, .magnitude = Magnitude::kSoftplus};
  test::for_each_way({"collinear"}, [&](Context& cx) {
    const Tensor t = to_device(cx, t_values), g = to_device(cx, ones);
    Tensor tbar(dims, DType::kF32, cx.memory()), dt(dims, DType::kF32, cx.memory());
    collinear_fold(cx, options, {.R = 8, .t = t, .tbar = tbar});
    collinear_fold_backward(cx, options, {.R = 8, .t = t, .dtbar = g, .dt = dt});
    const std::vector<float> length = test::float_values(to_host(cx, tbar)),
                             slope = test::float_values(to_host(cx, dt));
    for (size_t i = 0; i < values.size(); ++i) {
      const double x = values[i], l = forms::softplus(x), s = forms::logistic(x);
      // exp within 2 ulp, log1p or the quotient within 2, one addition; denormal results may be flushed to zero.
      EXPECT_NEAR(length[i], l, 5 * 0x1p-23 * l + 0x1p-126) << x;
      EXPECT_NEAR(slope[i], s, 5 * 0x1p-23 * s + 0x1p-126) << x;
    }
  });
}

// Where the length of q has no derivative, the gradient is zero and not NaN.
TEST(Collinear, TheGradientOfAQueryOfZerosIsZero) {
  const Dims dims{1, 2, 1, 8};
  const test::Angles angles(2, 4, 3);
  test::for_each_way({"collinear"}, [&](Context& cx) {
    const test::RowsOn rows(cx, angles.rows());
    const Tensor q = to_device(cx, Tensor(dims)), g = to_device(cx, test::random_tensor(dims, 1));
    Tensor dq(dims, DType::kF32, cx.memory()), dt(dims, DType::kF32, cx.memory());
    collinear_backward(cx, {.kind = Collinear::kAbs},
                       {.rows = rows, .q = q, .t = q, .dq_eff = g, .dk_eff = g, .dq = dq, .dt = dt});
    EXPECT_EQ(test::float_values(to_host(cx, dq)), std::vector<float>(16));
  });
}

TEST(Collinear, OfficialFoldEqualsOursWithFullRotaryAndDiffersWithPartial) {
  const Dims dims{1, 5, 2, 16};
  const Tensor q_values = test::random_tensor(dims, 1), t_values = test::random_tensor(dims, 2);
  test::for_each_way({"collinear"}, [&](Context& cx) {
    const Tensor q = to_device(cx, q_values), t = to_device(cx, t_values);
    const auto outputs = [&](Fold fold, const ops::RopeRows& rows) {
      Tensor q_eff(dims, DType::kF32, cx.memory()), k_eff(dims, DType::kF32, cx.memory());
      collinear_forward(cx, {.fold = fold}, {.rows = rows, .q = q, .t = t, .q_eff = q_eff, .k_eff = k_eff});
      std::vector<float> all = test::float_values(to_host(cx, q_eff));
      const std::vector<float> keys = test::float_values(to_host(cx, k_eff));
      all.insert(all.end(), keys.begin(), keys.end());
      return all;
    };
    const auto both = [&](const test::Angles& angles) {
      const test::RowsOn rows(cx, angles.rows());
      const std::vector<float> ours = outputs(Fold::kRotary, rows), theirs = outputs(Fold::kOfficial, rows);
      double difference = 0;
      for (size_t i = 0; i < ours.size(); ++i) difference += std::abs(ours[i] - theirs[i]);
      return difference;
    };
    EXPECT_EQ(both(test::Angles(5, 8, 3)), 0.0);
    EXPECT_GT(both(test::Angles(5, 2, 3)), 1.0);
  });
  Context context;
  Tensor q_eff(dims), k_eff(dims);
  const test::Angles angles(5, 2, 3);
  test::expect_error(
      [&] {
        collinear_forward(context, {.kind = Collinear::kStrict, .fold = Fold::kOfficial},
                          {.rows = angles.rows(), .q = q_values, .t = t_values, .q_eff = q_eff, .k_eff = k_eff});
      },
      "supports only slack");
}

// A projection of half the width, equal to the mean of the two halves, gives the same keys and twice the gradient of
// each half, for both folds.
TEST(Collinear, FoldedTGivesTheSameKeys) {
  const Dims dims{1, 3, 2, 12}, half_dims{1, 3, 2, 6};
  const test::Angles angles(3, 2, 3);  // R = 4
  const Tensor q_values = test::random_tensor(dims, 1), t_values = test::random_tensor(dims, 2),
               gq_values = test::random_tensor(dims, 5), gk_values = test::random_tensor(dims, 6);
  const auto member = [](std::span<const float> x, int64_t head, int64_t d) {
    return x[static_cast<size_t>(head * 12 + d)];
  };
  for (const Fold fold : {Fold::kRotary, Fold::kOfficial}) {
    const CollinearOptions options{.fold = fold};
    const int64_t R = fold == Fold::kOfficial ? 12 : 4;
    Tensor half_values(half_dims);
    for (int64_t head = 0; head < 6; ++head)
      for (int64_t j = 0; j < 6; ++j) {
        const ref::Pair p = ref::collinear_pair(j, R, 12);
        const auto t = t_values.values<float>();
        half_values.values<float>()[static_cast<size_t>(head * 6 + j)] =
            0.5f * (member(t, head, p.a) + member(t, head, p.b));
      }
    test::for_each_way({"collinear"}, [&](Context& cx) {
      const test::RowsOn rows(cx, angles.rows());
      const Tensor q = to_device(cx, q_values), gq = to_device(cx, gq_values), gk = to_device(cx, gk_values);
      const auto run = [&](const Tensor& values) {  // returns k_eff and dt
        const Tensor t = to_device(cx, values);
        Tensor q_eff(dims, DType::kF32, cx.memory()), k_eff(dims, DType::kF32, cx.memory()),
            dq(dims, DType::kF32, cx.memory()), dt(t.shape(), DType::kF32, cx.memory());
        collinear_forward(cx, options, {.rows = rows, .q = q, .t = t, .q_eff = q_eff, .k_eff = k_eff});
        collinear_backward(cx, options, {.rows = rows, .q = q, .t = t, .dq_eff = gq, .dk_eff = gk, .dq = dq, .dt = dt});
        return std::pair(test::float_values(to_host(cx, k_eff)), test::float_values(to_host(cx, dt)));
      };
      const auto [k_whole, dt_whole] = run(t_values);
      const auto [k_half, dt_half] = run(half_values);
      EXPECT_EQ(k_half, k_whole);
      for (int64_t head = 0; head < 6; ++head)
        for (int64_t j = 0; j < 6; ++j)
          EXPECT_EQ(dt_half[static_cast<size_t>(head * 6 + j)],
                    2 * member(dt_whole, head, ref::collinear_pair(j, R, 12).a));
    });
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
  const auto pope = [&](TensorRef q_in, TensorRef t_in, int64_t content) {
    collinear_forward(context, {.kind = Collinear::kPope, .content = content},
                      {.rows = angles.rows(), .q = q_in, .t = t_in, .q_eff = out, .k_eff = out});
  };
  Tensor narrow({1, 4, 2, 4});
  EXPECT_THAT([&] { pope(q, narrow, 0); },
              testing::ThrowsMessage<Error>(testing::HasSubstr("q has shape [1, 4, 2, 8]; expected [1, 4, 2, 4]")));
  EXPECT_THAT([&] { pope(narrow, q, 0); },
              testing::ThrowsMessage<Error>(testing::HasSubstr("t has shape [1, 4, 2, 8]; expected [1, 4, 2, 4]")));
  EXPECT_THAT([&] { pope(narrow, narrow, 3); },
              testing::ThrowsMessage<Error>(testing::HasSubstr("heads of 8 numbers with 3 content channels")));
  EXPECT_THAT([&] { pope(narrow, narrow, 2); },
              testing::ThrowsMessage<Error>(testing::HasSubstr("rotary dims 8 must be even and at most 6")));
}

}  // namespace
}  // namespace coca::ops::collinear_test
