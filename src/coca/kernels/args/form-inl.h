// coca/kernels/args/form-inl.h - what forms share. Included once for each SIMD target (form.h).
// SPDX-License-Identifier: Apache-2.0
#include "coca/kernels/args/form.h"

namespace coca::forms::COCA_FORM_TARGET {

// The length t of a key, and the gradient of what it was made from.
template <Magnitude kMagnitude, typename S>
COCA_FORM S key_length(S t) {
  if constexpr (kMagnitude == Magnitude::kSoftplus) return softplus(t);
  return positive(t);
}
template <Magnitude kMagnitude, typename S>
COCA_FORM S key_length_backward(S t, S dlength) {
  if constexpr (kMagnitude == Magnitude::kSoftplus) return dlength * logistic(t);
  return step(t, dlength);
}

// The rotation of (u, 0) and its gradient, for forms whose queries have only a length.
template <typename S>
COCA_FORM Plane<S> turned(S u, S c, S s) {
  return {u * c, u * s};
}
template <typename S>
COCA_FORM S turned_backward(S c, S s, S gx, S gy) {
  return gx * c + gy * s;
}

// The key of a plane with the length t, and the gradient of t.
template <typename S>
COCA_FORM Plane<S> key_of(KeyDirection key, S t, S c, S s) {
  const S x(key.x), y(key.y);
  return {t * (x * c - y * s), t * (y * c + x * s)};
}
template <typename S>
COCA_FORM S key_backward(KeyDirection key, S c, S s, S gx, S gy) {
  const S x(key.x), y(key.y);
  return gx * (x * c - y * s) + gy * (y * c + x * s);
}

}  // namespace coca::forms::COCA_FORM_TARGET
