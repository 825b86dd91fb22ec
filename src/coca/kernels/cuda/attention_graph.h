// coca/kernels/cuda/attention_graph.h - attention as a graph of cuDNN. attention_graph.cc builds it with cudnn-frontend
// and runs it; in tests, tests/support/gpu/attention_graph.cc checks the same arguments and computes with loops.
// Internal to kernels/cuda.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <compare>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "coca/tensor/context.h"

namespace coca::cuda {

// What a graph computes: attention of bf16 tensors [B, N, H, D] and [B, S, G, D] with an innermost stride of 1.
struct AttentionGraph {
  enum class Pass : uint8_t { kForward, kBackward };
  // The last key that query n sees: S - 1, n, or S - N + n.
  enum class Diagonal : uint8_t { kNone, kFromStart, kFromEnd };
  enum class Lse : uint8_t { kNone, kPacked };  // of the forward pass; the backward pass reads it
  enum class Order : uint8_t { kAny, kFixed };  // of sums in the backward pass
  struct Steps {                                // strides
    int64_t b = 0, n = 0, h = 0;
    friend auto operator<=>(const Steps&, const Steps&) = default;
  };

  Pass pass = Pass::kForward;
  Diagonal diagonal = Diagonal::kNone;
  Lse lse = Lse::kNone;
  Order order = Order::kAny;
  int64_t B = 0, N = 0, S = 0, H = 0, G = 0, D = 0;
  float scale = 0.0f;
  int64_t window = 0;     // the number of keys that a query sees up to the diagonal; 0: all
  int64_t mask_step = 0;  // with a mask [B, N, S] in bf16 that is added to the scaled scores: its stride of n; 0: none
  Steps q, k, v, o;
  Steps d_o, dq, dk, dv;  // backward

  friend auto operator<=>(const AttentionGraph&, const AttentionGraph&) = default;
};

// In the device's memory. Written: o and lse [B, H, N] in a forward pass, dq, dk and dv in a backward pass.
struct AttentionAddresses {
  void *q = nullptr, *k = nullptr, *v = nullptr, *mask = nullptr, *o = nullptr, *lse = nullptr;
  void *d_o = nullptr, *dq = nullptr, *dk = nullptr, *dv = nullptr;
};

// A graph with an engine for one device.
class AttentionPlan {
 public:
  virtual ~AttentionPlan() = default;
  virtual size_t workspace() const = 0;  // bytes of the device's memory that run() needs
  // Queues the graph on the device of the context.
  virtual void run(Context&, const AttentionAddresses&, void* workspace) = 0;
};

struct PlannedAttention {
  std::unique_ptr<AttentionPlan> plan;  // null: cuDNN has no engine for the graph
  std::string why_not;
};
// Throws Error (kIo) if cuDNN is missing or too old.
PlannedAttention plan_attention(Context&, const AttentionGraph&);

// Whether this program was built with cudnn-frontend.
bool built_with_cudnn();

// For tests. The largest workspace that deterministic gradients may take; 0: the default. Forgets all plans.
void set_attention_workspace_limit(size_t bytes);
// The engine that cuDNN proposes for a graph on the device of this description (JSON of cuDNN) and compute capability
// (90 for 9.0). No device is needed, but libcuda. Throws Error (kIo) with cuDNN's reasons if there is none.
std::string proposed_engine(const AttentionGraph&, std::string_view device, int capability);
// Finds functions of cuDNN instead of opening it. Only before the first use, as cudnn-frontend remembers them.
void replace_cudnn(void* (*find)(const char* function));
// The part of plan_attention that fails if cuDNN is missing or too old. A version is 90800 for 9.8.0.
void* open_cudnn(const std::string& library);
void check_cudnn_version(size_t version);

}  // namespace coca::cuda
