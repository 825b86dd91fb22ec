// SPDX-License-Identifier: Apache-2.0
#include "coca/ops/embedding.h"

#include "coca/ops/check.h"
#include "coca/ops/run.h"

namespace coca::ops {

namespace {

constexpr std::string_view kOp = "embedding";

// table (or its gradient) [V, C] and rows [M, C] fit the ids, and every id is a row of the table.
void check(const Context& context, TensorRef ids, std::string_view table_name, TensorRef table,
           std::span<const DType> table_types, std::string_view rows_name, TensorRef rows) {
  const Site at(kOp, context);
  check_rank2(at, table_name, table);
  check_packed(at, table_name, table, table_types);
  check_rank2(at, rows_name, rows);
  check_packed(at, rows_name, rows, {rows.size(0), table.size(1)});
  check_ids(at, "ids", ids, rows.size(0));
  if (!ids.device.is_cpu()) return;  // its implementations read the ids themselves
  const int32_t* id = ids.as<int32_t>();
  const int64_t V = table.size(0);
  for (int64_t m = 0; m < ids.size(0); ++m)
    COCA_CHECK(id[m] >= 0 && id[m] < V, "[{}] ids[{}] = {} is not in 0..{}", kOp, m, id[m], V - 1);
}

// The call with its ids where the op runs.
template <typename Args>
Args carried(Context& context, Args a) {
  if (a.ids.device.is_cpu()) a.check = IdCheck::kDone;
  a.ids = sent_ids(context, a.ids);
  return a;
}

}  // namespace

void embedding_forward(Context& context, const EmbeddingForward& a) {
  check(context, a.ids, "table", a.table, kF32OrBF16, "y", a.y);
  run<EmbeddingImpl>(context, a.table.dtype, &EmbeddingFunctions::forward, carried(context, a));
}

void embedding_backward(Context& context, const EmbeddingBackward& a) {
  check(context, a.ids, "dtable", a.dtable, kF32Only, "dy", a.dy);
  run<EmbeddingImpl>(context, a.dtable.dtype, &EmbeddingFunctions::backward, carried(context, a));
}

}  // namespace coca::ops
