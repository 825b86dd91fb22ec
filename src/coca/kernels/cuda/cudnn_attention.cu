// Attention by cuDNN: bf16, with or without a causal mask or window, GQA, packed documents. Calls that it does not
// take (supports()) go to attention.cu. Math: docs/math/attention.md; choices: docs/decisions/020-cudnn-attention.md.
// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cmath>
#include <initializer_list>
#include <map>
#include <mutex>
#include <utility>

#include "coca/base/log.h"
#include "coca/kernels/args/attention.h"
#include "coca/kernels/cuda/attention_graph.h"
#include "coca/kernels/cuda/head_parts.h"
#include "coca/kernels/cuda/rows.h"
#include "coca/kernels/cuda/simt.h"

namespace coca::cuda {

namespace {

using Pass = AttentionGraph::Pass;

constexpr int64_t kMostDims = 256, kEight = 8;  // cuDNN reads 16 bytes at a time
constexpr size_t kWorkspaceLimit = size_t{1} << 30;
size_t workspace_limit = kWorkspaceLimit;

// The mask of documents is this for keys that a query does not see. It is finite, so a tile of such keys alone gives no
// NaN, and exp(score + kUnseen - largest) is exactly zero for all scores below 1e29.
constexpr float kUnseen = -1e30f;

// mask [B, N, step] = kUnseen before the start of the query's document, else 0. One thread writes 8 numbers.
__global__ void document_mask_kernel(const int32_t* starts, int64_t starts_step, BF16* mask, int64_t B, int64_t N,
                                     int64_t step) {
  const int64_t parts = step / kEight;
  for (int64_t i = grid_start(); i < B * N * parts; i += grid_stride()) {
    const int64_t row = i / parts, first = i % parts * kEight;
    const int64_t start = starts[row / N * starts_step + row % N];
    Floats<kEight> values;
    for (int j = 0; j < kEight; ++j) values.x[j] = first + j < start ? kUnseen : 0.0f;
    store_part<kEight>(mask + row * step + first, values);
  }
}

int64_t rounded_up(int64_t x, int64_t to) { return (x + to - 1) / to * to; }

// Keys that some query sees.
int64_t seen_keys(const ops::AttentionOptions& o, TensorRef q, TensorRef k) {
  return o.mask == ops::Mask::kNone ? k.size(1) : std::min(k.size(1), o.query_start + q.size(1));
}

size_t mask_bytes(int64_t B, int64_t N, int64_t S) {
  return static_cast<size_t>(B * N * rounded_up(S, kEight)) * sizeof(BF16);
}

// Whether rows can be read 16 bytes at a time.
bool aligned(TensorRef t) {
  bool all = reinterpret_cast<uintptr_t>(t.data) % 16 == 0;
  for (int i = 0; i < 3; ++i) all = all && (t.size(i) == 1 || (t.stride(i) > 0 && t.stride(i) % kEight == 0));
  return all;
}
bool packed_lse(TensorRef t) {
  const int64_t H = t.size(1), N = t.size(2);
  return (t.size(0) == 1 || t.stride(0) == H * N) && (H == 1 || t.stride(1) == N) && (N == 1 || t.stride(2) == 1);
}

template <typename Args>
bool takes(const ops::AttentionOptions& o, const Args& a, std::initializer_list<TensorRef> heads) {
  const int64_t B = a.q.size(0), N = a.q.size(1), D = a.q.size(3);
  if (a.write != ops::Write::kAssign || !a.slopes.empty() || !a.decay.empty() || !a.far.k.empty()) return false;
  if (o.mask == ops::Mask::kSymmetricWindow || a.v.size(3) != D) return false;
  if (D % kEight != 0 || D > kMostDims || B == 0 || N < 2 || a.k.size(1) == 0) return false;
  if (o.mask != ops::Mask::kNone && o.query_start + N > a.k.size(1)) return false;
  if (!a.document_start.empty() && (o.query_start > 0 || mask_bytes(1, N, seen_keys(o, a.q, a.k)) > workspace_limit))
    return false;
  return std::ranges::all_of(heads, aligned) && (a.lse.empty() || packed_lse(a.lse));
}

bool supports(const ops::AttentionCase& c) {
  if (c.type != DType::kBF16) return false;
  if (c.forward != nullptr) {
    const ops::AttentionForward& a = *c.forward;
    return takes(*c.options, a, {a.q, a.k, a.v, a.o});
  }
  if (c.backward == nullptr) return true;
  const ops::AttentionBackward& a = *c.backward;
  return takes(*c.options, a, {a.q, a.k, a.v, a.o, a.d_o, a.dq, a.dk, a.dv});
}

// Strides of dimensions with one element are set to 0, so that equal graphs compare as equal.
AttentionGraph::Steps steps_of(TensorRef t) {
  const auto step = [&](int i) { return t.size(i) == 1 ? 0 : t.stride(i); };
  return {.b = step(0), .n = step(1), .h = step(2)};
}

template <typename Args>
AttentionGraph graph_of(Pass pass, const ops::AttentionOptions& o, const Args& a) {
  using Diagonal = AttentionGraph::Diagonal;
  const int64_t N = a.q.size(1), S = seen_keys(o, a.q, a.k), D = a.q.size(3);
  AttentionGraph g;
  g.pass = pass;
  if (o.mask != ops::Mask::kNone) g.diagonal = o.query_start == 0 ? Diagonal::kFromStart : Diagonal::kFromEnd;
  g.lse = a.lse.empty() ? AttentionGraph::Lse::kNone : AttentionGraph::Lse::kPacked;
  g.B = a.q.size(0), g.N = N, g.S = S, g.H = a.q.size(2), g.G = a.k.size(2), g.D = D;
  g.scale = o.scale != 0.0f ? o.scale : 1.0f / std::sqrt(static_cast<float>(D));
  if (o.window < S) g.window = o.window;
  if (!a.document_start.empty()) g.mask_step = rounded_up(S, kEight);
  g.q = steps_of(a.q), g.k = steps_of(a.k), g.v = steps_of(a.v), g.o = steps_of(a.o);
  return g;
}

// A call is made in slices of `batches` sequences, or of one sequence and `groups` heads of keys with their queries.
struct Slices {
  int64_t batches = 0, groups = 0;
  std::unique_ptr<AttentionPlan> plan;  // of a slice; null: cuDNN has none
};

int64_t divisor_below(int64_t x, int64_t most) {
  int64_t d = std::clamp<int64_t>(most, 1, x);
  while (x % d != 0) --d;
  return d;
}

PlannedAttention plan_slice(Context& cx, AttentionGraph g, const Slices& s, AttentionGraph::Order order) {
  g.H = g.H / g.G * s.groups;
  g.G = s.groups;
  g.B = s.batches;
  g.order = order;
  // Strides of dimensions with one element get a value that cuDNN accepts.
  const auto complete = [&](AttentionGraph::Steps& t, int64_t heads, int64_t tokens) {
    if (heads == 1) t.h = g.D;
    if (tokens == 1) t.n = heads * g.D;
    if (g.B == 1) t.b = tokens * heads * g.D;
  };
  for (AttentionGraph::Steps* t : {&g.q, &g.o, &g.d_o, &g.dq}) complete(*t, g.H, g.N);
  for (AttentionGraph::Steps* t : {&g.k, &g.v, &g.dk, &g.dv}) complete(*t, g.G, g.S);
  return plan_attention(cx, g);
}

// Makes slices at least `times` smaller if that is possible.
bool cut(Slices& s, int64_t times) {
  if (s.batches > 1)
    s.batches = divisor_below(s.batches, s.batches / times);
  else if (s.groups > 1)
    s.groups = divisor_below(s.groups, s.groups / times);
  else
    return false;
  return true;
}

Slices plan(Context& cx, const AttentionGraph& g) {
  using Order = AttentionGraph::Order;
  const auto excess = [](size_t bytes) {
    return static_cast<int64_t>((bytes + workspace_limit - 1) / workspace_limit);
  };
  Slices whole{.batches = g.B, .groups = g.G, .plan = nullptr};
  if (g.mask_step > 0) {
    const int64_t times = excess(mask_bytes(g.B, g.N, g.S));
    if (times > 1) cut(whole, times);
  }
  std::string why_not;
  if (g.pass == Pass::kBackward) {
    Slices s{.batches = whole.batches, .groups = whole.groups, .plan = nullptr};
    for (;;) {
      PlannedAttention planned = plan_slice(cx, g, s, Order::kFixed);
      why_not = std::move(planned.why_not);
      if (!planned.plan) break;
      s.plan = std::move(planned.plan);
      const int64_t times = excess(s.plan->workspace());
      if (times <= 1) return s;
      why_not = fmt::format("it needs {} MiB of memory for that, more than {} MiB", s.plan->workspace() >> 20,
                            workspace_limit >> 20);
      if (!cut(s, times)) break;
    }
  }
  PlannedAttention planned = plan_slice(cx, g, whole, Order::kAny);
  whole.plan = std::move(planned.plan);
  const std::string call = fmt::format("[attention] B={} N={} S={} H={} G={} D={}", g.B, g.N, g.S, g.H, g.G, g.D);
  if (!whole.plan)
    log_once(LogLevel::kWarning,
             fmt::format("{}: a slower kernel runs, because cuDNN has none: {}", call, planned.why_not));
  else if (g.pass == Pass::kBackward)
    log_once(LogLevel::kWarning, fmt::format("{}: gradients differ in their last bits from run to run, because cuDNN "
                                             "cannot add them up in a fixed order: {}",
                                             call, why_not));
  return whole;
}

std::mutex plans_mutex;
std::map<std::pair<int, AttentionGraph>, Slices>& all_plans() {
  // Never destroyed, as cuDNN may be gone at the end of the process.
  static auto* plans = new std::map<std::pair<int, AttentionGraph>, Slices>;
  return *plans;
}
const Slices& slices_of(Context& cx, const AttentionGraph& g) {
  const std::lock_guard lock(plans_mutex);
  Slices& s = all_plans()[{cx.device().index, g}];
  if (s.batches == 0) s = plan(cx, g);
  return s;  // stays at its place
}

void* at(TensorRef t, int64_t b, int64_t head) {
  const auto bytes = static_cast<int64_t>(dtype_size(t.dtype));
  return static_cast<std::byte*>(const_cast<void*>(t.data)) + (b * t.stride(0) + head * t.stride(2)) * bytes;
}
void* lse_at(TensorRef t, int64_t b, int64_t head) {
  return t.empty() ? nullptr : const_cast<float*>(t.as<float>()) + (b * t.size(1) + head) * t.size(2);
}

// Runs all slices. fill(addresses, b, g, h) adds the addresses of what only one pass has.
template <typename Args, typename Fill>
void run(Context& cx, const AttentionGraph& g, const Slices& s, const Args& a, const Fill& fill) {
  const auto workspace = static_cast<size_t>(rounded_up(static_cast<int64_t>(s.plan->workspace()), 256));
  const size_t masks = g.mask_step > 0 ? mask_bytes(s.batches, g.N, g.S) : 0;
  auto* scratch = static_cast<std::byte*>(cx.scratch(workspace + masks));
  BF16* mask = masks > 0 ? reinterpret_cast<BF16*>(scratch + workspace) : nullptr;
  for (int64_t b = 0; b < g.B; b += s.batches) {
    if (masks > 0)
      launch(cx, {.blocks = blocks_for(s.batches * g.N * g.mask_step / kEight), .threads = kThreads},
             document_mask_kernel, a.document_start.template as<int32_t>() + b * a.document_start.stride(0),
             a.document_start.stride(0), mask, s.batches, g.N, g.mask_step);
    for (int64_t group = 0; group < g.G; group += s.groups) {
      const int64_t h = group * (g.H / g.G);
      AttentionAddresses x{.q = at(a.q, b, h),
                           .k = at(a.k, b, group),
                           .v = at(a.v, b, group),
                           .mask = mask,
                           .o = at(a.o, b, h),
                           .lse = lse_at(a.lse, b, h)};
      fill(x, b, group, h);
      s.plan->run(cx, x, scratch);
    }
  }
}

void forward(Context& cx, const ops::AttentionOptions& options, const ops::AttentionForward& a) {
  const AttentionGraph g = graph_of(Pass::kForward, options, a);
  const Slices& s = slices_of(cx, g);
  if (!s.plan) return attention_row.run.forward(cx, options, a);
  run(cx, g, s, a, [](AttentionAddresses&, int64_t, int64_t, int64_t) {});
}

void backward(Context& cx, const ops::AttentionOptions& options, const ops::AttentionBackward& a) {
  AttentionGraph g = graph_of(Pass::kBackward, options, a);
  g.d_o = steps_of(a.d_o), g.dq = steps_of(a.dq), g.dk = steps_of(a.dk), g.dv = steps_of(a.dv);
  const Slices& s = slices_of(cx, g);
  if (!s.plan) return attention_row.run.backward(cx, options, a);
  if (g.S < a.k.size(1))  // keys that no query sees
    for (const MutTensorRef& t : {a.dk, a.dv}) heads_row.run.zero(cx, t.narrow(1, g.S, a.k.size(1) - g.S));
  run(cx, g, s, a, [&](AttentionAddresses& x, int64_t b, int64_t group, int64_t h) {
    x.d_o = at(a.d_o, b, h);
    x.dq = at(a.dq, b, h);
    x.dk = at(a.dk, b, group);
    x.dv = at(a.dv, b, group);
  });
}

}  // namespace

void set_attention_workspace_limit(size_t bytes) {
  const std::lock_guard lock(plans_mutex);
  workspace_limit = bytes > 0 ? bytes : kWorkspaceLimit;
  all_plans().clear();
}

const ops::AttentionImpl cudnn_attention_row{.name = "cudnn",
                                             .device = DeviceKind::kCuda,
                                             .needs = "a build with cudnn-frontend (scripts/setup --cuda)",
                                             .runs_here = built_with_cudnn,
                                             .supports = supports,
                                             .run = {forward, backward}};

}  // namespace coca::cuda
