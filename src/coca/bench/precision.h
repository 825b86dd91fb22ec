// coca/bench/precision.h - the types a benchmark can run in, and how far its answers may be from the
// reference.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string_view>

#include "coca/base/enum_names.h"
#include "coca/tensor/context.h"

namespace coca::bench {

enum class Precision : uint8_t { kF32, kBF16 };

inline DType dtype_of(Precision p) {
  return p == Precision::kBF16 ? DType::kBF16 : DType::kF32;
}
inline double unit_roundoff(Precision p) {
  return p == Precision::kBF16 ? 0x1p-9 : 0x1p-24;
}

// |a - b| / |b| in the Euclidean norm, each f32 or bf16, contiguous.
double relative_distance(TensorRef a, TensorRef b);
// Throws Error kInternal naming `what` unless the distance is at most `roundings` roundings.
void check_close(TensorRef actual, TensorRef expected, Precision, double roundings, std::string_view what);

// A context in which every op runs its plain reference.
Context reference_context();

}  // namespace coca::bench

COCA_ENUM_NAMES(coca::bench::Precision, "dtype", {coca::bench::Precision::kF32, "f32"},
                {coca::bench::Precision::kBF16, "bf16"})
