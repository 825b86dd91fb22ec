// Steps without sums process parts of heads (head_parts.h). Sums over tokens: blocks of tokens have partial sums, which
// are added up in order. The forget gate's running sums: one block for each sequence and head.
// SPDX-License-Identifier: Apache-2.0
#include "coca/kernels/args/head_modifiers.h"

#include <algorithm>
#include <cmath>

#include "coca/kernels/args/blocks.h"
#include "coca/kernels/args/float_types.h"
#include "coca/kernels/cuda/head_parts.h"
#include "coca/kernels/cuda/rows.h"

namespace coca::cuda {

namespace {

__device__ float sigmoid(float x) {
  const float e = expf(-fabsf(x));
  return (x < 0.0f ? e : 1.0f) / (1.0f + e);
}
__device__ float sigmoid_slope(float x) {
  const float e = expf(-fabsf(x)), high = 1.0f / (1.0f + e);
  return e * high * high;
}

// Calls body(T, V) for heads of type T that are read and written in parts of V, as `counts` and `heads` allow.
template <typename Body>
void with_heads(std::initializer_list<int64_t> counts, std::initializer_list<TensorRef> heads, const Body& body) {
  ops::with_float_type(heads.begin()->dtype,
                       [&]<typename T>(T type) { with_parts(counts, heads, [&](auto V) { body(type, V); }); });
}
PartCounts counts_of(TensorRef x, int64_t parts) { return {x.size(0), x.size(1), x.size(2), parts}; }

// y = x times factor(b, n, h).
template <typename T, int V, typename Factor>
struct Multiply {
  Factor factor;
  Heads<const T> x;
  Heads<T> y;
  __device__ void operator()(const Place& p) const {
    const float by = factor(p.b, p.n, p.h);
    Floats<V> v = load_part<V>(x.at(p) + p.part * V);
    for (int i = 0; i < V; ++i) v.x[i] *= by;
    store_part<V>(y.at(p) + p.part * V, v);
  }
};
template <typename Factor>
void multiply(Context& cx, TensorRef x, MutTensorRef y, const Factor& factor) {
  with_heads({x.size(3)}, {x, y}, [&]<typename T, int V>(T, std::integral_constant<int, V>) {
    each_part(cx, counts_of(y, x.size(3) / V), Multiply<T, V, Factor>{factor, heads_of<T>(x), mut_heads_of<T>(y)});
  });
}

// Numbers in three dimensions of any strides.
template <typename T>
struct Numbers {
  T* data;
  int64_t stride0, stride1, stride2;
  __device__ T* at(int64_t i, int64_t j, int64_t k) const { return data + i * stride0 + j * stride1 + k * stride2; }
};
template <typename T, typename Ref>
auto numbers_of(const Ref& t) {
  auto* data = t.template as<T>();
  using Out = Numbers<std::remove_pointer_t<decltype(data)>>;
  return t.empty() ? Out{} : Out{data, t.stride(0), t.stride(1), t.stride(2)};
}

// ---- sums over tokens

// partial[block, h] = the sum of term(b, n, h, i) over the block's tokens and i < X. A block for each h and `rows`
// tokens.
template <typename Term>
__global__ void head_sums_kernel(Term term, int64_t M, int64_t N, int64_t X, int64_t rows, float* partial) {
  __shared__ BlockWork<float> work;
  const int64_t first = blockIdx.x * rows, count = (M - first < rows ? M - first : rows) * X;
  const int h = static_cast<int>(blockIdx.y);
  float sum = 0.0f;
  for (int64_t i = threadIdx.x; i < count; i += blockDim.x) {
    const int64_t m = first + i / X;
    sum += term(m / N, m % N, h, i % X);
  }
  sum = block_sum(sum, work);
  if (threadIdx.x == 0) partial[static_cast<int64_t>(blockIdx.x) * gridDim.y + h] = sum;
}

// out[c * step] += sign * the sum of partial[., c], divided by divisor[c] if given.
struct SumInto {
  float* out;
  int64_t step = 1;
  double sign = 1.0;
  const float* divisor = nullptr;
};
__global__ void columns_kernel(const float* partial, int64_t blocks, int64_t columns, SumInto to) {
  for (int64_t c = grid_start(); c < columns; c += grid_stride()) {
    double sum = 0.0;
    for (int64_t i = 0; i < blocks; ++i) sum += static_cast<double>(partial[i * columns + c]);
    if (to.divisor) sum /= static_cast<double>(to.divisor[c]);
    to.out[c * to.step] = static_cast<float>(static_cast<double>(to.out[c * to.step]) + to.sign * sum);
  }
}

template <typename Term>
void add_head_sums(Context& cx, TensorRef x, const Term& term, const SumInto& to) {
  const int64_t M = x.size(0) * x.size(1), H = x.size(2), rows = ops::reduction_rows(M), blocks = (M + rows - 1) / rows;
  if (M == 0) return;
  float* partial = cx.scratch_tensor({blocks, H}).as<float>();
  launch(cx, {.blocks = {static_cast<unsigned>(blocks), static_cast<unsigned>(H)}, .threads = kThreads},
         head_sums_kernel<Term>, term, M, x.size(1), x.size(3), rows, partial);
  launch(cx, {.blocks = blocks_for(H), .threads = kThreads}, columns_kernel, partial, blocks, H, to);
}

template <typename T>
struct Dot {
  Heads<const T> a, b;
  __device__ float operator()(int64_t b_, int64_t n, int h, int64_t i) const {
    return load(a.row(b_, n, h) + i) * load(b.row(b_, n, h) + i);
  }
};

// ---- turn

__global__ void turns_kernel(const float* phases, int64_t count, float* cos_sin) {
  for (int64_t i = grid_start(); i < count; i += grid_stride()) {
    cos_sin[i] = static_cast<float>(cos(static_cast<double>(phases[i])));
    cos_sin[count + i] = static_cast<float>(sin(static_cast<double>(phases[i])));
  }
}

// The first P / V parts are pairs (j, j + P); the dims behind them are copied.
template <typename T, int V>
struct Turn {
  const float *cos, *sin;  // [H, P]
  Heads<const T> x;
  Heads<T> y;
  int P;
  float sign;  // -1: turns back
  __device__ void operator()(const Place& p) const {
    const T* from = x.at(p);
    T* to = y.at(p);
    const int j = p.part * V;
    if (j >= P) return store_part<V>(to + P + j, load_part<V>(from + P + j));
    const Floats<V> c = load_part<V>(cos + p.h * P + j), s = load_part<V>(sin + p.h * P + j);
    Floats<V> a = load_part<V>(from + j), b = load_part<V>(from + j + P);
    for (int i = 0; i < V; ++i) {
      const float by = sign * s.x[i], first = a.x[i] * c.x[i] - b.x[i] * by;
      b.x[i] = b.x[i] * c.x[i] + a.x[i] * by;
      a.x[i] = first;
    }
    store_part<V>(to + j, a);
    store_part<V>(to + j + P, b);
  }
};

// partial[block, h, j]: sums over the block's tokens.
template <typename T>
__global__ void turn_phases_kernel(Heads<const T> y, Heads<const T> dy, int64_t M, int64_t N, int H, int P,
                                   int64_t rows, float* partial) {
  const int64_t first = blockIdx.x * rows, end = first + rows < M ? first + rows : M;
  for (int at = static_cast<int>(threadIdx.x); at < H * P; at += static_cast<int>(blockDim.x)) {
    const int h = at / P, j = at % P;
    float sum = 0.0f;
    for (int64_t m = first; m < end; ++m) {
      const T *v = y.row(m / N, m % N, h), *g = dy.row(m / N, m % N, h);
      sum += load(v + j) * load(g + j + P) - load(v + j + P) * load(g + j);
    }
    partial[static_cast<int64_t>(blockIdx.x) * H * P + at] = sum;
  }
}

// cos and sin in scratch [2, H, P], with room for `more` such parts behind them.
float* turns_of(Context& cx, TensorRef phases, int64_t more) {
  const int64_t count = phases.numel();
  float* cos_sin = cx.scratch_tensor({2 + more, count}).as<float>();
  launch(cx, {.blocks = blocks_for(count), .threads = kThreads}, turns_kernel, phases.as<float>(), count, cos_sin);
  return cos_sin;
}

void turn_by(Context& cx, const float* cos_sin, int64_t P, TensorRef x, MutTensorRef y, float sign) {
  const int64_t X = x.size(3), count = x.size(2) * P;
  with_heads({P, X}, {x, y}, [&]<typename T, int V>(T, std::integral_constant<int, V>) {
    each_part(cx, counts_of(x, (X - P) / V),
              Turn<T, V>{.cos = cos_sin,
                         .sin = cos_sin + count,
                         .x = heads_of<T>(x),
                         .y = mut_heads_of<T>(y),
                         .P = static_cast<int>(P),
                         .sign = sign});
  });
}

void turn_forward(Context& cx, const ops::TurnHeadsForward& a) {
  turn_by(cx, turns_of(cx, a.phases, 0), a.phases.size(1), a.x, a.y, 1.0f);
}

void turn_backward(Context& cx, const ops::TurnHeadsBackward& a) {
  const int64_t M = a.dy.size(0) * a.dy.size(1), H = a.phases.size(0), P = a.phases.size(1);
  // Enough blocks for every multiprocessor, but few enough partial sums.
  const int64_t rows = std::max<int64_t>(8, (M + 511) / 512), blocks = a.dphases.empty() ? 0 : (M + rows - 1) / rows;
  float *cos_sin = turns_of(cx, a.phases, blocks), *partial = cos_sin + 2 * H * P;
  if (blocks > 0) {
    ops::with_float_type(a.dy.dtype, [&]<typename T>(T) {
      launch(cx, {.blocks = static_cast<unsigned>(blocks), .threads = kThreads}, turn_phases_kernel<T>,
             heads_of<T>(a.y), heads_of<T>(a.dy), M, a.dy.size(1), static_cast<int>(H), static_cast<int>(P), rows,
             partial);
    });
    launch(cx, {.blocks = blocks_for(H * P), .threads = kThreads}, columns_kernel, partial, blocks, H * P,
           SumInto{.out = a.dphases.as<float>()});
  }
  if (!a.dx.empty()) turn_by(cx, cos_sin, P, a.dy, a.dx, -1.0f);
}

// ---- scale

struct ScaleFactor {
  const float *scale, *row;
  int64_t row_b;  // stride
  __device__ float operator()(int64_t b, int64_t n, int h) const { return scale[h] * row[b * row_b + n]; }
};

void scale_forward(Context& cx, const ops::ScaleHeadsForward& a) {
  multiply(cx, a.x, a.y, ScaleFactor{a.scale.as<float>(), a.row.as<float>(), a.row.size(0) == 1 ? 0 : a.row.size(1)});
}

void scale_backward(Context& cx, const ops::ScaleHeadsBackward& a) {
  if (!a.dscale.empty())
    ops::with_float_type(a.dy.dtype, [&]<typename T>(T) {
      add_head_sums(cx, a.dy, Dot<T>{heads_of<T>(a.y), heads_of<T>(a.dy)},
                    {.out = a.dscale.as<float>(), .divisor = a.scale.as<float>()});
    });
  if (!a.dx.empty()) scale_forward(cx, {.scale = a.scale, .row = a.row, .x = a.dy, .y = a.dx});
}

// ---- gate

template <typename T>
struct HeadGate {
  Heads<const T> g;
  __device__ float operator()(int64_t b, int64_t n, int h) const { return sigmoid(load(g.row(b, n, h))); }
};

template <typename T, int V>
struct Gate {
  Heads<const T> x, g;
  Heads<T> y;
  __device__ void operator()(const Place& p) const {
    Floats<V> v = load_part<V>(x.at(p) + p.part * V);
    const Floats<V> by = load_part<V>(g.at(p) + p.part * V);
    for (int i = 0; i < V; ++i) v.x[i] *= sigmoid(by.x[i]);
    store_part<V>(y.at(p) + p.part * V, v);
  }
};

template <typename T, int V>
struct GateBack {
  Heads<const T> x, g, dy;
  Heads<T> dx, dg;
  __device__ void operator()(const Place& p) const {
    const int at = p.part * V;
    Floats<V> v = load_part<V>(x.at(p) + at), by = load_part<V>(g.at(p) + at), d = load_part<V>(dy.at(p) + at);
    for (int i = 0; i < V; ++i) {
      v.x[i] = d.x[i] * v.x[i] * sigmoid_slope(by.x[i]);
      d.x[i] *= sigmoid(by.x[i]);
    }
    store_part<V>(dg.at(p) + at, v);
    store_part<V>(dx.at(p) + at, d);
  }
};

// A warp for each head of each token.
template <typename T>
__global__ void head_gate_back_kernel(GateBack<T, 1> a, int64_t heads, int64_t N, int64_t H, int64_t X) {
  const int64_t at = (static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x) / kWarp;
  if (at >= heads) return;
  const int64_t b = at / H / N, n = at / H % N, h = at % H, lane = threadIdx.x % kWarp;
  const float gate = load(a.g.row(b, n, h)), open = sigmoid(gate);
  const T *x = a.x.row(b, n, h), *dy = a.dy.row(b, n, h);
  T* dx = a.dx.row(b, n, h);
  float sum = 0.0f;
  for (int64_t i = lane; i < X; i += kWarp) {
    const float d = load(dy + i);
    sum += load(x + i) * d;
    store(dx + i, d * open);
  }
  sum = warp_sum(sum);
  if (lane == 0) store(a.dg.row(b, n, h), sum * sigmoid_slope(gate));
}

bool by_head(TensorRef x, TensorRef g) { return g.size(3) != x.size(3); }

void gate_forward(Context& cx, const ops::GateHeadsForward& a) {
  const int64_t X = a.x.size(3);
  if (by_head(a.x, a.g))
    return ops::with_float_type(a.x.dtype,
                                [&]<typename T>(T) { multiply(cx, a.x, a.y, HeadGate<T>{heads_of<T>(a.g)}); });
  with_heads({X}, {a.x, a.y, a.g}, [&]<typename T, int V>(T, std::integral_constant<int, V>) {
    each_part(cx, counts_of(a.x, X / V), Gate<T, V>{heads_of<T>(a.x), heads_of<T>(a.g), mut_heads_of<T>(a.y)});
  });
}

template <typename T, int V>
GateBack<T, V> gate_back_of(const ops::GateHeadsBackward& a) {
  return {.x = heads_of<T>(a.x),
          .g = heads_of<T>(a.g),
          .dy = heads_of<T>(a.dy),
          .dx = mut_heads_of<T>(a.dx),
          .dg = mut_heads_of<T>(a.dg)};
}

void gate_backward(Context& cx, const ops::GateHeadsBackward& a) {
  const int64_t N = a.x.size(1), H = a.x.size(2), X = a.x.size(3), heads = a.x.size(0) * N * H;
  if (!by_head(a.x, a.g))
    return with_heads({X}, {a.x, a.g, a.dy, a.dx, a.dg}, [&]<typename T, int V>(T, std::integral_constant<int, V>) {
      each_part(cx, counts_of(a.x, X / V), gate_back_of<T, V>(a));
    });
  if (heads == 0) return;
  ops::with_float_type(a.x.dtype, [&]<typename T>(T) {
    launch(cx, {.blocks = static_cast<unsigned>((heads * kWarp + kThreads - 1) / kThreads), .threads = kThreads},
           head_gate_back_kernel<T>, gate_back_of<T, 1>(a), heads, N, H, X);
  });
}

// ---- mix

// Where documents begin.
struct Starts {
  const int32_t* starts;  // [B, N], or null
  int64_t stride, query_start;
  __device__ bool begins(int64_t b, int64_t n) const { return starts && starts[b * stride + n] >= query_start + n; }
};
template <typename Args>
Starts starts_of(const Args& a) {
  return {a.document_start.template as<int32_t>(), a.document_start.empty() ? 0 : a.document_start.stride(0),
          a.query_start};
}

// x, and where the neighbour of a token is: the one `step` away, or `outside` beyond the end; null: none.
template <typename T>
struct Neighbours {
  Heads<const T> x, outside;
  Starts starts;
  int64_t N;
  int step;  // -1: the token before; +1: the one behind
  __device__ const T* of(int64_t b, int64_t n, int64_t h) const {
    const int64_t other = n + step;
    const int64_t later = step > 0 ? other : n;
    if (later < N && starts.begins(b, later)) return nullptr;
    if (other >= 0 && other < N) return x.row(b, other, h);
    return outside.data ? outside.row(b, 0, h) : nullptr;
  }
};

template <typename T, int V>
struct Mix {
  const float* w;  // [H, 2]
  Neighbours<T> from;
  Heads<T> y;
  __device__ void operator()(const Place& p) const {
    const T* other = from.of(p.b, p.n, p.h);
    const float first = w[2 * p.h], second = w[2 * p.h + 1];
    Floats<V> v = load_part<V>(from.x.at(p) + p.part * V);
    for (int i = 0; i < V; ++i) v.x[i] *= first;
    if (other) {
      const Floats<V> more = load_part<V>(other + p.part * V);
      for (int i = 0; i < V; ++i) v.x[i] += second * more.x[i];
    }
    store_part<V>(y.at(p) + p.part * V, v);
  }
};

// What token 0 gives to the token before it.
struct OutsideFactor {
  const float* w;
  Starts starts;
  __device__ float operator()(int64_t b, int64_t, int h) const { return starts.begins(b, 0) ? 0.0f : w[2 * h + 1]; }
};

template <typename T>
struct MixDot {
  Neighbours<T> from;
  Heads<const T> dy;
  __device__ float operator()(int64_t b, int64_t n, int h, int64_t i) const {
    const T* other = from.of(b, n, h);
    return other ? load(other + i) * load(dy.row(b, n, h) + i) : 0.0f;
  }
};

template <typename Args>
void mix_by(Context& cx, const Args& a, TensorRef x, TensorRef outside, MutTensorRef y, int step) {
  const int64_t X = x.size(3);
  with_heads({X}, {x, y, outside.empty() ? x : outside}, [&]<typename T, int V>(T, std::integral_constant<int, V>) {
    each_part(cx, counts_of(x, X / V),
              Mix<T, V>{.w = a.w.template as<float>(),
                        .from = {heads_of<T>(x), heads_of<T>(outside), starts_of(a), x.size(1), step},
                        .y = mut_heads_of<T>(y)});
  });
}

void mix_forward(Context& cx, const ops::MixHeadsForward& a) { mix_by(cx, a, a.x, a.before, a.y, -1); }

void mix_backward(Context& cx, const ops::MixHeadsBackward& a) {
  if (!a.dw.empty())
    ops::with_float_type(a.dy.dtype, [&]<typename T>(T) {
      const auto dy = heads_of<T>(a.dy);
      add_head_sums(cx, a.dy, Dot<T>{heads_of<T>(a.x), dy}, {.out = a.dw.as<float>(), .step = 2});
      add_head_sums(cx, a.dy, MixDot<T>{{heads_of<T>(a.x), heads_of<T>(a.before), starts_of(a), a.dy.size(1), -1}, dy},
                    {.out = a.dw.as<float>() + 1, .step = 2});
    });
  if (!a.dbefore.empty()) multiply(cx, a.dy.narrow(1, 0, 1), a.dbefore, OutsideFactor{a.w.as<float>(), starts_of(a)});
  mix_by(cx, a, a.dy, {}, a.dx, +1);
}

// ---- sink

__device__ bool no_keys(float lse) { return lse == -INFINITY; }

// A head's share of the weights beside the sink.
struct SinkShare {
  const float* sink;
  Numbers<float> lse;
  __device__ float operator()(int64_t b, int64_t n, int h) const {
    const float sum = *lse.at(b, h, n);
    return no_keys(sum) ? 0.0f : sigmoid(sum - sink[h]);
  }
};

struct SinkSum {
  const float* sink;
  Numbers<float> lse;
  __device__ void operator()(const Place& p) const {
    float& sum = *lse.at(p.b, p.h, p.n);
    const float by = sink[p.h];
    sum = no_keys(sum) ? by : (sum < by ? by : sum) + log1pf(expf(-fabsf(sum - by)));
  }
};

template <typename T>
struct SinkDot {
  const float* sink;
  Numbers<const float> lse;
  Dot<T> dot;
  __device__ float operator()(int64_t b, int64_t n, int h, int64_t i) const {
    const float sum = *lse.at(b, h, n);
    return no_keys(sum) ? 0.0f : expf(sink[h] - sum) * dot(b, n, h, i);
  }
};

void sink_forward(Context& cx, const ops::SinkHeadsForward& a) {
  const float* sink = a.sink.as<float>();
  const auto lse = numbers_of<float>(a.lse);
  multiply(cx, a.o, a.o, SinkShare{sink, lse});
  each_part(cx, counts_of(a.o, 1), SinkSum{sink, lse});
}

void sink_backward(Context& cx, const ops::SinkHeadsBackward& a) {
  ops::with_float_type(a.o.dtype, [&]<typename T>(T) {
    add_head_sums(cx, a.o,
                  SinkDot<T>{a.sink.as<float>(), numbers_of<float>(a.lse), {heads_of<T>(a.o), heads_of<T>(a.d_o)}},
                  {.out = a.dsink.as<float>(), .sign = -1.0});
  });
}

// ---- forget gate

// The sum over the block's threads up to this one; `total` receives that over all.
__device__ double block_scan(double x, BlockWork<double>& work, double& total) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp, warp = static_cast<int>(threadIdx.x) / kWarp;
  for (int lanes = 1; lanes < kWarp; lanes *= 2) {
    const double before = __shfl_up_sync(kAllLanes, x, lanes);
    if (lane >= lanes) x += before;
  }
  if (lane == kWarp - 1) work[warp] = x;
  __syncthreads();
  double before = 0.0;
  total = 0.0;
  for (int i = 0; i < kThreads / kWarp; ++i) {
    if (i == warp) before = total;
    total += work[i];
  }
  __syncthreads();  // the next call writes `work`
  return before + x;
}

// sum = start(b, h); for each i: sum += term(b, h, i) and put(b, h, i, sum); then done(b, h, sum).
template <typename Body>
__global__ void running_sums_kernel(Body body, int64_t H, int64_t N) {
  __shared__ BlockWork<double> work;
  const int64_t b = blockIdx.x / H, h = blockIdx.x % H;
  double sum = body.start(b, h);
  for (int64_t first = 0; first < N; first += kThreads) {
    const int64_t i = first + threadIdx.x;
    double total = 0.0;
    const double here = block_scan(i < N ? body.term(b, h, i) : 0.0, work, total);
    if (i < N) body.put(b, h, i, sum + here);
    sum += total;
  }
  if (threadIdx.x == 0) body.done(b, h, sum);
}
template <typename Body>
void running_sums(Context& cx, TensorRef logits, const Body& body) {
  const int64_t blocks = logits.size(0) * logits.size(2);
  if (blocks == 0) return;
  launch(cx, {.blocks = static_cast<unsigned>(blocks), .threads = kThreads}, running_sums_kernel<Body>, body,
         logits.size(2), logits.size(1));
}

template <typename T>
struct Decay {
  Numbers<const T> logits;     // [B, N, H]
  Numbers<const float> carry;  // null: zeros
  int carried;                 // numbers in it for each head
  Numbers<float> decay;
  float* end;  // [B, H, 2], or null
  int64_t H;
  __device__ double start(int64_t b, int64_t h) const {
    double sum = 0.0;
    for (int i = 0; i < carried; ++i) sum += static_cast<double>(*carry.at(b, h, i));
    return sum;
  }
  __device__ double term(int64_t b, int64_t h, int64_t n) const {
    const float x = load(logits.at(b, n, h));
    return static_cast<double>((x < 0.0f ? x : 0.0f) - log1pf(expf(-fabsf(x))));
  }
  __device__ void put(int64_t b, int64_t h, int64_t n, double sum) const {
    *decay.at(b, h, n) = static_cast<float>(sum);
  }
  __device__ void done(int64_t b, int64_t h, double sum) const {
    if (!end) return;
    float* to = end + 2 * (b * H + h);
    to[0] = static_cast<float>(sum);
    to[1] = static_cast<float>(sum - static_cast<double>(to[0]));
  }
};

// From the last token to the first.
template <typename T>
struct DecayBack {
  Numbers<const T> logits;  // [B, N, H]
  Numbers<const float> ddecay;
  Numbers<T> dlogits;
  int64_t N;
  __device__ double start(int64_t, int64_t) const { return 0.0; }
  __device__ double term(int64_t b, int64_t h, int64_t i) const {
    return static_cast<double>(*ddecay.at(b, h, N - 1 - i));
  }
  __device__ void put(int64_t b, int64_t h, int64_t i, double sum) const {
    const int64_t n = N - 1 - i;
    store(dlogits.at(b, n, h), static_cast<float>(sum) * sigmoid(-load(logits.at(b, n, h))));
  }
  __device__ void done(int64_t, int64_t, double) const {}
};

void forget_forward(Context& cx, const ops::ForgetGateForward& a) {
  ops::with_float_type(a.logits.dtype, [&]<typename T>(T) {
    running_sums(cx, a.logits,
                 Decay<T>{.logits = numbers_of<T>(a.logits),
                          .carry = numbers_of<float>(a.carry),
                          .carried = a.carry.empty() ? 0 : static_cast<int>(a.carry.size(2)),
                          .decay = numbers_of<float>(a.decay),
                          .end = a.end.as<float>(),
                          .H = a.logits.size(2)});
  });
}

void forget_backward(Context& cx, const ops::ForgetGateBackward& a) {
  ops::with_float_type(a.logits.dtype, [&]<typename T>(T) {
    running_sums(cx, a.logits,
                 DecayBack<T>{.logits = numbers_of<T>(a.logits),
                              .ddecay = numbers_of<float>(a.ddecay),
                              .dlogits = numbers_of<T>(a.dlogits),
                              .N = a.logits.size(1)});
  });
}

}  // namespace

const ops::HeadModifiersImpl head_modifiers_row{
    .name = "cuda",
    .device = DeviceKind::kCuda,
    .run = {turn_forward, turn_backward, scale_forward, scale_backward, gate_forward, gate_backward, mix_forward,
            mix_backward, sink_forward, sink_backward, forget_forward, forget_backward}};

}  // namespace coca::cuda
