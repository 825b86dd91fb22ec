// SPDX-License-Identifier: Apache-2.0
#include "coca/infer/sequence.h"

#include <algorithm>

#include "coca/base/count.h"
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
}

Sequence Sequence::fork() const {
  Sequence copy(spec_, dtype_, pool_, options_);
  copy.cache_ = cache_;
  Context cx(pool_.device());
  for (size_t i = 0; i < globals_.size(); ++i) {
    transfer(cx, copy.globals_[i].keys, globals_[i].keys);
    transfer(cx, copy.globals_[i].values, globals_[i].values);
  }
  return copy;
}

void Sequence::truncate(int64_t length) {
  const int64_t behind = cache_.forgotten() > 0 ? cache_.forgotten() + kKvPage : 0;
  COCA_CHECK(
      behind == 0 || length + 1 - spec_.pattern.window >= behind,
      "[generate] cannot truncate to {}: the window would need tokens that the cache has dropped ({} before token {})",
      counted(length, "token"), cache_.forgotten(), behind);
  cache_.truncate(length);
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
  far.rows = at.far_rows;
  far.angles = at.far_rows.cos.empty() ? nullptr : &far_angles_;
  far.most_distance = scope.far_most_distance;
  far.most_position = scope.far_most_position;
  far.forgotten = cache_.forgotten();
  return far;
}

// For tokens after the global ones, which see these beyond their window at the same positions.
ops::DecodeFar Sequence::global_side(const model::Positions& at, int64_t N) const {
  ops::DecodeFar far;
  const int64_t S = cache_.length() + N, first = std::max(cache_.length(), spec_.global_tokens);
  far.tokens = spec_.global_tokens;
  far.range = ops::FarRange::kAll;
  if (first < S) far.rows = at.rows.narrow(first - cache_.length(), S - first);
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
  place.far = spec_.global_tokens > 0 ? global_side(place.at.positions, N) : far_side(place.at, N);
  if (length < spec_.global_tokens)
    globals_at_ =
        global_positions_.at(0, std::min(length + N, spec_.global_tokens), scaling_length, rotation).positions;
  return place;
}

}  // namespace coca::infer
