// SPDX-License-Identifier: Apache-2.0
#include "coca/ops/impl.h"

#include <cstdlib>

#include "coca/kernels/cpu/target.h"
#include "coca/kernels/onednn/gemm.h"

namespace coca::ops {

const std::vector<OpImpls>& op_impls() {
  static const std::vector<OpImpls> kImpls = {
      {"linear", {"onednn", "ref"}},   {"embedding", {"cpu", "ref"}},  {"norm", {"cpu", "ref"}},
      {"rope", {"cpu", "ref"}},        {"collinear", {"cpu", "ref"}},  {"attention", {"cpu", "ref"}},
      {"decode_attention", {"cpu", "ref"}},
      {"gelu", {"cpu", "ref"}},        {"swiglu", {"cpu", "ref"}},     {"residual", {"cpu", "ref"}},
      {"cross_entropy", {"cpu", "ref"}}, {"adamw", {"cpu", "ref"}},
  };
  return kImpls;
}

bool use_ref(const Context& context, std::string_view op, std::string_view best) {
  const std::string_view forced = context.forced_impl(op);
  if (forced.empty() || forced == best) return false;
  COCA_CHECK(forced == "ref", "implementation \"{}\" forced for op \"{}\" does not exist; expected {} or ref", forced,
             op, best);
  return true;
}

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
