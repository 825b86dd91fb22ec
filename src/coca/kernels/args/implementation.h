// coca/kernels/args/implementation.h - one implementation of an op: a row of the op's table in ops/table.cc.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string_view>

#include "coca/base/device.h"
#include "coca/base/dtype.h"
#include "coca/tensor/context.h"

namespace coca::ops {

// `Functions`: pointers to the op's functions, whose operands ops/X.cc has checked. `Case`: the properties of a call
// that decide whether a row supports it; a DType converts to it.
template <typename FunctionsType, typename CaseType = DType>
struct Implementation {
  using Functions = FunctionsType;
  using Case = CaseType;

  std::string_view name;  // "ref", "cpu", "onednn", ...
  DeviceKind device = DeviceKind::kCpu;
  std::string_view needs = {};              // instructions, for messages: "AVX-512 with bf16 instructions"
  bool (*runs_here)() = nullptr;            // whether this machine has them at the SIMD target in use; null: always
  bool (*supports)(const Case&) = nullptr;  // null: every call that passes the op's checks
  Functions run;
};

}  // namespace coca::ops
