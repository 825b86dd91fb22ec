// Each routine walks the planes of a head in vectors and finishes with shorter ones; a form's formulas are its header's
// (kernels/args/forms), over vectors. Arithmetic in float, one rounding per stored number. Math:
// docs/math/collinear.md.
// SPDX-License-Identifier: Apache-2.0
#include "coca/kernels/cpu/collinear.h"

#include <type_traits>

#include "coca/kernels/args/float_types.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "coca/kernels/cpu/collinear.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep

#include "coca/kernels/cpu/bf16-inl.h"
#include "coca/kernels/cpu/forms-inl.h"
#include "coca/kernels/cpu/math-inl.h"

HWY_BEFORE_NAMESPACE();
namespace coca::cpu::HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;
using ops::KeyDirection;
using ops::Magnitude;

// Called for each run of planes and each width of vectors: the compiler would not inline all of them by itself, and a
// Run that is passed in memory is read back by loads that wait for the stores of results before it.
#undef COCA_INLINED
#define COCA_INLINED HWY_ATTR __attribute__((always_inline))

// A run of `count` planes from `plane` on: pairs with members at a + i and b + i, with cos and sin at i (null: angle
// zero).
struct Run {
  int64_t plane, a, b, count;
  const float *cos, *sin;
};

// What the heads of a call have in common: P planes, of which the first `half` rotate, and C content channels.
struct Shape {
  int64_t half, P, C;
  Shape(const CollinearOptions& o, int64_t R, int64_t E) : half(R / 2), P(ops::planes_of(o, E)), C(o.content) {}
  Shape(const CollinearOptions& o, const ops::RopeRows& rows, TensorRef effective)
      : Shape(o, 2 * rows.cos.size(2), effective.size(3)) {}
};

// Calls body for the run of planes that rotate and that of the others.
template <class Body>
HWY_INLINE void for_runs(const Shape& s, const float* cos, const float* sin, const Body& body) {
  const int64_t rest = s.P - s.half;
  body(Run{0, 0, s.half, s.half, cos, sin});
  body(Run{s.half, 2 * s.half, 2 * s.half + rest, rest, nullptr, nullptr});
}

// Calls body(b, n, h) for the heads of rows [row0, row1).
template <class Body>
HWY_INLINE void for_heads(const MutTensorRef& x, int64_t row0, int64_t row1, const Body& body) {
  const int64_t N = x.size(1), H = x.size(2);
  for (int64_t row = row0; row < row1; ++row) {
    const int64_t b = row / N, n = row % N;
    for (int64_t h = 0; h < H; ++h) body(b, n, h);
  }
}

struct Angles {
  TensorView<const float, 3> cos, sin;
  explicit Angles(const ops::RopeRows& rows) : cos(rows.cos.view<float, 3>()), sin(rows.sin.view<float, 3>()) {}
  const float* cos_at(int64_t b, int64_t n) const { return cos.ptr(cos.size(0) == 1 ? 0 : b, n); }
  const float* sin_at(int64_t b, int64_t n) const { return sin.ptr(sin.size(0) == 1 ? 0 : b, n); }
};

template <class D>
HWY_INLINE Lanes<D> angle_at(D d, const float* p, int64_t i, float otherwise) {
  return p ? hn::LoadU(d, p + i) : hn::Set(d, otherwise);
}
template <class D, typename T>
HWY_INLINE Lanes<D> load(D d, const T* p) {
  return load_f32(d, p);
}

// Content channels pass through.
template <typename From, typename To>
HWY_INLINE void copy_content(int64_t C, const From* from, To* to) {
  for_lanes(C, [&](auto d, int64_t i) COCA_INLINED { store_f32(load_f32(d, from + i), d, to + i); });
}

// What keys are made from: t with two numbers for each plane, t with one, or tbar.
enum class Source : uint8_t { kWhole, kHalf, kFolded };

// The length of keys of a run's planes i, i + 1, ..., and the numbers it is made from.
template <Source kSource, class D, typename T>
HWY_INLINE Lanes<D> source_at(D d, const Run& run, const T* head, int64_t i) {
  if constexpr (kSource == Source::kWhole)
    return Lanes<D>(0.5f) * (load(d, head + run.a + i) + load(d, head + run.b + i));
  return load(d, head + run.plane + i);
}
template <Source kSource, Magnitude kMagnitude, class D, typename T>
HWY_INLINE Lanes<D> length_at(D d, const Run& run, const T* head, int64_t i) {
  if constexpr (kSource == Source::kFolded) return load(d, head + run.plane + i);
  return forms::HWY_NAMESPACE::key_length<kMagnitude>(source_at<kSource>(d, run, head, i));
}

// Writes the gradient of what a length is made from.
template <Source kSource, Magnitude kMagnitude, class D, typename T>
HWY_INLINE void store_length_gradient(D d, const Run& run, const T* head, int64_t i, Lanes<D> dlength, T* out) {
  const Lanes<D> t = source_at<kSource>(d, run, head, i);
  if constexpr (kSource == Source::kWhole) {
    const Lanes<D> each = forms::HWY_NAMESPACE::key_length_backward<kMagnitude>(t, Lanes<D>(0.5f) * dlength);
    store_f32(each.v, d, out + run.a + i);
    store_f32(each.v, d, out + run.b + i);
  } else {
    store_f32(forms::HWY_NAMESPACE::key_length_backward<kMagnitude>(t, dlength).v, d, out + run.plane + i);
  }
}

// Calls body with constants of the source and the magnitude of t.
template <class Body>
void with_source(const CollinearOptions& o, int64_t t_width, int64_t stored, const Body& body) {
  using W = std::integral_constant<Source, Source::kWhole>;
  using H = std::integral_constant<Source, Source::kHalf>;
  using Relu = std::integral_constant<Magnitude, Magnitude::kRelu>;
  using Softplus = std::integral_constant<Magnitude, Magnitude::kSoftplus>;
  const bool relu = o.magnitude == Magnitude::kRelu;
  if (t_width != stored) return relu ? body(W(), Relu()) : body(W(), Softplus());
  relu ? body(H(), Relu()) : body(H(), Softplus());
}

template <typename T, typename TBar>
void fold_as(const CollinearOptions& o, const ops::CollinearFold& a, int64_t row0, int64_t row1) {
  const auto t = a.t.view<T, 4>();
  const auto tbar = a.tbar.view<TBar, 4>();
  const Shape s(o, a.R, ops::effective_width(o, tbar.size(3)));
  with_source(o, t.size(3), tbar.size(3), [&](auto source, auto magnitude) HWY_ATTR {
    for_heads(a.tbar, row0, row1, [&](int64_t b, int64_t n, int64_t g) HWY_ATTR {
      const T* in = t.ptr(b, n, g);
      TBar* out = tbar.ptr(b, n, g);
      for_runs(s, nullptr, nullptr, [&](const Run& run) COCA_INLINED {
        for_lanes(run.count, [&](auto d, int64_t i) COCA_INLINED {
          store_f32(length_at<decltype(source)::value, decltype(magnitude)::value>(d, run, in, i).v, d,
                    out + run.plane + i);
        });
      });
      copy_content(s.C, in + t.size(3) - s.C, out + s.P);
    });
  });
}

template <class Form, typename T>
void query_as(const CollinearOptions& o, const ops::CollinearQuery& a, int64_t row0, int64_t row1) {
  constexpr int64_t kMembers = Form::kInfo.members;
  const auto q = a.q.view<T, 4>();
  const auto q_eff = a.q_eff.view<T, 4>();
  const Shape s(o, a.rows, a.q_eff);
  const Angles angles(a.rows);
  for_heads(a.q_eff, row0, row1, [&](int64_t b, int64_t n, int64_t h) HWY_ATTR {
    const T* in = q.ptr(b, n, h);
    T* out = q_eff.ptr(b, n, h);
    for_runs(s, angles.cos_at(b, n), angles.sin_at(b, n), [&](const Run& run) COCA_INLINED {
      const T *first = in + (kMembers == 2 ? run.a : run.plane), *second = kMembers == 2 ? in + run.b : first;
      for_lanes(run.count, [&](auto d, int64_t i) COCA_INLINED {
        const auto c = angle_at(d, run.cos, i, 1.0f), s0 = angle_at(d, run.sin, i, 0.0f);
        const auto y = Form::query(load(d, first + i), load(d, second + i), c, s0);
        store_f32(y.x.v, d, out + run.a + i);
        store_f32(y.y.v, d, out + run.b + i);
      });
    });
    copy_content(s.C, in + kMembers * s.P, out + 2 * s.P);
  });
}

template <class Form, typename T>
void query_backward_as(const CollinearOptions& o, const ops::CollinearBackward& a, int64_t row0, int64_t row1) {
  constexpr int64_t kMembers = Form::kInfo.members;
  const auto q = a.q.view<T, 4>(), dq_eff = a.dq_eff.view<T, 4>();
  const auto dq = a.dq.view<T, 4>();
  const Shape s(o, a.rows, a.dq_eff);
  const Angles angles(a.rows);
  for_heads(a.dq, row0, row1, [&](int64_t b, int64_t n, int64_t h) HWY_ATTR {
    const T *in = q.ptr(b, n, h), *g = dq_eff.ptr(b, n, h);
    T* out = dq.ptr(b, n, h);
    for_runs(s, angles.cos_at(b, n), angles.sin_at(b, n), [&](const Run& run) COCA_INLINED {
      const int64_t first = kMembers == 2 ? run.a : run.plane, second = kMembers == 2 ? run.b : first;
      for_lanes(run.count, [&](auto d, int64_t i) COCA_INLINED {
        const auto c = angle_at(d, run.cos, i, 1.0f), s0 = angle_at(d, run.sin, i, 0.0f);
        const auto y = Form::query_backward(load(d, in + first + i), load(d, in + second + i), c, s0,
                                            load(d, g + run.a + i), load(d, g + run.b + i));
        store_f32(y.x.v, d, out + first + i);
        if constexpr (kMembers == 2) store_f32(y.y.v, d, out + second + i);
      });
    });
    copy_content(s.C, g + 2 * s.P, out + kMembers * s.P);
  });
}

template <class D, typename T>
HWY_INLINE void store_key(D d, KeyDirection direction, const Run& run, int64_t i, Lanes<D> length, T* out) {
  const auto c = angle_at(d, run.cos, i, 1.0f), s = angle_at(d, run.sin, i, 0.0f);
  const auto k = forms::HWY_NAMESPACE::key_of(direction, length, c, s);
  store_f32(k.x.v, d, out + run.a + i);
  store_f32(k.y.v, d, out + run.b + i);
}

// The gradient of a length from that of k_eff.
template <class D, typename T>
HWY_INLINE Lanes<D> length_gradient(D d, KeyDirection direction, const Run& run, int64_t i, const T* g) {
  const auto c = angle_at(d, run.cos, i, 1.0f), s = angle_at(d, run.sin, i, 0.0f);
  return forms::HWY_NAMESPACE::key_backward(direction, c, s, load(d, g + run.a + i), load(d, g + run.b + i));
}

// k_eff of t or of tbar.
template <Source kSource, Magnitude kMagnitude, typename From, typename T>
void keys_as(const CollinearOptions& o, const ops::RopeRows& rows, TensorRef x, MutTensorRef k, int64_t row0,
             int64_t row1) {
  const auto from = x.view<From, 4>();
  const auto k_eff = k.view<T, 4>();
  const Shape s(o, rows, k);
  const Angles angles(rows);
  const KeyDirection direction = ops::key_direction(o.kind);
  for_heads(k, row0, row1, [&](int64_t b, int64_t n, int64_t g) HWY_ATTR {
    const From* in = from.ptr(b, n, g);
    T* out = k_eff.ptr(b, n, g);
    for_runs(s, angles.cos_at(b, n), angles.sin_at(b, n), [&](const Run& run) COCA_INLINED {
      for_lanes(run.count, [&](auto d, int64_t i) COCA_INLINED {
        store_key(d, direction, run, i, length_at<kSource, kMagnitude>(d, run, in, i), out);
      });
    });
    copy_content(s.C, in + from.size(3) - s.C, out + 2 * s.P);
  });
}

template <typename T>
void key_backward_as(const CollinearOptions& o, const ops::CollinearBackward& a, int64_t row0, int64_t row1) {
  const ops::RopeRows& rows = a.key_rows.cos.empty() ? a.rows : a.key_rows;
  const auto t = a.t.view<T, 4>(), dk_eff = a.dk_eff.view<T, 4>();
  const auto dt = a.dt.view<T, 4>();
  const Shape s(o, rows, a.dk_eff);
  const Angles angles(rows);
  const KeyDirection direction = ops::key_direction(o.kind);
  with_source(o, t.size(3), s.P + s.C, [&](auto source, auto magnitude) HWY_ATTR {
    for_heads(a.dt, row0, row1, [&](int64_t b, int64_t n, int64_t h) HWY_ATTR {
      const T *in = t.ptr(b, n, h), *g = dk_eff.ptr(b, n, h);
      T* out = dt.ptr(b, n, h);
      for_runs(s, angles.cos_at(b, n), angles.sin_at(b, n), [&](const Run& run) COCA_INLINED {
        for_lanes(run.count, [&](auto d, int64_t i) COCA_INLINED {
          store_length_gradient<decltype(source)::value, decltype(magnitude)::value>(
              d, run, in, i, length_gradient(d, direction, run, i, g), out);
        });
      });
      copy_content(s.C, g + 2 * s.P, out + t.size(3) - s.C);
    });
  });
}

template <typename T>
void fold_backward_as(const CollinearOptions& o, const ops::CollinearFoldBackward& a, int64_t row0, int64_t row1) {
  const auto t = a.t.view<T, 4>();
  const auto dtbar = a.dtbar.view<float, 4>();
  const auto dt = a.dt.view<T, 4>();
  const Shape s(o, a.R, ops::effective_width(o, dtbar.size(3)));
  with_source(o, t.size(3), dtbar.size(3), [&](auto source, auto magnitude) HWY_ATTR {
    for_heads(a.dt, row0, row1, [&](int64_t b, int64_t n, int64_t h) HWY_ATTR {
      const T* in = t.ptr(b, n, h);
      const float* g = dtbar.ptr(b, n, h);
      T* out = dt.ptr(b, n, h);
      for_runs(s, nullptr, nullptr, [&](const Run& run) COCA_INLINED {
        for_lanes(run.count, [&](auto d, int64_t i) COCA_INLINED {
          store_length_gradient<decltype(source)::value, decltype(magnitude)::value>(d, run, in, i,
                                                                                     load(d, g + run.plane + i), out);
        });
      });
      copy_content(s.C, g + s.P, out + t.size(3) - s.C);
    });
  });
}

// The routines for all types, as they are dispatched.
void fold(const CollinearOptions& o, const ops::CollinearFold& a, int64_t row0, int64_t row1) {
  ops::with_float_type(a.t.dtype, [&](auto t) HWY_ATTR {
    ops::with_float_type(a.tbar.dtype,
                         [&](auto tbar) HWY_ATTR { fold_as<decltype(t), decltype(tbar)>(o, a, row0, row1); });
  });
}
void query(const CollinearOptions& o, const ops::CollinearQuery& a, int64_t row0, int64_t row1) {
  ops::with_float_type(a.q.dtype, [&](auto x) HWY_ATTR {
    with_target_form(o.kind, [&](auto form) HWY_ATTR { query_as<decltype(form), decltype(x)>(o, a, row0, row1); });
  });
}
void query_backward(const CollinearOptions& o, const ops::CollinearBackward& a, int64_t row0, int64_t row1) {
  ops::with_float_type(a.q.dtype, [&](auto x) HWY_ATTR {
    with_target_form(o.kind,
                     [&](auto form) HWY_ATTR { query_backward_as<decltype(form), decltype(x)>(o, a, row0, row1); });
  });
}
void key(const CollinearOptions& o, const ops::CollinearKey& a, int64_t row0, int64_t row1) {
  ops::with_float_type(a.tbar.dtype, [&](auto tbar) HWY_ATTR {
    ops::with_float_type(a.k_eff.dtype, [&](auto k) HWY_ATTR {
      keys_as<Source::kFolded, Magnitude::kRelu, decltype(tbar), decltype(k)>(o, a.rows, a.tbar, a.k_eff, row0, row1);
    });
  });
}
void key_from_t(const CollinearOptions& o, const ops::CollinearForward& a, int64_t row0, int64_t row1) {
  const ops::RopeRows& rows = a.key_rows.cos.empty() ? a.rows : a.key_rows;
  ops::with_float_type(a.t.dtype, [&](auto x) HWY_ATTR {
    using T = decltype(x);
    with_source(o, a.t.size(3), ops::stored_width(o, a.k_eff.size(3)), [&](auto source, auto magnitude) HWY_ATTR {
      keys_as<decltype(source)::value, decltype(magnitude)::value, T, T>(o, rows, a.t, a.k_eff, row0, row1);
    });
  });
}
void key_backward(const CollinearOptions& o, const ops::CollinearBackward& a, int64_t row0, int64_t row1) {
  ops::with_float_type(a.t.dtype, [&](auto x) HWY_ATTR { key_backward_as<decltype(x)>(o, a, row0, row1); });
}
void tbar_backward(const CollinearOptions& o, const ops::CollinearKeyBackward& a, int64_t row0, int64_t row1) {
  const auto dk_eff = a.dk_eff.view<float, 4>();
  const auto dtbar = a.dtbar.view<float, 4>();
  const Shape s(o, a.rows, a.dk_eff);
  const Angles angles(a.rows);
  const KeyDirection direction = ops::key_direction(o.kind);
  const auto add = [&](auto d, float* to, hn::Vec<decltype(d)> x)
                       HWY_ATTR { hn::StoreU(hn::Add(hn::LoadU(d, to), x), d, to); };
  for_heads(a.dtbar, row0, row1, [&](int64_t b, int64_t n, int64_t h) HWY_ATTR {
    const float* g = dk_eff.ptr(b, n, h);
    float* out = dtbar.ptr(b, n, h);
    for_runs(s, angles.cos_at(b, n), angles.sin_at(b, n), [&](const Run& run) COCA_INLINED {
      for_lanes(run.count, [&](auto d, int64_t i) COCA_INLINED {
        add(d, out + run.plane + i, length_gradient(d, direction, run, i, g).v);
      });
    });
    for_lanes(s.C, [&](auto d, int64_t i) COCA_INLINED { add(d, out + s.P + i, hn::LoadU(d, g + 2 * s.P + i)); });
  });
}
void fold_backward(const CollinearOptions& o, const ops::CollinearFoldBackward& a, int64_t row0, int64_t row1) {
  ops::with_float_type(a.t.dtype, [&](auto x) HWY_ATTR { fold_backward_as<decltype(x)>(o, a, row0, row1); });
}

}  // namespace coca::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace coca::cpu {

HWY_EXPORT(fold);
HWY_EXPORT(query);
HWY_EXPORT(query_backward);
HWY_EXPORT(key);
HWY_EXPORT(key_from_t);
HWY_EXPORT(key_backward);
HWY_EXPORT(tbar_backward);
HWY_EXPORT(fold_backward);

void collinear_fold_rows(const CollinearOptions& o, const ops::CollinearFold& a, int64_t row0, int64_t row1) noexcept {
  HWY_DYNAMIC_DISPATCH(fold)(o, a, row0, row1);
}
void collinear_query_rows(const CollinearOptions& o, const ops::CollinearQuery& a, int64_t row0,
                          int64_t row1) noexcept {
  HWY_DYNAMIC_DISPATCH(query)(o, a, row0, row1);
}
void collinear_key_rows(const CollinearOptions& o, const ops::CollinearKey& a, int64_t row0, int64_t row1) noexcept {
  HWY_DYNAMIC_DISPATCH(key)(o, a, row0, row1);
}
void collinear_key_rows_from_t(const CollinearOptions& o, const ops::CollinearForward& a, int64_t row0,
                               int64_t row1) noexcept {
  HWY_DYNAMIC_DISPATCH(key_from_t)(o, a, row0, row1);
}
void collinear_query_rows_backward(const CollinearOptions& o, const ops::CollinearBackward& a, int64_t row0,
                                   int64_t row1) noexcept {
  HWY_DYNAMIC_DISPATCH(query_backward)(o, a, row0, row1);
}
void collinear_key_rows_backward(const CollinearOptions& o, const ops::CollinearBackward& a, int64_t row0,
                                 int64_t row1) noexcept {
  HWY_DYNAMIC_DISPATCH(key_backward)(o, a, row0, row1);
}
void collinear_tbar_rows_backward(const CollinearOptions& o, const ops::CollinearKeyBackward& a, int64_t row0,
                                  int64_t row1) noexcept {
  HWY_DYNAMIC_DISPATCH(tbar_backward)(o, a, row0, row1);
}
void collinear_fold_rows_backward(const CollinearOptions& o, const ops::CollinearFoldBackward& a, int64_t row0,
                                  int64_t row1) noexcept {
  HWY_DYNAMIC_DISPATCH(fold_backward)(o, a, row0, row1);
}

}  // namespace coca::cpu
#endif  // HWY_ONCE
