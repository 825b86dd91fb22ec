// tests/ops/head_modifiers_case.h - operands of the tests of head_modifiers: heads amid others, and packed parameters.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "ops/op_test.h"
#include "support/views.h"

namespace coca::test {

// Views of values. A result that is empty is made, full of 0.5, to which gradients of parameters are added.
template <int Rank, typename S>
TensorView<const S, Rank> in(const std::vector<S>& values, const Dims& shape) {
  return as_view<const S, Rank>(values, shape);
}
template <int Rank, typename S>
TensorView<S, Rank> out(std::vector<S>& values, const Dims& shape) {
  values.resize(static_cast<size_t>(shape.product()), S(0.5));
  return as_view<S, Rank>(values, shape);
}

// Heads of type T amid others, as in a fused projection, on the context's device.
template <typename T>
class Fused {
 public:
  Fused(Context& cx, const Dims& shape, const std::vector<float>& values = {}) : cx_(cx), X_(shape[3]) {
    Tensor all({shape[0], shape[1], shape[2], 3, X_}, DTypeOf<T>::value);
    std::ranges::fill(all.values<T>(), static_cast<T>(kSentinel));
    for (size_t i = 0; i < values.size(); ++i) all.values<T>()[at(i)] = static_cast<T>(values[i]);
    all_ = to_device(cx, all);
  }
  operator MutTensorRef() { return all_.ref().select(3, 1); }  // NOLINT: implicit on purpose
  operator TensorRef() { return all_.ref().select(3, 1); }     // NOLINT
  // The heads; those between them must be untouched.
  std::vector<float> values() {
    const Tensor all = to_host(cx_, all_);
    std::vector<float> out;
    size_t others = 0;
    const auto count = static_cast<size_t>(all.numel() / 3);
    for (size_t i = 0; i < count; ++i) out.push_back(static_cast<float>(all.values<T>()[at(i)]));
    for (const T v : all.values<T>()) others += is_sentinel(v);
    EXPECT_EQ(others, 2 * count) << "stray or missing writes";
    return out;
  }

 private:
  static bool is_sentinel(T v) { return static_cast<float>(v) == static_cast<float>(static_cast<T>(kSentinel)); }
  size_t at(size_t i) const {
    const auto X = static_cast<size_t>(X_);
    return (i / X * 3 + 1) * X + i % X;
  }
  Context& cx_;
  int64_t X_;
  Tensor all_;
};

// A packed f32 tensor on the context's device; without values a gradient that is added to.
class Packed {
 public:
  Packed(Context& cx, const Dims& shape, std::vector<float> values = {}) : cx_(cx) {
    values.resize(static_cast<size_t>(shape.product()), 0.5f);
    t_ = to_device(cx, tensor_of<float>(shape, values));
  }
  operator MutTensorRef() { return t_; }  // NOLINT: implicit on purpose
  operator TensorRef() { return t_; }     // NOLINT
  std::vector<float> values() { return float_values(to_host(cx_, t_)); }

 private:
  Context& cx_;
  Tensor t_;
};

}  // namespace coca::test
