// SPDX-License-Identifier: Apache-2.0
#include "coca/base/parallel.h"

#include <omp.h>

#include "coca/base/error.h"

namespace coca {

int max_threads() { return omp_get_max_threads(); }

void set_max_threads(int threads) {
  COCA_CHECK(threads >= 1 && threads <= 4096, "threads: {} is not in 1..4096", threads);
  omp_set_num_threads(threads);
}

int thread_index() { return omp_get_thread_num(); }

void parallel_for(int64_t tasks, const std::function<void(int64_t)>& body) {
  if (tasks <= 1 || omp_in_parallel()) {
    for (int64_t task = 0; task < tasks; ++task) body(task);
    return;
  }
#pragma omp parallel for schedule(dynamic, 1)
  for (int64_t task = 0; task < tasks; ++task) body(task);
}

}  // namespace coca
