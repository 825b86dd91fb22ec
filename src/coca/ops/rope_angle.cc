// SPDX-License-Identifier: Apache-2.0
#include "coca/ops/rope_angle.h"

#include "coca/ops/check.h"
#include "coca/ops/run.h"

namespace coca::ops {

void rope_angle_backward(Context& context, const RopeAngleBackward& a) {
  const Site at("rope_angle", context);
  COCA_CHECK(a.x.rank() == 4, "[rope_angle] x has shape {}; expected [B, N, H, D]", a.x.shape.text());
  const bool query = a.kind == AngleOf::kQuery;
  const int64_t C = query ? a.collinear.content : 0, members = query ? form_info(a.collinear.kind).members : 1,
                numbers = a.x.size(3) - C;
  COCA_CHECK(C >= 0 && numbers >= 0 && numbers % members == 0,
             "[rope_angle] queries of {} numbers with {} content channels; expected {} numbers for each plane",
             a.x.size(3), C, members);
  const int64_t E = (query ? 2 * numbers / members : numbers) + C;
  check_heads(at, "x", a.x, a.x.shape);
  check_heads(at, "dy", a.dy, {a.x.size(0), a.x.size(1), a.x.size(2), E});
  check_rows(at, a.rows, a.dy);
  COCA_CHECK(2 * a.rows.cos.size(2) <= E - C, "[rope_angle] {} rotary dims exceed the {} of planes",
             2 * a.rows.cos.size(2), E - C);
  check_dtype(at, "dy", a.dy, a.x.dtype);
  check_packed(at, "dangle", a.dangle, {a.x.size(0), a.x.size(1), a.rows.cos.size(2)});
  run<RopeAngleImpl>(context, a.x.dtype, &RopeAngleFunctions::backward, a);
}

}  // namespace coca::ops
