// Attention over the cache, for one step of any number of sequences. Math: docs/math/decode_attention.md.
//   1. Each query row becomes the numbers u, w and p that a score is linear in (kernels/cpu/decode_attention.h).
//   2. A block takes up to 8 rows of one kv head and a range of tokens, a page at a time: a thread is a token while
//   scores
//      are computed, and a dim while values are added up. What it finds is a partial result.
//   3. A warp merges the partial results of a row, in the order of the ranges.
// Ranges depend on the shape of a sequence alone, so a sequence has the same bits alone and beside others.
// SPDX-License-Identifier: Apache-2.0
#include "coca/kernels/args/decode_attention.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "coca/kernels/args/float_types.h"
#include "coca/kernels/cuda/rows.h"
#include "coca/kernels/cuda/simt.h"
#include "coca/kernels/ref/decode_attention.h"

namespace coca::cuda {

namespace {

constexpr int kTaskRows = 8, kWarps = 8, kTiles = static_cast<int>(kKvPage / kKvTile);
constexpr int64_t kRangeTokens = 1024, kMostRanges = 64, kMostDims = 256;
static_assert(kThreads == kKvPage, "a thread is a token of a page");

struct Rows {
  const float *cos = nullptr, *sin = nullptr;
  int64_t step = 0;  // from token to token
};

// Tokens with the same rules of visibility and angles: those of the window (or all), and the far ones.
struct Side {
  const void* q = nullptr;
  int64_t q_n = 0, q_h = 0;
  // The angles of keys: of tiles' middles [tiles, half] and of the 64 offsets from it [half, 64]; or by token.
  const float *start_cos = nullptr, *start_sin = nullptr, *offset_cos = nullptr, *offset_sin = nullptr;
  Rows key_rows;
  int64_t tokens = 0, ranges = 0;
  int64_t window = 0, first = 0, hidden = 0;
  int64_t most_distance = 0, most_position = 0, forgotten = 0;
  bool sees_all = false;
};

struct Sequence {
  void* o = nullptr;
  int64_t o_n = 0, o_h = 0;
  float* lse = nullptr;          // [H, N]; null: not wanted
  const float* decay = nullptr;  // [H, S] forget gates, or null
  int64_t decay_h = 0;
  int64_t N = 0, S = 0, range = 0, ranges = 0;
  int64_t first_row = 0;    // of this sequence among the rows of the call, N H each
  int64_t first_state = 0;  // of its partial results
  const std::byte* const* pages = nullptr;
  Side side[2];
  int sides = 1;
};

struct Task {
  int32_t sequence, side, g, chunk, range;
};

// What the sequences have in common.
struct Call {
  const Sequence* sequences;
  const Task* tasks;
  const float* slopes;
  const int64_t* dilation;  // [H] or null
  KvLayout layout;
  size_t layer_offset;
  int64_t H, E, D, W, R, group, half, plain, coefficients;  // coefficients: 2 half + W - plain, of a row and a side
  int64_t planes, content;                                  // of folded keys
  bool folded;                                              // keys are lengths
  ops::KeyDirection key;                                    // of these; else (1, 0)
  float scale;
  float* queries;  // [rows, 2, coefficients]
  float* states;   // [states, D + 2]: o, largest score, sum

  __device__ float* query_of(int64_t row, int side) const { return queries + (row * 2 + side) * coefficients; }
};

// A row of the call: its sequence's query n and head h.
struct RowOf {
  int64_t n, h;
};
__device__ inline RowOf row_of(const Call& c, int64_t g, int64_t r) { return {r / c.group, g * c.group + r % c.group}; }

// u, w and p of one row, as prepare_row in kernels/cpu/decode_attention_op.cc.
template <typename T>
__global__ void prepare_kernel(Call c, int64_t sequences, int64_t rows) {
  const int64_t at = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (at >= 2 * rows) return;
  const int which = static_cast<int>(at % 2);
  const int64_t row = at / 2;
  int64_t i = 0;
  while (i + 1 < sequences && c.sequences[i + 1].first_row <= row) ++i;
  const Sequence& s = c.sequences[i];
  if (which >= s.sides) return;
  const Side& side = s.side[which];
  const int64_t n = (row - s.first_row) / c.H, h = (row - s.first_row) % c.H, half = c.half;
  const T* q = static_cast<const T*>(side.q) + n * side.q_n + h * side.q_h;
  const auto e = [q](int64_t index) { return load(q + index); };
  float *u = c.query_of(row, which), *w = u + half, *p = w + half;
  for (int64_t j = 0; j < half; ++j) {
    u[j] = c.scale * (c.key.x * e(j) + c.key.y * e(j + half));
    w[j] = c.scale * (c.key.x * e(j + half) - c.key.y * e(j));
  }
  for (int64_t k = 0; k < c.W - c.plain; ++k) p[k] = 0.0f;
  if (c.folded) {
    const int64_t rest = c.planes - half;
    for (int64_t k = 0; k < rest; ++k) p[k] = c.scale * (c.key.x * e(c.R + k) + c.key.y * e(c.R + rest + k));
    for (int64_t k = 0; k < c.content; ++k) p[rest + k] = c.scale * e(2 * c.planes + k);
  } else {  // the official fold meets a key's number up to twice
    for (int64_t k = c.R; k < c.E; ++k) p[k % c.W - c.plain] += c.scale * e(k);
  }
}

__device__ inline float stored(const std::byte* p, int64_t at, const float*) {
  return reinterpret_cast<const float*>(p)[at];
}
__device__ inline float stored(const std::byte* p, int64_t at, const BF16*) {
  return static_cast<float>(reinterpret_cast<const BF16*>(p)[at]);
}
__device__ inline float stored(const std::byte* p, int64_t at, const int8_t*) {
  return static_cast<float>(reinterpret_cast<const int8_t*>(p)[at]);
}
__device__ inline float stored(const std::byte* p, int64_t at, const uint8_t*) {
  return static_cast<float>(reinterpret_cast<const uint8_t*>(p)[at]);
}

// The token of a tile that lies in this lane (kv_lane).
__device__ inline int64_t token_in_lane(int64_t lane) { return lane < kKvTile / 2 ? kKvTile / 2 - 1 - lane : lane; }

// Visible to a row whose tokens end before `seen`.
struct Visible {
  int64_t seen, first;
};

// Shared memory of attend_kernel, in floats.
struct Places {
  int64_t queries, turned, p, work, seen;
  __host__ __device__ static Places of(int64_t coefficients, int64_t half) {
    Places at{};
    at.turned = kTaskRows * coefficients;
    at.p = at.turned + kTiles * kTaskRows * 2 * half;
    at.work = at.p + kTaskRows * kKvPage;
    at.seen = at.work + 2 * kTaskRows * kWarps;
    return at;
  }
  __host__ __device__ int64_t floats() const { return seen; }
};

template <typename K, typename V, bool kFolded>
__global__ void attend_kernel(Call c) {
  const DynamicShared shared;
  const Task task = c.tasks[blockIdx.x];
  const Sequence& s = c.sequences[task.sequence];
  const Side& side = s.side[task.side];
  const Places at = Places::of(c.coefficients, c.half);
  const int thread = static_cast<int>(threadIdx.x), lane = thread % kWarp, warp = thread / kWarp;
  const int64_t D = c.D, W = c.W, half = c.half, g = task.g, first_row = static_cast<int64_t>(task.chunk) * kTaskRows;
  const int64_t all_rows = s.N * c.group;
  const int rows = static_cast<int>(all_rows - first_row < kTaskRows ? all_rows - first_row : kTaskRows);
  const int64_t dilation = task.side == 0 && c.dilation ? c.dilation[g * c.group] : 1;
  Visible sees[kTaskRows];
  int64_t place[kTaskRows];
  int64_t begin = static_cast<int64_t>(task.range) * s.range,
          end = begin + s.range < side.tokens ? begin + s.range : side.tokens;
  int64_t low = end, high = 0;
  for (int r = 0; r < kTaskRows; ++r) {
    sees[r] = {0, 0};
    place[r] = 0;
    if (r >= rows) continue;
    const RowOf row = row_of(c, g, first_row + r);
    int64_t seen = side.sees_all ? side.tokens : s.S - s.N + row.n + 1 - side.hidden;
    seen = seen < 0 ? 0 : seen > side.tokens ? side.tokens : seen;
    int64_t first = side.window > 0 ? seen - 1 - (side.window - 1) * dilation : 0;
    first = first < side.first ? side.first : first;
    sees[r] = {seen, first};
    const int64_t m = s.S - s.N + row.n + side.forgotten;
    place[r] = side.most_position > 0 && m > side.most_position ? side.most_position : m;
    low = first < low ? first : low;
    high = seen > high ? seen : high;
    const float* from = c.query_of(s.first_row + row.n * c.H + row.h, task.side);
    for (int64_t i = thread; i < c.coefficients; i += kThreads) shared[at.queries + r * c.coefficients + i] = from[i];
  }
  for (int r = rows; r < kTaskRows; ++r)
    for (int64_t i = thread; i < c.coefficients; i += kThreads) shared[at.queries + r * c.coefficients + i] = 0.0f;
  end = high < end ? high : end;
  const int64_t page_low = low / kKvPage * kKvPage;
  begin = page_low > begin ? page_low : begin;
  // A thread's dims of the values: d, and every groups-th token.
  const int dims = D <= 32    ? 32
                   : D <= 64  ? 64
                   : D <= 128 ? 128
                              : 256,
            groups = kThreads / dims, d = thread % dims, group = thread / dims;
  float max[kTaskRows], sum[kTaskRows], acc[kTaskRows];
  for (int r = 0; r < kTaskRows; ++r) {
    max[r] = -INFINITY;
    sum[r] = 0.0f;
    acc[r] = 0.0f;
  }
  const int tile = thread / static_cast<int>(kKvTile);
  const int64_t cell = thread % kKvTile, in_page = tile * kKvTile + token_in_lane(cell);
  for (int64_t page = begin; page < end; page += kKvPage) {
    const std::byte* run = s.pages[page / kKvPage] + c.layer_offset + static_cast<size_t>(g) * c.layout.run_bytes();
    __syncthreads();  // the last page's values are added up
    for (int64_t i = thread; side.start_cos != nullptr && i < kTiles * kTaskRows * half; i += kThreads) {
      const int64_t j = i % half, r = i / half % kTaskRows, t = i / half / kTaskRows,
                    middle = (page / kKvTile + t) * half + j;
      if (page + t * kKvTile >= side.tokens) continue;  // no such tile
      const float mc = side.start_cos[middle], ms = side.start_sin[middle],
                  u = shared[at.queries + r * c.coefficients + j],
                  w = shared[at.queries + r * c.coefficients + half + j];
      shared[at.turned + (t * kTaskRows + r) * 2 * half + j] = mc * u + ms * w;
      shared[at.turned + (t * kTaskRows + r) * 2 * half + half + j] = mc * w - ms * u;
    }
    __syncthreads();
    const int64_t token = page + in_page;
    const bool there = token < end;
    float score[kTaskRows] = {};
    if (there) {
      const std::byte* keys = run + c.layout.key_tile_at(tile);
      const int64_t element = c.layout.key_element(cell);
      const int64_t q_at = side.start_cos != nullptr ? at.turned + tile * kTaskRows * 2 * half : at.queries,
                    q_step = side.start_cos != nullptr ? 2 * half : c.coefficients;
      const auto key = [&](int64_t j) { return stored(keys, j * kKvTile + element, static_cast<const K*>(nullptr)); };
      for (int64_t j = 0; j < half; ++j) {
        const float cs = side.offset_cos ? side.offset_cos[j * kKvTile + cell]
                                         : side.key_rows.cos[token * side.key_rows.step + j],
                    sn = side.offset_sin ? side.offset_sin[j * kKvTile + cell]
                                         : side.key_rows.sin[token * side.key_rows.step + j];
        float x = 0.0f, y = 0.0f;
        if (kFolded) {
          const float k = key(j);
          x = k * cs;
          y = k * sn;
        } else {
          const float a = key(j % W), b = key((j + half) % W);
          x = a * cs - b * sn;
          y = b * cs + a * sn;
        }
        for (int r = 0; r < kTaskRows; ++r)
          score[r] += x * shared[q_at + r * q_step + j] + y * shared[q_at + r * q_step + half + j];
      }
      for (int64_t i = c.plain; i < W; ++i) {
        const float k = key(i);
        for (int r = 0; r < kTaskRows; ++r)
          score[r] += k * shared[at.queries + r * c.coefficients + 2 * half + i - c.plain];
      }
      const float key_scale =
          sizeof(K) == 1 ? *reinterpret_cast<const float*>(run + c.layout.key_scale_at(in_page)) : 1.0f;
      for (int r = 0; r < rows; ++r) {
        score[r] *= key_scale;
        if (s.decay) {
          const float* decay = s.decay + row_of(c, g, first_row + r).h * s.decay_h;
          score[r] += decay[place[r]] - decay[token];
        }
        if (c.slopes) {
          int64_t distance = place[r] - token;
          if (side.most_distance > 0 && distance > side.most_distance) distance = side.most_distance;
          score[r] -= c.slopes[row_of(c, g, first_row + r).h] * static_cast<float>(distance);
        }
      }
    }
    float factor[kTaskRows];
    for (int r = 0; r < kTaskRows; ++r) {
      const bool visible = there && r < rows && token >= sees[r].first && token < sees[r].seen &&
                           (dilation == 1 || (sees[r].seen - 1 - token) % dilation == 0);
      if (!visible) score[r] = -INFINITY;
      const float largest = warp_max(score[r]);
      if (lane == 0) shared[at.work + r * kWarps + warp] = largest;
    }
    __syncthreads();
    for (int r = 0; r < kTaskRows; ++r) {
      float now = warp_max(lane < kWarps ? static_cast<float>(shared[at.work + r * kWarps + lane]) : -INFINITY);
      now = max[r] > now || !(max[r] == max[r]) ? max[r] : now;
      factor[r] = now == -INFINITY ? 1.0f : expf(max[r] - now);
      max[r] = now;
      const float p = score[r] == -INFINITY ? 0.0f : expf(score[r] - now);
      const float part = warp_sum(p);
      if (lane == 0) shared[at.work + (kTaskRows + r) * kWarps + warp] = part;
      const float value_scale =
          sizeof(V) == 1 && there ? *reinterpret_cast<const float*>(run + c.layout.value_scale_at(in_page)) : 1.0f;
      shared[at.p + r * kKvPage + in_page] = p == 0.0f ? 0.0f : p * value_scale;
    }
    __syncthreads();
    for (int r = 0; r < kTaskRows; ++r) {
      sum[r] = sum[r] * factor[r] +
               warp_sum(lane < kWarps ? static_cast<float>(shared[at.work + (kTaskRows + r) * kWarps + lane]) : 0.0f);
      acc[r] *= factor[r];
    }
    const int64_t count = end - page < kKvPage ? end - page : kKvPage;
    const std::byte* values = run + c.layout.value_at(0);
    for (int64_t n = group; d < D && n < count; n += groups) {
      const float v = stored(values, n * D + d, static_cast<const V*>(nullptr));
      for (int r = 0; r < kTaskRows; ++r) {
        const float p = shared[at.p + r * kKvPage + n];
        if (p != 0.0f) acc[r] += p * v;  // a token that is not visible may hold anything
      }
    }
  }
  // The groups' sums, through the place of p.
  __syncthreads();
  for (int r = 0; r < kTaskRows; ++r) shared[at.p + r * kThreads + thread] = acc[r];
  __syncthreads();
  const int64_t chunks = (all_rows + kTaskRows - 1) / kTaskRows;
  const int64_t range = task.range + (task.side == 1 ? s.side[0].ranges : 0);
  for (int r = 0; r < rows; ++r) {
    const int64_t state = s.first_state + ((g * chunks + task.chunk) * kTaskRows + r) * s.ranges + range;
    float* out = c.states + state * (D + 2);
    if (group == 0 && d < D) {
      float total = 0.0f;
      for (int other = 0; other < groups; ++other) total += shared[at.p + r * kThreads + other * dims + d];
      out[d] = total;
    }
    if (thread == 0) {
      out[D] = max[r];
      out[D + 1] = sum[r];
    }
  }
}

// A warp a row of the call: the partial results of its ranges, in order.
template <typename T>
__global__ void merge_kernel(Call c, int64_t sequences, int64_t rows) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const int64_t row = static_cast<int64_t>(blockIdx.x) * kWarps + threadIdx.x / kWarp;
  if (row >= rows) return;  // all lanes of the warp
  int64_t i = 0;
  while (i + 1 < sequences && c.sequences[i + 1].first_row <= row) ++i;
  const Sequence& s = c.sequences[i];
  const int64_t n = (row - s.first_row) / c.H, h = (row - s.first_row) % c.H, g = h / c.group, D = c.D,
                r = n * c.group + h % c.group, chunks = (s.N * c.group + kTaskRows - 1) / kTaskRows;
  const float* states =
      c.states + (s.first_state + ((g * chunks + r / kTaskRows) * kTaskRows + r % kTaskRows) * s.ranges) * (D + 2);
  float max = -INFINITY, sum = 0.0f;
  for (int64_t k = 0; k < s.ranges; ++k) {
    const float m = states[k * (D + 2) + D];
    if (m > max || !(m == m)) max = m;  // nothing is larger than NaN: a broken key shows
  }
  for (int64_t k = 0; k < s.ranges; ++k) {
    const float* state = states + k * (D + 2);
    if (state[D + 1] != 0.0f) sum += state[D + 1] * expf(state[D] - max);
  }
  const float factor = sum > 0.0f || !(sum == sum) ? 1.0f / sum : 0.0f;
  T* o = static_cast<T*>(s.o) + n * s.o_n + h * s.o_h;
  for (int64_t d = lane; d < D; d += kWarp) {
    float x = 0.0f;
    for (int64_t k = 0; k < s.ranges; ++k) {
      const float* state = states + k * (D + 2);
      if (state[D + 1] != 0.0f) x += expf(state[D] - max) * state[d];
    }
    store(o + d, x * factor);
  }
  if (s.lse && lane == 0) s.lse[h * s.N + n] = max + logf(sum);
}

// The device's copy of tables that are made on the host, renewed when these have changed.
const ops::KeyAngles::OnDevice& on_device(Context& cx, const ops::KeyAngles& angles) {
  ops::KeyAngles::OnDevice& copy = angles.on_device();
  if (copy.version == angles.version() && copy.memory == cx.memory()) return copy;
  const auto put = [&](Tensor& to, const float* from, int64_t count) {
    if (to.empty() || to.numel() < count || to.memory() != cx.memory())
      to = Tensor({count + count / 4}, DType::kF32, cx.memory());  // with room to grow
    cx.memory()->upload_copy(to.ref().data, from, static_cast<size_t>(count) * sizeof(float));
  };
  const int64_t starts = angles.tokens() / kKvTile * angles.half(), offsets = angles.half() * kKvTile;
  put(copy.start_cos, angles.start_cos(), starts);
  put(copy.start_sin, angles.start_sin(), starts);
  put(copy.offset_cos, angles.offset_cos(), offsets);
  put(copy.offset_sin, angles.offset_sin(), offsets);
  copy.version = angles.version();
  copy.memory = cx.memory();
  return copy;
}

Rows rows_of(const ops::RopeRows& rows) {
  return rows.cos.empty() ? Rows{} : Rows{rows.cos.as<float>(), rows.sin.as<float>(), rows.cos.stride(1)};
}

void set_angles(Context& cx, Side& side, const ops::KeyAngles* angles, const ops::RopeRows& key_rows, int64_t half) {
  if (half == 0) return;
  if (angles == nullptr) {
    side.key_rows = rows_of(key_rows);
    return;
  }
  const ops::KeyAngles::OnDevice& tables = on_device(cx, *angles);
  side.start_cos = tables.start_cos.ref().as<float>();
  side.start_sin = tables.start_sin.ref().as<float>();
  side.offset_cos = tables.offset_cos.ref().as<float>();
  side.offset_sin = tables.offset_sin.ref().as<float>();
}

Sequence sequence_of(Context& cx, const ops::DecodeAttentionOptions& o, const ops::DecodeSequence& a, int64_t half) {
  Sequence s;
  s.o = a.o.data, s.o_n = a.o.stride(1), s.o_h = a.o.stride(2);
  s.lse = a.lse.empty() ? nullptr : a.lse.as<float>();
  s.N = a.q.size(1), s.S = a.cache.length;
  if (!a.decay.empty()) s.decay = a.decay.as<float>(), s.decay_h = a.decay.stride(0);
  // Ranges from the shape of this sequence alone.
  const int64_t wanted = std::max(kRangeTokens, s.S / kMostRanges);
  s.range = (wanted + kKvPage - 1) / kKvPage * kKvPage;
  const auto ranges_of = [&](int64_t tokens) { return (tokens + s.range - 1) / s.range; };
  Side& near = s.side[0];
  near = {.q = a.q.data,
          .q_n = a.q.stride(1),
          .q_h = a.q.stride(2),
          .key_rows = {},
          .tokens = s.S,
          .ranges = ranges_of(s.S),
          .window = o.window};
  set_angles(cx, near, a.angles, a.key_rows, half);
  s.ranges = near.ranges;
  if (a.far.tokens == 0) return s;
  s.sides = 2;
  const bool all = a.far.range == ops::FarRange::kAll;
  if (all) near.first = a.far.tokens;
  Side& far = s.side[1];
  far = {.q = a.far.q.data,
         .q_n = a.far.q.stride(1),
         .q_h = a.far.q.stride(2),
         .key_rows = {},
         .tokens = a.far.tokens,
         .ranges = ranges_of(a.far.tokens),
         .hidden = o.window,
         .most_distance = a.far.most_distance,
         .most_position = a.far.most_position,
         .forgotten = a.far.forgotten,
         .sees_all = all};
  set_angles(cx, far, a.far.angles, a.key_rows, half);
  s.ranges += far.ranges;
  return s;
}

template <typename K, typename V>
void attend(Context& cx, const Call& c, size_t tasks) {
  const Grid grid{.blocks = static_cast<unsigned>(tasks),
                  .threads = kThreads,
                  .shared_floats = static_cast<size_t>(Places::of(c.coefficients, c.half).floats())};
  launch(cx, grid, c.folded ? attend_kernel<K, V, true> : attend_kernel<K, V, false>, c);
}

// Memory that the host fills and the device reads, one array behind another.
class Upload {
 public:
  template <typename T>
  size_t add(const T* data, size_t count) {
    const size_t at = (bytes_.size() + 15) / 16 * 16;
    bytes_.resize(at + count * sizeof(T));
    std::copy_n(reinterpret_cast<const std::byte*>(data), count * sizeof(T), bytes_.data() + at);
    return at;
  }
  size_t size() const { return bytes_.size(); }
  std::byte* data() { return bytes_.data(); }

 private:
  std::vector<std::byte> bytes_;
};

void forward(Context& cx, const ops::DecodeAttentionOptions& options, const ops::DecodeAttention& a) {
  const ops::DecodeSequence& any = a.sequences.front();
  Call c{};
  c.H = any.q.size(2), c.E = any.q.size(3), c.D = any.cache.layout.D;
  COCA_CHECK(c.D <= kMostDims, "[decode_attention] the values' head dim {} is too large for a GPU; expected at most {}",
             c.D, kMostDims);
  c.layout = any.cache.layout;
  c.layer_offset = any.cache.offset;
  c.W = c.layout.W;
  c.group = c.H / c.layout.G;
  if (options.score != ops::Score::kDot) c.half = any.angles ? any.angles->half() : any.key_rows.cos.size(2);
  c.R = 2 * c.half;
  const ref::DecodeKeys keys = ref::decode_keys(options, c.R, c.E);
  c.folded = keys.score == ref::DecodeScore::kCollinear;
  c.key = keys.direction;
  c.planes = keys.head.planes(), c.content = keys.head.content;
  c.plain = keys.score == ref::DecodeScore::kOfficial ? 0 : c.folded ? c.half : c.R;
  c.coefficients = 2 * c.half + c.W - c.plain;
  c.scale = options.scale != 0.0f ? options.scale : 1.0f / std::sqrt(static_cast<float>(c.E));
  c.slopes = a.slopes.empty() ? nullptr : a.slopes.as<float>();

  std::vector<Sequence> sequences;
  std::vector<Task> tasks;
  std::vector<const std::byte*> pages;
  std::vector<size_t> first_page;
  int64_t rows = 0, states = 0;
  for (const ops::DecodeSequence& one : a.sequences) {
    Sequence s = sequence_of(cx, options, one, c.half);
    s.first_row = rows;
    s.first_state = states;
    const int64_t chunks = (s.N * c.group + kTaskRows - 1) / kTaskRows;
    rows += s.N * c.H;
    states += c.layout.G * chunks * kTaskRows * s.ranges;
    first_page.push_back(pages.size());
    pages.insert(pages.end(), one.cache.pages, one.cache.pages + (s.S + kKvPage - 1) / kKvPage);
    for (int side = 0; side < s.sides; ++side)
      for (int64_t g = 0; g < c.layout.G; ++g)
        for (int64_t chunk = 0; chunk < chunks; ++chunk)
          for (int64_t range = 0; range < s.side[side].ranges; ++range)
            tasks.push_back({static_cast<int32_t>(sequences.size()), side, static_cast<int32_t>(g),
                             static_cast<int32_t>(chunk), static_cast<int32_t>(range)});
    sequences.push_back(s);
  }
  // One block of scratch: what is uploaded, then the numbers of queries, then partial results.
  Upload upload;
  const size_t pages_at = upload.add(pages.data(), pages.size()), tasks_at = upload.add(tasks.data(), tasks.size()),
               dilation_at = upload.add(options.dilation.data(), options.dilation.size()),
               sequences_at = upload.add(sequences.data(), sequences.size());
  const size_t floats_at = (upload.size() + 255) / 256 * 256,
               query_floats = static_cast<size_t>(rows * 2 * c.coefficients),
               state_floats = static_cast<size_t>(states * (c.D + 2));
  auto* memory = static_cast<std::byte*>(cx.scratch(floats_at + (query_floats + state_floats) * sizeof(float)));
  auto* uploaded = reinterpret_cast<Sequence*>(upload.data() + sequences_at);
  for (size_t i = 0; i < sequences.size(); ++i)
    uploaded[i].pages = reinterpret_cast<const std::byte* const*>(memory + pages_at) + first_page[i];
  cx.memory()->upload_copy(memory, upload.data(), upload.size());
  c.sequences = reinterpret_cast<const Sequence*>(memory + sequences_at);
  c.tasks = reinterpret_cast<const Task*>(memory + tasks_at);
  c.dilation = options.dilation.empty() ? nullptr : reinterpret_cast<const int64_t*>(memory + dilation_at);
  c.queries = reinterpret_cast<float*>(memory + floats_at);
  c.states = c.queries + query_floats;

  const auto count = static_cast<int64_t>(sequences.size());
  ops::with_float_type(any.q.dtype, [&]<typename T>(T) {
    launch(cx, {.blocks = static_cast<unsigned>((2 * rows + 63) / 64), .threads = 64}, prepare_kernel<T>, c, count,
           rows);
  });
  switch (c.layout.type) {
    case KvType::kF32: attend<float, float>(cx, c, tasks.size()); break;
    case KvType::kBF16: attend<BF16, BF16>(cx, c, tasks.size()); break;
    case KvType::kInt8:
      if (c.layout.key_sign == KeySign::kNonNegative)
        attend<uint8_t, int8_t>(cx, c, tasks.size());
      else
        attend<int8_t, int8_t>(cx, c, tasks.size());
      break;
  }
  ops::with_float_type(any.q.dtype, [&]<typename T>(T) {
    launch(cx, {.blocks = static_cast<unsigned>((rows + kWarps - 1) / kWarps), .threads = kThreads}, merge_kernel<T>, c,
           count, rows);
  });
}

}  // namespace

const ops::DecodeAttentionImpl decode_attention_row{.name = "cuda", .device = DeviceKind::kCuda, .run = {forward}};

}  // namespace coca::cuda
