// The implementations of every op, in one place. A new one is a file beside its kernels and a row here.
// SPDX-License-Identifier: Apache-2.0
#include "coca/ops/table.h"

#include <algorithm>

#include "coca/base/suggest.h"
#include "coca/kernels/cpu/rows.h"
#include "coca/kernels/cpu/target.h"
#include "coca/kernels/cuda/rows.h"
#include "coca/kernels/onednn/gemm.h"
#include "coca/kernels/onednn/rows.h"
#include "coca/kernels/ref/rows.h"
#include "coca/ops/run.h"

namespace coca::ops {

#define COCA_OP_TABLE(IMPL, OP, ...)                      \
  template <>                                             \
  const Table<IMPL>& table_of<IMPL>() {                   \
    static constexpr const IMPL* kRows[] = {__VA_ARGS__}; \
    static constexpr Table<IMPL> kTable{OP, kRows};       \
    return kTable;                                        \
  }

COCA_OP_TABLE(AdamWImpl, "adamw", &cpu::adamw_row, &ref::adamw_row, &cuda::adamw_row)
COCA_OP_TABLE(AttentionImpl, "attention", &cpu::attention_bf16_row, &cpu::attention_row, &ref::attention_row,
              &cuda::cudnn_attention_row, &cuda::attention_row)
COCA_OP_TABLE(CastImpl, "cast", &cpu::cast_row, &ref::cast_row, &cuda::cast_row)
COCA_OP_TABLE(CollinearImpl, "collinear", &cpu::collinear_row, &ref::collinear_row, &cuda::collinear_row)
COCA_OP_TABLE(CrossEntropyImpl, "cross_entropy", &cpu::cross_entropy_row, &ref::cross_entropy_row,
              &cuda::cross_entropy_row)
COCA_OP_TABLE(DecodeAttentionImpl, "decode_attention", &cpu::decode_attention_row, &ref::decode_attention_row,
              &cuda::decode_attention_row)
COCA_OP_TABLE(DilatedAttentionImpl, "dilated_attention", &cpu::dilated_attention_row, &cuda::dilated_attention_row)
COCA_OP_TABLE(EmbeddingImpl, "embedding", &cpu::embedding_row, &ref::embedding_row, &cuda::embedding_row)
COCA_OP_TABLE(GeluImpl, "gelu", &cpu::gelu_row, &ref::gelu_row, &cuda::gelu_row)
COCA_OP_TABLE(HeadModifiersImpl, "head_modifiers", &cpu::head_modifiers_row, &ref::head_modifiers_row,
              &cuda::head_modifiers_row)
COCA_OP_TABLE(HeadsImpl, "heads", &cpu::heads_row, &cuda::heads_row)
COCA_OP_TABLE(KvStoreImpl, "kv_store", &cpu::kv_store_row, &cuda::kv_store_row)
COCA_OP_TABLE(LinearImpl, "linear", &onednn::linear_row, &onednn::linear_widened_row, &ref::linear_row,
              &cuda::linear_row)
COCA_OP_TABLE(LoraImpl, "lora", &cpu::lora_row, &cuda::lora_row)
COCA_OP_TABLE(NormImpl, "norm", &cpu::norm_row, &ref::norm_row, &cuda::norm_row)
COCA_OP_TABLE(ResidualImpl, "residual", &cpu::residual_row, &ref::residual_row, &cuda::residual_row)
COCA_OP_TABLE(RopeImpl, "rope", &cpu::rope_row, &ref::rope_row, &cuda::rope_row)
COCA_OP_TABLE(RopeAngleImpl, "rope_angle", &cpu::rope_angle_row, &cuda::rope_angle_row)
COCA_OP_TABLE(SwiGluImpl, "swiglu", &cpu::swiglu_row, &ref::swiglu_row, &cuda::swiglu_row)
COCA_OP_TABLE(TopKeysImpl, "top_keys", &cpu::top_keys_row, &ref::top_keys_row, &cuda::top_keys_row)

#undef COCA_OP_TABLE

namespace {

// visit(table) for every op.
template <typename Visit>
void each_table(const Visit& visit) {
  visit(table_of<AdamWImpl>());
  visit(table_of<AttentionImpl>());
  visit(table_of<CastImpl>());
  visit(table_of<CollinearImpl>());
  visit(table_of<CrossEntropyImpl>());
  visit(table_of<DecodeAttentionImpl>());
  visit(table_of<DilatedAttentionImpl>());
  visit(table_of<EmbeddingImpl>());
  visit(table_of<GeluImpl>());
  visit(table_of<HeadModifiersImpl>());
  visit(table_of<HeadsImpl>());
  visit(table_of<KvStoreImpl>());
  visit(table_of<LinearImpl>());
  visit(table_of<LoraImpl>());
  visit(table_of<NormImpl>());
  visit(table_of<ResidualImpl>());
  visit(table_of<RopeImpl>());
  visit(table_of<RopeAngleImpl>());
  visit(table_of<SwiGluImpl>());
  visit(table_of<TopKeysImpl>());
}

// "a, b or c", and what is near to the name that is none of them.
std::string listed(std::span<const std::string_view> names, std::string_view typed) {
  std::string text;
  for (size_t i = 0; i < names.size(); ++i)
    text += fmt::format("{}{}", i == 0 ? "" : i + 1 == names.size() ? " or " : ", ", names[i]);
  return text + did_you_mean(typed, std::vector<std::string>(names.begin(), names.end()));
}

}  // namespace

void fail_no_device(std::string_view op, const Context& context) {
  fail(ErrorKind::kInvalidArgument, "[{}] has no implementation on {}; expected cpu", op, context.device().text());
}

void fail_unknown(std::string_view op, std::string_view forced, std::span<const std::string_view> known) {
  fail(ErrorKind::kInvalidArgument, "implementation \"{}\" forced for op \"{}\" does not exist; expected {}", forced,
       op, listed(known, forced));
}

void fail_cannot_run(std::string_view op, std::string_view forced, std::string_view needs) {
  fail(ErrorKind::kInvalidArgument,
       "implementation \"{}\" forced for op \"{}\" cannot run here: it needs {}, the SIMD target is {}", forced, op,
       needs, cpu_target());
}

bool OpTable::has(std::string_view name) const {
  return std::ranges::any_of(rows, [&](const OpRow& row) { return row.name == name; });
}

std::vector<std::string_view> OpTable::names(DeviceKind device) const {
  std::vector<std::string_view> names;
  for (const OpRow& row : rows)
    if (row.device == device) names.push_back(row.name);
  return names;
}

std::vector<OpTable> op_tables() {
  std::vector<OpTable> tables;
  each_table([&](const auto& table) {
    OpTable& t = tables.emplace_back(OpTable{table.op, {}});
    for (const auto* row : table.rows)
      t.rows.push_back({row->name, row->device, row->needs, runs_on_this_machine(*row)});
  });
  return tables;
}

std::string_view running_impl(const Context& context, std::string_view op, DType type) {
  std::string_view name;
  each_table([&]<typename Impl>(const Table<Impl>& table) {
    if (table.op == op) name = choose<Impl>(context, {type}).name;
  });
  COCA_CHECK_AS(kInternal, !name.empty(), "op \"{}\" is not in the table of implementations", op);
  return name;
}

bool runs_here(std::string_view op, std::string_view impl) {
  bool runs = false;
  each_table([&](const auto& table) {
    for (const auto* row : table.rows)
      if (table.op == op && row->name == impl) runs = runs_on_this_machine(*row);
  });
  return runs;
}

void check_forced(const Context& context) {
  std::vector<std::string_view> ops;
  each_table([&](const auto& table) {
    ops.push_back(table.op);
    forced_row(context, table);
  });
  for (const auto& [op, impl] : context.forced_impls())
    COCA_CHECK(std::find(ops.begin(), ops.end(), op) != ops.end(),
               "implementation \"{}\" forced for op \"{}\", which does not exist; expected {}", impl, op,
               listed(ops, op));
}

std::string cpu_target() { return cpu::active_target(); }
std::vector<std::string> cpu_targets() { return cpu::supported_targets(); }

void set_cpu_target(std::string_view name) {
  if (!cpu::select_target(name)) {
    const std::vector<std::string> all = cpu::supported_targets();
    fail(ErrorKind::kInvalidArgument, "CPU target \"{}\" is not available here; expected {}", name,
         listed(std::vector<std::string_view>(all.begin(), all.end()), name));
  }
  onednn::limit_isa(name);
}

}  // namespace coca::ops
