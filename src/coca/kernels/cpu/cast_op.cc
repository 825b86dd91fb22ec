// SPDX-License-Identifier: Apache-2.0
#include "coca/base/parallel.h"
#include "coca/kernels/cpu/cast.h"
#include "coca/kernels/cpu/rows.h"

namespace coca::cpu {

namespace {

template <typename From, typename To>
void cast_as(const ops::Cast& a) {
  const From* x = a.x.as<From>();
  To* y = a.y.as<To>();
  parallel_blocks(a.x.numel(), 65536, [&](int64_t i0, int64_t i1) { cast(x + i0, y + i0, i1 - i0); });
}

void run(Context&, const ops::Cast& a) {
  if (a.x.dtype == DType::kF32) return cast_as<float, BF16>(a);
  cast_as<BF16, float>(a);
}

}  // namespace

const ops::CastImpl cast_row{.name = "cpu", .run = {run}};

}  // namespace coca::cpu
