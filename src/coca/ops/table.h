// coca/ops/table.h - the implementations of every op (table.cc lists them, best first, "ref" last), and which one runs.
// A Context can force one by name (ContextOptions::forced; coca --force-impl attention:ref, COCA_FORCE_IMPL).
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "coca/tensor/context.h"

namespace coca::ops {

// One row of the table, for `coca info` and the tests.
struct OpRow {
  std::string_view name;
  DeviceKind device;
  std::string_view needs;  // the instructions it needs; empty: it runs on any machine
  bool runs_here;          // on this machine, at the SIMD target in use
};
struct OpTable {
  std::string_view op;
  std::vector<OpRow> rows;  // best first

  std::vector<std::string_view> names(DeviceKind) const;  // of the rows for this kind of device
  bool has(std::string_view name) const;                  // whether a row has this name
};
std::vector<OpTable> op_tables();

// The name of the row that runs the op's simplest call on operands of this type. Throws Error if the Context's device
// has none, or if the forced one does not exist or cannot run on this machine.
std::string_view running_impl(const Context&, std::string_view op, DType type);
// Whether this machine, at the SIMD target in use, can run an implementation of an op.
bool runs_here(std::string_view op, std::string_view impl);
// Throws when an op or implementation forced on this Context does not exist or cannot run here.
void check_forced(const Context&);

// The SIMD target in use ("AVX3_DL", "AVX2", "SCALAR", ...), and all that this CPU and build support, best first. The
// target holds for the whole process, because Highway's kernels dispatch through one table.
std::string cpu_target();
std::vector<std::string> cpu_targets();
void set_cpu_target(std::string_view name);  // throws for a name not in cpu_targets(); call it while nothing computes

}  // namespace coca::ops
