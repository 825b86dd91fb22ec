// SPDX-License-Identifier: Apache-2.0
#include "coca/ops/cast.h"

#include "coca/ops/check.h"
#include "coca/ops/run.h"

namespace coca::ops {

void cast(Context& context, const Cast& a) {
  const Site at("cast", context);
  check_packed(at, "x", a.x, kF32OrBF16);
  check_packed(at, "y", a.y, a.x.shape, a.x.dtype == DType::kF32 ? DType::kBF16 : DType::kF32);
  run<CastImpl>(context, a.x.dtype, &CastFunctions::cast, a);
}

}  // namespace coca::ops
