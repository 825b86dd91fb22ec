// coca/bench/answers.h - how far the answers of what is timed may be from those of the plain loops.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string_view>

#include "coca/model/params.h"
#include "coca/tensor/context.h"

namespace coca::bench {

using model::Precision;

inline double unit_roundoff(Precision p) {
  return p == Precision::kBF16 ? 0x1p-9 : 0x1p-24;
}

// |a - b| / |b| in the Euclidean norm, each f32 or bf16, contiguous.
double relative_distance(TensorRef a, TensorRef b);
// Throws Error kInternal naming `what` unless the distance is at most `roundings` roundings.
void check_close(TensorRef actual, TensorRef expected, Precision, double roundings, std::string_view what);

// Roundings the answers of a small model may be away from those of the plain loops in fp32. About a thousand
// operations follow one another in two layers, and errors of one size can add up in the worst order. In bf16
// only what is stored between products is rounded, some forty times from the ids to the first gradient.
inline double model_roundings(Precision p) {
  return p == Precision::kBF16 ? 64 : 1024;
}

// A context in which every op runs its plain reference.
Context reference_context();

}  // namespace coca::bench
