// SPDX-License-Identifier: Apache-2.0
#include "coca/ops/impl.h"

#include <algorithm>
#include <cstdlib>

#include "coca/kernels/cpu/target.h"
#include "coca/kernels/onednn/gemm.h"

namespace coca::ops {

const std::vector<OpImpls>& op_impls() {
  static const std::vector<OpImpls> kImpls = {
      {"linear", {"onednn", "widened", "ref"}}, {"embedding", {"cpu", "ref"}},  {"norm", {"cpu", "ref"}},
      {"rope", {"cpu", "ref"}},        {"collinear", {"cpu", "ref"}},  {"attention", {"avx512_bf16", "cpu", "ref"}},
      {"gelu", {"cpu", "ref"}},        {"swiglu", {"cpu", "ref"}},     {"residual", {"cpu", "ref"}},
      {"cross_entropy", {"cpu", "ref"}}, {"adamw", {"cpu", "ref"}},  {"cast", {"cpu", "ref"}},
  };
  return kImpls;
}

std::string_view choose_impl(const Context& context, std::string_view op) {
  const auto& all = op_impls();
  const auto& impls = std::find_if(all.begin(), all.end(), [&](const OpImpls& o) { return o.op == op; })->impls;
  const std::string_view forced = context.forced_impl(op);
  if (forced.empty()) return impls.front();
  const auto found = std::find(impls.begin(), impls.end(), forced);
  if (found != impls.end()) return *found;
  std::string names;
  for (const std::string_view name : impls) names += fmt::format("{}{}", names.empty() ? "" : name == impls.back() ? " or " : ", ", name);
  fail(ErrorKind::kInvalidArgument, "implementation \"{}\" forced for op \"{}\" does not exist; expected {}", forced, op, names);
}

bool use_ref(const Context& context, std::string_view op, std::string_view) { return choose_impl(context, op) == "ref"; }

std::string cpu_target() { return cpu::active_target(); }
std::vector<std::string> cpu_targets() { return cpu::supported_targets(); }

void set_cpu_target(std::string_view name) {
  if (!cpu::select_target(name)) {
    std::string all;
    for (const std::string& target : cpu::supported_targets()) all += (all.empty() ? "" : ", ") + target;
    fail(ErrorKind::kInvalidArgument, "CPU target \"{}\" is not available here; expected one of {}", name, all);
  }
  onednn::limit_isa(name);
}

void apply_cpu_target_from_environment() {
  if (const char* name = std::getenv("COCA_CPU_TARGET")) set_cpu_target(name);
}

}  // namespace coca::ops
