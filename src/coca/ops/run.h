// coca/ops/run.h - chooses the row of an op's table for a call, and runs it. Internal to ops.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <span>
#include <string_view>
#include <vector>

#include "coca/base/parallel.h"
#include "coca/kernels/args/implementation.h"

namespace coca::ops {

template <typename Impl>
struct Table {
  std::string_view op;
  std::span<const Impl* const> rows;  // best first
};

// One per op, defined in table.cc.
template <typename Impl>
const Table<Impl>& table_of();

[[noreturn]] void fail_no_device(std::string_view op, const Context&);
[[noreturn]] void fail_unknown(std::string_view op, std::string_view forced, std::span<const std::string_view> known);
[[noreturn]] void fail_cannot_run(std::string_view op, std::string_view forced, std::string_view needs);

template <typename Impl>
bool runs_on_this_machine(const Impl& row) {
  return row.runs_here == nullptr || row.runs_here();
}

template <typename Impl>
bool takes(const Impl& row, DeviceKind device, const typename Impl::Case& call) {
  return row.device == device && runs_on_this_machine(row) && (row.supports == nullptr || row.supports(call));
}

// The forced row; throws unless it exists and can run here. Null when none is forced.
template <typename Impl>
const Impl* forced_row(const Context& context, const Table<Impl>& table) {
  const std::string_view forced = context.forced_impl(table.op);
  if (forced.empty()) return nullptr;
  std::vector<std::string_view> known;
  for (const Impl* row : table.rows) {
    if (row->device != context.device().kind) continue;
    known.push_back(row->name);
    if (row->name != forced) continue;
    if (!runs_on_this_machine(*row)) fail_cannot_run(table.op, forced, row->needs);
    return row;
  }
  if (known.empty()) fail_no_device(table.op, context);
  fail_unknown(table.op, forced, known);
}

// The forced row if there is one and it supports the call, else the first row that supports it.
template <typename Impl>
const Impl& choose(const Context& context, const typename Impl::Case& call) {
  const Table<Impl>& table = table_of<Impl>();
  const DeviceKind device = context.device().kind;
  const Impl* forced = forced_row(context, table);
  if (forced != nullptr && takes(*forced, device, call)) return *forced;
  for (const Impl* row : table.rows)
    if (takes(*row, device, call)) return *row;
  fail_no_device(table.op, context);
}

// Calls one of the op's functions in the row chosen for `call`, on the Context's threads.
template <typename Impl, typename Result, typename... Parameters, typename... Args>
Result run(Context& context, const typename Impl::Case& call,
           Result (*Impl::Functions::*function)(Context&, Parameters...), Args&&... args) {
  const Impl& row = choose<Impl>(context, call);
  const ThreadScope threads(context.threads());
  return (row.run.*function)(context, args...);
}

}  // namespace coca::ops
