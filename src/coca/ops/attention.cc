// SPDX-License-Identifier: Apache-2.0
#include "coca/ops/attention.h"

#include <cmath>

#include "coca/base/parallel.h"
#include "coca/kernels/cpu/attention.h"
#include "coca/kernels/ref/attention.h"
#include "coca/ops/impl.h"
#include "coca/ops/rope_check.h"

namespace coca::ops {

namespace {

// Fewer queries than this go row by row: packing the keys would cost more than it saves.
constexpr int64_t kRowQueries = 8;
// From this many queries on, threads share one (batch, kv head) at a time, so that only one is packed in memory.
constexpr int64_t kLongQueries = 1024;

void check_attention(const AttentionOptions& options, TensorRef q, TensorRef k, TensorRef v, TensorRef slopes) {
  COCA_CHECK(q.rank() == 4 && k.rank() == 4, "[attention] q {} and k {} must be [B, N, H, D] and [B, S, G, D]",
             q.shape.text(), k.shape.text());
  check_heads("attention", "q", q, q.shape);
  check_heads("attention", "k", k, {q.size(0), k.size(1), k.size(2), q.size(3)});
  check_heads("attention", "v", v, k.shape);
  COCA_CHECK(k.size(2) > 0 && q.size(2) % k.size(2) == 0, "[attention] H={} must be a multiple of G={}", q.size(2),
             k.size(2));
  COCA_CHECK(slopes.empty() || slopes.shape == Dims({q.size(2)}), "[attention] slopes {} must be [{}]",
             slopes.shape.text(), q.size(2));
  COCA_CHECK(options.query_start >= 0, "[attention] query_start={} is negative", options.query_start);
}

cpu::AttentionParams make_params(const AttentionOptions& options, TensorRef q, TensorRef k, TensorRef v,
                                 TensorRef slopes) {
  cpu::AttentionParams p;
  p.q = q.view<float, 4>();
  p.k = k.view<float, 4>();
  p.v = v.view<float, 4>();
  p.slopes = slopes.empty() ? nullptr : slopes.as<float>();
  p.scale = options.scale != 0.0f ? options.scale : 1.0f / std::sqrt(static_cast<float>(q.size(3)));
  p.causal = options.mask == Mask::kCausal;
  p.query_start = options.query_start;
  return p;
}

ref::AttentionSpec ref_spec(const cpu::AttentionParams& p) {
  return {.scale = p.scale, .causal = p.causal, .query_start = p.query_start, .slopes = p.slopes};
}

void forward_rows(Context& context, const cpu::AttentionParams& p) {
  const int64_t N = p.q.size(1), H = p.q.size(2), S = p.k.size(1);
  float* work = static_cast<float*>(context.scratch(static_cast<size_t>(S * max_threads()) * sizeof(float)));
  parallel_for(p.q.size(0) * N * H, [&](int64_t task) {
    cpu::attention_forward_row(p, task / (N * H), task % H, task / H % N, work + thread_index() * S);
  });
}

void forward_blocks(Context& context, const cpu::AttentionParams& p) {
  const int64_t B = p.q.size(0), N = p.q.size(1), G = p.k.size(2), group = p.q.size(2) / G, S = p.k.size(1),
                D = p.q.size(3);
  const int64_t key_blocks = (S + cpu::kAttentionBlock - 1) / cpu::kAttentionBlock;
  const int64_t query_blocks = (N + cpu::kAttentionBlock - 1) / cpu::kAttentionBlock;
  const size_t packed = cpu::packed_kv_floats(S, D), own = cpu::attention_forward_floats(D);
  const auto threads = static_cast<size_t>(max_threads());
  if (N < kLongQueries) {
    auto* work = static_cast<float*>(context.scratch((packed + own) * threads * sizeof(float)));
    parallel_for(B * G, [&](int64_t task) {
      const int64_t b = task / G, g = task % G;
      float* kv = work + static_cast<size_t>(thread_index()) * (packed + own);
      for (int64_t i = 0; i < key_blocks; ++i) cpu::attention_pack_block(p, b, g, i, kv);
      for (int64_t i = 0; i < query_blocks * group; ++i)
        cpu::attention_forward_block(p, b, g * group + i / query_blocks, i % query_blocks, kv, kv + packed);
    });
    return;
  }
  auto* work = static_cast<float*>(context.scratch((packed + own * threads) * sizeof(float)));
  for (int64_t task = 0; task < B * G; ++task) {
    const int64_t b = task / G, g = task % G;
    parallel_for(key_blocks, [&](int64_t i) { cpu::attention_pack_block(p, b, g, i, work); });
    // The longest rows first: under the causal mask they cost most, and the short ones fill the gaps.
    parallel_for(query_blocks * group, [&](int64_t i) {
      cpu::attention_forward_block(p, b, g * group + i % group, query_blocks - 1 - i / group, work,
                                   work + packed + own * static_cast<size_t>(thread_index()));
    });
  }
}

}  // namespace

void attention_forward(Context& context, const AttentionOptions& options, const AttentionForward& a) {
  check_attention(options, a.q, a.k, a.v, a.slopes);
  check_heads("attention", "o", a.o, a.q.shape);
  const Dims lse_shape{a.q.size(0), a.q.size(2), a.q.size(1)};
  COCA_CHECK(a.lse.empty() || a.lse.shape == lse_shape, "[attention] lse has shape {}; expected {}", a.lse.shape.text(),
             lse_shape.text());
  cpu::AttentionParams p = make_params(options, a.q, a.k, a.v, a.slopes);
  p.o = a.o.view<float, 4>();
  if (!a.lse.empty()) p.lse = a.lse.view<float, 3>();
  if (use_ref(context, "attention", "cpu")) {
    ref::attention_forward<float>(ref_spec(p), p.q, p.k, p.v, p.o, p.lse);
  } else if (a.q.size(1) < kRowQueries) {
    forward_rows(context, p);
  } else {
    forward_blocks(context, p);
  }
}

void attention_backward(Context& context, const AttentionOptions& options, const AttentionBackward& a) {
  check_attention(options, a.q, a.k, a.v, a.slopes);
  check_heads("attention", "o", a.o, a.q.shape);
  check_heads("attention", "d_o", a.d_o, a.q.shape);
  check_heads("attention", "dq", a.dq, a.q.shape);
  check_heads("attention", "dk", a.dk, a.k.shape);
  check_heads("attention", "dv", a.dv, a.v.shape);
  const Dims lse_shape{a.q.size(0), a.q.size(2), a.q.size(1)};
  COCA_CHECK(!a.lse.empty() && a.lse.shape == lse_shape && a.lse.contiguous(),
             "[attention] lse has shape {}; expected a contiguous {}", a.lse.shape.text(), lse_shape.text());
  cpu::AttentionParams p = make_params(options, a.q, a.k, a.v, a.slopes);
  const auto lse = a.lse.view<float, 3>();
  p.lse = {const_cast<float*>(lse.data), lse.shape, lse.strides};  // only read in the backward pass
  p.out = a.o.view<float, 4>();
  p.d_o = a.d_o.view<float, 4>();
  p.dq = a.dq.view<float, 4>();
  p.dk = a.dk.view<float, 4>();
  p.dv = a.dv.view<float, 4>();
  if (use_ref(context, "attention", "cpu")) {
    ref::attention_backward<float>(ref_spec(p), p.q, p.k, p.v, p.d_o, p.dq, p.dk, p.dv);
    return;
  }
  const int64_t G = p.k.size(2);
  const size_t own = cpu::attention_backward_floats(a.q.size(1), a.k.size(1), a.q.size(3));
  auto* work = static_cast<float*>(context.scratch(own * static_cast<size_t>(max_threads()) * sizeof(float)));
  parallel_for(p.q.size(0) * G, [&](int64_t task) {
    cpu::attention_backward_group(p, task / G, task % G, work + own * static_cast<size_t>(thread_index()));
  });
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
