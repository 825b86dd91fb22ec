// SPDX-License-Identifier: Apache-2.0
#include "coca/ops/impl.h"

#include <algorithm>
#include <cstdlib>

#include "coca/kernels/cpu/attention.h"
#include "coca/kernels/cpu/target.h"
#include "coca/kernels/onednn/gemm.h"

namespace coca::ops {

const std::vector<OpImpls>& op_impls() {
  static const std::vector<OpImpls> kImpls = {
      {"linear", {"onednn", "widened", "ref"}},
      {"embedding", {"cpu", "ref"}},
      {"norm", {"cpu", "ref"}},
      {"rope", {"cpu", "ref"}},
      {"collinear", {"cpu", "ref"}},
      {"attention", {"avx512_bf16", "cpu", "ref"}},
      {"decode_attention", {"cpu", "ref"}},
      {"top_keys", {"cpu", "ref"}},
      {"gelu", {"cpu", "ref"}},
      {"swiglu", {"cpu", "ref"}},
      {"residual", {"cpu", "ref"}},
      {"cross_entropy", {"cpu", "ref"}},
      {"adamw", {"cpu", "ref"}},
      {"cast", {"cpu", "ref"}},
  };
  return kImpls;
}

namespace {

std::string listed(const std::vector<std::string_view>& names) {
  std::string text;
  for (const std::string_view name : names)
    text += fmt::format("{}{}", text.empty() ? "" : name == names.back() ? " or " : ", ", name);
  return text;
}

}  // namespace

bool runs_here(std::string_view impl) { return impl != "avx512_bf16" || cpu::has_bf16_dot(); }

std::string_view choose_impl(const Context& context, std::string_view op) {
  const auto& all = op_impls();
  const auto known = std::find_if(all.begin(), all.end(), [&](const OpImpls& o) { return o.op == op; });
  COCA_CHECK_AS(kInternal, known != all.end(), "op \"{}\" is not in the list of implementations", op);
  const auto& impls = context.device().is_cpu() ? known->impls : known->cuda;
  COCA_CHECK(!impls.empty(), "[{}] has no implementation on {}; expected cpu", op, context.device().text());
  const std::string_view forced = context.forced_impl(op);
  if (forced.empty()) return impls.front();
  const auto found = std::find(impls.begin(), impls.end(), forced);
  COCA_CHECK(found != impls.end(), "implementation \"{}\" forced for op \"{}\" does not exist; expected {}", forced, op,
             listed(impls));
  COCA_CHECK(runs_here(*found),
             "implementation \"{}\" forced for op \"{}\" cannot run here: it needs AVX-512 with bf16 instructions, the SIMD target is {}", forced, op,
             cpu_target());
  return *found;
}

std::string_view running_impl(const Context& context, std::string_view op, DType type) {
  const std::string_view impl = choose_impl(context, op);
  if (impl == "avx512_bf16") return type == DType::kBF16 && runs_here(impl) ? impl : "cpu";
  if (op != "linear" || impl == "ref") return impl;
  if (type != DType::kBF16) return "onednn";
  const bool native = cpu_target().starts_with("AVX3") && onednn::bf16_products();
  return impl == "onednn" && native ? "onednn" : "widened";
}

void check_forced(const Context& context) {
  std::vector<std::string_view> ops;
  for (const OpImpls& o : op_impls()) ops.push_back(o.op), choose_impl(context, o.op);
  for (const auto& [op, impl] : context.forced_impls())
    COCA_CHECK(std::find(ops.begin(), ops.end(), op) != ops.end(),
               "implementation \"{}\" forced for op \"{}\", which does not exist; expected {}", impl, op, listed(ops));
}

bool use_ref(const Context& context, std::string_view op) {
  return choose_impl(context, op) == "ref";
}

std::string cpu_target() {
  return cpu::active_target();
}
std::vector<std::string> cpu_targets() {
  return cpu::supported_targets();
}

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
