// SPDX-License-Identifier: Apache-2.0
#include "coca/base/parallel.h"
#include "coca/kernels/args/float_types.h"
#include "coca/kernels/cpu/rows.h"

namespace coca::cpu {

namespace {

constexpr int64_t kGrain = 16384;

// to[i] = (or +=) from[i] under the mask.
template <typename From, typename To>
void mask_as(const ops::Dropout& dropout, ops::Write write, const From* from, To* to, int64_t n) {
  const uint32_t threshold = ops::dropout_threshold(static_cast<double>(dropout.rate));
  const float kept = static_cast<float>(1.0 / (1.0 - static_cast<double>(dropout.rate)));
  parallel_blocks(n, kGrain, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const float value = ops::dropout_keeps(dropout.key, i, threshold) ? kept * static_cast<float>(from[i]) : 0.0f;
      to[i] = static_cast<To>(write == ops::Write::kAssign ? value : static_cast<float>(to[i]) + value);
    }
  });
}

void dropout(Context&, const ops::LoraDropout& a) {
  ops::with_float_type(a.x.dtype, [&](auto x) {
    ops::with_float_type(a.y.dtype, [&](auto y) {
      mask_as(a.dropout, a.y_write, a.x.as<decltype(x)>(), a.y.as<decltype(y)>(), a.x.numel());
    });
  });
}

void multiply(Context&, MutTensorRef t, float factor) {
  ops::with_float_type(t.dtype, [&](auto zero) {
    auto* values = t.as<decltype(zero)>();
    for (int64_t i = 0; i < t.numel(); ++i)
      values[i] = static_cast<decltype(zero)>(factor * static_cast<float>(values[i]));
  });
}

}  // namespace

const ops::LoraImpl lora_row{.name = "cpu", .run = {dropout, multiply}};

}  // namespace coca::cpu
