// SPDX-License-Identifier: Apache-2.0
#include "coca/model/ring_attention.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <utility>

#include "coca/base/clock.h"
#include "coca/base/count.h"
#include "coca/model/decoder.h"
#include "coca/model/layer_attention.h"
#include "coca/ops/attention.h"
#include "coca/ops/collinear.h"
#include "coca/ops/heads.h"
#include "coca/ops/residual.h"

namespace coca::model {

namespace {

void check_spec(const ModelSpec& s) {
  COCA_CHECK(s.direction == Direction::kCausal,
             "[ring] bidirectional attention is not split over ranks; expected a causal model");
  COCA_CHECK(!s.pattern.far(), "[ring] pattern {} is not split over ranks; expected full attention",
             enum_name(s.pattern.type));
  COCA_CHECK(s.global_tokens == 0, "[ring] {}: not split over ranks; expected none",
             counted(s.global_tokens, "global token"));
  for (const Modifier* m : s.modifiers)
    COCA_CHECK(m->info().stage != Stage::kKeys && m->info().stage != Stage::kDecay,
               "[ring] attention modifier {} needs the token in front of each, which may be on another rank; it is not "
               "split over ranks",
               m->info().name);
  for (size_t i = 0; i < s.layer_window.size(); ++i)
    COCA_CHECK(s.layer_window[i] == 0,
               "[ring] layer {} has a window of {}: not split over ranks; expected full attention", i,
               counted(s.layer_window[i], "token"));
}

// A tensor of at least these many numbers; what stood there is lost when it grows.
MutTensorRef room(Tensor& t, DType type, const Dims& shape) {
  if (t.empty() || t.dtype() != type || t.numel() < shape.product()) t = Tensor({shape.product()}, type);
  return {t.ref().data, type, shape, t.device()};
}

template <typename Ref>
Ref rows_at(Ref t, const RingSplit::Chunk& c, int64_t first) {
  return t.narrow(1, first, c.count);
}

void zero(MutTensorRef t) { std::memset(t.data, 0, t.bytes()); }

}  // namespace

RingSplit::RingSplit(int64_t N, int ranks) : N_(N), K_(ranks) {
  COCA_CHECK(N >= 2 * ranks, "[ring] {} do not make the {} of {}", counted(N, "token"), counted(2 * ranks, "chunk"),
             counted(ranks, "rank"));
}

RingSplit::Chunk RingSplit::chunk(int64_t index) const {
  const int64_t begin = index * N_ / (2 * K_);
  return {begin, (index + 1) * N_ / (2 * K_) - begin, index};
}

std::array<RingSplit::Chunk, 2> RingSplit::chunks(int rank) const { return {chunk(rank), chunk(2 * K_ - 1 - rank)}; }

int64_t RingSplit::most_tokens() const {
  int64_t most = 0;
  for (int r = 0; r < K_; ++r) most = std::max(most, tokens(r));
  return most;
}

std::vector<double> RingSplit::positions(int rank) const {
  std::vector<double> out;
  for (const Chunk& c : chunks(rank))
    for (int64_t m = c.begin; m < c.begin + c.count; ++m) out.push_back(static_cast<double>(m));
  return out;
}

RingAttention::RingAttention(const ModelSpec& spec, dist::Communicator& ranks, int64_t N)
    : spec_(spec),
      split_(N, ranks.size()),
      rank_(ranks.rank()),
      ranks_(ranks.duplicate()),
      tables_(static_cast<size_t>(ranks.size())) {
  check_spec(spec);
}

AttentionInputs RingAttention::begin(PositionSource& source, int64_t seq_len) {
  if (seq_len == 0) seq_len = split_.length();
  AttentionInputs at = source.at_places(split_.positions(rank_), seq_len, split_.length());
  if (!is_coca(spec_.attention)) return at;
  if (!spec_.rope_layers.empty())
    flat_rows_.build({.frequencies = std::vector<double>(static_cast<size_t>(spec_.R / 2))}, 0, split_.most_tokens());
  const ops::Rotation rotation = source.rotation(seq_len);
  if (rotation == rotation_) return at;
  rotation_ = rotation;
  for (int r = 0; r < split_.ranks(); ++r)
    tables_[static_cast<size_t>(r)].build_at(rotation, split_.positions(r), split_.tokens(r),
                                             growth_origin(spec_, 0, split_.length()));
  return at;
}

int64_t RingAttention::key_width() const {
  return is_coca(spec_.attention) ? spec_.stored_width() : spec_.score_width();
}

int64_t RingAttention::block_numbers(int owner) const {
  return B_ * split_.tokens(owner) * spec_.G * (key_width() + spec_.D);
}

void RingAttention::make_room(Block& block, DType type) const {
  block.type = type;
  room(block.memory, type, {B_ * split_.most_tokens() * spec_.G * (key_width() + spec_.D)});
}

std::span<std::byte> RingAttention::bytes_of(Block& block, int owner) const {
  return {static_cast<std::byte*>(block.memory.ref().data),
          static_cast<size_t>(block_numbers(owner)) * dtype_size(block.type)};
}

RingAttention::Part RingAttention::part(const Block& block, int owner, size_t chunk) const {
  const auto chunks = split_.chunks(owner);
  const auto numbers = [&](int64_t width, size_t c) { return B_ * chunks[c].count * spec_.G * width; };
  auto* at = static_cast<std::byte*>(const_cast<void*>(block.memory.ref().data));
  if (chunk == 1) at += static_cast<size_t>(numbers(key_width() + spec_.D, 0)) * dtype_size(block.type);
  auto* values = at + static_cast<size_t>(numbers(key_width(), chunk)) * dtype_size(block.type);
  const int64_t n = chunks[chunk].count;
  const Device device = block.memory.device();
  return {{at, block.type, {B_, n, spec_.G, key_width()}, device},
          {values, block.type, {B_, n, spec_.G, spec_.D}, device}};
}

ops::RopeRows RingAttention::rows_of(int owner, size_t chunk) const {
  const auto chunks = split_.chunks(owner);
  const RopeTable& table = tables_[static_cast<size_t>(owner)];
  const int64_t first = chunk == 0 ? 0 : chunks[0].count, n = chunks[chunk].count;
  if (flat_) return flat_rows_.rows(0, n);
  const ops::RopeRows keys = table.key_rows(first, n);
  return keys.cos.empty() ? table.rows(first, n) : keys;
}

// Of k_eff, for values of this shape.
Dims RingAttention::key_shape(Dims values) const {
  values[3] = spec_.score_width();
  return values;
}

// As attention sees them: CoCA's are made here, at their own positions.
TensorRef RingAttention::keys_of(Context& cx, const Part& part, int owner, size_t chunk) {
  if (!is_coca(spec_.attention)) return part.keys;
  const MutTensorRef k_eff = room(k_eff_, part.values.dtype, key_shape(part.values.shape));
  ops::collinear_key(cx, collinear_options(spec_), {.rows = rows_of(owner, chunk), .tbar = part.keys, .k_eff = k_eff});
  return k_eff;
}

template <typename Body>
void RingAttention::each_pair(int owner, size_t key_chunk, const Body& body) const {
  const Chunk keys = split_.chunks(owner)[key_chunk];
  int64_t first = 0;
  for (const Chunk& own : split_.chunks(rank_)) {
    if (own.index >= keys.index)
      body(own, first,
           ops::AttentionOptions{.scale = spec_.score_scale(),
                                 .mask = own.index == keys.index ? ops::Mask::kCausal : ops::Mask::kNone,
                                 .query_start = own.begin - keys.begin});
    first += own.count;
  }
}

void RingAttention::start(std::span<const Move> moves) {
  std::vector<dist::Send> sends;
  std::vector<dist::Receive> receives;
  for (const Move& m : moves) {
    sends.push_back({neighbour(1), bytes_of(*m.out, m.owner)});
    receives.push_back({neighbour(-1), bytes_of(*m.in, (m.owner + split_.ranks() - 1) % split_.ranks())});
    counts_.bytes += static_cast<int64_t>(sends.back().bytes.size());
  }
  if (moves.empty()) return;
  background_.start(
      [this, sends = std::move(sends), receives = std::move(receives)] { ranks_->exchange(sends, receives); });
}

void RingAttention::wait() {
  const Stopwatch watch;
  background_.wait();
  counts_.waiting += watch.seconds();
}

void RingAttention::put(Context& cx, const LayerActs& a, int64_t B, int64_t b, int64_t first) {
  B_ = B;
  make_room(blocks_[here_], a.v.dtype);
  int64_t begin = 0;
  for (size_t c = 0; c < 2; ++c) {
    const Part all = part(blocks_[here_], rank_, c);
    const int64_t count = all.keys.size(1), from = std::max(first, begin),
                  to = std::min(first + a.v.size(1), begin + count);
    if (from < to) {
      const auto target = [&](MutTensorRef t) {
        return t.narrow(0, b, a.v.size(0)).narrow(1, from - begin, to - from);
      };
      const auto source = [&](TensorRef t) { return t.narrow(1, from - first, to - from); };
      if (is_coca(spec_.attention))
        ops::collinear_fold(cx, collinear_options(spec_), {.R = spec_.R, .t = source(a.kt), .tbar = target(all.keys)});
      else
        ops::copy_heads(cx, source(a.k_eff), target(all.keys));
      ops::copy_heads(cx, source(a.v), target(all.values));
    }
    begin += count;
  }
}

void RingAttention::attend_all(Context& cx, const AttentionInputs& at, TensorRef q_eff, MutTensorRef o,
                               MutTensorRef lse) {
  flat_ = at.scope.flat;
  make_room(blocks_[1 - here_], blocks_[here_].type);
  std::fill_n(lse.as<float>(), lse.numel(), -std::numeric_limits<float>::infinity());
  for (int step = 0; step < split_.ranks(); ++step) {
    const Block& block = blocks_[here_];
    const Move move{&blocks_[here_], &blocks_[1 - here_], owner(step)};
    const bool last = step + 1 == split_.ranks();
    start(std::span(&move, last ? 0 : 1));
    const Stopwatch watch;
    for (size_t c = 0; c < 2; ++c) {
      const Part present = part(block, owner(step), c);
      TensorRef keys;
      each_pair(owner(step), c, [&](const Chunk& own, int64_t first, const ops::AttentionOptions& options) {
        if (keys.empty()) keys = keys_of(cx, present, owner(step), c);
        ops::attention_forward(cx, options,
                               {.q = rows_at(q_eff, own, first),
                                .k = keys,
                                .v = present.values,
                                .slopes = at.positions.slopes,
                                .document_start = {},
                                .far = {},
                                .o = rows_at(o, own, first),
                                .lse = lse.narrow(2, first, own.count),
                                .write = ops::Write::kAccumulate});
      });
    }
    counts_.work += watch.seconds();
    wait();
    if (!last) here_ = 1 - here_;
  }
}

void RingAttention::attend(Context& cx, const ModelSpec& s, const LayerTensors<TensorRef>& w, const AttentionInputs& at,
                           LayerActs& a) {
  transform(cx, s, w, at, a);
  put(cx, a, a.v.size(0), 0, 0);
  const bool exact = a.o.dtype == DType::kF32;
  const MutTensorRef o = exact ? a.o : room(o_, DType::kF32, a.o.shape);
  attend_all(cx, at, a.q_eff, o, a.lse);
  if (!exact) ops::copy_heads(cx, o, a.o);
  modify(cx, s, w, at, Stage::kSoftmax, a);
}

// What this rank's queries give to a block of keys and values, in sums; and they to dq.
void RingAttention::gradients_of(Context& cx, TensorRef slopes, const LayerActs& a, const LayerActGrads& g,
                                 MutTensorRef dq, int owner, const Block& block, const Block& sums) {
  for (size_t c = 0; c < 2; ++c) {
    const Part present = part(block, owner, c), sum = part(sums, owner, c);
    const bool coca = is_coca(spec_.attention);
    TensorRef keys;
    MutTensorRef dk = sum.keys;
    each_pair(owner, c, [&](const Chunk& own, int64_t first, const ops::AttentionOptions& options) {
      if (keys.empty()) {
        keys = keys_of(cx, present, owner, c);
        if (coca) zero(dk = room(dk_eff_, DType::kF32, key_shape(sum.values.shape)));
      }
      const auto mine = [&](TensorRef t) { return rows_at(t, own, first); };
      ops::attention_backward(cx, options,
                              {.q = mine(a.q_eff),
                               .k = keys,
                               .v = present.values,
                               .slopes = slopes,
                               .document_start = {},
                               .far = {},
                               .o = mine(a.o),
                               .lse = TensorRef(a.lse).narrow(2, first, own.count),
                               .d_o = mine(g.d_o),
                               .dq = rows_at(dq, own, first),
                               .dk = dk,
                               .dv = sum.values,
                               .write = ops::Write::kAccumulate});
    });
    if (coca && !keys.empty())
      ops::collinear_key_backward(cx, collinear_options(spec_),
                                  {.rows = rows_of(owner, c), .dk_eff = dk, .dtbar = sum.keys});
  }
}

void RingAttention::take_home(Context& cx, const LayerActs& a, LayerActGrads& g, const Block& sums) const {
  int64_t first = 0;
  const auto chunks = split_.chunks(rank_);
  for (size_t c = 0; c < 2; ++c) {
    const Part sum = part(sums, rank_, c);
    if (is_coca(spec_.attention))
      ops::collinear_fold_backward(cx, collinear_options(spec_),
                                   {.R = spec_.R,
                                    .t = rows_at(TensorRef(a.kt), chunks[c], first),
                                    .dtbar = sum.keys,
                                    .dt = rows_at(g.dkt, chunks[c], first)});
    else
      ops::copy_heads(cx, sum.keys, rows_at(g.dk_eff, chunks[c], first));
    ops::copy_heads(cx, sum.values, rows_at(g.dv, chunks[c], first));
    first += chunks[c].count;
  }
}

// The sums of a block leave one step behind it: while the next is worked on, they go where that block already is.
void RingAttention::backward(Context& cx, const AttentionInputs& at, const LayerActs& a, LayerActGrads& g) {
  flat_ = at.scope.flat;
  put(cx, a, a.v.size(0), 0, 0);
  make_room(blocks_[1 - here_], blocks_[here_].type);
  for (Block& sums : sums_) make_room(sums, DType::kF32);
  const bool exact = g.dq_eff.dtype == DType::kF32;
  const MutTensorRef dq = exact ? g.dq_eff : room(dq_, DType::kF32, g.dq_eff.shape);
  ops::zero_heads(cx, dq);
  Block *mine = &sums_[0], *leaving = &sums_[1], *coming = &sums_[2];
  const auto move_sums = [&](int step) { return Move{leaving, coming, owner(step)}; };
  for (int step = 0; step < split_.ranks(); ++step) {
    std::vector<Move> moves;
    const bool last = step + 1 == split_.ranks();
    if (!last) moves.push_back({&blocks_[here_], &blocks_[1 - here_], owner(step)});
    if (step > 0) moves.push_back(move_sums(step - 1));
    start(moves);
    const Stopwatch watch;
    const int64_t numbers = block_numbers(owner(step));
    const MutTensorRef sum(mine->memory.ref().data, DType::kF32, {1, numbers}, mine->memory.device()),
        more(coming->memory.ref().data, DType::kF32, {1, numbers}, coming->memory.device());
    zero(sum);
    gradients_of(cx, at.positions.slopes, a, g, dq, owner(step), blocks_[here_], *mine);
    counts_.work += watch.seconds();
    wait();
    if (step > 0) ops::residual_forward(cx, {.a = sum, .b = more, .c = {}, .y = sum});
    std::swap(mine, leaving);
    if (!last) here_ = 1 - here_;
  }
  if (split_.ranks() > 1) {
    const Move home = move_sums(split_.ranks() - 1);
    start({&home, 1});
    wait();
  }
  take_home(cx, a, g, split_.ranks() > 1 ? *coming : *leaving);
  if (!exact) ops::copy_heads(cx, dq, g.dq_eff);
}

}  // namespace coca::model
