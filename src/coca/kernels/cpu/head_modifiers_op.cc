// Tasks are blocks of tokens of a sequence. Sums over tokens: a number for each head of each token is kept in scratch
// and added up in double by column; for the phases, blocks that follow from the shape have sums of their own.
// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cmath>
#include <limits>

#include "coca/base/parallel.h"
#include "coca/kernels/args/blocks.h"
#include "coca/kernels/args/float_types.h"
#include "coca/kernels/cpu/head_modifiers.h"
#include "coca/kernels/cpu/linear.h"
#include "coca/kernels/cpu/rope.h"
#include "coca/kernels/cpu/rows.h"

namespace coca::cpu {

namespace {

// `N` tokens of sequence b from token n on. `index` counts the blocks, `row` the tokens before.
struct Block {
  int64_t b, n, N, index, row;
};

// body(Block) for blocks of at most `tokens`, on any thread.
template <typename Body>
void each_block(int64_t B, int64_t N, int64_t tokens, const Body& body) {
  const int64_t blocks = (N + tokens - 1) / tokens;
  parallel_for(B * blocks, [&](int64_t i) {
    const int64_t b = i / blocks, n = i % blocks * tokens;
    body(Block{b, n, std::min(tokens, N - n), i, b * N + n});
  });
}
template <typename Body>
void each_block(TensorRef x, const Body& body) {
  each_block(x.size(0), x.size(1), ops::row_grain(x), body);
}

HeadCounts counts_of(const Block& block, TensorRef x) { return {block.N, x.size(2), x.size(3)}; }

template <typename T>
TokenHeads<const T> heads_of(TensorRef t, const Block& block) {
  if (t.empty()) return {};
  return {t.as<T>() + block.b * t.stride(0) + block.n * t.stride(1), t.stride(1), t.stride(2)};
}
template <typename T>
TokenHeads<T> heads_of(MutTensorRef t, const Block& block) {
  if (t.empty()) return {};
  return {t.as<T>() + block.b * t.stride(0) + block.n * t.stride(1), t.stride(1), t.stride(2)};
}

// sums[h] of numbers [M, H], in double, handed to add(h, sum).
template <typename Add>
void add_columns(const float* numbers, int64_t M, int64_t H, const Add& add) {
  parallel_for(H, [&](int64_t h) {
    double sum = 0;
    for (int64_t m = 0; m < M; ++m) sum += static_cast<double>(numbers[m * H + h]);
    add(h, sum);
  });
}

void add_to(float& out, double sum) { out = static_cast<float>(static_cast<double>(out) + sum); }

// ---- turn

// cos and sin [H, P] of the phases, in scratch that has room for `more` numbers for each phase behind them.
struct Turns {
  MutTensorRef scratch;  // [2 + more, H, P]
  RopeTables tables;

  Turns(Context& context, TensorRef phases, int64_t more) {
    const int64_t H = phases.size(0), P = phases.size(1);
    scratch = context.scratch_tensor({2 + more, H, P});
    const float* by = phases.as<float>();
    float* cos = scratch.as<float>();
    for (int64_t i = 0; i < H * P; ++i) {
      cos[i] = static_cast<float>(std::cos(static_cast<double>(by[i])));
      cos[H * P + i] = static_cast<float>(std::sin(static_cast<double>(by[i])));
    }
    tables = {TensorRef(scratch).narrow(0, 0, 1).view<float, 3>(), TensorRef(scratch).narrow(0, 1, 1).view<float, 3>()};
  }
};

// Heads as the tokens of a rotation, and the other way round.
template <typename T>
TensorView<T, 4> heads_first(const TokenHeads<T>& x, const HeadCounts& c) {
  return {x.data, {1, c.H, c.N, c.X}, {0, x.stride_h, x.stride_n, 1}};
}

void turn_forward(Context& context, const ops::TurnHeadsForward& a) {
  const Turns turns(context, a.phases, 0);
  ops::with_float_type(a.x.dtype, [&]<typename T>(T) {
    each_block(a.x, [&](const Block& block) {
      const HeadCounts c = counts_of(block, a.x);
      rope_rows(turns.tables, Turn::kForward, heads_first(heads_of<T>(a.x, block), c),
                heads_first(heads_of<T>(a.y, block), c), 0, c.H);
    });
  });
}

void turn_backward(Context& context, const ops::TurnHeadsBackward& a) {
  const int64_t B = a.dy.size(0), N = a.dy.size(1), H = a.phases.size(0), P = a.phases.size(1);
  const bool phases = !a.dphases.empty();
  const int64_t tokens = phases ? ops::reduction_rows(B * N) : ops::row_grain(a.dy);
  const int64_t blocks = phases ? B * ((N + tokens - 1) / tokens) : 0;
  const Turns turns(context, a.phases, blocks);
  float* sums = turns.scratch.as<float>() + 2 * H * P;
  ops::with_float_type(a.dy.dtype, [&]<typename T>(T) {
    each_block(B, N, tokens, [&](const Block& block) {
      const HeadCounts c = counts_of(block, a.dy);
      const auto dy = heads_of<T>(a.dy, block);
      if (phases) {
        float* own = sums + block.index * H * P;
        std::fill_n(own, H * P, 0.0f);
        add_turn_gradient(c, heads_of<T>(a.y, block), dy, P, own);
      }
      if (a.dx.empty()) return;
      rope_rows(turns.tables, Turn::kBack, heads_first(dy, c), heads_first(heads_of<T>(a.dx, block), c), 0, c.H);
    });
  });
  if (phases) add_column_sums(sums, H * P, blocks, H * P, a.dphases.as<float>());
}

// ---- scale

// scale[h] row[n] for the heads of a block.
void write_factors(TensorRef scale, TensorRef row, const Block& block, float* factors) {
  const int64_t H = scale.size(0);
  const float *by_head = scale.as<float>(), *by_token = row.view<float, 2>().ptr(row.size(0) == 1 ? 0 : block.b);
  for (int64_t n = 0; n < block.N; ++n)
    for (int64_t h = 0; h < H; ++h) factors[n * H + h] = by_head[h] * by_token[block.n + n];
}

void scale_forward(Context& context, const ops::ScaleHeadsForward& a) {
  const int64_t H = a.x.size(2);
  float* factors = context.scratch_tensor({a.x.size(0) * a.x.size(1), H}).as<float>();
  ops::with_float_type(a.x.dtype, [&]<typename T>(T) {
    each_block(a.x, [&](const Block& block) {
      float* own = factors + block.row * H;
      write_factors(a.scale, a.row, block, own);
      multiply_heads(counts_of(block, a.x), heads_of<T>(a.x, block), own, heads_of<T>(a.y, block));
    });
  });
}

void scale_backward(Context& context, const ops::ScaleHeadsBackward& a) {
  const int64_t M = a.dy.size(0) * a.dy.size(1), H = a.dy.size(2);
  float *dots = context.scratch_tensor({2, M, H}).as<float>(), *factors = dots + M * H;
  ops::with_float_type(a.dy.dtype, [&]<typename T>(T) {
    each_block(a.dy, [&](const Block& block) {
      const HeadCounts c = counts_of(block, a.dy);
      const auto dy = heads_of<T>(a.dy, block);
      if (!a.dscale.empty()) dot_heads(c, heads_of<T>(a.y, block), dy, dots + block.row * H);
      if (a.dx.empty()) return;
      float* own = factors + block.row * H;
      write_factors(a.scale, a.row, block, own);
      multiply_heads(c, dy, own, heads_of<T>(a.dx, block));
    });
  });
  if (a.dscale.empty()) return;
  const float* scale = a.scale.as<float>();
  float* dscale = a.dscale.as<float>();
  add_columns(dots, M, H, [&](int64_t h, double sum) { add_to(dscale[h], sum / static_cast<double>(scale[h])); });
}

// ---- gate

// Gates of whole heads [B, N, H, 1].
bool by_head(TensorRef x, TensorRef g) { return g.size(3) != x.size(3); }

// The gates of a block, open = sigmoid(g), and the slope if it is wanted: packed [N, H].
template <typename T>
void open_gates(TensorRef g, const Block& block, float* open, float* slope) {
  const int64_t H = g.size(2);
  const auto gates = heads_of<T>(g, block);
  for (int64_t n = 0; n < block.N; ++n)
    for (int64_t h = 0; h < H; ++h) open[n * H + h] = static_cast<float>(*gates.at(n, h));
  sigmoids(open, block.N * H, open, slope);
}

void gate_forward(Context& context, const ops::GateHeadsForward& a) {
  const int64_t H = a.x.size(2);
  float* open = by_head(a.x, a.g) ? context.scratch_tensor({a.x.size(0) * a.x.size(1), H}).as<float>() : nullptr;
  ops::with_float_type(a.x.dtype, [&]<typename T>(T) {
    each_block(a.x, [&](const Block& block) {
      const HeadCounts c = counts_of(block, a.x);
      const auto x = heads_of<T>(a.x, block);
      const auto y = heads_of<T>(a.y, block);
      if (!open) return gate_heads(c, x, heads_of<T>(a.g, block), y);
      open_gates<T>(a.g, block, open + block.row * H, nullptr);
      multiply_heads(c, x, open + block.row * H, y);
    });
  });
}

// The gradients of a block whose gates are those of whole heads. work: [3, M, H].
template <typename T>
void head_gates_backward(const ops::GateHeadsBackward& a, const Block& block, float* work) {
  const int64_t M = a.x.size(0) * a.x.size(1), H = a.x.size(2);
  const HeadCounts c = counts_of(block, a.x);
  float *open = work + block.row * H, *slope = open + M * H, *dots = slope + M * H;
  const auto dy = heads_of<T>(a.dy, block);
  open_gates<T>(a.g, block, open, slope);
  dot_heads(c, heads_of<T>(a.x, block), dy, dots);
  multiply_heads(c, dy, open, heads_of<T>(a.dx, block));
  const auto dg = heads_of<T>(a.dg, block);
  for (int64_t n = 0; n < c.N; ++n)
    for (int64_t h = 0; h < H; ++h) *dg.at(n, h) = static_cast<T>(dots[n * H + h] * slope[n * H + h]);
}

void gate_backward(Context& context, const ops::GateHeadsBackward& a) {
  float* work =
      by_head(a.x, a.g) ? context.scratch_tensor({3, a.x.size(0) * a.x.size(1), a.x.size(2)}).as<float>() : nullptr;
  ops::with_float_type(a.x.dtype, [&]<typename T>(T) {
    each_block(a.x, [&](const Block& block) {
      if (work) return head_gates_backward<T>(a, block, work);
      gate_heads_backward(GateBackward<T>{.counts = counts_of(block, a.x),
                                          .x = heads_of<T>(a.x, block),
                                          .g = heads_of<T>(a.g, block),
                                          .dy = heads_of<T>(a.dy, block),
                                          .dx = heads_of<T>(a.dx, block),
                                          .dg = heads_of<T>(a.dg, block)});
    });
  });
}

// ---- mix

// Tokens `n` to `n + count - 1` of a block's sequence.
Block part_of(const Block& block, int64_t n, int64_t count) {
  Block part = block;
  part.row += n - block.n;
  part.n = n;
  part.N = count;
  return part;
}

// Whether token n begins a document.
template <typename Args>
bool begins(const Args& a, int64_t b, int64_t n) {
  return !a.document_start.empty() && a.document_start.template view<int32_t, 2>()(b, n) >= a.query_start + n;
}

// y = the mix of x with the token `step` away: the one before (-1), or the one behind (+1), as the gradient has it. The
// sequence's first or last token has its neighbour in `outside`.
template <typename T>
void mix_block(const float* w, TensorRef starts, int64_t query_start, TensorRef x, TensorRef outside, MutTensorRef y,
               const Block& block, int64_t step) {
  const int64_t N = x.size(1), edge = step < 0 ? 0 : N - 1;
  const bool at_edge = block.n <= edge && edge < block.n + block.N;
  const auto starts_at = [&](int64_t n) {
    return starts.empty() ? nullptr : starts.view<int32_t, 2>().ptr(block.b) + n;
  };
  const auto mix = [&](const Block& part, const TokenHeads<const T>& other, int64_t late) {
    mix_tokens(MixTokens<T>{.counts = counts_of(part, x),
                            .w = w,
                            .x = heads_of<T>(x, part),
                            .other = other,
                            .starts = other.data ? starts_at(late) : nullptr,
                            .position = query_start + late,
                            .y = heads_of<T>(y, part)});
  };
  const Block inner = part_of(block, block.n + (at_edge && step < 0), block.N - at_edge);
  // The later token of a pair may begin a document.
  if (inner.N > 0) mix(inner, heads_of<T>(x, part_of(inner, inner.n + step, inner.N)), inner.n + (step > 0));
  if (at_edge) mix(part_of(block, edge, 1), heads_of<T>(outside, Block{block.b, 0, 1, 0, 0}), edge);
}

void mix_forward(Context&, const ops::MixHeadsForward& a) {
  ops::with_float_type(a.x.dtype, [&]<typename T>(T) {
    each_block(a.x, [&](const Block& block) {
      mix_block<T>(a.w.as<float>(), a.document_start, a.query_start, a.x, a.before, a.y, block, -1);
    });
  });
}

// dots [2, M, H] of dy with x and with the heads before.
template <typename T>
void mix_dots(const ops::MixHeadsBackward& a, const Block& block, float* dots) {
  const int64_t M = a.dy.size(0) * a.dy.size(1), H = a.dy.size(2), edge = block.n == 0;
  float *same = dots + block.row * H, *last = same + M * H;
  dot_heads(counts_of(block, a.dy), heads_of<T>(a.x, block), heads_of<T>(a.dy, block), same);
  const Block inner = part_of(block, block.n + edge, block.N - edge), first{block.b, 0, 1, 0, 0};
  if (inner.N > 0)
    dot_heads(counts_of(inner, a.dy), heads_of<T>(a.x, part_of(inner, inner.n - 1, inner.N)), heads_of<T>(a.dy, inner),
              last + edge * H);
  if (edge > 0 && !a.before.empty())
    dot_heads(counts_of(first, a.dy), heads_of<T>(a.before, first), heads_of<T>(a.dy, first), last);
  for (int64_t n = 0; n < block.N; ++n)
    if (begins(a, block.b, block.n + n) || (block.n + n == 0 && a.before.empty())) std::fill_n(last + n * H, H, 0.0f);
}

// dbefore = w[h, 1] dy of token 0, or 0 where that begins a document.
template <typename T>
void mix_outside(const ops::MixHeadsBackward& a, float* factors) {
  const int64_t H = a.dy.size(2);
  for (int64_t b = 0; b < a.dy.size(0); ++b) {
    const Block first{b, 0, 1, 0, 0};
    for (int64_t h = 0; h < H; ++h) factors[h] = begins(a, b, 0) ? 0.0f : a.w.as<float>()[2 * h + 1];
    multiply_heads(counts_of(first, a.dy), heads_of<T>(a.dy, first), factors, heads_of<T>(a.dbefore, first));
  }
}

void mix_backward(Context& context, const ops::MixHeadsBackward& a) {
  const int64_t M = a.dy.size(0) * a.dy.size(1), H = a.dy.size(2);
  float* dots = context.scratch_tensor({2, std::max<int64_t>(1, M), H}).as<float>();
  ops::with_float_type(a.dy.dtype, [&]<typename T>(T) {
    if (!a.dbefore.empty()) mix_outside<T>(a, dots);
    each_block(a.dy, [&](const Block& block) {
      if (!a.dw.empty()) mix_dots<T>(a, block, dots);
      mix_block<T>(a.w.as<float>(), a.document_start, a.query_start, a.dy, {}, a.dx, block, +1);
    });
  });
  if (a.dw.empty()) return;
  float* dw = a.dw.as<float>();
  for (int64_t i = 0; i < 2; ++i)
    add_columns(dots + i * M * H, M, H, [&](int64_t h, double sum) { add_to(dw[2 * h + i], sum); });
}

// ---- sink

constexpr int64_t kNumbers = 256;  // on the stack

// The new lse of some tokens of a head, and their shares of the old weights, one for each H.
void join_sink(float sink, float* lse, int64_t stride, int64_t count, float* shares, int64_t H) {
  float above[kNumbers] = {}, more[kNumbers] = {};
  for (int64_t n = 0; n < count; ++n) {
    const float old = lse[n * stride];
    above[n] = std::isinf(old) && old < 0 ? -std::numeric_limits<float>::max() : old - sink;  // no keys: no share
    more[n] = -std::abs(above[n]);
  }
  sigmoids(above, count, above, nullptr);
  softplus(more, count);
  for (int64_t n = 0; n < count; ++n) {
    shares[n * H] = above[n];
    lse[n * stride] = (lse[n * stride] < sink ? sink : lse[n * stride]) + more[n];
  }
}

void sink_forward(Context& context, const ops::SinkHeadsForward& a) {
  const int64_t H = a.o.size(2);
  float* shares = context.scratch_tensor({a.o.size(0) * a.o.size(1), H}).as<float>();
  const auto lse = a.lse.view<float, 3>();
  ops::with_float_type(a.o.dtype, [&]<typename T>(T) {
    each_block(a.o, [&](const Block& block) {
      float* own = shares + block.row * H;
      for (int64_t h = 0; h < H; ++h)
        for (int64_t n = 0; n < block.N; n += kNumbers)
          join_sink(a.sink.as<float>()[h], lse.ptr(block.b, h, block.n + n), lse.stride(2),
                    std::min(kNumbers, block.N - n), own + n * H + h, H);
      multiply_heads(counts_of(block, a.o), heads_of<T>(TensorRef(a.o), block), own, heads_of<T>(a.o, block));
    });
  });
}

void sink_backward(Context& context, const ops::SinkHeadsBackward& a) {
  const int64_t M = a.o.size(0) * a.o.size(1), H = a.o.size(2);
  float* dots = context.scratch_tensor({M, H}).as<float>();
  const auto lse = a.lse.view<float, 3>();
  const float* sink = a.sink.as<float>();
  ops::with_float_type(a.o.dtype, [&]<typename T>(T) {
    each_block(a.o, [&](const Block& block) {
      float* own = dots + block.row * H;
      dot_heads(counts_of(block, a.o), heads_of<T>(a.o, block), heads_of<T>(a.d_o, block), own);
      for (int64_t h = 0; h < H; ++h)
        for (int64_t n = 0; n < block.N; ++n) {
          const float sum = lse(block.b, h, block.n + n);
          own[n * H + h] *= std::isinf(sum) ? 0.0f : std::exp(sink[h] - sum);
        }
    });
  });
  float* dsink = a.dsink.as<float>();
  add_columns(dots, M, H, [&](int64_t h, double sum) { add_to(dsink[h], -sum); });
}

// ---- forget gate

// log sigmoid(x) = -log(1 + exp(-x)) of every logit is written to decay, then summed up there.
void forget_forward(Context&, const ops::ForgetGateForward& a) {
  const int64_t B = a.logits.size(0), N = a.logits.size(1), H = a.logits.size(2);
  const auto decay = a.decay.view<float, 3>();
  ops::with_float_type(a.logits.dtype, [&]<typename T>(T) {
    const auto logits = a.logits.view<T, 3>();
    each_block(B, N, ops::grain_of(H, 4096), [&](const Block& block) {
      for (int64_t h = 0; h < H; ++h) {
        float* out = decay.ptr(block.b, h, block.n);
        const T* in = logits.ptr(block.b, block.n, h);
        for (int64_t n = 0; n < block.N; ++n) out[n] = -static_cast<float>(in[n * logits.stride(1)]);
        softplus(out, block.N);
      }
    });
  });
  const auto carry = a.carry.view<float, 3>();
  float* end = a.end.as<float>();
  parallel_for(B * H, [&](int64_t i) {
    double sum = 0;
    for (int64_t k = 0; !carry.empty() && k < carry.size(2); ++k) sum += static_cast<double>(carry(i / H, i % H, k));
    float* out = decay.ptr(i / H, i % H);
    for (int64_t n = 0; n < N; ++n) out[n] = static_cast<float>(sum -= static_cast<double>(out[n]));
    if (!end) return;
    end[2 * i] = static_cast<float>(sum);
    end[2 * i + 1] = static_cast<float>(sum - static_cast<double>(end[2 * i]));
  });
}

void forget_backward(Context& context, const ops::ForgetGateBackward& a) {
  const int64_t B = a.logits.size(0), N = a.logits.size(1), H = a.logits.size(2);
  float* sums = context.scratch_tensor({B, H, N}).as<float>();  // over the tokens from each one on
  const auto ddecay = a.ddecay.view<float, 3>();
  parallel_for(B * H, [&](int64_t i) {
    double sum = 0;
    const float* in = ddecay.ptr(i / H, i % H);
    for (int64_t n = N; n-- > 0;) sums[i * N + n] = static_cast<float>(sum += static_cast<double>(in[n]));
  });
  ops::with_float_type(a.logits.dtype, [&]<typename T>(T) {
    const auto logits = a.logits.view<T, 3>();
    const auto dlogits = a.dlogits.view<T, 3>();
    each_block(B, N, kNumbers, [&](const Block& block) {
      float closed[kNumbers] = {};
      for (int64_t h = 0; h < H; ++h) {
        const T* in = logits.ptr(block.b, block.n, h);
        for (int64_t n = 0; n < block.N; ++n) closed[n] = -static_cast<float>(in[n * logits.stride(1)]);
        sigmoids(closed, block.N, closed, nullptr);
        T* out = dlogits.ptr(block.b, block.n, h);
        const float* sum = sums + (block.b * H + h) * N + block.n;
        for (int64_t n = 0; n < block.N; ++n) out[n * dlogits.stride(1)] = static_cast<T>(sum[n] * closed[n]);
      }
    });
  });
}

}  // namespace

const ops::HeadModifiersImpl head_modifiers_row{
    .name = "cpu",
    .run = {turn_forward, turn_backward, scale_forward, scale_backward, gate_forward, gate_backward, mix_forward,
            mix_backward, sink_forward, sink_backward, forget_forward, forget_backward}};

}  // namespace coca::cpu
