// SPDX-License-Identifier: Apache-2.0
#include <cmath>

#include "coca/kernels/ref/rows.h"
#include "coca/kernels/ref/top_keys.h"
#include "coca/tensor/float_copies.h"

namespace coca::ref {

namespace {

void find(Context&, const ops::TopKeysOptions& options, const ops::TopKeysFind& a) {
  const float scale = options.scale != 0.0f ? options.scale : 1.0f / std::sqrt(static_cast<float>(a.q.size(3)));
  if (a.key_start == 0) clear_lists(a.scores.view<float, 4>(), a.keys.view<int32_t, 4>());
  top_keys_find<float>({.count = options.count,
                        .scale = scale,
                        .first = options.first,
                        .hidden = options.hidden,
                        .query_start = options.query_start,
                        .most_distance = options.most_distance,
                        .slopes = a.slopes.empty() ? nullptr : a.slopes.as<float>()},
                       FloatInput(a.q).ref().view<float, 4>(), FloatInput(a.k).ref().view<float, 4>(), a.key_start,
                       a.scores.view<float, 4>(), a.keys.view<int32_t, 4>());
}

void add(Context&, const ops::TopKeysAdd& a) {
  const FloatOutput o(a.o);
  top_keys_add<float>(a.scores.view<float, 4>(), a.keys.view<int32_t, 4>(), FloatInput(a.v).ref().view<float, 4>(),
                      a.key_start, o.ref().view<float, 4>(), a.lse.view<float, 3>());
  o.store();
}

}  // namespace

const ops::TopKeysImpl top_keys_row{.name = "ref", .run = {find, add}};

}  // namespace coca::ref
