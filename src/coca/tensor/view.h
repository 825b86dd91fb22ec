// coca/tensor/view.h - typed, non-owning, strided view for kernels: pointer, extents, strides (in elements).
// Trivially copyable. Shapes are written slowest first; the innermost stride is 1 unless said otherwise.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <array>
#include <cstdint>

#include "coca/base/error.h"

namespace coca {

template <typename T, int Rank>
struct TensorView {
  T* data = nullptr;
  std::array<int64_t, Rank> shape{};
  std::array<int64_t, Rank> strides{};

  int64_t size(int dim) const { return shape[static_cast<size_t>(dim)]; }
  int64_t stride(int dim) const { return strides[static_cast<size_t>(dim)]; }
  bool empty() const { return data == nullptr; }

  template <typename... Index>
  T* ptr(Index... index) const {
    static_assert(sizeof...(Index) <= Rank);
    const int64_t at[] = {static_cast<int64_t>(index)...};
    T* p = data;
    for (size_t i = 0; i < sizeof...(Index); ++i) {
      COCA_DCHECK(at[i] >= 0 && at[i] < shape[i]);
      p += at[i] * strides[i];
    }
    return p;
  }
  template <typename... Index>
  T& operator()(Index... index) const {
    static_assert(sizeof...(Index) == Rank);
    return *ptr(index...);
  }
  operator TensorView<const T, Rank>() const  // NOLINT(google-explicit-constructor): as T* becomes const T*
      requires(!std::is_const_v<T>) {
    return {data, shape, strides};
  }
};

}  // namespace coca
