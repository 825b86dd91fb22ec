// tests/support/targets.h - runs a test body on every SIMD target of this CPU, or in every way that ops can run here,
// and then selects the best target again.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "coca/ops/device.h"
#include "coca/ops/table.h"

namespace coca::test {

template <typename Body>
void for_each_target(const Body& body) {
  const std::vector<std::string> targets = ops::cpu_targets();
  for (const std::string& target : targets) {
    ops::set_cpu_target(target);
    ASSERT_EQ(ops::cpu_target(), target);  // so that the named target is really tested
    SCOPED_TRACE("target " + target);
    body();
  }
  ops::set_cpu_target(targets.front());
}

// Whether any SIMD target of this CPU has the instructions for an implementation. If not, tests of it are skipped.
inline bool some_target_runs(std::string_view op, std::string_view impl) {
  const std::vector<std::string> targets = ops::cpu_targets();
  const bool runs = std::any_of(targets.begin(), targets.end(), [&](const std::string& target) {
    ops::set_cpu_target(target);
    return ops::runs_here(op, impl);
  });
  ops::set_cpu_target(targets.front());
  return runs;
}
#define COCA_SKIP_UNLESS_RUNS(op, impl)          \
  if (!::coca::test::some_target_runs(op, impl)) \
  GTEST_SKIP() << "no SIMD target of this processor has the instructions of " << (impl)

// Runs body in every way that the ops can run here: on every SIMD target, with the references of all of them, and on
// the first GPU if each has a GPU implementation.
inline void for_each_way(const std::vector<std::string_view>& names, const std::function<void(Context&)>& body) {
  for_each_target([&] {
    Context context;
    body(context);
  });
  bool on_gpu = true;
  Context forced;
  size_t found = 0;
  for (const ops::OpTable& o : ops::op_tables()) {
    if (std::find(names.begin(), names.end(), o.op) == names.end()) continue;
    ++found;
    if (o.has("ref")) forced.force_impl(std::string(o.op), "ref");
    on_gpu = on_gpu && !o.names(DeviceKind::kCuda).empty();
  }
  ASSERT_EQ(found, names.size()) << "an op that does not exist";
  {
    SCOPED_TRACE("reference");
    body(forced);
  }
  if (!on_gpu) return;
  if (const ops::Gpus gpus = ops::gpus(); gpus.list.empty()) GTEST_SKIP() << "not run on a GPU: " << gpus.none;
  SCOPED_TRACE("on a GPU");
  Context gpu(ops::device_memory({DeviceKind::kCuda, 0}));
  body(gpu);
}

}  // namespace coca::test
