// SPDX-License-Identifier: Apache-2.0
#include "coca/base/parallel.h"

#include <omp.h>

#include <atomic>

#include "coca/base/error.h"
#include "coca/base/stop.h"

#if defined(__SANITIZE_THREAD__)
#include <sanitizer/tsan_interface.h>
#define COCA_NO_TSAN __attribute__((no_sanitize("thread")))
#else
#define COCA_NO_TSAN
#endif

namespace coca {

namespace {

// The OpenMP runtime is not instrumented, so ThreadSanitizer cannot see that what came before a region happens before
// all of it, and all of it before what comes next. An edge states exactly this: races between tasks are still found.
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

// OpenMP keeps the number for each thread that starts others; this number holds for all of them. 0: OpenMP's own.
static std::atomic<int> chosen_threads{0};

static thread_local int scoped_threads = 0;  // 0: no scope

ThreadScope::ThreadScope(int threads) : before_(scoped_threads) {
  if (threads > 0) scoped_threads = threads;
}
ThreadScope::~ThreadScope() { scoped_threads = before_; }

int max_threads() {
  if (scoped_threads > 0) return scoped_threads;
  const int chosen = chosen_threads.load(std::memory_order_relaxed);
  if (chosen > 0 && omp_get_max_threads() != chosen) omp_set_num_threads(chosen);
  return omp_get_max_threads();
}

void set_max_threads(int threads) {
  COCA_CHECK(threads >= 1 && threads <= 4096, "threads: {} is not in 1..4096", threads);
  chosen_threads.store(threads, std::memory_order_relaxed);
}

int thread_index() { return omp_get_thread_num(); }

// Not instrumented itself: a thread reads the region's variables before it can pass the first edge.
COCA_NO_TSAN void parallel_for(int64_t tasks, const std::function<void(int64_t)>& body) {
  if (tasks <= 1 || omp_in_parallel()) {
    for (int64_t task = 0; task < tasks; ++task) body(task);
    return;
  }
  const int threads = max_threads();
  const bool may_stop = Interruptible::here();
  [[maybe_unused]] Edge begin, end;
  begin.leave();
#pragma omp parallel num_threads(threads)
  {
    begin.reach();
#pragma omp for schedule(dynamic, 1) nowait
    for (int64_t task = 0; task < tasks; ++task)
      if (!may_stop || !stop_requested()) body(task);
    end.leave();
  }
  end.reach();
  check_interrupt();
}

}  // namespace coca
