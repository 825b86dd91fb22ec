// coca/ops/impl.h - which implementation runs: each op has an ordered list, best first, "ref" last.
// COCA_FORCE_IMPL=op:impl (coca --force-impl, Context::force_impl) forces one; an unknown name is an error.
// COCA_CPU_TARGET=AVX2 (coca --cpu-target) limits the SIMD target of the Highway kernels and the instruction set of oneDNN.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <initializer_list>
#include <string>
#include <string_view>
#include <vector>

#include "coca/tensor/context.h"

namespace coca::ops {

// The implementation of `op` that is forced, else the first of its list; throws when the forced name is not in it or cannot
// run on this processor and SIMD target, or the context's device has none.
std::string_view choose_impl(const Context&, std::string_view op);
// What of it runs for operands of a type: "avx512_bf16" and oneDNN's bf16 products need bf16 operands and a CPU (and
// SIMD target) with the instructions, else "cpu" and "widened" take their place.
std::string_view running_impl(const Context&, std::string_view op, DType type);
// Whether this processor, at the SIMD target in use, has the instructions of an implementation.
bool runs_here(std::string_view impl);
// True when `op` must run its reference.
bool use_ref(const Context&, std::string_view op);

struct OpImpls {
  std::string_view op;
  std::vector<std::string_view> impls;  // on the CPU, best first
  std::vector<std::string_view> cuda = {};  // on a GPU; empty: there is none yet
};
const std::vector<OpImpls>& op_impls();  // for `coca info` and the tests
// Throws when an op or implementation forced on this context does not exist.
void check_forced(const Context&);

// The SIMD target in use ("AVX3_DL", "AVX2", "SCALAR", ...), and all this CPU and build support, best first.
std::string cpu_target();
std::vector<std::string> cpu_targets();
void set_cpu_target(std::string_view name);  // throws for a name not in cpu_targets()
void apply_cpu_target_from_environment();    // reads COCA_CPU_TARGET; called once by programs and tests

}  // namespace coca::ops
