// SPDX-License-Identifier: Apache-2.0
#include "coca/kernels/cpu/target.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "coca/kernels/cpu/target.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace coca::cpu::HWY_NAMESPACE {
const char* this_target() { return hwy::TargetName(HWY_TARGET); }
}  // namespace coca::cpu::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace coca::cpu {

HWY_EXPORT(this_target);

namespace {
// Targets compiled into this build and supported by the CPU, best (lowest bit) first.
std::vector<int64_t> target_bits() {
  static const int64_t supported = [] {
    hwy::DisableTargets(0);
    return hwy::SupportedTargets() & HWY_TARGETS;
  }();
  std::vector<int64_t> bits;
  for (int64_t rest = supported; rest != 0; rest &= rest - 1) bits.push_back(rest & -rest);
  return bits;
}
}  // namespace

std::vector<std::string> supported_targets() {
  std::vector<std::string> names;
  for (int64_t bit : target_bits()) names.emplace_back(hwy::TargetName(bit));
  return names;
}

std::string active_target() { return HWY_DYNAMIC_DISPATCH(this_target)(); }

bool select_target(std::string_view name) {
  const std::vector<int64_t> bits = target_bits();
  for (int64_t bit : bits) {
    if (name != hwy::TargetName(bit)) continue;
    hwy::SetSupportedTargetsForTest(bit);
    hwy::GetChosenTarget().Update(hwy::SupportedTargets());
    return true;
  }
  return false;
}

}  // namespace coca::cpu
#endif  // HWY_ONCE
