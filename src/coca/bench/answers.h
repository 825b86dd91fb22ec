// coca/bench/answers.h - how far the results of timed code may differ from those of the plain loops.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string_view>

#include "coca/model/params.h"
#include "coca/tensor/context.h"

namespace coca::bench {

using model::Precision;

inline double unit_roundoff(Precision p) { return p == Precision::kBF16 ? 0x1p-9 : 0x1p-24; }

// |a - b| / |b| in the Euclidean norm, each f32 or bf16, contiguous.
double relative_distance(TensorRef a, TensorRef b);
// Throws Error kInternal naming `what` unless the distance is at most `roundings` roundings.
void check_close(TensorRef actual, TensorRef expected, Precision, double roundings, std::string_view what);

// The number of roundings by which results of a small model may differ from the plain loops in fp32. About a thousand
// operations follow one another in two layers, and errors of one size can add up in the worst order. In bf16
// only values stored between products are rounded, about forty times from the ids to the first gradient.
inline double model_roundings(Precision p) { return p == Precision::kBF16 ? 64 : 1024; }

// A context in which every op runs its plain reference.
Context reference_context();

}  // namespace coca::bench
