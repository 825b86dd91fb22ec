// coca/train/nonfinite.h - finds the first number of a step that is not finite.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <string_view>

#include "coca/model/params.h"
#include "coca/tensor/transfer.h"

namespace coca::train {

// "[0, 3, 1] is nan (12 of 4096 are not finite)", for the first such element of an F32 or BF16 tensor on the host with
// any strides; "" if all are finite.
std::string describe_nonfinite(TensorRef);

// Remembers the first tensor with such a number among those shown to it, which lie on the host or the context's device.
class FirstNonFinite {
 public:
  explicit FirstNonFinite(Context& cx) : cx_(cx) {}
  void look(std::string_view name, TensorRef value);
  const std::string& found() const { return found_; }  // "layer.2.q_eff [0, 3, 1] is ..."; "" if none so far

 private:
  Context& cx_;
  FetchedTensor fetched_;
  std::string found_;
};

// The first in a store, going through its list forwards or (in the order in which gradients are computed) backwards.
enum class ListOrder : uint8_t { kForward, kBackward };
std::string first_nonfinite_tensor(const model::TensorStore&, ListOrder);

}  // namespace coca::train
