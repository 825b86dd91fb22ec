// SPDX-License-Identifier: Apache-2.0
#include "coca/kernels/cpu/embedding.h"

#include <cstring>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "coca/kernels/cpu/embedding.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep

#include "coca/kernels/cpu/bf16-inl.h"
#include "coca/kernels/cpu/math-inl.h"

HWY_BEFORE_NAMESPACE();
namespace coca::cpu::HWY_NAMESPACE {

void gather_bf16(const int32_t* ids, const BF16* table, float* y, int64_t C, int64_t row0, int64_t row1) {
  for (int64_t m = row0; m < row1; ++m) {
    const BF16* from = table + ids[m] * C;
    float* to = y + m * C;
    for_lanes(C, [&](auto d, int64_t i) HWY_ATTR { hn::StoreU(load_f32(d, from + i), d, to + i); });
  }
}

void scatter_add(const int32_t* ids, const float* dy, float* dtable, int64_t M, int64_t C, int64_t col0, int64_t col1) {
  for (int64_t m = 0; m < M; ++m) {
    const float* from = dy + m * C + col0;
    float* to = dtable + ids[m] * C + col0;
    for_lanes(col1 - col0, [&](auto d, int64_t i) HWY_ATTR {
      hn::StoreU(hn::Add(hn::LoadU(d, to + i), hn::LoadU(d, from + i)), d, to + i);
    });
  }
}

}  // namespace coca::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace coca::cpu {

HWY_EXPORT(gather_bf16);
HWY_EXPORT(scatter_add);

void embedding_rows(const int32_t* ids, const float* table, float* y, int64_t C, int64_t row0, int64_t row1) noexcept {
  const size_t bytes = static_cast<size_t>(C) * sizeof(float);
  for (int64_t m = row0; m < row1; ++m) std::memcpy(y + m * C, table + ids[m] * C, bytes);
}
void embedding_rows(const int32_t* ids, const BF16* table, float* y, int64_t C, int64_t row0, int64_t row1) noexcept {
  HWY_DYNAMIC_DISPATCH(gather_bf16)(ids, table, y, C, row0, row1);
}
void embedding_add_columns(const int32_t* ids, const float* dy, float* dtable, int64_t M, int64_t C, int64_t col0,
                           int64_t col1) noexcept {
  HWY_DYNAMIC_DISPATCH(scatter_add)(ids, dy, dtable, M, C, col0, col1);
}

}  // namespace coca::cpu
#endif  // HWY_ONCE
