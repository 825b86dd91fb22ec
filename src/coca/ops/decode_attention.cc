// SPDX-License-Identifier: Apache-2.0
#include "coca/ops/decode_attention.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "coca/base/parallel.h"
#include "coca/kernels/cpu/decode_attention.h"
#include "coca/kernels/ref/decode_attention.h"
#include "coca/ops/check.h"
#include "coca/ops/impl.h"
#include "coca/ops/kv_store.h"
#include "coca/ops/rope_check.h"

namespace coca::ops {

namespace {

// Query rows (of one kv head) per task: their state stays in L2 beside a page.
constexpr int64_t kTaskRows = 64;
// Tokens per range: at least this many, and more when there are tasks enough without cutting.
constexpr int64_t kRangeTokens = 1024, kEnoughTasks = 256;

ref::DecodeScore score_of(const DecodeAttentionOptions& o, int64_t R, int64_t D) {
  if (o.score == Score::kDot) return ref::DecodeScore::kDot;
  if (o.score == Score::kRope) return ref::DecodeScore::kRope;
  if (o.collinear.fold == Fold::kOfficial && R < D) return ref::DecodeScore::kOfficial;
  return static_cast<ref::DecodeScore>(static_cast<int>(ref::DecodeScore::kSlack) + static_cast<int>(o.collinear.kind));
}

void check_decode(const DecodeAttentionOptions& options, const DecodeAttention& a) {
  const KvLayout& l = a.cache.layout;
  const int64_t S = a.cache.length;
  COCA_CHECK(a.q.rank() == 4 && (a.q.dtype == DType::kF32 || a.q.dtype == DType::kBF16),
             "[decode_attention] q {} {} must be F32 or BF16 [B, N, H, D]", dtype_name(a.q.dtype), a.q.shape.text());
  const int64_t B = a.q.size(0), N = a.q.size(1), H = a.q.size(2), D = a.q.size(3);
  check_heads("decode_attention", "q", a.q, {l.B, N, H, l.D});
  check_heads("decode_attention", "o", a.o, a.q.shape);
  COCA_CHECK(a.o.dtype == a.q.dtype, "[decode_attention] o has type {}; expected {}, that of q", dtype_name(a.o.dtype),
             dtype_name(a.q.dtype));
  if (!a.lse.empty()) check_packed("decode_attention", "lse", a.lse, {B, H, N});
  COCA_CHECK(H % l.G == 0, "[decode_attention] H={} must be a multiple of G={}", H, l.G);
  COCA_CHECK(S >= N, "[decode_attention] the cache holds {} tokens, fewer than the {} queries", S, N);
  COCA_CHECK(a.slopes.empty() || (a.slopes.shape == Dims{H} && a.slopes.dtype == DType::kF32),
             "[decode_attention] slopes {} must be F32 [{}]", a.slopes.shape.text(), H);
  COCA_CHECK(options.window >= 0, "[decode_attention] the window {} must be positive, or 0 for all tokens", options.window);
  COCA_CHECK(options.dilation.empty() || static_cast<int64_t>(options.dilation.size()) == H, "[decode_attention] {} dilations; expected {}, one per head",
             options.dilation.size(), H);
  for (size_t h = 0; h < options.dilation.size(); ++h) {
    COCA_CHECK(options.dilation[h] == 1 || options.window > 0, "[decode_attention] dilation[{}]={} needs a window", h, options.dilation[h]);
    COCA_CHECK(options.dilation[h] >= 1 && options.dilation[h] == options.dilation[h / static_cast<size_t>(H / l.G) * static_cast<size_t>(H / l.G)],
               "[decode_attention] dilation[{}]={} must be at least 1, and that of all heads with its key/value head", h, options.dilation[h]);
  }
  const bool folded = options.score == Score::kCollinear;
  COCA_CHECK(!folded || D % 2 == 0, "[decode_attention] the head dim {} must be even", D);
  COCA_CHECK(l.W == (folded ? D / 2 : D), "[decode_attention] the cache's keys have {} numbers; expected {}", l.W,
             folded ? D / 2 : D);
  COCA_CHECK(a.far.tokens >= 0 && a.far.tokens <= S && (a.far.tokens == 0 || options.window > 0),
             "[decode_attention] far tokens {}; expected 0 to {}, and a window", a.far.tokens, S);
  COCA_CHECK(a.far.most_distance >= 0 && a.far.most_position >= 0 && a.far.forgotten >= 0,
             "[decode_attention] far.most_distance={}, far.most_position={} and far.forgotten={} must not be negative", a.far.most_distance,
             a.far.most_position, a.far.forgotten);
  if (options.score == Score::kDot) return;
  check_rows("decode_attention", a.rows, a.q);
  const int64_t half = a.rows.cos.size(2);
  const bool given = !a.key_rows.cos.empty();
  COCA_CHECK(given != (a.angles != nullptr), "[decode_attention] give either angles or key_rows");
  if (given) {
    const Dims &c = a.key_rows.cos.shape, &s = a.key_rows.sin.shape;
    COCA_CHECK(c == s && c.rank == 3 && (c[0] == 1 || c[0] == B) && c[1] == S && c[2] == half,
               "[decode_attention] key cos {} and sin {} must be [1 or {}, {}, {}]", c.text(), s.text(), B, S, half);
  } else {
    COCA_CHECK(a.angles->half() == half && a.angles->tokens() >= S,
               "[decode_attention] angles of {} pairs and {} tokens do not fit {} pairs and {} tokens", a.angles->half(),
               a.angles->tokens(), half, S);
  }
  COCA_CHECK(a.turn.cos.empty() || (a.turn.cos.shape == a.rows.cos.shape && a.turn.sin.shape == a.rows.cos.shape),
             "[decode_attention] turn {} and {} must have the shape of the rows, {}", a.turn.cos.shape.text(), a.turn.sin.shape.text(),
             a.rows.cos.shape.text());
  if (a.far.tokens > 0) {
    COCA_CHECK(a.far.rows.cos.shape == a.rows.cos.shape && a.far.rows.sin.shape == a.rows.cos.shape,
               "[decode_attention] far rows {} must have the shape of the rows, {}", a.far.rows.cos.shape.text(), a.rows.cos.shape.text());
    COCA_CHECK(a.far.angles && a.far.angles->half() == half && a.far.angles->tokens() >= a.far.tokens,
               "[decode_attention] far angles do not fit {} pairs and {} tokens", half, a.far.tokens);
  }
  COCA_CHECK(score_of(options, 2 * half, D) != ref::DecodeScore::kOfficial || options.collinear.kind == Collinear::kSlack,
             "[decode_attention] the official fold with rotary dims {} < {} is slack only", 2 * half, D);
}

// One head of q as floats.
void load_head(TensorRef q, int64_t b, int64_t n, int64_t h, float* out) {
  const int64_t at = b * q.stride(0) + n * q.stride(1) + h * q.stride(2), D = q.size(3);
  if (q.dtype == DType::kF32)
    std::copy_n(static_cast<const float*>(q.data) + at, D, out);
  else
    for (int64_t i = 0; i < D; ++i) out[i] = static_cast<float>(static_cast<const BF16*>(q.data)[at + i]);
}

void store_head(const float* x, float factor, MutTensorRef o, int64_t b, int64_t n, int64_t h) {
  const int64_t at = b * o.stride(0) + n * o.stride(1) + h * o.stride(2), D = o.size(3);
  for (int64_t i = 0; i < D; ++i) {
    if (o.dtype == DType::kF32)
      static_cast<float*>(o.data)[at + i] = x[i] * factor;
    else
      static_cast<BF16*>(o.data)[at + i] = BF16(x[i] * factor);
  }
}

// cos and sin of one row of a table.
struct Row {
  const float *cos, *sin;
  Row(const RopeRows& rows, int64_t b, int64_t n)
      : cos(rows.cos.view<float, 3>().ptr(rows.cos.size(0) == 1 ? 0 : b, n)),
        sin(rows.sin.view<float, 3>().ptr(rows.sin.size(0) == 1 ? 0 : b, n)) {}
};

// Tokens that are seen by the same rules and angles: those of the window (or all), and the far ones.
struct Side {
  RopeRows rows, turn;  // of the queries
  const KeyAngles* angles;
  int64_t tokens, ranges;
  int64_t hidden;       // the nearest tokens that are not seen
  bool sees_all;        // by every query
  int64_t most_position, forgotten;  // for ALiBi (DecodeFar)
  cpu::DecodeParams p;
};

// The call seen as tasks: (batch, kv head) x chunks of query rows x ranges of tokens, those of the far side behind those of
// the other. Row r of a kv head is query r / group of head g * group + r % group.
struct Plan {
  const DecodeAttentionOptions& options;
  const DecodeAttention& a;
  ref::DecodeScore score;
  int64_t B, N, H, D, G, S, R;
  int64_t group, rows, chunks, most_rows, range, ranges;
  float scale;
  std::vector<Side> sides;

  Plan(const DecodeAttentionOptions& options_, const DecodeAttention& a_)
      : options(options_), a(a_), B(a.q.size(0)), N(a.q.size(1)), H(a.q.size(2)), D(a.q.size(3)),
        G(a.cache.layout.G), S(a.cache.length), R(options.score == Score::kDot ? 0 : 2 * a.rows.cos.size(2)) {
    score = score_of(options, R, D);
    group = H / G;
    rows = N * group;
    chunks = (rows + kTaskRows - 1) / kTaskRows;
    most_rows = std::min(rows, kTaskRows);
    // From the shape alone: enough tasks for many cores, few partial sums.
    const int64_t wanted = std::max(kRangeTokens, S * (B * G * chunks) / kEnoughTasks);
    range = (wanted + kKvPage - 1) / kKvPage * kKvPage;
    scale = options.scale != 0.0f ? options.scale : 1.0f / std::sqrt(static_cast<float>(D));
    sides.push_back({.rows = a.rows, .turn = a.turn, .angles = a.angles, .tokens = S, .ranges = ranges_of(S), .hidden = 0,
                     .sees_all = false, .most_position = 0, .forgotten = 0, .p = params(options.window)});
    if (a.far.tokens > 0) {
      const bool all = a.far.range == FarRange::kAll;
      if (all) sides.front().p.first = a.far.tokens;
      sides.push_back({.rows = a.far.rows, .turn = {}, .angles = a.far.angles, .tokens = a.far.tokens,
                       .ranges = ranges_of(a.far.tokens), .hidden = options.window, .sees_all = all,
                       .most_position = a.far.most_position, .forgotten = a.far.forgotten, .p = params(0)});
      sides.back().p.most_distance = a.far.most_distance;
    }
    ranges = sides.front().ranges + (sides.size() > 1 ? sides.back().ranges : 0);
  }
  int64_t ranges_of(int64_t tokens) const { return (tokens + range - 1) / range; }
  cpu::DecodeParams params(int64_t window) const {
    cpu::DecodeParams p;
    p.cache = a.cache;
    p.window = window;
    const bool folded = options.score == Score::kCollinear && score != ref::DecodeScore::kOfficial;
    p.keys = folded ? cpu::Keys::kFolded : cpu::Keys::kPairs;
    p.half = R / 2;
    p.plain = score == ref::DecodeScore::kOfficial ? 0 : folded ? R / 2 : R;
    return p;
  }
  int64_t chunk_rows(int64_t chunk) const { return std::min(kTaskRows, rows - chunk * kTaskRows); }
  size_t state_floats() const { return static_cast<size_t>(most_rows * (cpu::decode_padded(D) + 2)); }
  size_t work_floats() const {
    const cpu::DecodeParams& p = sides.front().p;
    return cpu::decode_work_floats(p) + static_cast<size_t>(most_rows * (p.query_floats() + 1) + 2 * D) +
           state_floats();
  }
};

void turn_pairs(const Row& row, int64_t half, float* x) {
  for (int64_t j = 0; j < half; ++j) {
    const float a = x[j], b = x[j + half];
    x[j] = a * row.cos[j] - b * row.sin[j];
    x[j + half] = b * row.cos[j] + a * row.sin[j];
  }
}

// u, w and p of one query row (kernels/cpu/decode_attention.h) in `out`; work: 2 D floats.
void prepare_row(const Plan& plan, const Side& side, int64_t b, int64_t n, int64_t h, float* work, float* out) {
  const int64_t D = plan.D, half = plan.R / 2, W = side.p.cache.layout.W, plain = side.p.plain;
  float *q = work, *e = work + D;
  load_head(plan.a.q, b, n, h, q);
  if (plan.score == ref::DecodeScore::kDot) {
    std::copy_n(q, D, e);
  } else {
    const Row row(side.rows, b, n);
    ref::decode_query_head<float>(plan.score, q, plan.R, D, [&](int64_t j) { return row.cos[j]; },
                                  [&](int64_t j) { return row.sin[j]; }, e);
  }
  if (!side.turn.cos.empty()) turn_pairs(Row(side.turn, b, n), half, e);
  float *u = out, *w = out + half, *rest = out + 2 * half;
  const bool sums = plan.score == ref::DecodeScore::kSlack || plan.score == ref::DecodeScore::kTied;
  const auto pair = [&](int64_t i, int64_t j, float& first, float& second) {
    // k_a = t (c - s), k_b = t (c + s) with slack and tied: e_a k_a + e_b k_b = t (c (e_a + e_b) + s (e_b - e_a)).
    first = plan.scale * (sums ? e[i] + e[j] : e[i]);
    second = plan.scale * (sums ? e[j] - e[i] : e[j]);
  };
  for (int64_t j = 0; j < half; ++j) pair(j, j + half, u[j], w[j]);
  std::fill_n(rest, W - plain, 0.0f);
  if (side.p.keys == cpu::Keys::kFolded) {
    float unused = 0;
    for (int64_t i = 0; i < W - plain; ++i) pair(plan.R + i, plan.R + (D - plan.R) / 2 + i, rest[i], unused);
  } else {  // the official fold meets a key's number up to twice
    for (int64_t i = plan.R; i < D; ++i) rest[i % W - plain] += plan.scale * e[i];
  }
}

// Small tasks go together: a thread is not woken for less.
int64_t task_grain(const Plan& plan) {
  return grain_of(std::min(plan.S, plan.range) * (plan.a.cache.layout.W + plan.D) * plan.most_rows, 65536);
}

// cos and sin [B or 1, tiles, half, 64] of given key rows, tile by tile as the kernel reads them.
void transpose_rows(const RopeRows& rows, int64_t half, float* cos, float* sin) {
  const int64_t S = rows.cos.size(1), tiles = (S + kKvTile - 1) / kKvTile;
  parallel_blocks(rows.cos.size(0) * tiles, 16, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t)
      for (int64_t i = 0; i < kKvTile; ++i) {
        const int64_t token = std::min(t % tiles * kKvTile + i, S - 1);
        const Row row(rows, t / tiles, token);
        for (int64_t j = 0; j < half; ++j) {
          cos[(t * half + j) * kKvTile + kv_lane(i)] = row.cos[j];
          sin[(t * half + j) * kKvTile + kv_lane(i)] = row.sin[j];
        }
      }
  });
}

// Adds up the partial results of one row's ranges, in order, and writes o and lse.
struct Partial {
  const float *o, *max, *sum;  // of the row
};
template <typename PartialOf>
void merge_row(int64_t ranges, int64_t D, const PartialOf& partial, float* total, const DecodeAttention& a, int64_t b, int64_t n,
               int64_t h) {
  float max = -std::numeric_limits<float>::infinity(), sum = 0;
  for (int64_t i = 0; i < ranges; ++i) {
    const float m = *partial(i).max;
    if (m > max || std::isnan(m)) max = m;  // nothing is larger than NaN: a broken key shows
  }
  std::fill_n(total, D, 0.0f);
  for (int64_t i = 0; i < ranges; ++i) {
    const Partial part = partial(i);
    if (*part.sum == 0.0f) continue;  // saw no token
    const float factor = std::exp(*part.max - max);
    sum += *part.sum * factor;
    for (int64_t d = 0; d < D; ++d) total[d] += factor * part.o[d];
  }
  store_head(total, sum > 0.0f || std::isnan(sum) ? 1.0f / sum : 0.0f, a.o, b, n, h);
  if (!a.lse.empty()) *a.lse.view<float, 3>().ptr(b, h, n) = max + std::log(sum);
}

// A task's state is o [most_rows, Dp], max [most_rows] and sum [most_rows].
Partial partial_of(const Plan& plan, const float* state, int64_t row) {
  const int64_t Dp = cpu::decode_padded(plan.D);
  return {state + row * Dp, state + plan.most_rows * Dp + row, state + plan.most_rows * (Dp + 1) + row};
}

// One task: prepares its rows and runs the kernel; its state is written.
void run_task(const Plan& plan, int64_t task, float* state, float* work) {
  const int64_t Dp = cpu::decode_padded(plan.D), chunk = task / plan.ranges % plan.chunks, bg = task / plan.ranges / plan.chunks,
                b = bg / plan.G, g = bg % plan.G, near_ranges = plan.sides.front().ranges;
  const bool far = task % plan.ranges >= near_ranges;
  const Side& side = far ? plan.sides.back() : plan.sides.front();
  const int64_t range = task % plan.ranges - (far ? near_ranges : 0);
  cpu::DecodeParams p = side.p;
  int64_t seen[kTaskRows], places[kTaskRows];
  float* queries = work;
  float* slopes = queries + plan.most_rows * p.query_floats();
  float* heads = slopes + plan.most_rows;
  float* kernel_work = heads + 2 * plan.D;
  const int64_t rows = plan.chunk_rows(chunk);
  for (int64_t i = 0; i < rows; ++i) {
    const int64_t r = chunk * kTaskRows + i, n = r / plan.group, h = g * plan.group + r % plan.group;
    prepare_row(plan, side, b, n, h, heads, queries + i * p.query_floats());
    seen[i] = side.sees_all ? side.tokens : std::clamp<int64_t>(plan.S - plan.N + n + 1 - side.hidden, 0, side.tokens);
    if (plan.a.slopes.empty()) continue;
    slopes[i] = plan.a.slopes.as<float>()[h];
    const int64_t m = plan.S - plan.N + n + side.forgotten;
    places[i] = side.most_position > 0 ? std::min(m, side.most_position) : m;
  }
  if (p.tile_step > 0 && plan.a.key_rows.cos.size(0) > 1) {
    const int64_t tiles = (plan.S + kKvTile - 1) / kKvTile;
    p.cos += b * tiles * p.tile_step;
    p.sin += b * tiles * p.tile_step;
  }
  cpu::decode_range(p,
                    {.b = b, .g = g, .rows = rows,
                     .dilation = far || plan.options.dilation.empty() ? 1 : plan.options.dilation[static_cast<size_t>(g * plan.group)], .queries = queries, .seen = seen,
                     .slopes = plan.a.slopes.empty() ? nullptr : slopes, .places = places, .begin = range * plan.range,
                     .end = std::min(side.tokens, (range + 1) * plan.range), .o = state,
                     .max = state + plan.most_rows * Dp, .sum = state + plan.most_rows * (Dp + 1)},
                    kernel_work);
}

void decode_cpu(Context& context, Plan& plan) {
  const DecodeAttention& a = plan.a;
  const bool given = plan.R > 0 && a.angles == nullptr;
  const int64_t tiles = (plan.S + kKvTile - 1) / kKvTile, half = plan.R / 2;
  const size_t table = given ? static_cast<size_t>(a.key_rows.cos.size(0) * tiles * half * kKvTile) : 0;
  const int64_t groups = plan.B * plan.G * plan.chunks, tasks = groups * plan.ranges;
  const size_t partials = plan.ranges > 1 ? static_cast<size_t>(tasks) * plan.state_floats() : 0;
  const auto threads = static_cast<size_t>(max_threads());
  auto* memory = static_cast<float*>(
      context.scratch((2 * table + partials + threads * plan.work_floats()) * sizeof(float)));
  float* states = memory + 2 * table;
  float* works = states + partials;
  for (Side& side : plan.sides) {
    if (plan.R == 0) continue;
    if (side.angles == nullptr) {
      transpose_rows(a.key_rows, half, memory, memory + table);
      side.p.cos = memory, side.p.sin = memory + table, side.p.tile_step = half * kKvTile;
    } else {
      side.p.cos = side.angles->offset_cos(), side.p.sin = side.angles->offset_sin();
      side.p.start_cos = side.angles->start_cos(), side.p.start_sin = side.angles->start_sin();
      side.p.mirrored = side.angles->mirrored();
    }
  }
  const auto own_work = [&] { return works + static_cast<size_t>(thread_index()) * plan.work_floats(); };
  const auto merge = [&](int64_t chunk_of_group, const float* state, size_t step, float* total) {
    const int64_t bg = chunk_of_group / plan.chunks, chunk = chunk_of_group % plan.chunks;
    for (int64_t i = 0; i < plan.chunk_rows(chunk); ++i) {
      const int64_t r = chunk * kTaskRows + i;
      merge_row(plan.ranges, plan.D,
                [&](int64_t range) { return partial_of(plan, state + static_cast<size_t>(range) * step, i); }, total, a,
                bg / plan.G, r / plan.group, bg % plan.G * plan.group + r % plan.group);
    }
  };
  if (plan.ranges == 1) {
    parallel_blocks(tasks, task_grain(plan), [&](int64_t begin, int64_t end) {
      float* work = own_work();
      float* state = work + plan.work_floats() - plan.state_floats();
      for (int64_t task = begin; task < end; ++task) {
        run_task(plan, task, state, work);
        merge(task, state, 0, work);
      }
    });
    return;
  }
  parallel_for(tasks, [&](int64_t task) {
    run_task(plan, task, states + static_cast<size_t>(task) * plan.state_floats(), own_work());
  });
  parallel_blocks(groups, grain_of(plan.ranges * plan.most_rows * plan.D), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i)
      merge(i, states + static_cast<size_t>(i * plan.ranges) * plan.state_floats(), plan.state_floats(), own_work());
  });
}

ref::DecodeSide<float> ref_side(const Plan& plan, const Side& side) {
  using Angle = ref::DecodeSide<float>::Angle;
  const auto of_rows = [](const RopeRows& rows, const float* Row::* table) -> Angle {
    return [&rows, table](int64_t b, int64_t n, int64_t j) { return (Row(rows, b, n).*table)[j]; };
  };
  const auto of_keys = [&side, half = plan.R / 2](bool cosine) -> Angle {
    return [&side, half, cosine](int64_t, int64_t s, int64_t j) {
      const int64_t start = s / kKvTile * half + j, offset = j * kKvTile + kv_lane(s % kKvTile);
      const float c0 = side.angles->start_cos()[start], s0 = side.angles->start_sin()[start];
      const float c1 = side.angles->offset_cos()[offset], s1 = side.angles->offset_sin()[offset];
      return cosine ? c0 * c1 - s0 * s1 : s0 * c1 + c0 * s1;
    };
  };
  ref::DecodeSide<float> out{.tokens = side.tokens, .query_cos = of_rows(side.rows, &Row::cos), .query_sin = of_rows(side.rows, &Row::sin)};
  out.spec = {.scale = plan.scale, .causal = !side.sees_all, .window = side.p.window, .hidden = side.hidden, .most_distance = side.p.most_distance,
              .most_position = side.most_position, .forgotten = side.forgotten, .query_start = plan.S - plan.N, .first = side.p.first,
              .slopes = plan.a.slopes.empty() ? nullptr : plan.a.slopes.as<float>()};
  if (&side == &plan.sides.front() && !plan.options.dilation.empty()) out.spec.dilation = plan.options.dilation.data();
  const bool given = side.angles == nullptr;
  out.key_cos = given ? of_rows(plan.a.key_rows, &Row::cos) : of_keys(true);
  out.key_sin = given ? of_rows(plan.a.key_rows, &Row::sin) : of_keys(false);
  if (!side.turn.cos.empty()) out.turn_cos = of_rows(side.turn, &Row::cos), out.turn_sin = of_rows(side.turn, &Row::sin);
  return out;
}

void decode_ref(Context& context, const Plan& plan) {
  const DecodeAttention& a = plan.a;
  const KvLayout& l = a.cache.layout;
  Tensor q({plan.B, plan.N, plan.H, plan.D}), o(q.shape()), keys({l.B, plan.S, l.G, l.W}), values({l.B, plan.S, l.G, l.D});
  float* out = q.values<float>().data();
  for (int64_t i = 0; i < plan.B * plan.N * plan.H; ++i)
    load_head(a.q, i / plan.H / plan.N, i / plan.H % plan.N, i % plan.H, out + i * plan.D);
  kv_load(context, {.cache = a.cache, .keys = keys, .values = values});
  std::vector<ref::DecodeSide<float>> sides;
  for (const Side& side : plan.sides) sides.push_back(ref_side(plan, side));
  ref::decode_attention<float>(sides, plan.score, plan.R, TensorRef(q).view<float, 4>(), TensorRef(keys).view<float, 4>(),
                               TensorRef(values).view<float, 4>(), o.ref().view<float, 4>(),
                               a.lse.empty() ? TensorView<float, 3>{} : a.lse.view<float, 3>());
  const float* result = o.values<float>().data();
  for (int64_t i = 0; i < plan.B * plan.N * plan.H; ++i)
    store_head(result + i * plan.D, 1.0f, a.o, i / plan.H / plan.N, i / plan.H % plan.N, i % plan.H);
}

}  // namespace

void decode_attention(Context& context, const DecodeAttentionOptions& options, const DecodeAttention& a) {
  check_decode(options, a);
  if (a.q.size(1) == 0) return;
  Plan plan(options, a);
  if (use_ref(context, "decode_attention"))
    decode_ref(context, plan);
  else
    decode_cpu(context, plan);
}

}  // namespace coca::ops
