// SPDX-License-Identifier: Apache-2.0
#include <algorithm>

#include "coca/kernels/ref/linear.h"
#include "coca/kernels/ref/rows.h"
#include "coca/tensor/float_copies.h"

namespace coca::ref {

namespace {

template <typename Ref>
void clear_rows(const Ref& t) {
  for (int64_t m = 0; m < t.size(0); ++m) std::fill_n(t.template as<float>() + m * t.stride(0), t.size(1), 0.0f);
}

void forward(Context&, const ops::LinearForward& a) {
  const FloatInput x(a.x), w(a.w);
  const FloatOutput y(a.y);
  if (a.y_write == ops::Write::kAssign) clear_rows(y.ref());
  linear_forward<float>(x.ref().view<float, 2>(), w.ref().view<float, 2>(), a.b.view<float, 1>(),
                        y.ref().view<float, 2>());
  y.store();
}

void backward(Context&, const ops::LinearBackward& a) {
  const FloatInput x(a.x), w(a.w), given(a.dy);
  const auto dy = given.ref().view<float, 2>();
  if (!a.dx.empty()) {
    const FloatOutput dx(a.dx);
    if (a.dx_write == ops::Write::kAssign) clear_rows(dx.ref());
    linear_backward_x<float>(w.ref().view<float, 2>(), dy, dx.ref().view<float, 2>());
    dx.store();
  }
  if (!a.dw.empty()) linear_backward_w<float>(x.ref().view<float, 2>(), dy, a.dw.view<float, 2>());
  if (!a.db.empty()) linear_backward_b<float>(dy, a.db.view<float, 1>());
}

}  // namespace

const ops::LinearImpl linear_row{.name = "ref", .run = {forward, backward}};

}  // namespace coca::ref
