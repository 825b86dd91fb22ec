// When preloaded, makes the program's wall clock jump by decades, forwards or backwards, at every reading. The
// monotonic clock is unchanged.
// SPDX-License-Identifier: Apache-2.0
#include <dlfcn.h>
#include <sys/time.h>

#include <atomic>
#include <ctime>

namespace {

std::atomic<unsigned> readings{0};

time_t jump() {
  constexpr time_t kYear = 365 * 86400;
  const time_t jumps[] = {0, 30 * kYear, -20 * kYear, 7, -40 * kYear, 60 * kYear, -1};
  return jumps[readings++ % (sizeof jumps / sizeof *jumps)];
}

}  // namespace

extern "C" int clock_gettime(clockid_t clock, timespec* now) noexcept {
  using Call = int (*)(clockid_t, timespec*);
  static const auto real = reinterpret_cast<Call>(dlsym(RTLD_NEXT, "clock_gettime"));
  const int result = real(clock, now);
  if (clock == CLOCK_REALTIME) now->tv_sec += jump();
  return result;
}

extern "C" time_t time(time_t* out) noexcept {
  timespec now{};
  clock_gettime(CLOCK_REALTIME, &now);
  if (out) *out = now.tv_sec;
  return now.tv_sec;
}

extern "C" int gettimeofday(timeval* out, void*) noexcept {
  timespec now{};
  clock_gettime(CLOCK_REALTIME, &now);
  *out = {now.tv_sec, now.tv_nsec / 1000};
  return 0;
}
