// How decode attention is spread over threads: tasks of query rows and ranges of tokens, and how their results are
// merged.
// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cmath>
#include <iterator>
#include <limits>
#include <utility>
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
  TensorRef q;
  const ops::KeyAngles* angles;
  int64_t tokens, ranges;
  int64_t hidden;                    // the nearest tokens that are not visible
  bool sees_all;                     // by every query
  int64_t most_position, forgotten;  // for ALiBi (DecodeFar)
  DecodeParams p;
};

// What the sequences of a call have in common.
struct Shape {
  const ops::DecodeAttentionOptions& options;
  TensorRef slopes;
  int64_t H, E, D, G, W, R, group;
  ref::DecodeKeys keys;
  float scale;

  Shape(const ops::DecodeAttentionOptions& options_, const ops::DecodeAttention& a)
      : options(options_), slopes(a.slopes) {
    const ops::DecodeSequence& any = a.sequences.front();
    H = any.q.size(2);
    E = any.q.size(3);
    D = any.cache.layout.D;
    G = any.cache.layout.G;
    W = any.cache.layout.W;
    if (options.score == ops::Score::kDot)
      R = 0;
    else
      R = 2 * (any.angles ? any.angles->half() : any.key_rows.cos.size(2));
    group = H / G;
    keys = ref::decode_keys(options, R, E);
    scale = options.scale != 0.0f ? options.scale : 1.0f / std::sqrt(static_cast<float>(E));
  }
};

// A sequence seen as tasks: kv heads x chunks of query rows x ranges of tokens, those of the far side behind those of
// the other. Row r of a kv head g is query r / group of head g * group + r % group.
struct Plan {
  const Shape& shape;
  const ops::DecodeSequence& a;
  int64_t N, S, rows, chunks, most_rows, range, ranges;
  std::vector<Side> sides;
  int64_t first_task = 0;     // of this sequence, among those of the call
  float* states = nullptr;    // of its tasks, where there are several ranges
  float* key_rows = nullptr;  // cos and sin by tile, where key rows are given

  Plan(const Shape& shape_, const ops::DecodeSequence& a_) : shape(shape_), a(a_), N(a.q.size(1)), S(a.cache.length) {
    rows = N * shape.group;
    chunks = (rows + kTaskRows - 1) / kTaskRows;
    most_rows = std::min(rows, kTaskRows);
    // From the shape of this sequence alone: enough tasks for many cores, few partial sums.
    const int64_t wanted = std::max(kRangeTokens, S * (shape.G * chunks) / kEnoughTasks);
    range = (wanted + kKvPage - 1) / kKvPage * kKvPage;
    sides.push_back({.q = a.q,
                     .angles = a.angles,
                     .tokens = S,
                     .ranges = ranges_of(S),
                     .hidden = 0,
                     .sees_all = false,
                     .most_position = 0,
                     .forgotten = 0,
                     .p = params(shape.options.window)});
    if (a.far.tokens > 0) {
      const bool all = a.far.range == ops::FarRange::kAll;
      if (all) sides.front().p.first = a.far.tokens;
      sides.push_back({.q = a.far.q,
                       .angles = a.far.angles,
                       .tokens = a.far.tokens,
                       .ranges = ranges_of(a.far.tokens),
                       .hidden = shape.options.window,
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
    const bool folded = shape.keys.score == ref::DecodeScore::kCollinear;
    p.keys = folded ? Keys::kFolded : Keys::kPairs;
    p.half = shape.R / 2;
    p.plain = shape.keys.score == ref::DecodeScore::kOfficial ? 0 : folded ? shape.R / 2 : shape.R;
    return p;
  }
  int64_t groups() const { return shape.G * chunks; }
  int64_t tasks() const { return groups() * ranges; }
  int64_t chunk_rows(int64_t chunk) const { return std::min(kTaskRows, rows - chunk * kTaskRows); }
  size_t state_floats() const { return static_cast<size_t>(most_rows * (decode_padded(shape.D) + 2)); }
  size_t partial_floats() const { return ranges > 1 ? static_cast<size_t>(tasks()) * state_floats() : 0; }
  size_t work_floats() const {
    const DecodeParams& p = sides.front().p;
    return decode_work_floats(p) +
           static_cast<size_t>(most_rows * (p.query_floats() + 1) + std::max(shape.E, shape.D)) + state_floats();
  }
  // Of cos, and of sin: [tiles, half, 64]; 0 where angles are evenly spaced.
  size_t key_row_floats() const {
    const bool given = shape.R > 0 && a.angles == nullptr;
    return given ? static_cast<size_t>((S + kKvTile - 1) / kKvTile * (shape.R / 2) * kKvTile) : 0;
  }
  int64_t numbers_per_task() const { return std::min(S, range) * (shape.W + shape.D) * most_rows; }
};

// u, w and p of one query row (kernels/cpu/decode_attention.h) in `out`; work: E floats.
void prepare_row(const Plan& plan, const Side& side, int64_t n, int64_t h, float* e, float* out) {
  const Shape& shape = plan.shape;
  const int64_t half = shape.R / 2, W = shape.W, plain = side.p.plain;
  ops::load_head(side.q, 0, n, h, e);
  float *u = out, *w = out + half, *rest = out + 2 * half;
  const ops::KeyDirection key = shape.keys.direction;
  const auto pair = [&](int64_t i, int64_t j, float& first, float& second) {
    // The key is t (x c - y s, y c + x s): e_a k_a + e_b k_b = t (c (x e_a + y e_b) + s (x e_b - y e_a)).
    first = shape.scale * (key.x * e[i] + key.y * e[j]);
    second = shape.scale * (key.x * e[j] - key.y * e[i]);
  };
  for (int64_t j = 0; j < half; ++j) pair(j, j + half, u[j], w[j]);
  std::fill_n(rest, W - plain, 0.0f);
  if (side.p.keys == Keys::kFolded) {
    const ref::CollinearHead& head = shape.keys.head;
    const int64_t P = head.planes();
    float unused = 0;
    for (int64_t j = half; j < P; ++j) pair(head.pair(j).a, head.pair(j).b, rest[j - half], unused);
    for (int64_t i = 0; i < head.content; ++i) rest[P - half + i] = shape.scale * e[2 * P + i];
  } else {  // the official fold meets a key's number up to twice
    for (int64_t i = shape.R; i < shape.E; ++i) rest[i % W - plain] += shape.scale * e[i];
  }
}

// cos and sin [tiles, half, 64] of given key rows, tile by tile as the kernel reads them.
void transpose_rows(const ops::RopeRows& rows, int64_t half, float* cos, float* sin) {
  const int64_t S = rows.cos.size(1), tiles = (S + kKvTile - 1) / kKvTile;
  parallel_blocks(tiles, 16, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t)
      for (int64_t i = 0; i < kKvTile; ++i) {
        const ops::AngleRow row(rows, 0, std::min(t * kKvTile + i, S - 1));
        for (int64_t j = 0; j < half; ++j) {
          cos[(t * half + j) * kKvTile + kv_lane(i)] = row.cos[j];
          sin[(t * half + j) * kKvTile + kv_lane(i)] = row.sin[j];
        }
      }
  });
}

void set_key_angles(Plan& plan) {
  const int64_t half = plan.shape.R / 2;
  if (half == 0) return;
  for (Side& side : plan.sides) {
    if (side.angles != nullptr) {
      side.p.cos = side.angles->offset_cos();
      side.p.sin = side.angles->offset_sin();
      side.p.start_cos = side.angles->start_cos();
      side.p.start_sin = side.angles->start_sin();
      side.p.mirrored = side.angles->mirrored();
      continue;
    }
    side.p.cos = plan.key_rows;
    side.p.sin = plan.key_rows + plan.key_row_floats();
    side.p.tile_step = half * kKvTile;
    if (&side == &plan.sides.front())
      transpose_rows(plan.a.key_rows, half, plan.key_rows, plan.key_rows + plan.key_row_floats());
  }
}

// Adds up the partial results of one row's ranges, in order, and writes o and lse.
struct Partial {
  const float *o, *max, *sum;  // of the row
};
template <typename PartialOf>
void merge_row(int64_t ranges, int64_t D, const PartialOf& partial, float* total, const ops::DecodeSequence& a,
               int64_t n, int64_t h) {
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
  ops::store_head(total, sum > 0.0f || std::isnan(sum) ? 1.0f / sum : 0.0f, a.o, 0, n, h);
  if (!a.lse.empty()) *a.lse.view<float, 3>().ptr(0, h, n) = max + std::log(sum);
}

// A task's state is o [most_rows, Dp], max [most_rows] and sum [most_rows].
Partial partial_of(const Plan& plan, const float* state, int64_t row) {
  const int64_t Dp = decode_padded(plan.shape.D);
  return {state + row * Dp, state + plan.most_rows * Dp + row, state + plan.most_rows * (Dp + 1) + row};
}

// Writes o and lse of a chunk of rows of a kv head from the states of its ranges, which lie one after another.
void merge_group(const Plan& plan, int64_t group, const float* states, float* total) {
  const int64_t g = group / plan.chunks, chunk = group % plan.chunks;
  for (int64_t i = 0; i < plan.chunk_rows(chunk); ++i) {
    const int64_t r = chunk * kTaskRows + i;
    merge_row(
        plan.ranges, plan.shape.D,
        [&](int64_t range) { return partial_of(plan, states + static_cast<size_t>(range) * plan.state_floats(), i); },
        total, plan.a, r / plan.shape.group, g * plan.shape.group + r % plan.shape.group);
  }
}

// One task of a sequence: prepares its rows and runs the kernel; its state is written.
void run_task(const Plan& plan, int64_t task, float* state, float* work) {
  const Shape& shape = plan.shape;
  const int64_t Dp = decode_padded(shape.D), chunk = task / plan.ranges % plan.chunks,
                g = task / plan.ranges / plan.chunks, near_ranges = plan.sides.front().ranges;
  const bool far = task % plan.ranges >= near_ranges;
  const Side& side = far ? plan.sides.back() : plan.sides.front();
  const int64_t range = task % plan.ranges - (far ? near_ranges : 0);
  const DecodeParams& p = side.p;
  int64_t seen[kTaskRows], places[kTaskRows];
  const float* decays[kTaskRows];
  const TensorRef decay = plan.a.decay;
  float* queries = work;
  float* slopes = queries + plan.most_rows * p.query_floats();
  float* heads = slopes + plan.most_rows;
  float* kernel_work = heads + std::max(shape.E, shape.D);
  const int64_t rows = plan.chunk_rows(chunk);
  for (int64_t i = 0; i < rows; ++i) {
    const int64_t r = chunk * kTaskRows + i, n = r / shape.group, h = g * shape.group + r % shape.group;
    prepare_row(plan, side, n, h, heads, queries + i * p.query_floats());
    seen[i] = side.sees_all ? side.tokens : std::clamp<int64_t>(plan.S - plan.N + n + 1 - side.hidden, 0, side.tokens);
    if (!decay.empty()) decays[i] = decay.as<float>() + h * decay.stride(0);
    if (shape.slopes.empty()) continue;
    slopes[i] = shape.slopes.as<float>()[h];
    const int64_t m = plan.S - plan.N + n + side.forgotten;
    places[i] = side.most_position > 0 ? std::min(m, side.most_position) : m;
  }
  const std::span<const int64_t> dilation = shape.options.dilation;
  decode_range(p,
               {.g = g,
                .rows = rows,
                .dilation = far || dilation.empty() ? 1 : dilation[static_cast<size_t>(g * shape.group)],
                .queries = queries,
                .seen = seen,
                .slopes = shape.slopes.empty() ? nullptr : slopes,
                .places = places,
                .decays = decay.empty() ? nullptr : decays,
                .begin = range * plan.range,
                .end = std::min(side.tokens, (range + 1) * plan.range),
                .o = state,
                .max = state + plan.most_rows * Dp,
                .sum = state + plan.most_rows * (Dp + 1)},
               kernel_work);
}

// The sequence of a task of the call.
const Plan& plan_of(const std::vector<Plan>& plans, int64_t task) {
  return *std::prev(std::ranges::upper_bound(plans, task, {}, &Plan::first_task));
}

void forward(Context& context, const ops::DecodeAttentionOptions& options, const ops::DecodeAttention& a) {
  const Shape shape(options, a);
  std::vector<Plan> plans;
  plans.reserve(a.sequences.size());
  int64_t tasks = 0, numbers = 0;
  size_t work_floats = 0, shared_floats = 0;
  bool merges = false;
  for (const ops::DecodeSequence& sequence : a.sequences) {
    Plan& plan = plans.emplace_back(shape, sequence);
    plan.first_task = tasks;
    tasks += plan.tasks();
    numbers += plan.tasks() * plan.numbers_per_task();
    work_floats = std::max(work_floats, plan.work_floats());
    shared_floats += 2 * plan.key_row_floats() + plan.partial_floats();
    merges |= plan.ranges > 1;
  }
  const auto threads = static_cast<size_t>(max_threads());
  auto* memory = static_cast<float*>(context.scratch((shared_floats + threads * work_floats) * sizeof(float)));
  float* works = memory + shared_floats;
  const auto own_work = [&] { return works + static_cast<size_t>(thread_index()) * work_floats; };
  for (Plan& plan : plans) {
    plan.key_rows = std::exchange(memory, memory + 2 * plan.key_row_floats());
    plan.states = std::exchange(memory, memory + plan.partial_floats());
    set_key_angles(plan);
  }
  // Small tasks go together: a thread is not woken for less.
  const int64_t grain = merges ? 1 : ops::grain_of(numbers / tasks, 65536);
  parallel_blocks(tasks, grain, [&](int64_t begin, int64_t end) {
    float* work = own_work();
    for (int64_t i = begin; i < end; ++i) {
      const Plan& plan = plan_of(plans, i);
      const int64_t task = i - plan.first_task;
      if (plan.ranges > 1) {
        run_task(plan, task, plan.states + static_cast<size_t>(task) * plan.state_floats(), work);
        continue;
      }
      float* state = work + plan.work_floats() - plan.state_floats();
      run_task(plan, task, state, work);
      merge_group(plan, task, state, work);
    }
  });
  if (!merges) return;
  // The first task of a group merges all of it.
  parallel_blocks(tasks, ops::grain_of(plans.front().most_rows * shape.D), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const Plan& plan = plan_of(plans, i);
      const int64_t task = i - plan.first_task;
      if (plan.ranges == 1 || task % plan.ranges != 0) continue;
      merge_group(plan, task / plan.ranges, plan.states + static_cast<size_t>(task) * plan.state_floats(), own_work());
    }
  });
}

}  // namespace

const ops::DecodeAttentionImpl decode_attention_row{.name = "cpu", .run = {forward}};

}  // namespace coca::cpu
