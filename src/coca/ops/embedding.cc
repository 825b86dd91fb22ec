// SPDX-License-Identifier: Apache-2.0
#include "coca/ops/embedding.h"

#include "coca/base/parallel.h"
#include "coca/kernels/cpu/embedding.h"
#include "coca/kernels/ref/embedding.h"
#include "coca/ops/check.h"
#include "coca/ops/impl.h"

namespace coca::ops {

namespace {

constexpr std::string_view kOp = "embedding";

// table (or its gradient) [V, C] and rows [M, C] fit the ids, and every id is a row of the table.
void check(TensorRef ids, std::string_view table_name, TensorRef table, std::string_view rows_name,
           TensorRef rows) {
  check_rank2(kOp, table_name, table);
  check_packed(kOp, table_name, table);
  check_rank2(kOp, rows_name, rows);
  check_packed(kOp, rows_name, rows, {rows.size(0), table.size(1)});
  check_ids(kOp, "ids", ids, rows.size(0));
  const int32_t* id = ids.as<int32_t>();
  const int64_t V = table.size(0);
  for (int64_t m = 0; m < ids.size(0); ++m)
    COCA_CHECK(id[m] >= 0 && id[m] < V, "[{}] ids[{}] = {} is not in 0..{}", kOp, m, id[m], V - 1);
}

}  // namespace

void embedding_forward(Context& context, const EmbeddingForward& a) {
  check(a.ids, "table", a.table, "y", a.y);
  const int64_t M = a.ids.size(0), C = a.table.size(1);
  const auto* ids = a.ids.as<int32_t>();
  const float* table = a.table.as<float>();
  float* y = a.y.as<float>();
  if (use_ref(context, kOp, "cpu")) return ref::embedding_forward(M, C, ids, table, y);
  parallel_blocks(M, grain_of(C, 65536),
                  [&](int64_t m0, int64_t m1) { cpu::embedding_rows(ids, table, y, C, m0, m1); });
}

// Each task owns 64 columns and takes the rows in order: no two tasks write the same number.
void embedding_backward(Context& context, const EmbeddingBackward& a) {
  check(a.ids, "dtable", a.dtable, "dy", a.dy);
  const int64_t M = a.ids.size(0), C = a.dtable.size(1);
  const auto* ids = a.ids.as<int32_t>();
  const float* dy = a.dy.as<float>();
  float* dtable = a.dtable.as<float>();
  if (use_ref(context, kOp, "cpu")) return ref::embedding_backward(M, C, ids, dy, dtable);
  parallel_blocks(C, 64,
                  [&](int64_t c0, int64_t c1) { cpu::embedding_add_columns(ids, dy, dtable, M, C, c0, c1); });
}

}  // namespace coca::ops
