// How decode attention is spread over threads: tasks of query rows and ranges of tokens, and how their results are
// merged.
// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "coca/base/parallel.h"
#include "coca/kernels/args/blocks.h"
#include "coca/kernels/args/head_access.h"
#include "coca/kernels/cpu/decode_attention.h"
#include "coca/kernels/cpu/rows.h"
#include "coca/kernels/ref/decode_attention.h"

namespace coca::cpu {

namespace {

// Query rows (of one kv head) per task: their state stays in L2 beside a page.
constexpr int64_t kTaskRows = 64;
// Tokens per range: at least this many, and more when there are tasks enough without cutting.
constexpr int64_t kRangeTokens = 1024, kEnoughTasks = 256;

// Tokens with the same rules of visibility and angles: those of the window (or all), and the far ones.
struct Side {
  ops::RopeRows rows, turn;  // of the queries
  const ops::KeyAngles* angles;
  int64_t tokens, ranges;
  int64_t hidden;                    // the nearest tokens that are not visible
  bool sees_all;                     // by every query
  int64_t most_position, forgotten;  // for ALiBi (DecodeFar)
  DecodeParams p;
};

// The call seen as tasks: (batch, kv head) x chunks of query rows x ranges of tokens, those of the far side behind
// those of the other. ops::AngleRow r of a kv head is query r / group of head g * group + r % group.
struct Plan {
  const ops::DecodeAttentionOptions& options;
  const ops::DecodeAttention& a;
  ref::DecodeScore score;
  int64_t B, N, H, D, G, S, R;
  int64_t group, rows, chunks, most_rows, range, ranges;
  float scale;
  std::vector<Side> sides;

  Plan(const ops::DecodeAttentionOptions& options_, const ops::DecodeAttention& a_)
      : options(options_),
        a(a_),
        B(a.q.size(0)),
        N(a.q.size(1)),
        H(a.q.size(2)),
        D(a.q.size(3)),
        G(a.cache.layout.G),
        S(a.cache.length),
        R(options.score == ops::Score::kDot ? 0 : 2 * a.rows.cos.size(2)) {
    score = ref::decode_score(options, R, D);
    group = H / G;
    rows = N * group;
    chunks = (rows + kTaskRows - 1) / kTaskRows;
    most_rows = std::min(rows, kTaskRows);
    // From the shape alone: enough tasks for many cores, few partial sums.
    const int64_t wanted = std::max(kRangeTokens, S * (B * G * chunks) / kEnoughTasks);
    range = (wanted + kKvPage - 1) / kKvPage * kKvPage;
    scale = options.scale != 0.0f ? options.scale : 1.0f / std::sqrt(static_cast<float>(D));
    sides.push_back({.rows = a.rows,
                     .turn = a.turn,
                     .angles = a.angles,
                     .tokens = S,
                     .ranges = ranges_of(S),
                     .hidden = 0,
                     .sees_all = false,
                     .most_position = 0,
                     .forgotten = 0,
                     .p = params(options.window)});
    if (a.far.tokens > 0) {
      const bool all = a.far.range == ops::FarRange::kAll;
      if (all) sides.front().p.first = a.far.tokens;
      sides.push_back({.rows = a.far.rows,
                       .turn = {},
                       .angles = a.far.angles,
                       .tokens = a.far.tokens,
                       .ranges = ranges_of(a.far.tokens),
                       .hidden = options.window,
                       .sees_all = all,
                       .most_position = a.far.most_position,
                       .forgotten = a.far.forgotten,
                       .p = params(0)});
      sides.back().p.most_distance = a.far.most_distance;
    }
    ranges = sides.front().ranges + (sides.size() > 1 ? sides.back().ranges : 0);
  }
  int64_t ranges_of(int64_t tokens) const { return (tokens + range - 1) / range; }
  DecodeParams params(int64_t window) const {
    DecodeParams p;
    p.cache = a.cache;
    p.window = window;
    const bool folded = options.score == ops::Score::kCollinear && score != ref::DecodeScore::kOfficial;
    p.keys = folded ? Keys::kFolded : Keys::kPairs;
    p.half = R / 2;
    p.plain = score == ref::DecodeScore::kOfficial ? 0 : folded ? R / 2 : R;
    return p;
  }
  int64_t chunk_rows(int64_t chunk) const { return std::min(kTaskRows, rows - chunk * kTaskRows); }
  size_t state_floats() const { return static_cast<size_t>(most_rows * (decode_padded(D) + 2)); }
  size_t work_floats() const {
    const DecodeParams& p = sides.front().p;
    return decode_work_floats(p) + static_cast<size_t>(most_rows * (p.query_floats() + 1) + 2 * D) + state_floats();
  }
};

void turn_pairs(const ops::AngleRow& row, int64_t half, float* x) {
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
  ops::load_head(plan.a.q, b, n, h, q);
  if (plan.score == ref::DecodeScore::kDot) {
    std::copy_n(q, D, e);
  } else {
    const ops::AngleRow row(side.rows, b, n);
    ref::decode_query_head<float>(
        plan.score, q, plan.R, D, [&](int64_t j) { return row.cos[j]; }, [&](int64_t j) { return row.sin[j]; }, e);
  }
  if (!side.turn.cos.empty()) turn_pairs(ops::AngleRow(side.turn, b, n), half, e);
  float *u = out, *w = out + half, *rest = out + 2 * half;
  const bool sums = plan.score == ref::DecodeScore::kSlack || plan.score == ref::DecodeScore::kTied;
  const auto pair = [&](int64_t i, int64_t j, float& first, float& second) {
    // k_a = t (c - s), k_b = t (c + s) with slack and tied: e_a k_a + e_b k_b = t (c (e_a + e_b) + s (e_b - e_a)).
    first = plan.scale * (sums ? e[i] + e[j] : e[i]);
    second = plan.scale * (sums ? e[j] - e[i] : e[j]);
  };
  for (int64_t j = 0; j < half; ++j) pair(j, j + half, u[j], w[j]);
  std::fill_n(rest, W - plain, 0.0f);
  if (side.p.keys == Keys::kFolded) {
    float unused = 0;
    for (int64_t i = 0; i < W - plain; ++i) pair(plan.R + i, plan.R + (D - plan.R) / 2 + i, rest[i], unused);
  } else {  // the official fold meets a key's number up to twice
    for (int64_t i = plan.R; i < D; ++i) rest[i % W - plain] += plan.scale * e[i];
  }
}

// Small tasks go together: a thread is not woken for less.
int64_t task_grain(const Plan& plan) {
  return ops::grain_of(std::min(plan.S, plan.range) * (plan.a.cache.layout.W + plan.D) * plan.most_rows, 65536);
}

// cos and sin [B or 1, tiles, half, 64] of given key rows, tile by tile as the kernel reads them.
void transpose_rows(const ops::RopeRows& rows, int64_t half, float* cos, float* sin) {
  const int64_t S = rows.cos.size(1), tiles = (S + kKvTile - 1) / kKvTile;
  parallel_blocks(rows.cos.size(0) * tiles, 16, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t)
      for (int64_t i = 0; i < kKvTile; ++i) {
        const int64_t token = std::min(t % tiles * kKvTile + i, S - 1);
        const ops::AngleRow row(rows, t / tiles, token);
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
void merge_row(int64_t ranges, int64_t D, const PartialOf& partial, float* total, const ops::DecodeAttention& a,
               int64_t b, int64_t n, int64_t h) {
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
  ops::store_head(total, sum > 0.0f || std::isnan(sum) ? 1.0f / sum : 0.0f, a.o, b, n, h);
  if (!a.lse.empty()) *a.lse.view<float, 3>().ptr(b, h, n) = max + std::log(sum);
}

// A task's state is o [most_rows, Dp], max [most_rows] and sum [most_rows].
Partial partial_of(const Plan& plan, const float* state, int64_t row) {
  const int64_t Dp = decode_padded(plan.D);
  return {state + row * Dp, state + plan.most_rows * Dp + row, state + plan.most_rows * (Dp + 1) + row};
}

// One task: prepares its rows and runs the kernel; its state is written.
void run_task(const Plan& plan, int64_t task, float* state, float* work) {
  const int64_t Dp = decode_padded(plan.D), chunk = task / plan.ranges % plan.chunks,
                bg = task / plan.ranges / plan.chunks, b = bg / plan.G, g = bg % plan.G,
                near_ranges = plan.sides.front().ranges;
  const bool far = task % plan.ranges >= near_ranges;
  const Side& side = far ? plan.sides.back() : plan.sides.front();
  const int64_t range = task % plan.ranges - (far ? near_ranges : 0);
  DecodeParams p = side.p;
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
  decode_range(
      p,
      {.b = b,
       .g = g,
       .rows = rows,
       .dilation =
           far || plan.options.dilation.empty() ? 1 : plan.options.dilation[static_cast<size_t>(g * plan.group)],
       .queries = queries,
       .seen = seen,
       .slopes = plan.a.slopes.empty() ? nullptr : slopes,
       .places = places,
       .begin = range * plan.range,
       .end = std::min(side.tokens, (range + 1) * plan.range),
       .o = state,
       .max = state + plan.most_rows * Dp,
       .sum = state + plan.most_rows * (Dp + 1)},
      kernel_work);
}

void forward(Context& context, const ops::DecodeAttentionOptions& options, const ops::DecodeAttention& a) {
  Plan plan(options, a);
  const bool given = plan.R > 0 && a.angles == nullptr;
  const int64_t tiles = (plan.S + kKvTile - 1) / kKvTile, half = plan.R / 2;
  const size_t table = given ? static_cast<size_t>(a.key_rows.cos.size(0) * tiles * half * kKvTile) : 0;
  const int64_t groups = plan.B * plan.G * plan.chunks, tasks = groups * plan.ranges;
  const size_t partials = plan.ranges > 1 ? static_cast<size_t>(tasks) * plan.state_floats() : 0;
  const auto threads = static_cast<size_t>(max_threads());
  auto* memory =
      static_cast<float*>(context.scratch((2 * table + partials + threads * plan.work_floats()) * sizeof(float)));
  float* states = memory + 2 * table;
  float* works = states + partials;
  for (Side& side : plan.sides) {
    if (plan.R == 0) continue;
    if (side.angles == nullptr) {
      transpose_rows(a.key_rows, half, memory, memory + table);
      side.p.cos = memory;
      side.p.sin = memory + table;
      side.p.tile_step = half * kKvTile;
    } else {
      side.p.cos = side.angles->offset_cos();
      side.p.sin = side.angles->offset_sin();
      side.p.start_cos = side.angles->start_cos();
      side.p.start_sin = side.angles->start_sin();
      side.p.mirrored = side.angles->mirrored();
    }
  }
  const auto own_work = [&] { return works + static_cast<size_t>(thread_index()) * plan.work_floats(); };
  const auto merge = [&](int64_t chunk_of_group, const float* state, size_t step, float* total) {
    const int64_t bg = chunk_of_group / plan.chunks, chunk = chunk_of_group % plan.chunks;
    for (int64_t i = 0; i < plan.chunk_rows(chunk); ++i) {
      const int64_t r = chunk * kTaskRows + i;
      merge_row(
          plan.ranges, plan.D,
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
  parallel_blocks(groups, ops::grain_of(plan.ranges * plan.most_rows * plan.D), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i)
      merge(i, states + static_cast<size_t>(i * plan.ranges) * plan.state_floats(), plan.state_floats(), own_work());
  });
}

}  // namespace

const ops::DecodeAttentionImpl decode_attention_row{.name = "cpu", .run = {forward}};

}  // namespace coca::cpu
