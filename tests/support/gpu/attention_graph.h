// tests/support/gpu/attention_graph.h - replaces cuDNN: counts the plans and runs of kernels/cuda/attention_graph.h,
// and refuses plans on request.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <vector>

#include "coca/kernels/cuda/attention_graph.h"

namespace coca::gpu {

struct FakeCudnn {
  std::vector<cuda::AttentionGraph> plans, runs;
  std::string no_engine;  // why no plan is made; empty: plans are made
  bool fixed_order = true;
};
FakeCudnn& fake_cudnn();

}  // namespace coca::gpu
