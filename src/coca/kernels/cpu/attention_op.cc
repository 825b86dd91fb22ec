// How attention is packed and spread over threads: which thread does which block never changes a bit, so that may
// follow the number of threads; what is summed with what follows from the shapes alone.
// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cmath>
#include <optional>
#include <vector>

#include "coca/base/parallel.h"
#include "coca/kernels/args/float_types.h"
#include "coca/kernels/cpu/attention.h"
#include "coca/kernels/cpu/rows.h"

namespace coca::cpu {

namespace {

// Fewer queries than this go row by row: packing the keys would cost more than it saves.
constexpr int64_t kRowQueries = 8;
// The backward pass has at least this many tasks where the keys allow it, of at least this many key blocks.
constexpr int64_t kBackwardTasks = 8, kLeastPartBlocks = 8;

template <typename T, typename Args>
AttentionParams<T> make_params(const ops::AttentionOptions& options, const Args& a) {
  AttentionParams<T> p;
  p.q = a.q.template view<T, 4>();
  p.k = a.k.template view<T, 4>();
  p.v = a.v.template view<T, 4>();
  p.slopes = a.slopes.empty() ? nullptr : a.slopes.template as<float>();
  if (!a.decay.empty()) {
    p.decay = a.decay.template view<float, 3>();
    p.query_decay = ops::queries_of(options, a.query_decay, a.decay, a.q).template view<float, 3>();
  }
  p.scale = options.scale != 0.0f ? options.scale : 1.0f / std::sqrt(static_cast<float>(a.q.size(3)));
  p.causal = options.mask != ops::Mask::kNone;
  p.window = options.window;
  if (options.mask == ops::Mask::kSymmetricWindow) p.hidden = 1 - options.window;
  p.query_start = options.query_start;
  p.query_step = p.key_step = options.spacing;
  if (!a.document_start.empty()) p.document_start = a.document_start.template view<int32_t, 2>();
  return p;
}

// The far keys as attention of their own; `near` are the params of the window.
template <typename T>
std::optional<AttentionParams<T>> far_params(const ops::AttentionOptions& options, const AttentionParams<T>& near,
                                             const ops::FarKeys& far) {
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
  if (far.range == ops::FarRange::kAll) {
    p.causal = false;
    p.document_start = {};
  }
  return p;
}

std::byte* scratch_of(Context& context, size_t bytes) { return static_cast<std::byte*>(context.scratch(bytes)); }
size_t rounded(size_t bytes) { return (bytes + 63) / 64 * 64; }

template <typename T>
void forward_rows(Context& context, const AttentionParams<T>& p) {
  const int64_t N = p.q.size(1), H = p.q.size(2), own = p.k.size(1) + (p.far ? p.far->k.size(1) : 0) + p.v.size(3);
  auto* work = reinterpret_cast<float*>(scratch_of(context, static_cast<size_t>(own * max_threads()) * sizeof(float)));
  parallel_for(p.q.size(0) * N * H, [&](int64_t task) {
    AttentionKernels<T>::forward_row(p, task / (N * H), task % H, task / H % N, work + thread_index() * own);
  });
}

// The key blocks of batch b that are visible to some query.
template <typename T>
IndexRange seen_blocks(const AttentionParams<T>& p, int64_t b) {
  const int64_t begin = seen_keys(p, b, 0).begin / kAttentionBlock;
  return {begin, std::max(begin, attention_blocks(seen_keys(p, b, p.q.size(1) - 1).end))};
}

// The places of packed keys of one (b, g): those of the window, followed by the far ones.
template <typename T>
struct PackedLayout {
  size_t near, far;
  PackedLayout(TileMath math, const AttentionParams<T>& p)
      : near(rounded(attention_packed_bytes(math, widths_of(p)) * static_cast<size_t>(attention_blocks(p.k.size(1))))),
        far(p.far ? rounded(attention_packed_bytes(math, widths_of(p)) *
                            static_cast<size_t>(attention_blocks(p.far->k.size(1))))
                  : 0) {}
  size_t bytes() const { return near + far; }
  PackedKeys at(const std::byte* memory) const { return {memory, memory + near}; }
};

// Packs block i of those visible to some query; the far ones follow the window's.
template <typename T>
struct Packing {
  TileMath math;
  const AttentionParams<T>& p;
  const PackedLayout<T>& layout;
  int64_t b, g;
  IndexRange near, far;

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
  const int64_t B = p.q.size(0), G = p.k.size(2), group = p.q.size(2) / G;
  const int64_t key_blocks = attention_blocks(p.k.size(1)), query_blocks = attention_blocks(p.q.size(1));
  const PackedLayout<T> layout(math, p);
  const size_t packed = layout.bytes(), own = rounded(attention_forward_bytes(widths_of(p)));
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
        AttentionKernels<T>::forward_block(math, p, b, g * group + i / query_blocks, i % query_blocks, layout.at(kv),
                                           kv + packed);
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
      AttentionKernels<T>::forward_block(math, p, b, g * group + i % group, query_blocks - 1 - i / group,
                                         layout.at(work), work + packed + own * static_cast<size_t>(thread_index()));
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
      const auto [begin, end] = seeing_queries(p, b, {i * kAttentionBlock, (i + 1) * kAttentionBlock});
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

// Sums of the scores' gradients, for those of decay: of each (b, g) over the queries, and of each part over its keys.
template <typename T>
struct DecaySums {
  const AttentionParams<T>& p;
  int64_t parts, N = p.q.size(1), group = p.q.size(2) / p.k.size(2),
                 keys = attention_blocks(p.k.size(1)) * kAttentionBlock;
  float* memory = nullptr;

  bool wanted() const { return !p.ddecay.empty(); }
  int64_t floats_of_group() const { return group * (keys + parts * N); }
  size_t bytes() const {
    return wanted() ? rounded(static_cast<size_t>(p.q.size(0) * p.k.size(2) * floats_of_group()) * sizeof(float)) : 0;
  }
  float* columns(int64_t b, int64_t g) const {
    return wanted() ? memory + (b * p.k.size(2) + g) * floats_of_group() : nullptr;
  }
  float* rows(int64_t b, int64_t g, int64_t part) const {
    return wanted() ? columns(b, g) + group * (keys + part * N) : nullptr;
  }
  // A query's decay is added to its scores, a key's is subtracted. Parts are added in their order.
  void add() const {
    if (!wanted()) return;
    const int64_t H = p.q.size(2);
    parallel_for(p.q.size(0) * H, [&](int64_t task) {
      const int64_t b = task / H, h = task % H, g = h / group, member = h % group;
      for (int64_t n = 0; n < N; ++n) {
        float sum = 0;
        for (int64_t part = 0; part < parts; ++part) sum += rows(b, g, part)[member * N + n];
        p.dquery_decay(b, h, n) += sum;
      }
      for (int64_t s = 0; s < p.k.size(1); ++s) p.ddecay(b, h, s) -= columns(b, g)[member * keys + s];
    });
  }
};

template <typename T>
void backward_parts(Context& context, TileMath math, const AttentionParams<T>& p) {
  const int64_t B = p.q.size(0), N = p.q.size(1), H = p.q.size(2), G = p.k.size(2), group = H / G;
  const int64_t key_blocks = attention_blocks(p.k.size(1)), query_blocks = attention_blocks(N);
  const int64_t most = std::max<int64_t>(1, key_blocks / kLeastPartBlocks);
  const int64_t parts = std::clamp<int64_t>(B * G > 0 ? kBackwardTasks / (B * G) : 1, 1, most);
  const std::vector<int64_t> bounds = part_bounds(p, parts, key_blocks);
  int64_t longest = 0;
  for (size_t i = 0; i + 1 < bounds.size(); ++i) longest = std::max(longest, bounds[i + 1] - bounds[i]);
  const size_t own = rounded(attention_backward_bytes(math, N, longest, widths_of(p)));
  const size_t partial = parts > 1 ? attention_partial_dq_floats(N, group, p.q.size(3)) : 0;
  const size_t all_partial = rounded(partial * static_cast<size_t>(B * G * parts) * sizeof(float));
  DecaySums<T> decay{p, parts};
  std::byte* memory = scratch_of(context, all_partial + decay.bytes() + own * static_cast<size_t>(max_threads()));
  auto* partial_dq = reinterpret_cast<float*>(memory);
  decay.memory = reinterpret_cast<float*>(memory + all_partial);
  std::byte* work = memory + all_partial + decay.bytes();
  parallel_for(B * G * parts, [&](int64_t task) {
    const int64_t part = task % parts, b = task / parts / G, g = task / parts % G;
    AttentionKernels<T>::backward_part(math, p,
                                       {.b = b,
                                        .g = g,
                                        .block0 = bounds[static_cast<size_t>(part)],
                                        .block1 = bounds[static_cast<size_t>(part) + 1],
                                        .dq = parts > 1 ? partial_dq + partial * static_cast<size_t>(task) : nullptr,
                                        .row_sums = decay.rows(b, g, part),
                                        .column_sums = decay.columns(b, g)},
                                       work + own * static_cast<size_t>(thread_index()));
  });
  decay.add();
  if (parts == 1) return;
  parallel_for(B * H * query_blocks, [&](int64_t task) {
    const int64_t block = task % query_blocks, b = task / query_blocks / H, h = task / query_blocks % H;
    const size_t at = partial * static_cast<size_t>((b * G + h / group) * parts) +
                      partial / static_cast<size_t>(group) * static_cast<size_t>(h % group);
    AttentionKernels<T>::sum_dq(p, b, h, block, partial_dq + at, parts, static_cast<int64_t>(partial));
  });
}

template <typename T>
void forward_typed(Context& context, TileMath math, const ops::AttentionOptions& options,
                   const ops::AttentionForward& a) {
  AttentionParams<T> p = make_params<T>(options, a);
  const std::optional<AttentionParams<T>> far = far_params(options, p, a.far);
  if (far) p.far = &*far;
  if (a.write == ops::Write::kAccumulate)
    p.o_sum = a.o.view<float, 4>();
  else
    p.o = a.o.view<T, 4>();
  if (!a.lse.empty()) p.lse = a.lse.view<float, 3>();
  if (a.q.size(1) < kRowQueries) return forward_rows(context, p);
  forward_blocks(context, math, p);
}

template <typename T>
void backward_typed(Context& context, TileMath math, const ops::AttentionOptions& options,
                    const ops::AttentionBackward& a) {
  AttentionParams<T> p = make_params<T>(options, a);
  const auto lse = a.lse.view<float, 3>();
  p.lse = {const_cast<float*>(lse.data), lse.shape, lse.strides};  // only read in the backward pass
  p.out = a.o.view<T, 4>();
  p.d_o = a.d_o.view<T, 4>();
  if (!a.decay.empty()) {
    p.ddecay = a.ddecay.view<float, 3>();
    p.dquery_decay = ops::queries_of(options, a.dquery_decay, a.ddecay, a.q).view<float, 3>();
  }
  if (a.write == ops::Write::kAccumulate) {
    p.dq_sum = a.dq.view<float, 4>();
    p.dk_sum = a.dk.view<float, 4>();
    p.dv_sum = a.dv.view<float, 4>();
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
    far->store_dv = StoreDv::kAdd;
  else
    far->dv = a.dv_far.view<T, 4>();
  backward_parts(context, math, *far);
}

template <TileMath kMath>
void forward(Context& context, const ops::AttentionOptions& options, const ops::AttentionForward& a) {
  ops::with_float_type(a.q.dtype, [&](auto zero) { forward_typed<decltype(zero)>(context, kMath, options, a); });
}

template <TileMath kMath>
void backward(Context& context, const ops::AttentionOptions& options, const ops::AttentionBackward& a) {
  ops::with_float_type(a.q.dtype, [&](auto zero) { backward_typed<decltype(zero)>(context, kMath, options, a); });
}

bool dots(const ops::AttentionCase& c) { return c.type == DType::kBF16; }

}  // namespace

const ops::AttentionImpl attention_row{.name = "cpu", .run = {forward<TileMath::kF32>, backward<TileMath::kF32>}};
const ops::AttentionImpl attention_bf16_row{.name = "avx512_bf16",
                                            .needs = "AVX-512 with bf16 instructions",
                                            .runs_here = [] { return has_bf16_dot(); },
                                            .supports = dots,
                                            .run = {forward<TileMath::kBf16Dot>, backward<TileMath::kBf16Dot>}};

}  // namespace coca::cpu
