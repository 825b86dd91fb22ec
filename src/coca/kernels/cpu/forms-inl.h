// coca/kernels/cpu/forms-inl.h - CoCA's score forms over vectors: a vector as the forms' scalar, and the forms compiled
// for this SIMD target. Included once per SIMD target, after hwy/foreach_target.h.
// SPDX-License-Identifier: Apache-2.0
#if defined(COCA_KERNELS_CPU_FORMS_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef COCA_KERNELS_CPU_FORMS_INL_H_
#undef COCA_KERNELS_CPU_FORMS_INL_H_
#else
#define COCA_KERNELS_CPU_FORMS_INL_H_
#endif

#include "hwy/highway.h"
#include "coca/kernels/args/collinear.h"
#include "coca/kernels/cpu/math-inl.h"
#include "hwy/contrib/math/math-inl.h"

HWY_BEFORE_NAMESPACE();
namespace coca::cpu::HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

template <class D>
struct Lanes {
  hn::Vec<D> v;
  HWY_INLINE Lanes(hn::Vec<D> lanes) : v(lanes) {}
  HWY_INLINE explicit Lanes(float x) : v(hn::Set(D(), x)) {}

  friend HWY_INLINE Lanes operator+(Lanes a, Lanes b) { return hn::Add(a.v, b.v); }
  friend HWY_INLINE Lanes operator-(Lanes a, Lanes b) { return hn::Sub(a.v, b.v); }
  friend HWY_INLINE Lanes operator*(Lanes a, Lanes b) { return hn::Mul(a.v, b.v); }
  friend HWY_INLINE Lanes operator-(Lanes a) { return hn::Neg(a.v); }

  // What form.h says of floats.
  friend HWY_INLINE Lanes positive(Lanes t) { return hn::Max(hn::Zero(D()), t.v); }
  friend HWY_INLINE Lanes step(Lanes t, Lanes g) { return hn::IfThenElseZero(hn::Gt(t.v, hn::Zero(D())), g.v); }
  friend HWY_INLINE Lanes root(Lanes t) { return hn::Sqrt(t.v); }
  friend HWY_INLINE Lanes ratio(Lanes a, Lanes b) {
    return hn::IfThenElseZero(hn::Gt(b.v, hn::Zero(D())), hn::Div(a.v, b.v));
  }
  friend HWY_INLINE Lanes softplus(Lanes t) {
    const D d;
    return hn::Add(hn::Max(hn::Zero(d), t.v), hn::Log1p(d, exp_of(d, hn::Neg(hn::Abs(t.v)))));
  }
  friend HWY_INLINE Lanes logistic(Lanes t) {
    const D d;
    const auto one = hn::Set(d, 1.0f), e = exp_of(d, hn::Neg(hn::Abs(t.v)));
    return hn::Div(hn::IfThenElse(hn::Lt(t.v, hn::Zero(d)), e, one), hn::Add(one, e));
  }
};

}  // namespace coca::cpu::HWY_NAMESPACE

#undef COCA_FORM_TARGET
#define COCA_FORM_TARGET HWY_NAMESPACE
#include "coca/kernels/args/forms-inl.h"
#undef COCA_FORM_TARGET
#define COCA_FORM_TARGET plain

namespace coca::cpu::HWY_NAMESPACE {

// Calls body with an object of this target's type of the form.
template <class Body>
void with_target_form(ops::Collinear kind, const Body& body) {
  switch (kind) {
#define COCA_FORM_CASE(X) \
  case ops::Collinear::k##X: return body(forms::HWY_NAMESPACE::X());
    COCA_FORMS(COCA_FORM_CASE)
#undef COCA_FORM_CASE
  }
}

}  // namespace coca::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard
