// SPDX-License-Identifier: Apache-2.0
#include "gpu/stand_in.h"

#include <algorithm>
#include <boost/context/fiber.hpp>
#include <boost/context/preallocated.hpp>
#include <exception>
#include <memory>
#include <optional>
#include <utility>

#include "coca/kernels/cuda/device.h"
#include "support/fake_device.h"
#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/common_interface_defs.h>
#endif

namespace coca::gpu {

namespace {

namespace context = boost::context;

constexpr int kSeveral = -2;
constexpr int kLanes = 32;
constexpr size_t kStack = 128 * 1024;

struct Unwind {};  // thrown to end the fibres of a block after an error

enum class State : uint8_t { kReady, kAtBlockBarrier, kAtWarpBarrier, kEnded };

struct Thread {
  Where where;
  int number = 0;
  State state = State::kReady;
  int64_t exchanges = 0;  // number of exchanges so far
  context::fiber fiber;   // suspended while the thread waits
};

struct Warp {
  // The values that the lanes passed in two successive exchanges. An exchange completes only when all lanes have read
  // the one before.
  struct Exchange {
    uint64_t bits[kLanes] = {};
    int64_t number[kLanes] = {};  // of the exchange that the lane's value belongs to
  } exchanges[2];
  int64_t barriers = 0;
};

// A stack that is reused for one fibre after another.
class Stack {
 public:
  Stack() : memory_(std::make_unique<std::byte[]>(kStack)) {}
  std::byte* bottom() { return memory_.get(); }
  context::stack_context context() {
    context::stack_context sc;
    sc.size = kStack;
    sc.sp = memory_.get() + kStack;
    return sc;
  }

 private:
  std::unique_ptr<std::byte[]> memory_;
};
struct KeepStack {
  context::stack_context allocate() { return {}; }
  void deallocate(context::stack_context&) {}
};

struct Scheduler {
  dim3 blocks, threads;
  std::vector<Cell<float>> dynamic;
  std::vector<Thread> fibres;
  std::vector<Warp> warps;
  std::vector<Stack> stacks;
  Thread* running = nullptr;
  context::fiber main;
  int64_t barriers = 0;
  uint64_t run = 0;  // counts all blocks that have run in the program
  std::exception_ptr error;
#if defined(__SANITIZE_ADDRESS__)
  void* main_fake = nullptr;
  const void* main_bottom = nullptr;
  size_t main_size = 0;
#endif
};
thread_local Scheduler* scheduler = nullptr;
uint64_t runs = 0;

Scheduler& now() {
  COCA_CHECK_AS(kInternal, scheduler != nullptr && scheduler->running != nullptr, "device code outside a kernel");
  return *scheduler;
}

Warp& warp_of(Scheduler& s, const Thread& t) { return s.warps[static_cast<size_t>(t.number / kLanes)]; }

// Returns to the scheduler until it resumes this thread.
void wait(State state) {
  Scheduler& s = now();
  if (s.error) throw Unwind();
  Thread& self = *s.running;
  self.state = state;
#if defined(__SANITIZE_ADDRESS__)
  void* fake = nullptr;
  __sanitizer_start_switch_fiber(&fake, s.main_bottom, s.main_size);
#endif
  s.main = std::move(s.main).resume();
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(fake, nullptr, nullptr);
#endif
  if (s.error) throw Unwind();
}

void resume(Scheduler& s, Thread& t) {
  s.running = &t;
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_start_switch_fiber(&s.main_fake, s.stacks[static_cast<size_t>(t.number)].bottom(), kStack);
#endif
  t.fiber = std::move(t.fiber).resume();
#if defined(__SANITIZE_ADDRESS__)
  __sanitizer_finish_switch_fiber(s.main_fake, nullptr, nullptr);
#endif
  s.running = nullptr;
}

// Whether all threads that have not ended are waiting in this state, so that the wait is over.
bool all_at(const Thread* first, const Thread* end, State state) {
  bool any = false;
  for (const Thread* t = first; t != end; ++t) {
    if (t->state == State::kEnded) continue;
    if (t->state != state) return false;
    any = true;
  }
  return any;
}

bool open_barriers(Scheduler& s) {
  bool opened = false;
  const auto let_go = [&](Thread* first, Thread* end) {
    for (Thread* t = first; t != end; ++t)
      if (t->state != State::kEnded) t->state = State::kReady;
    opened = true;
  };
  Thread* all = s.fibres.data();
  const size_t count = s.fibres.size();
  if (all_at(all, all + count, State::kAtBlockBarrier)) {
    ++s.barriers;
    let_go(all, all + count);
  }
  for (size_t w = 0; w < s.warps.size(); ++w) {
    Thread *first = all + w * kLanes, *end = all + std::min(count, (w + 1) * kLanes);
    if (!all_at(first, end, State::kAtWarpBarrier)) continue;
    ++s.warps[w].barriers;
    let_go(first, end);
  }
  return opened;
}

void start(Scheduler& s, Thread& t, const std::function<void()>& body) {
  Stack& stack = s.stacks[static_cast<size_t>(t.number)];
  const context::stack_context sc = stack.context();
  t.fiber = context::fiber(std::allocator_arg, context::preallocated(sc.sp, sc.size, sc), KeepStack(),
                           [&s, &t, &body](context::fiber&& main) {
#if defined(__SANITIZE_ADDRESS__)
                             __sanitizer_finish_switch_fiber(nullptr, &s.main_bottom, &s.main_size);
#endif
                             s.main = std::move(main);
                             try {
                               if (!s.error) body();
                             } catch (const Unwind&) {
                             } catch (...) {
                               if (!s.error) s.error = std::current_exception();
                             }
                             t.state = State::kEnded;
#if defined(__SANITIZE_ADDRESS__)
                             __sanitizer_start_switch_fiber(nullptr, s.main_bottom, s.main_size);
#endif
                             return std::move(s.main);
                           });
}

// Describes a deadlock.
std::string stuck(const Scheduler& s) {
  int64_t at_block = 0, at_warp = 0, ended = 0;
  for (const Thread& t : s.fibres) {
    at_block += t.state == State::kAtBlockBarrier;
    at_warp += t.state == State::kAtWarpBarrier;
    ended += t.state == State::kEnded;
  }
  return fmt::format(
      "a kernel's threads are deadlocked: {} wait at a barrier of the block, {} at a barrier of a warp, and {} have "
      "ended",
      at_block, at_warp, ended);
}

void run_block(Scheduler& s, const dim3& block, bool backwards, const std::function<void()>& body) {
  s.run = ++runs;
  s.barriers = 0;
  std::ranges::fill(s.warps, Warp{});
  for (Thread& t : s.fibres) {
    t.where.block = block;
    t.state = State::kReady;
    t.exchanges = 0;
    start(s, t, body);
  }
  const size_t count = s.fibres.size();
  do {
    for (size_t i = 0; i < count; ++i) {
      Thread& t = s.fibres[backwards ? count - 1 - i : i];
      if (t.state == State::kReady) resume(s, t);
      if (s.error) break;
    }
  } while (!s.error && open_barriers(s));
  if (!s.error && !std::ranges::all_of(s.fibres, [](const Thread& t) { return t.state == State::kEnded; }))
    s.error = std::make_exception_ptr(Error(ErrorKind::kInternal, stuck(s)));
  if (!s.error) return;
  for (Thread& t : s.fibres)  // unwinds the fibres that are waiting
    if (t.state != State::kEnded) resume(s, t);
  std::rethrow_exception(s.error);
}

}  // namespace

const Where& here() { return now().running->where; }
const dim3& block_shape() { return now().threads; }
const dim3& grid_shape() { return now().blocks; }
std::vector<Cell<float>>& dynamic_cells() { return now().dynamic; }

void block_barrier() { wait(State::kAtBlockBarrier); }

void warp_barrier(unsigned lanes) {
  COCA_CHECK(lanes == 0xffffffffu, "barriers for a part of a warp ({:#x}) are not simulated", lanes);
  wait(State::kAtWarpBarrier);
}

namespace {

// Collects the values of all lanes of the warp that take part in this exchange. Returns them with its number.
std::pair<const Warp::Exchange*, int64_t> exchange(unsigned lanes, uint64_t bits) {
  Scheduler& s = now();
  Thread& self = *s.running;
  const int64_t number = ++self.exchanges;
  Warp::Exchange& e = warp_of(s, self).exchanges[number % 2];
  e.bits[self.number % kLanes] = bits;
  e.number[self.number % kLanes] = number;
  warp_barrier(lanes);
  return {&e, number};
}

}  // namespace

uint64_t exchange(unsigned lanes, uint64_t bits, int from) {
  const int lane = now().running->number % kLanes;
  const auto [e, number] = exchange(lanes, bits);
  COCA_CHECK(from >= 0 && from < kLanes && e->number[from] == number,
             "lane {} reads from lane {}, which does not take part", lane, from);
  return e->bits[from];
}

uint64_t exchange_xor(unsigned lanes, uint64_t bits, int mask) {
  return exchange(lanes, bits, (now().running->number % kLanes) ^ mask);
}
// Lanes beyond the warp get their own value.
uint64_t exchange_down(unsigned lanes, uint64_t bits, int delta) {
  const int lane = now().running->number % kLanes;
  return exchange(lanes, bits, lane + delta < kLanes ? lane + delta : lane);
}
uint64_t exchange_up(unsigned lanes, uint64_t bits, int delta) {
  const int lane = now().running->number % kLanes;
  return exchange(lanes, bits, lane >= delta ? lane - delta : lane);
}

unsigned ballot(unsigned lanes, bool vote) {
  const auto [e, number] = exchange(lanes, vote ? 1 : 0);
  unsigned votes = 0;
  for (int lane = 0; lane < kLanes; ++lane)
    if (e->number[lane] == number && e->bits[lane] != 0) votes |= 1u << lane;
  return votes;
}

void Access::read(const char* what) {
  Scheduler& s = now();
  const Thread& t = *s.running;
  const int warp = t.number / kLanes;
  const int64_t of_warp = s.warps[static_cast<size_t>(warp)].barriers;
  COCA_CHECK(block_ == s.run, "thread {} reads {} that no thread has written", t.number, what);
  const bool apart =
      writer_ == t.number || written_ < s.barriers || (writer_ / kLanes == warp && written_warp_ < of_warp);
  COCA_CHECK(apart, "thread {} reads {} that thread {} wrote, without a barrier between them", t.number, what, writer_);
  if (read_ < s.barriers || (reader_warp_ == warp && read_warp_ < of_warp)) {
    reader_ = t.number;
    reader_warp_ = warp;
  } else {
    if (reader_ != t.number) reader_ = kSeveral;
    if (reader_warp_ != warp) reader_warp_ = kSeveral;
  }
  read_ = s.barriers;
  read_warp_ = of_warp;
}

void Access::write(const char* what) {
  Scheduler& s = now();
  const Thread& t = *s.running;
  const int warp = t.number / kLanes;
  const int64_t of_warp = s.warps[static_cast<size_t>(warp)].barriers;
  if (block_ == s.run) {
    const bool after_write =
        writer_ == t.number || written_ < s.barriers || (writer_ / kLanes == warp && written_warp_ < of_warp);
    COCA_CHECK(after_write, "threads {} and {} write to the same place in {} without a barrier between them", writer_,
               t.number, what);
    const bool after_read = read_ < s.barriers || reader_ == t.number || (reader_warp_ == warp && read_warp_ < of_warp);
    COCA_CHECK(after_read, "thread {} writes {} that {} has read, without a barrier between them", t.number, what,
               reader_ == kSeveral ? std::string("another thread") : fmt::format("thread {}", reader_));
  } else {
    read_ = -1;
    reader_ = -1;
    reader_warp_ = -1;
  }
  block_ = s.run;
  writer_ = t.number;
  written_ = s.barriers;
  written_warp_ = of_warp;
}

void run_grid(const dim3& blocks, const dim3& threads, size_t shared_floats, const std::function<void()>& body) {
  const size_t count = static_cast<size_t>(threads.x) * threads.y * threads.z;
  COCA_CHECK(count >= 1 && count <= 1024, "{} threads in a block; a GPU accepts 1 to 1,024", count);
  COCA_CHECK(blocks.x >= 1 && blocks.y >= 1 && blocks.z >= 1 && blocks.y < 65536 && blocks.z < 65536,
             "a grid of {} x {} x {} blocks; a GPU accepts at most 65,535 in y and z", blocks.x, blocks.y, blocks.z);
  COCA_CHECK(shared_floats * sizeof(float) <= 99 * 1024, "{} bytes of shared memory; compute capability 8.6 has {}",
             shared_floats * sizeof(float), 99 * 1024);
  static thread_local Scheduler s;
  s.blocks = blocks;
  s.threads = threads;
  s.error = nullptr;
  s.dynamic.assign(shared_floats, {});
  s.fibres.resize(count);
  s.warps.resize((count + kLanes - 1) / kLanes);
  if (s.stacks.size() < count) s.stacks.resize(count);
  for (size_t i = 0; i < count; ++i) {
    const auto n = static_cast<unsigned>(i);
    s.fibres[i].number = static_cast<int>(i);
    s.fibres[i].where.thread = {n % threads.x, n / threads.x % threads.y, n / threads.x / threads.y};
  }
  scheduler = &s;
  // The order changes from launch to launch, as on a GPU.
  const bool backwards = runs % 2 == 1;
  const uint64_t total = static_cast<uint64_t>(blocks.x) * blocks.y * blocks.z;
  for (uint64_t i = 0; i < total; ++i) {
    const uint64_t b = backwards ? total - 1 - i : i;
    const dim3 block{static_cast<unsigned>(b % blocks.x), static_cast<unsigned>(b / blocks.x % blocks.y),
                     static_cast<unsigned>(b / blocks.x / blocks.y)};
    run_block(s, block, backwards, body);
  }
  scheduler = nullptr;
}

namespace {

test::FakeDevice& device_of(Context& cx) {
  auto* device = dynamic_cast<test::FakeDevice*>(cx.memory());
  COCA_CHECK_AS(kInternal, device != nullptr, "a kernel is launched on a device that is not the simulated GPU");
  return *device;
}

}  // namespace

void queue(Context& cx, std::function<void()> work) { device_of(cx).enqueue(std::move(work)); }

void check_pointer(Context& cx, const void* p) {
  COCA_CHECK_AS(kInternal, p == nullptr || device_of(cx).owns(p, 1), "a kernel receives an address of host memory");
}

}  // namespace coca::gpu

namespace coca::cuda {

Gpus gpus() {
  return {.list = {{.device = {DeviceKind::kCuda, 0},
                    .name = "simulated GPU",
                    .major = 9,
                    .minor = 0,
                    .bytes = size_t{1} << 32}},
          .none = {}};
}

DeviceMemory& device_memory(int index) {
  COCA_CHECK(index == 0, "cuda:{} cannot be used: there is only one simulated GPU", index);
  static test::FakeDevice device(size_t{1} << 32);
  return device;
}

}  // namespace coca::cuda
