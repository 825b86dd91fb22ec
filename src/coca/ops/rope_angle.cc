// SPDX-License-Identifier: Apache-2.0
#include "coca/ops/rope_angle.h"

#include "coca/ops/check.h"
#include "coca/ops/run.h"

namespace coca::ops {

void rope_angle_backward(Context& context, const RopeAngleBackward& a) {
  const Site at("rope_angle", context);
  check_rows(at, a.rows, a.x);
  check_heads(at, "dy", a.dy, a.x.shape);
  check_dtype(at, "dy", a.dy, a.x.dtype);
  check_packed(at, "dangle", a.dangle, {a.x.size(0), a.x.size(1), a.rows.cos.size(2)});
  run<RopeAngleImpl>(context, a.x.dtype, &RopeAngleFunctions::backward, a);
}

}  // namespace coca::ops
