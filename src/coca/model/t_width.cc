// SPDX-License-Identifier: Apache-2.0
#include "coca/model/t_width.h"

#include <algorithm>
#include <utility>

#include "coca/base/count.h"

namespace coca::model {

namespace {

// The dims of a head that pair p folds, in the order of ops/collinear.h.
std::pair<int64_t, int64_t> members(const ModelSpec& s, int64_t p) {
  if (s.fold == ops::Fold::kOfficial) return {p, p + s.D / 2};
  if (p < s.R / 2) return {p, p + s.R / 2};
  const int64_t first = s.R + p - s.R / 2;
  return {first, first + (s.plane_dims() - s.R) / 2};
}

}  // namespace

ModelSpec with_t_width(const ModelSpec& spec, TWidth width) {
  ModelSpec out = spec;
  out.t_width = width;
  validate(out);
  return out;
}

bool has_half_t(const ModelSpec& s) {
  return is_coca(s.attention) && s.head_norm == HeadNorm::kNone && ops::form_info(form_of(s.attention)).members == 2;
}

ModelSpec folded_t(const ModelSpec& spec) { return has_half_t(spec) ? with_t_width(spec, TWidth::kHalf) : spec; }

std::vector<float> change_t_width(const ModelSpec& from, const ModelSpec& to, std::vector<float> values,
                                  int64_t width) {
  if (from.t_width == to.t_width) return values;
  const bool fused = from.qkv == Qkv::kFused, folds = to.t_width == TWidth::kHalf;
  const int64_t heads = fused ? from.H : from.G,
                around = fused ? from.D : 0;  // rows of q in front of T's, and of v behind
  const int64_t rows_from = 2 * around + from.key_width(), rows_to = 2 * around + to.key_width();
  COCA_CHECK_AS(kInternal, std::ssize(values) == heads * rows_from * width,
                "T at another width: {}; expected {} x {} x {}", counted(values.size(), "value"), heads, rows_from,
                width);
  std::vector<float> out(static_cast<size_t>(heads * rows_to * width));
  for (int64_t h = 0; h < heads; ++h) {
    const float* x = values.data() + h * rows_from * width;
    float* y = out.data() + h * rows_to * width;
    std::copy_n(x, around * width, y);
    std::copy_n(x + (around + from.key_width()) * width, around * width, y + (around + to.key_width()) * width);
    x += around * width;
    y += around * width;
    const int64_t pairs = from.plane_dims() / 2;
    std::copy_n(x + (from.key_width() - from.content) * width, from.content * width,
                y + (to.key_width() - to.content) * width);
    for (int64_t p = 0; p < pairs; ++p) {
      const auto [a, b] = members(from, p);
      for (int64_t i = 0; i < width; ++i) {
        if (folds)
          y[p * width + i] = 0.5f * (x[a * width + i] + x[b * width + i]);
        else
          y[a * width + i] = y[b * width + i] = x[p * width + i];
      }
    }
  }
  return out;
}

}  // namespace coca::model
