// SPDX-License-Identifier: Apache-2.0
#include "coca/base/parallel.h"

#include <omp.h>

#include "coca/base/error.h"

#if defined(__SANITIZE_THREAD__)
#include <sanitizer/tsan_interface.h>
#define COCA_NO_TSAN __attribute__((no_sanitize("thread")))
#else
#define COCA_NO_TSAN
#endif

namespace coca {

namespace {

// The OpenMP runtime is not instrumented, so ThreadSanitizer cannot see that what came before a region happens before
// all of it, and all of it before what comes next. An edge says so, and no more: races between tasks are still found.
class Edge {
 public:
#if defined(__SANITIZE_THREAD__)
  void leave() { __tsan_release(this); }
  void reach() { __tsan_acquire(this); }
#else
  void leave() {}
  void reach() {}
#endif
};

}  // namespace

int max_threads() { return omp_get_max_threads(); }

void set_max_threads(int threads) {
  COCA_CHECK(threads >= 1 && threads <= 4096, "threads: {} is not in 1..4096", threads);
  omp_set_num_threads(threads);
}

int thread_index() { return omp_get_thread_num(); }

// Not instrumented itself: a thread reads the region's variables before it can pass the first edge.
COCA_NO_TSAN void parallel_for(int64_t tasks, const std::function<void(int64_t)>& body) {
  if (tasks <= 1 || omp_in_parallel()) {
    for (int64_t task = 0; task < tasks; ++task) body(task);
    return;
  }
  [[maybe_unused]] Edge begin, end;
  begin.leave();
#pragma omp parallel
  {
    begin.reach();
#pragma omp for schedule(dynamic, 1) nowait
    for (int64_t task = 0; task < tasks; ++task) body(task);
    end.leave();
  }
  end.reach();
}

}  // namespace coca
