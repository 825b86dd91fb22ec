// coca/kernels/onednn/rows.h - what ops/table.cc lists of oneDNN.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "coca/kernels/args/linear.h"

namespace coca::onednn {

extern const ops::LinearImpl linear_row, linear_widened_row;

}  // namespace coca::onednn
