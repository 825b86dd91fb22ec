// SPDX-License-Identifier: Apache-2.0
#include "coca/infer/sequence.h"

#include <algorithm>

#include "coca/base/count.h"
#include "coca/ops/heads.h"
#include "coca/tensor/transfer.h"

namespace coca::infer {

Sequence::Sequence(const model::ModelSpec& spec, DType dtype, const KvPool& pool, const SequenceOptions& options)
    : spec_(spec),
      dtype_(dtype),
      pool_(pool),
      options_(options),
      cache_(pool),
      positions_(spec, nullptr, pool.device()),
      global_positions_(spec, nullptr, pool.device()) {
  COCA_CHECK(options.dynamic_base == DynamicBase::kStep || options.planned_length > 0,
             "[generate] a base fixed per request needs a planned length; found {}", options.planned_length);
  for (int64_t i = 0; i < spec.L && spec.global_tokens > 0; ++i)
    globals_.push_back({.keys = Tensor({1, spec.global_tokens, spec.G, spec.key_width()}, dtype, pool.device()),
                        .values = Tensor({1, spec.global_tokens, spec.G, spec.D}, dtype, pool.device())});
  if (!spec.modifiers.empty()) earlier_.resize(static_cast<size_t>(spec.L));
  for (Earlier& e : earlier_) {
    if (model::has_stage(spec, model::Stage::kKeys)) {
      e.kt = Tensor({1, kKept, spec.G, spec.key_width()}, dtype, pool.device());
      e.v = Tensor({1, kKept, spec.G, spec.D}, dtype, pool.device());
    }
    if (model::has_stage(spec, model::Stage::kDecay)) {
      e.last_decay = Tensor({1, spec.H, 2}, DType::kF32, pool.device());
      e.ends = Tensor({1, kKept, spec.H, 2}, DType::kF32, pool.device());
    }
  }
}

Sequence Sequence::fork() const {
  Sequence copy(spec_, dtype_, pool_, options_);
  copy.cache_ = cache_;
  Context cx(pool_.device());
  for (size_t i = 0; i < globals_.size(); ++i) {
    transfer(cx, copy.globals_[i].keys, globals_[i].keys);
    transfer(cx, copy.globals_[i].values, globals_[i].values);
  }
  for (size_t i = 0; i < earlier_.size(); ++i) {
    Earlier& to = copy.earlier_[i];
    const Earlier& from = earlier_[i];
    if (!from.decay.empty()) to.decay = Tensor(from.decay.shape(), DType::kF32, pool_.device());
    for (const auto& [y, x] :
         {std::pair(&to.kt, &from.kt), std::pair(&to.v, &from.v), std::pair(&to.decay, &from.decay),
          std::pair(&to.last_decay, &from.last_decay), std::pair(&to.ends, &from.ends)})
      if (!x->empty()) transfer(cx, *y, *x);
  }
  copy.kept_from_ = kept_from_;
  copy.ends_ = ends_;
  copy.next_end_ = next_end_;
  return copy;
}

void Sequence::truncate(int64_t length) {
  const int64_t behind = cache_.forgotten() > 0 ? cache_.forgotten() + kKvPage : 0;
  COCA_CHECK(
      behind == 0 || length + 1 - spec_.pattern.window >= behind,
      "[generate] cannot truncate to {}: the window would need tokens that the cache has dropped ({} before token {})",
      counted(length, "token"), cache_.forgotten(), behind);
  if (!earlier_.empty() && length < cache_.length()) {
    const bool keys = !earlier_.front().kt.empty();
    COCA_CHECK(
        !keys || length == 0 || length > kept_from_,
        "[generate] cannot truncate {} to {}: attention modifier kv-shift needs the token before, and the last {} "
        "are kept; fork the sequence where it is to go on",
        counted(cache_.length(), "token"), length, kKept);
    if (length > 0) restore_decay(length);
    for (int64_t& end : ends_)  // other tokens may end there next time
      if (end > length) end = -1;
  }
  cache_.truncate(length);
}

// As it was when the sequence had this length: exactly so if a call ended there, else without what its rounding left
// out.
void Sequence::restore_decay(int64_t length) {
  const auto end = std::ranges::find(ends_, length);
  Context cx(pool_.device());
  for (Earlier& e : earlier_) {
    if (e.decay.empty()) continue;
    const MutTensorRef last = e.last_decay.ref().reshape({1, 1, spec_.H, 2});
    if (end != ends_.end()) {
      ops::copy_heads(cx, e.ends.ref().narrow(1, end - ends_.begin(), 1), last);
      continue;
    }
    set_zero(cx, e.last_decay);
    ops::copy_heads(cx, e.decay.ref().reshape({1, 1, spec_.H, e.decay.size(2)}).narrow(3, length - 1, 1),
                    last.narrow(3, 0, 1));
  }
}

model::LayerCarry Sequence::carry(Context& cx, size_t layer, int64_t N, model::LayerActs& acts) {
  if (earlier_.empty()) return {};
  Earlier& e = earlier_[layer];
  const int64_t n = cache_.length();
  model::LayerCarry carry{.kt = {}, .v = {}, .decay = e.last_decay.ref(), .first = n == 0};
  if (n > 0 && !e.kt.empty()) {
    carry.kt = e.kt.ref().narrow(1, (n - 1) % kKept, 1);
    carry.v = e.v.ref().narrow(1, (n - 1) % kKept, 1);
  }
  if (e.last_decay.empty()) return carry;
  if (e.decay.empty() || e.decay.size(2) < n + N) {
    const int64_t room = std::max(2 * n, (n + N + kKvPage - 1) / kKvPage * kKvPage);
    Tensor more({1, spec_.H, room}, DType::kF32, pool_.device());
    const auto tokens = [&](Tensor& t) { return t.ref().reshape({1, 1, spec_.H, t.size(2)}).narrow(3, 0, n); };
    if (n > 0) ops::copy_heads(cx, tokens(e.decay), tokens(more));
    e.decay = std::move(more);
  }
  acts.decay = e.decay.ref().narrow(2, n, N);
  return carry;
}

TensorRef Sequence::decays(size_t layer, int64_t N) const {
  if (earlier_.empty() || earlier_[layer].decay.empty()) return {};
  const TensorRef all = earlier_[layer].decay.ref();
  return all.reshape({spec_.H, all.size(2)}).narrow(1, 0, cache_.length() + N);
}

void Sequence::keep(Context& cx, size_t layer, TensorRef kt_in, TensorRef v_in) {
  if (earlier_.empty()) return;
  Earlier& e = earlier_[layer];
  if (!e.ends.empty()) {
    if (layer == 0) {  // the layers of a call share a place
      if (ends_.size() < static_cast<size_t>(kKept)) ends_.push_back(0);
      next_end_ = ends_.size() < static_cast<size_t>(kKept) ? ends_.size() - 1 : (next_end_ + 1) % ends_.size();
      ends_[next_end_] = cache_.length() + kt_in.size(1);
    }
    ops::copy_heads(cx, e.last_decay.ref().reshape({1, 1, spec_.H, 2}),
                    e.ends.ref().narrow(1, static_cast<int64_t>(next_end_), 1));
  }
  if (e.kt.empty()) return;
  const int64_t N = kt_in.size(1), end = cache_.length() + N, first = std::max(cache_.length(), end - kKept);
  for (int64_t n = first; n < end;) {
    const int64_t at = n % kKept, count = std::min(end - n, kKept - at), from = n - cache_.length();
    ops::copy_heads(cx, kt_in.narrow(1, from, count), e.kt.ref().narrow(1, at, count));
    ops::copy_heads(cx, v_in.narrow(1, from, count), e.v.ref().narrow(1, at, count));
    n += count;
  }
  kept_from_ = std::max(kept_from_, end - kKept);
}

int64_t Sequence::scaling_length(int64_t N, int64_t end) const {
  const int64_t reached = std::max(end, cache_.length() + N);
  return options_.dynamic_base == DynamicBase::kRequest ? std::max(options_.planned_length, reached) : reached;
}

// Builds the angles of the cached keys: those in the window (or all), and those beyond it.
void Sequence::build_angles(int64_t N, const ops::Rotation& rotation) {
  const int64_t length = cache_.length(), held = cache_.held() + N;
  angles_.build(rotation, held,
                {.start = static_cast<double>(cache_.forgotten()), .origin = model::growth_origin(spec_, length, N)});
  if (!spec_.rope_layers.empty())
    flat_angles_.build({.frequencies = std::vector<double>(rotation.frequencies.size())}, held);
  const model::AttentionPattern& pattern = spec_.pattern;
  if (!pattern.far()) return;
  ops::Rotation far = rotation;
  const bool all_alike = pattern.type == model::Pattern::kLmInfinite || pattern.type == model::Pattern::kReRope;
  if (all_alike) std::fill(far.frequencies.begin(), far.frequencies.end(), 0.0);  // all at position 0
  far_angles_.build(far, pattern.far_tokens(held),
                    {.group = pattern.type == model::Pattern::kSelfExtend ? pattern.group : 1});
}

ops::DecodeFar Sequence::far_side(const model::AttentionInputs& inputs, int64_t N) const {
  ops::DecodeFar far;
  if (!spec_.pattern.far()) return far;
  far.tokens = spec_.pattern.far_tokens(cache_.held() + N);
  const auto& [at, scope] = inputs;
  far.angles = at.far_rows.cos.empty() ? nullptr : &far_angles_;
  far.most_distance = scope.far_most_distance;
  far.most_position = scope.far_most_position;
  far.forgotten = cache_.forgotten();
  return far;
}

// For tokens after the global ones, which see these beyond their window at the same positions.
ops::DecodeFar Sequence::global_side(const model::Positions& at) const {
  ops::DecodeFar far;
  far.tokens = spec_.global_tokens;
  far.range = ops::FarRange::kAll;
  far.angles = at.rows.cos.empty() ? nullptr : &angles_;
  return far;
}

Sequence::Place Sequence::place(int64_t N, int64_t scaling_length, const ops::Rotation& rotation) {
  // Keys that no later query can see make room, one page at a time.
  if (spec_.pattern.forgets()) cache_.forget_before(cache_.length() + 1 - spec_.pattern.window);
  cache_.reserve(cache_.held() + N);
  const int64_t length = cache_.length();
  Place place{.at = positions_.at(length, N, scaling_length, rotation), .far = {}};
  if (model::transforms_keys(spec_.attention)) build_angles(N, rotation);
  place.far = spec_.global_tokens > 0 ? global_side(place.at.positions) : far_side(place.at, N);
  if (length < spec_.global_tokens)
    globals_at_ =
        global_positions_.at(0, std::min(length + N, spec_.global_tokens), scaling_length, rotation).positions;
  return place;
}

}  // namespace coca::infer
