// tests/support/t_width.h - converts parameters to another width of T, and lists the specs with half width.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <utility>
#include <vector>

#include "coca/model/t_width.h"
#include "support/longformer_specs.h"
#include "support/tiny_model.h"

namespace coca::test {

// The parameters of `from` with another width of T.
inline model::ParamStore with_width(const model::ModelSpec& from, const model::ParamStore& params,
                                    model::TWidth width) {
  const model::ModelSpec to = model::with_t_width(from, width);
  model::ParamStore out(to);
  for (size_t i = 0; i < out.infos().size(); ++i) {
    const model::ParamInfo &stored = params.infos()[i], &info = out.infos()[i];
    const TensorRef t = params.at(stored);
    std::vector<float> v(t.as<float>(), t.as<float>() + t.numel());
    if (stored.shape != info.shape)
      v = model::change_t_width(from, to, std::move(v), info.shape.rank == 2 ? info.shape[1] : 1);
    std::ranges::copy(v, out.at(info).as<float>());
  }
  return out;
}

inline std::vector<NamedSpec> half_t_and_window_specs() {
  std::vector<NamedSpec> all = half_t_specs();
  for (const NamedSpec& s : trained_window_specs())
    if (s.spec.t_width == model::TWidth::kHalf) all.push_back(s);
  return all;
}

}  // namespace coca::test
