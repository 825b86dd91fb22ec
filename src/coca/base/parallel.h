// coca/base/parallel.h - the only place that starts threads. OpenMP is the one thread runtime (oneDNN shares it).
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <cstdint>
#include <functional>

namespace coca {

int max_threads();                  // of the calling thread's OpenMP loops from now on, oneDNN's included
void set_max_threads(int threads);  // >= 1; for every thread; call it while none computes
int thread_index();                 // 0 <= i < max_threads(), inside parallel_for

// During its lifetime, work started by the calling thread runs on this many threads; 0 changes nothing.
class ThreadScope {
 public:
  explicit ThreadScope(int threads);
  ~ThreadScope();
  ThreadScope(const ThreadScope&) = delete;
  ThreadScope& operator=(const ThreadScope&) = delete;

 private:
  int before_;
};

// Runs body(task) for task = 0..tasks-1, dynamically scheduled. body must not throw. Which thread runs a task
// is unspecified; results must not depend on it. Throws only under an Interruptible (stop.h).
void parallel_for(int64_t tasks, const std::function<void(int64_t)>& body);

// Runs body(begin, end) over blocks of at most `grain` items. Blocks depend on `grain` alone, never on the
// number of threads, so that reductions made block by block have the same bits on every machine.
inline void parallel_blocks(int64_t items, int64_t grain, const std::function<void(int64_t, int64_t)>& body) {
  grain = std::max<int64_t>(grain, 1);
  parallel_for((items + grain - 1) / grain,
               [&](int64_t block) { body(block * grain, std::min(items, (block + 1) * grain)); });
}

}  // namespace coca
