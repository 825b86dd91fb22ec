// coca/train/nonfinite.h - which number of a step first stopped being finite.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <string_view>

#include "coca/model/params.h"

namespace coca::train {

// "[0, 3, 1] is nan (12 of 4096 are not finite)", of the first such element of an F32 or BF16 tensor with any strides; "" where
// all are finite.
std::string describe_nonfinite(TensorRef);

// The first tensor that has such a number, of those shown to it.
class FirstNonFinite {
 public:
  void look(std::string_view name, TensorRef value);
  const std::string& found() const { return found_; }  // "layer.2.q_eff [0, 3, 1] is ..."; "" so far none

 private:
  std::string found_;
};

// The first of a store, forwards or (as gradients are made) backwards through its list.
enum class ListOrder : uint8_t { kForward, kBackward };
std::string first_nonfinite_tensor(const model::TensorStore&, ListOrder);

}  // namespace coca::train
