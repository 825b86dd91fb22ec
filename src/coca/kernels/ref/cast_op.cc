// SPDX-License-Identifier: Apache-2.0
#include "coca/kernels/ref/cast.h"
#include "coca/kernels/ref/rows.h"

namespace coca::ref {

namespace {

void run(Context&, const ops::Cast& a) {
  if (a.x.dtype == DType::kF32) return cast(a.x.numel(), a.x.as<float>(), a.y.as<BF16>());
  cast(a.x.numel(), a.x.as<BF16>(), a.y.as<float>());
}

}  // namespace

const ops::CastImpl cast_row{.name = "ref", .run = {run}};

}  // namespace coca::ref
