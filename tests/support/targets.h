// tests/support/targets.h - run a test body on every SIMD target of this CPU, and leave the best one selected.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <gtest/gtest.h>

#include <string>

#include "coca/ops/impl.h"

namespace coca::test {

template <typename Body>
void for_each_target(const Body& body) {
  const std::vector<std::string> targets = ops::cpu_targets();
  for (const std::string& target : targets) {
    ops::set_cpu_target(target);
    ASSERT_EQ(ops::cpu_target(), target);  // what is tested is what is claimed
    SCOPED_TRACE("target " + target);
    body();
  }
  ops::set_cpu_target(targets.front());
}

}  // namespace coca::test
