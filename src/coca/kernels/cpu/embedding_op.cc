// SPDX-License-Identifier: Apache-2.0
#include "coca/base/parallel.h"
#include "coca/kernels/args/blocks.h"
#include "coca/kernels/args/float_types.h"
#include "coca/kernels/cpu/embedding.h"
#include "coca/kernels/cpu/rows.h"

namespace coca::cpu {

namespace {

template <typename T>
void forward_as(const ops::EmbeddingForward& a) {
  const int64_t M = a.ids.size(0), C = a.table.size(1);
  const auto* ids = a.ids.as<int32_t>();
  const T* table = a.table.as<T>();
  float* y = a.y.as<float>();
  parallel_blocks(M, ops::grain_of(C, 65536),
                  [&](int64_t m0, int64_t m1) { embedding_rows(ids, table, y, C, m0, m1); });
}

void forward(Context&, const ops::EmbeddingForward& a) {
  ops::with_float_type(a.table.dtype, [&](auto zero) { forward_as<decltype(zero)>(a); });
}

// Each task owns 64 columns and takes the rows in order: no two tasks write the same number.
void backward(Context&, const ops::EmbeddingBackward& a) {
  const int64_t M = a.ids.size(0), C = a.dtable.size(1);
  const auto* ids = a.ids.as<int32_t>();
  const float* dy = a.dy.as<float>();
  float* dtable = a.dtable.as<float>();
  parallel_blocks(C, 64, [&](int64_t c0, int64_t c1) { embedding_add_columns(ids, dy, dtable, M, C, c0, c1); });
}

}  // namespace

const ops::EmbeddingImpl embedding_row{.name = "cpu", .run = {forward, backward}};

}  // namespace coca::cpu
