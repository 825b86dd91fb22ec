// tests/ops/op_test.h - helpers of the op tests: guarded tensors, every way to run an op, error messages, equal bits.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <functional>
#include <string>
#include <vector>

#include "coca/base/parallel.h"
#include "coca/kernels/args/rope.h"
#include "coca/tensor/transfer.h"
#include "support/numerics.h"
#include "support/targets.h"

namespace coca::test {

// A matrix (or a vector as one row) of float or bf16, surrounded by sentinels: before, after and between strided rows.
// It is on the context's device.
template <typename T>
class GuardedOf {
 public:
  GuardedOf(Context& context, int64_t rows, int64_t cols, int64_t gap = 0) : GuardedOf(context, rows, cols, {}, gap) {}
  // values: rows * cols numbers, or empty for an output.
  GuardedOf(Context& context, int64_t rows, int64_t cols, const std::vector<float>& values, int64_t gap = 0)
      : context_(context), rows_(rows), cols_(cols), ld_(cols + gap) {
    Tensor cells({rows * ld_ + 2 * kMargin}, DTypeOf<T>::value);
    const std::span<T> at = cells.values<T>();
    std::fill(at.begin(), at.end(), static_cast<T>(kSentinel));
    for (size_t i = 0; i < values.size(); ++i) {
      const auto row = static_cast<int64_t>(i) / cols, col = static_cast<int64_t>(i) % cols;
      at[static_cast<size_t>(kMargin + row * ld_ + col)] = static_cast<T>(values[i]);
    }
    cells_ = to_device(context, cells);
  }

  MutTensorRef ref() {
    MutTensorRef t = cells_.ref().narrow(0, kMargin, rows_ * ld_);
    t.shape = {rows_, cols_};
    t.strides = {ld_, 1};
    return t;
  }
  MutTensorRef vector() { return cells_.ref().narrow(0, kMargin, rows_ * cols_); }
  std::vector<float> values() {
    const Tensor cells = to_host(context_, cells_);
    std::vector<float> out;
    for (int64_t m = 0; m < rows_; ++m)
      for (int64_t c = 0; c < cols_; ++c)
        out.push_back(static_cast<float>(cells.values<T>()[static_cast<size_t>(kMargin + m * ld_ + c)]));
    return out;
  }
  // Checks that every cell outside the matrix still holds the sentinel and, unless values were given, that none inside
  // does.
  void expect_intact(const std::string& what) const {
    const float sentinel = static_cast<float>(static_cast<T>(kSentinel));
    const Tensor cells = to_host(context_, cells_);
    for (int64_t i = 0; i < cells.numel(); ++i) {
      const int64_t at = i - kMargin, row = at < 0 ? -1 : at / ld_, col = at < 0 ? 0 : at % ld_;
      const bool inside = row >= 0 && row < rows_ && col < cols_;
      ASSERT_EQ(inside, static_cast<float>(cells.values<T>()[static_cast<size_t>(i)]) != sentinel)
          << what << ": " << (inside ? "not written" : "stray write") << " at row " << row << " column " << col;
    }
  }

 private:
  static constexpr int64_t kMargin = 64;

  Context& context_;
  int64_t rows_, cols_, ld_;
  Tensor cells_;
};
using Guarded = GuardedOf<float>;

// Rows of angles, copied to the context's device.
class RowsOn {
 public:
  RowsOn(Context& context, const ops::RopeRows& rows)
      : cos_(to_device(context, rows.cos)), sin_(to_device(context, rows.sin)) {}
  operator ops::RopeRows() const { return {cos_.ref(), sin_.ref()}; }  // NOLINT: intentionally implicit

 private:
  Tensor cos_, sin_;
};

inline void expect_error(const std::function<void()>& body, const std::string& text) {
  try {
    body();
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), testing::HasSubstr(text));
    return;
  }
  ADD_FAILURE() << "no error; expected: " << text;
}

// Checks that body's numbers have the same bits with 1, 2 and 3 threads.
inline void expect_same_bits(const std::function<std::vector<float>()>& body, const std::string& what) {
  const int before = max_threads();
  set_max_threads(1);
  const std::vector<float> one = body();
  for (int threads : {2, 3}) {
    set_max_threads(threads);
    const std::vector<float> many = body();
    ASSERT_EQ(one.size(), many.size());
    EXPECT_EQ(0, std::memcmp(one.data(), many.data(), one.size() * sizeof(float)))
        << what << ": " << threads << " threads give other bits than one";
  }
  set_max_threads(before);
}

template <typename To>
std::vector<To> as(const std::vector<float>& from) {
  return std::vector<To>(from.begin(), from.end());
}

// A loss that weights every output differently: sum of weights * y.
inline Complex weighted_sum(const std::vector<Complex>& y, const std::vector<double>& weights) {
  Complex sum = 0;
  for (size_t i = 0; i < y.size(); ++i) sum += y[i] * weights[i];
  return sum;
}

inline std::vector<double> joined(const std::vector<std::vector<double>>& parts) {
  std::vector<double> all;
  for (const auto& part : parts) all.insert(all.end(), part.begin(), part.end());
  return all;
}

inline Tensor int_tensor(const std::vector<int32_t>& values) {
  Tensor t({static_cast<int64_t>(values.size())}, DType::kI32);
  std::copy(values.begin(), values.end(), t.values<int32_t>().begin());
  return t;
}

}  // namespace coca::test
