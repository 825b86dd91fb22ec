// Replaces code that computes, which parsers link but must never call. Loops run on the calling thread.
// SPDX-License-Identifier: Apache-2.0
#include "coca/base/parallel.h"
#include "coca/ops/adamw.h"
#include "coca/ops/cast.h"
#include "coca/ops/impl.h"
#include "coca/ops/linear.h"
#include "support/harness.h"

namespace coca {

ThreadScope::ThreadScope(int) : before_(0) {}
ThreadScope::~ThreadScope() = default;
int max_threads() { return 1; }
void set_max_threads(int) {}
int thread_index() { return 0; }
void parallel_for(int64_t tasks, const std::function<void(int64_t)>& body) {
  for (int64_t task = 0; task < tasks; ++task) body(task);
}

namespace ops {
void cast(Context&, const Cast&) { fuzz::finding("a parser computes"); }
void adamw_step(Context&, const AdamWStep&) { fuzz::finding("a parser computes"); }
void tile_sums_of_squares(Context&, TensorRef, int64_t, std::span<double>) { fuzz::finding("a parser computes"); }
std::string cpu_target() { return "none"; }
void linear_forward(Context&, const LinearForward&) { fuzz::finding("a parser computes"); }
}  // namespace ops

}  // namespace coca
