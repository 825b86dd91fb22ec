// Checks, the choice of implementation, and how the work is spread: which thread does which block never changes a bit,
// so that may follow the number of threads; what is summed with what follows from the shapes alone.
// SPDX-License-Identifier: Apache-2.0
#include "coca/ops/attention.h"

#include <algorithm>
#include <cmath>
#include <optional>

#include "coca/base/parallel.h"
#include "coca/kernels/cpu/attention.h"
#include "coca/kernels/ref/attention.h"
#include "coca/ops/float_types.h"
#include "coca/ops/heads.h"
#include "coca/ops/impl.h"
#include "coca/ops/rope_check.h"

namespace coca::ops {

namespace {

using cpu::attention_blocks;
using cpu::AttentionKernels;
using cpu::AttentionParams;
using cpu::kAttentionBlock;
using cpu::TileMath;

// Fewer queries than this go row by row: packing the keys would cost more than it saves.
constexpr int64_t kRowQueries = 8;
// The backward pass has at least this many tasks where the keys allow it, of at least this many key blocks.
constexpr int64_t kBackwardTasks = 8, kLeastPartBlocks = 8;

void check_attention(const AttentionOptions& options, TensorRef q, TensorRef k, TensorRef v, TensorRef slopes) {
  COCA_CHECK(q.rank() == 4 && k.rank() == 4, "[attention] q {} and k {} must be [B, N, H, D] and [B, S, G, D]",
             q.shape.text(), k.shape.text());
  check_heads("attention", "q", q, q.shape, kF32OrBF16);
  check_heads("attention", "k", k, {q.size(0), k.size(1), k.size(2), q.size(3)}, std::span(&q.dtype, 1));
  check_heads("attention", "v", v, k.shape, std::span(&q.dtype, 1));
  COCA_CHECK(k.size(2) > 0 && q.size(2) % k.size(2) == 0, "[attention] H={} must be a multiple of G={}", q.size(2),
             k.size(2));
  COCA_CHECK(slopes.empty() || slopes.shape == Dims({q.size(2)}), "[attention] slopes {} must be [{}]",
             slopes.shape.text(), q.size(2));
  COCA_CHECK(options.query_start >= 0, "[attention] query_start={} is negative", options.query_start);
  COCA_CHECK(options.scale >= 0, "[attention] scale={} must be positive (0: 1/sqrt(D))", options.scale);
  COCA_CHECK(options.spacing >= 1 && options.first_place >= 0, "[attention] spacing={} must be at least 1, first_place={} not negative",
             options.spacing, options.first_place);
  const bool windowed = options.mask == Mask::kSlidingWindow || options.mask == Mask::kSymmetricWindow;
  COCA_CHECK(windowed ? options.window >= 1 : options.window == 0, "[attention] window={}: expected {}", options.window,
             windowed ? "at least 1 with a window" : "0 without a window");
}

void check_far(const AttentionOptions& options, const FarKeys& far, TensorRef q, TensorRef k) {
  if (far.q.empty() && far.k.empty()) return;
  COCA_CHECK(options.mask == Mask::kSlidingWindow || (options.mask == Mask::kSymmetricWindow && far.range == FarRange::kAll),
             "[attention] far keys need a sliding window, or all of them to be seen beside a symmetric one");
  check_heads("attention", "far.q", far.q, q.shape, std::span(&q.dtype, 1));
  COCA_CHECK(far.k.rank() == 4 && (far.k.size(1) <= k.size(1) || !far.v.empty()), "[attention] far.k {} must be [B, F, G, D] with F at most {}",
             far.k.shape.text(), k.size(1));
  check_heads("attention", "far.k", far.k, {k.size(0), far.k.size(1), k.size(2), k.size(3)}, std::span(&q.dtype, 1));
  if (!far.v.empty()) check_heads("attention", "far.v", far.v, far.k.shape, std::span(&q.dtype, 1));
  COCA_CHECK(far.most_distance >= 0 && far.most_position >= 0, "[attention] far.most_distance={} and far.most_position={} must not be negative",
             far.most_distance, far.most_position);
}

constexpr DType kF32[] = {DType::kF32};

bool check_parts(Write write, const FarKeys& far) {
  const bool parts = write == Write::kAccumulate;
  COCA_CHECK(!parts || far.k.empty(), "[attention] keys in parts have no far keys beside them");
  return parts;
}

void check_documents(const AttentionOptions& options, TensorRef q, TensorRef starts) {
  if (starts.empty()) return;
  COCA_CHECK(options.mask != Mask::kNone, "[attention] document_start needs a causal mask or a window");
  check_dtype("attention", "document_start", starts, DType::kI32);
  COCA_CHECK(starts.shape == Dims({q.size(0), q.size(1)}), "[attention] document_start has shape {}; expected {}",
             starts.shape.text(), Dims({q.size(0), q.size(1)}).text());
  COCA_CHECK(starts.size(1) <= 1 || starts.stride(1) == 1,
             "[attention] document_start: the innermost stride must be 1, not {}", starts.stride(1));
  const auto view = starts.view<int32_t, 2>();
  for (int64_t b = 0; b < q.size(0); ++b)
    for (int64_t n = 0, least = 0; n < q.size(1); least = view(b, n++))
      COCA_CHECK(view(b, n) >= least && view(b, n) <= options.query_start + n,
                 "[attention] document_start[{}, {}]={} must be at least {} and at most {}", b, n, view(b, n), least,
                 options.query_start + n);
}

template <typename T>
AttentionParams<T> make_params(const AttentionOptions& options, TensorRef q, TensorRef k, TensorRef v, TensorRef slopes,
                               TensorRef document_start) {
  AttentionParams<T> p;
  p.q = q.view<T, 4>();
  p.k = k.view<T, 4>();
  p.v = v.view<T, 4>();
  p.slopes = slopes.empty() ? nullptr : slopes.as<float>();
  p.scale = options.scale != 0.0f ? options.scale : 1.0f / std::sqrt(static_cast<float>(q.size(3)));
  p.causal = options.mask != Mask::kNone;
  p.window = options.window;
  if (options.mask == Mask::kSymmetricWindow) p.hidden = 1 - options.window;
  p.query_start = options.query_start;
  p.query_step = p.key_step = options.spacing;
  if (!document_start.empty()) p.document_start = document_start.view<int32_t, 2>();
  return p;
}

// The far keys as attention of their own; `near` are the params of the window.
template <typename T>
std::optional<AttentionParams<T>> far_params(const AttentionOptions& options, const AttentionParams<T>& near, const FarKeys& far) {
  if (far.k.empty()) return std::nullopt;
  AttentionParams<T> p = near;
  p.q = far.q.view<T, 4>();
  p.k = far.k.view<T, 4>();
  if (!far.v.empty()) p.v = far.v.view<T, 4>();
  p.v.shape[1] = far.k.size(1);
  p.offset = options.first_place;
  p.key_step = 1;
  p.window = 0;
  p.hidden = near.window;
  p.most_distance = far.most_distance;
  p.most_position = far.most_position;
  if (far.range == FarRange::kAll) {
    p.causal = false;
    p.document_start = {};
  }
  return p;
}

template <typename T>
ref::AttentionSpec ref_spec(const AttentionParams<T>& p) {
  return {.scale = p.scale,
          .causal = p.causal,
          .window = p.window,
          .hidden = p.hidden,
          .most_distance = p.most_distance,
          .most_position = p.most_position,
          .query_start = p.query_start,
          .offset = p.offset,
          .query_step = p.query_step,
          .key_step = p.key_step,
          .slopes = p.slopes,
          .document_start = p.document_start};
}

// nullopt: the reference.
std::optional<TileMath> choose(const Context& context, DType type) {
  const std::string_view impl = running_impl(context, "attention", type);
  if (impl == "ref") return std::nullopt;
  return impl == "avx512_bf16" ? TileMath::kBf16Dot : TileMath::kF32;
}

std::byte* scratch_of(Context& context, size_t bytes) {
  return static_cast<std::byte*>(context.scratch(bytes));
}
size_t rounded(size_t bytes) {
  return (bytes + 63) / 64 * 64;
}

template <typename T>
void forward_rows(Context& context, const AttentionParams<T>& p) {
  const int64_t N = p.q.size(1), H = p.q.size(2), own = p.k.size(1) + (p.far ? p.far->k.size(1) : 0) + p.q.size(3);
  auto* work = reinterpret_cast<float*>(scratch_of(context, static_cast<size_t>(own * max_threads()) * sizeof(float)));
  parallel_for(p.q.size(0) * N * H, [&](int64_t task) {
    AttentionKernels<T>::forward_row(p, task / (N * H), task % H, task / H % N, work + thread_index() * own);
  });
}

// The key blocks of batch b that some query sees.
template <typename T>
cpu::IndexRange seen_blocks(const AttentionParams<T>& p, int64_t b) {
  const int64_t begin = cpu::seen_keys(p, b, 0).begin / kAttentionBlock;
  return {begin, std::max(begin, attention_blocks(cpu::seen_keys(p, b, p.q.size(1) - 1).end))};
}

// Where packed keys of one (b, g) lie: those of the window, and the far ones behind them.
template <typename T>
struct PackedLayout {
  size_t near, far;
  PackedLayout(TileMath math, const AttentionParams<T>& p)
      : near(rounded(cpu::attention_packed_bytes(math, p.q.size(3)) * static_cast<size_t>(attention_blocks(p.k.size(1))))),
        far(p.far ? rounded(cpu::attention_packed_bytes(math, p.q.size(3)) * static_cast<size_t>(attention_blocks(p.far->k.size(1)))) : 0) {}
  size_t bytes() const { return near + far; }
  cpu::PackedKeys at(const std::byte* memory) const { return {memory, memory + near}; }
};

// Packs block i of those that some query sees, the far ones behind the window's.
template <typename T>
struct Packing {
  TileMath math;
  const AttentionParams<T>& p;
  const PackedLayout<T>& layout;
  int64_t b, g;
  cpu::IndexRange near, far;

  Packing(TileMath math_, const AttentionParams<T>& p_, const PackedLayout<T>& layout_, int64_t b_, int64_t g_)
      : math(math_), p(p_), layout(layout_), b(b_), g(g_), near(seen_blocks(p, b)), far{0, 0} {
    if (p.far) far = seen_blocks(*p.far, b);
  }
  int64_t blocks() const { return near.end - near.begin + far.end - far.begin; }
  void pack(int64_t i, std::byte* memory) const {
    const int64_t count = near.end - near.begin;
    if (i < count)
      AttentionKernels<T>::pack_block(math, p, b, g, near.begin + i, memory);
    else
      AttentionKernels<T>::pack_block(math, *p.far, b, g, far.begin + i - count, memory + layout.near);
  }
};

template <typename T>
void forward_blocks(Context& context, TileMath math, const AttentionParams<T>& p) {
  const int64_t B = p.q.size(0), G = p.k.size(2), group = p.q.size(2) / G, D = p.q.size(3);
  const int64_t key_blocks = attention_blocks(p.k.size(1)), query_blocks = attention_blocks(p.q.size(1));
  const PackedLayout<T> layout(math, p);
  const size_t packed = layout.bytes(), own = rounded(cpu::attention_forward_bytes(D));
  const auto threads = static_cast<size_t>(max_threads());
  // Many short groups: a thread packs and does one alone. Few or long ones: threads share a group at a time, so that
  // only one is packed in memory and none waits.
  if (B * G >= 4 * max_threads() && key_blocks <= 16) {
    std::byte* work = scratch_of(context, (packed + own) * threads);
    parallel_for(B * G, [&](int64_t task) {
      const int64_t b = task / G, g = task % G;
      std::byte* kv = work + static_cast<size_t>(thread_index()) * (packed + own);
      const Packing<T> packing(math, p, layout, b, g);
      for (int64_t i = 0; i < packing.blocks(); ++i) packing.pack(i, kv);
      for (int64_t i = 0; i < query_blocks * group; ++i)
        AttentionKernels<T>::forward_block(math, p, b, g * group + i / query_blocks, i % query_blocks, layout.at(kv), kv + packed);
    });
    return;
  }
  std::byte* work = scratch_of(context, packed + own * threads);
  for (int64_t task = 0; task < B * G; ++task) {
    const int64_t b = task / G, g = task % G;
    const Packing<T> packing(math, p, layout, b, g);
    parallel_for(packing.blocks(), [&](int64_t i) { packing.pack(i, work); });
    // The longest rows first: under the causal mask they cost most, and the short ones fill the gaps.
    parallel_for(query_blocks * group, [&](int64_t i) {
      AttentionKernels<T>::forward_block(math, p, b, g * group + i % group, query_blocks - 1 - i / group, layout.at(work),
                                         work + packed + own * static_cast<size_t>(thread_index()));
    });
  }
}

// Where parts begin: of the key blocks, so that under the mask each part has about as many tiles as the others. With
// documents the parts follow from these too.
template <typename T>
std::vector<int64_t> part_bounds(const AttentionParams<T>& p, int64_t parts, int64_t key_blocks) {
  std::vector<int64_t> cost(static_cast<size_t>(key_blocks) + 1, 0);   // tiles of the blocks before
  const int64_t batches = p.document_start.empty() ? 1 : p.q.size(0);  // else all rows are alike
  for (int64_t i = 0; i < key_blocks; ++i) {
    int64_t tiles = 0;
    for (int64_t b = 0; b < batches; ++b) {
      const auto [begin, end] = cpu::seeing_queries(p, b, {i * kAttentionBlock, (i + 1) * kAttentionBlock});
      tiles += std::max<int64_t>(1, attention_blocks(end) - begin / kAttentionBlock);
    }
    cost[static_cast<size_t>(i) + 1] = cost[static_cast<size_t>(i)] + tiles;
  }
  std::vector<int64_t> bounds{0};
  for (int64_t part = 1; part < parts; ++part) {
    const int64_t wanted = cost.back() * part / parts;
    const auto at = std::lower_bound(cost.begin(), cost.end(), wanted) - cost.begin();
    bounds.push_back(std::clamp<int64_t>(at, bounds.back() + 1, key_blocks - (parts - part)));
  }
  bounds.push_back(key_blocks);
  return bounds;
}

template <typename T>
void backward_parts(Context& context, TileMath math, const AttentionParams<T>& p) {
  const int64_t B = p.q.size(0), N = p.q.size(1), H = p.q.size(2), D = p.q.size(3), G = p.k.size(2), group = H / G;
  const int64_t key_blocks = attention_blocks(p.k.size(1)), query_blocks = attention_blocks(N);
  const int64_t most = std::max<int64_t>(1, key_blocks / kLeastPartBlocks);
  const int64_t parts = std::clamp<int64_t>(B * G > 0 ? kBackwardTasks / (B * G) : 1, 1, most);
  const std::vector<int64_t> bounds = part_bounds(p, parts, key_blocks);
  int64_t longest = 0;
  for (size_t i = 0; i + 1 < bounds.size(); ++i) longest = std::max(longest, bounds[i + 1] - bounds[i]);
  const size_t own = rounded(cpu::attention_backward_bytes(math, N, longest, D));
  const size_t partial = parts > 1 ? cpu::attention_partial_dq_floats(N, group, D) : 0;
  const size_t all_partial = rounded(partial * static_cast<size_t>(B * G * parts) * sizeof(float));
  std::byte* work = scratch_of(context, all_partial + own * static_cast<size_t>(max_threads()));
  auto* partial_dq = reinterpret_cast<float*>(work);
  parallel_for(B * G * parts, [&](int64_t task) {
    const int64_t part = task % parts, b = task / parts / G, g = task / parts % G;
    AttentionKernels<T>::backward_part(math, p,
                                       {.b = b,
                                        .g = g,
                                        .block0 = bounds[static_cast<size_t>(part)],
                                        .block1 = bounds[static_cast<size_t>(part) + 1],
                                        .dq = parts > 1 ? partial_dq + partial * static_cast<size_t>(task) : nullptr},
                                       work + all_partial + own * static_cast<size_t>(thread_index()));
  });
  if (parts == 1) return;
  parallel_for(B * H * query_blocks, [&](int64_t task) {
    const int64_t block = task % query_blocks, b = task / query_blocks / H, h = task / query_blocks % H;
    const size_t at = partial * static_cast<size_t>((b * G + h / group) * parts) +
                      partial / static_cast<size_t>(group) * static_cast<size_t>(h % group);
    AttentionKernels<T>::sum_dq(p, b, h, block, partial_dq + at, parts, static_cast<int64_t>(partial));
  });
}

template <typename T>
void forward_typed(Context& context, TileMath math, const AttentionOptions& options, const AttentionForward& a) {
  AttentionParams<T> p = make_params<T>(options, a.q, a.k, a.v, a.slopes, a.document_start);
  const std::optional<AttentionParams<T>> far = far_params(options, p, a.far);
  if (far) p.far = &*far;
  if (a.write == Write::kAccumulate)
    p.o_sum = a.o.view<float, 4>();
  else
    p.o = a.o.view<T, 4>();
  if (!a.lse.empty()) p.lse = a.lse.view<float, 3>();
  a.q.size(1) < kRowQueries ? forward_rows(context, p) : forward_blocks(context, math, p);
}

template <typename T>
void backward_typed(Context& context, TileMath math, const AttentionOptions& options, const AttentionBackward& a) {
  AttentionParams<T> p = make_params<T>(options, a.q, a.k, a.v, a.slopes, a.document_start);
  const auto lse = a.lse.view<float, 3>();
  p.lse = {const_cast<float*>(lse.data), lse.shape, lse.strides};  // only read in the backward pass
  p.out = a.o.view<T, 4>();
  p.d_o = a.d_o.view<T, 4>();
  if (a.write == Write::kAccumulate) {
    p.dq_sum = a.dq.view<float, 4>(), p.dk_sum = a.dk.view<float, 4>(), p.dv_sum = a.dv.view<float, 4>();
    return backward_parts(context, math, p);
  }
  p.dv = a.dv.view<T, 4>();
  std::optional<AttentionParams<T>> far = far_params(options, p, a.far);
  p.dq = a.dq.view<T, 4>();
  p.dk = a.dk.view<T, 4>();
  backward_parts(context, math, p);
  if (!far) return;
  far->dq = a.dq_far.view<T, 4>();
  far->dk = a.dk_far.view<T, 4>();
  if (a.far.v.empty())
    far->store_dv = cpu::StoreDv::kAdd;
  else
    far->dv = a.dv_far.view<T, 4>();
  backward_parts(context, math, *far);
}

// The window and, where there are any, the far keys.
std::vector<ref::AttentionKeys<float>> ref_parts(const AttentionOptions& options, const AttentionParams<float>& p, const FarKeys& far) {
  std::vector<ref::AttentionKeys<float>> parts{{ref_spec(p), p.q, p.k}};
  if (const auto f = far_params(options, p, far)) parts.push_back({ref_spec(*f), f->q, f->k, far.v.empty() ? TensorView<const float, 4>() : f->v});
  return parts;
}

void forward_ref(const AttentionOptions& options, const AttentionForward& a) {
  const FloatInput q(a.q), k(a.k), v(a.v), far_q(a.far.q), far_k(a.far.k), far_v(a.far.v);
  const FloatOutput o(a.o);
  const AttentionParams<float> p = make_params<float>(options, q.ref(), k.ref(), v.ref(), a.slopes, a.document_start);
  FarKeys far = a.far;
  far.q = far_q.ref(), far.k = far_k.ref(), far.v = far_v.ref();
  if (a.write == Write::kAccumulate) {
    Tensor part_o(a.o.shape), part_lse(a.lse.shape);
    ref::attention_forward<float>(ref_parts(options, p, far), p.v, part_o.ref().view<float, 4>(), part_lse.ref().view<float, 3>());
    return ref::attention_merge<float>(part_o.ref().view<float, 4>(), part_lse.ref().view<float, 3>(), a.o.view<float, 4>(), a.lse.view<float, 3>());
  }
  ref::attention_forward<float>(ref_parts(options, p, far), p.v, o.ref().view<float, 4>(),
                                a.lse.empty() ? TensorView<float, 3>() : a.lse.view<float, 3>());
  o.store();
}

// The keys are a part of all: the gradients are made apart, and added.
void backward_part_ref(const AttentionOptions& options, const AttentionBackward& a) {
  const FloatInput q(a.q), k(a.k), v(a.v), o(a.o), d_o(a.d_o);
  const AttentionParams<float> p = make_params<float>(options, q.ref(), k.ref(), v.ref(), a.slopes, a.document_start);
  Tensor dq(a.dq.shape), dk(a.dk.shape), dv(a.dv.shape);
  const ref::AttentionKeyGrads<float> grads{dq.ref().view<float, 4>(), dk.ref().view<float, 4>()};
  const ref::AttentionSaved<float> saved{o.ref().view<float, 4>(), a.lse.view<float, 3>()};
  ref::attention_backward<float>(ref_parts(options, p, {}), p.v, d_o.ref().view<float, 4>(), std::span(&grads, 1), dv.ref().view<float, 4>(), &saved);
  add_heads(dq, a.dq), add_heads(dk, a.dk), add_heads(dv, a.dv);
}

void backward_ref(const AttentionOptions& options, const AttentionBackward& a) {
  const FloatInput q(a.q), k(a.k), v(a.v), d_o(a.d_o), far_q(a.far.q), far_k(a.far.k), far_v(a.far.v);
  const FloatOutput dq(a.dq), dk(a.dk), dv(a.dv), dq_far(a.dq_far), dk_far(a.dk_far), dv_far(a.dv_far);
  const AttentionParams<float> p = make_params<float>(options, q.ref(), k.ref(), v.ref(), a.slopes, a.document_start);
  FarKeys far = a.far;
  far.q = far_q.ref(), far.k = far_k.ref(), far.v = far_v.ref();
  std::vector<ref::AttentionKeyGrads<float>> grads{{dq.ref().view<float, 4>(), dk.ref().view<float, 4>()}};
  if (!a.far.k.empty()) grads.push_back({dq_far.ref().view<float, 4>(), dk_far.ref().view<float, 4>(), dv_far.ref().view<float, 4>()});
  ref::attention_backward<float>(ref_parts(options, p, far), p.v, d_o.ref().view<float, 4>(), grads, dv.ref().view<float, 4>());
  for (const FloatOutput* out : {&dq, &dk, &dv, &dq_far, &dk_far, &dv_far}) out->store();
}

}  // namespace

void attention_forward(Context& context, const AttentionOptions& options, const AttentionForward& a) {
  check_attention(options, a.q, a.k, a.v, a.slopes);
  check_documents(options, a.q, a.document_start);
  check_far(options, a.far, a.q, a.k);
  const bool parts = check_parts(a.write, a.far);
  COCA_CHECK(!parts || !a.lse.empty(), "[attention] keys in parts need lse");
  check_heads("attention", "o", a.o, a.q.shape, parts ? std::span<const DType>(kF32) : std::span(&a.q.dtype, 1));
  const Dims lse_shape{a.q.size(0), a.q.size(2), a.q.size(1)};
  COCA_CHECK(a.lse.empty() || a.lse.shape == lse_shape, "[attention] lse has shape {}; expected {}", a.lse.shape.text(),
             lse_shape.text());
  const auto math = choose(context, a.q.dtype);
  if (!math) return forward_ref(options, a);
  with_float_type(a.q.dtype, [&](auto zero) { forward_typed<decltype(zero)>(context, *math, options, a); });
}

void attention_backward(Context& context, const AttentionOptions& options, const AttentionBackward& a) {
  check_attention(options, a.q, a.k, a.v, a.slopes);
  check_documents(options, a.q, a.document_start);
  check_far(options, a.far, a.q, a.k);
  const auto same = std::span(&a.q.dtype, 1);
  check_heads("attention", "o", a.o, a.q.shape, same);
  check_heads("attention", "d_o", a.d_o, a.q.shape, same);
  const bool parts = check_parts(a.write, a.far);
  const auto sums = parts ? std::span<const DType>(kF32) : same;
  check_heads("attention", "dq", a.dq, a.q.shape, sums);
  check_heads("attention", "dk", a.dk, a.k.shape, sums);
  check_heads("attention", "dv", a.dv, a.v.shape, sums);
  if (!a.far.k.empty()) {
    check_heads("attention", "dq_far", a.dq_far, a.q.shape, same);
    check_heads("attention", "dk_far", a.dk_far, a.far.k.shape, same);
    if (!a.far.v.empty()) check_heads("attention", "dv_far", a.dv_far, a.far.k.shape, same);
  }
  const Dims lse_shape{a.q.size(0), a.q.size(2), a.q.size(1)};
  COCA_CHECK(!a.lse.empty() && a.lse.shape == lse_shape, "[attention] lse has shape {}; expected {}", a.lse.shape.text(), lse_shape.text());
  const auto math = choose(context, a.q.dtype);
  if (!math) return parts ? backward_part_ref(options, a) : backward_ref(options, a);
  with_float_type(a.q.dtype, [&](auto zero) { backward_typed<decltype(zero)>(context, *math, options, a); });
}

std::vector<float> alibi_slopes(int64_t H) {
  COCA_CHECK(H >= 1, "[attention] ALiBi needs at least one head, not {}", H);
  const auto powers = [](int64_t n) {  // geometric from 2^(-8/n) with that ratio, for n a power of two
    std::vector<float> slopes;
    for (int64_t i = 1; i <= n; ++i)
      slopes.push_back(static_cast<float>(std::exp2(-8.0 * static_cast<double>(i) / static_cast<double>(n))));
    return slopes;
  };
  int64_t closest = 1;
  while (2 * closest <= H) closest *= 2;
  std::vector<float> slopes = powers(closest);
  const std::vector<float> extra = powers(2 * closest);
  for (int64_t i = 0; i < H - closest; ++i) slopes.push_back(extra[static_cast<size_t>(2 * i)]);
  return slopes;
}

}  // namespace coca::ops
