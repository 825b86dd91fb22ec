// SPDX-License-Identifier: Apache-2.0
#include "coca/ops/embedding.h"

#include "coca/base/parallel.h"
#include "coca/kernels/cpu/embedding.h"
#include "coca/kernels/ref/embedding.h"
#include "coca/ops/check.h"
#include "coca/ops/float_types.h"
#include "coca/ops/impl.h"

namespace coca::ops {

namespace {

constexpr std::string_view kOp = "embedding";

// table (or its gradient) [V, C] and rows [M, C] fit the ids, and every id is a row of the table.
void check(TensorRef ids, std::string_view table_name, TensorRef table, std::span<const DType> table_types,
           std::string_view rows_name, TensorRef rows) {
  check_rank2(kOp, table_name, table);
  check_packed(kOp, table_name, table, table_types);
  check_rank2(kOp, rows_name, rows);
  check_packed(kOp, rows_name, rows, {rows.size(0), table.size(1)});
  check_ids(kOp, "ids", ids, rows.size(0));
  const int32_t* id = ids.as<int32_t>();
  const int64_t V = table.size(0);
  for (int64_t m = 0; m < ids.size(0); ++m)
    COCA_CHECK(id[m] >= 0 && id[m] < V, "[{}] ids[{}] = {} is not in 0..{}", kOp, m, id[m], V - 1);
}

template <typename T>
void forward_as(const EmbeddingForward& a) {
  const int64_t M = a.ids.size(0), C = a.table.size(1);
  const auto* ids = a.ids.as<int32_t>();
  const T* table = a.table.as<T>();
  float* y = a.y.as<float>();
  parallel_blocks(M, grain_of(C, 65536),
                  [&](int64_t m0, int64_t m1) { cpu::embedding_rows(ids, table, y, C, m0, m1); });
}

}  // namespace

void embedding_forward(Context& context, const EmbeddingForward& a) {
  check(a.ids, "table", a.table, kF32OrBF16, "y", a.y);
  if (use_ref(context, kOp))
    return ref::embedding_forward(a.ids.size(0), a.table.size(1), a.ids.as<int32_t>(),
                                  FloatInput(a.table).ref().as<float>(), a.y.as<float>());
  with_float_type(a.table.dtype, [&](auto zero) { forward_as<decltype(zero)>(a); });
}

// Each task owns 64 columns and takes the rows in order: no two tasks write the same number.
void embedding_backward(Context& context, const EmbeddingBackward& a) {
  check(a.ids, "dtable", a.dtable, kF32Only, "dy", a.dy);
  const int64_t M = a.ids.size(0), C = a.dtable.size(1);
  const auto* ids = a.ids.as<int32_t>();
  const float* dy = a.dy.as<float>();
  float* dtable = a.dtable.as<float>();
  if (use_ref(context, kOp)) return ref::embedding_backward(M, C, ids, dy, dtable);
  parallel_blocks(C, 64,
                  [&](int64_t c0, int64_t c1) { cpu::embedding_add_columns(ids, dy, dtable, M, C, c0, c1); });
}

}  // namespace coca::ops
