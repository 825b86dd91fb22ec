// coca/train/nonfinite.h - finds the first number of a step that is not finite.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <string_view>

#include "coca/model/params.h"

namespace coca::train {

// "[0, 3, 1] is nan (12 of 4096 are not finite)", for the first such element of an F32 or BF16 tensor with any strides;
// "" if all are finite.
std::string describe_nonfinite(TensorRef);

// Remembers the first tensor with such a number among those shown to it.
class FirstNonFinite {
 public:
  void look(std::string_view name, TensorRef value);
  const std::string& found() const { return found_; }  // "layer.2.q_eff [0, 3, 1] is ..."; "" if none so far

 private:
  std::string found_;
};

// The first in a store, going through its list forwards or (in the order in which gradients are computed) backwards.
enum class ListOrder : uint8_t { kForward, kBackward };
std::string first_nonfinite_tensor(const model::TensorStore&, ListOrder);

}  // namespace coca::train
