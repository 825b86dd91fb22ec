// SPDX-License-Identifier: Apache-2.0
#include "coca/ops/cast.h"

#include "coca/base/parallel.h"
#include "coca/kernels/cpu/cast.h"
#include "coca/kernels/ref/cast.h"
#include "coca/ops/check.h"
#include "coca/ops/impl.h"

namespace coca::ops {

namespace {

constexpr std::string_view kOp = "cast";

template <typename From, typename To>
void cast_as(Context& context, const Cast& a) {
  const int64_t n = a.x.numel();
  const From* x = a.x.as<From>();
  To* y = a.y.as<To>();
  if (use_ref(context, kOp)) return ref::cast(n, x, y);
  parallel_blocks(n, 65536, [&](int64_t i0, int64_t i1) { cpu::cast(x + i0, y + i0, i1 - i0); });
}

}  // namespace

void cast(Context& context, const Cast& a) {
  check_packed(kOp, "x", a.x, kF32OrBF16);
  const bool demotes = a.x.dtype == DType::kF32;
  check_packed(kOp, "y", a.y, a.x.shape, demotes ? DType::kBF16 : DType::kF32);
  demotes ? cast_as<float, BF16>(context, a) : cast_as<BF16, float>(context, a);
}

}  // namespace coca::ops
