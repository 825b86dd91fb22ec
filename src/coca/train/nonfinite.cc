// SPDX-License-Identifier: Apache-2.0
#include "coca/train/nonfinite.h"

#include <cmath>
#include <limits>
#include <optional>
#include <vector>

#include "coca/base/count.h"

namespace coca::train {

namespace {

float element(TensorRef t, int64_t at) {
  return t.dtype == DType::kF32 ? static_cast<const float*>(t.data)[at]
                                : static_cast<float>(static_cast<const BF16*>(t.data)[at]);
}

// A quick check for the common case: whether a contiguous block has finite values only.
template <typename T>
bool all_finite(const T* values, int64_t n) {
  int bad = 0;
  for (int64_t i = 0; i < n; ++i)
    bad |= !(std::abs(static_cast<float>(values[i])) <= std::numeric_limits<float>::max());
  return bad == 0;
}

}  // namespace

std::string describe_nonfinite(TensorRef t) {
  if (t.empty() || (t.dtype != DType::kF32 && t.dtype != DType::kBF16)) return "";
  if (t.contiguous() && (t.dtype == DType::kF32 ? all_finite(static_cast<const float*>(t.data), t.numel())
                                                : all_finite(static_cast<const BF16*>(t.data), t.numel())))
    return "";
  const int rank = t.rank();
  int64_t bad = 0;
  std::vector<int64_t> index(static_cast<size_t>(rank)), first;
  float value = 0;
  for (int64_t i = 0; i < t.numel(); ++i) {
    int64_t left = i, at = 0;
    for (int axis = rank; axis-- > 0;) {
      index[static_cast<size_t>(axis)] = left % t.size(axis);
      left /= t.size(axis);
      at += index[static_cast<size_t>(axis)] * t.stride(axis);
    }
    const float x = element(t, at);
    if (std::isfinite(x)) continue;
    if (bad++ == 0) {
      first = index;
      value = x;
    }
  }
  if (bad == 0) return "";
  std::string place;
  for (const int64_t i : first) place += (place.empty() ? "" : ", ") + std::to_string(i);
  return fmt::format("[{}] is {} ({} of {} are not finite)", place, without_nan_sign(value), bad, t.numel());
}

void FirstNonFinite::look(std::string_view name, TensorRef value) {
  if (!found_.empty()) return;
  if (const std::string bad = describe_nonfinite(fetched_.now(cx_, value)); !bad.empty())
    found_ = fmt::format("{} {}", name, bad);
}

std::string first_nonfinite_tensor(const model::TensorStore& store, ListOrder order) {
  Context cx(store.memory());
  FirstNonFinite first(cx);
  const auto& infos = store.infos();
  for (size_t i = 0; i < infos.size(); ++i) {
    const model::ParamInfo& info = infos[order == ListOrder::kForward ? i : infos.size() - 1 - i];
    first.look(info.name, store.at(info));
  }
  return first.found();
}

}  // namespace coca::train
