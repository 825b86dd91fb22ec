// SPDX-License-Identifier: Apache-2.0
#include "coca/train/positions.h"

#include <algorithm>

#include "coca/base/count.h"
#include "coca/model/clex.h"

namespace coca::train {

namespace {

// randint(low, high), both ends included.
int64_t between(Rng& rng, int64_t low, int64_t high) {
  return low + static_cast<int64_t>(rng.below(static_cast<uint64_t>(high - low + 1)));
}

// The scaling as it will be read from the result's config.json: numbers of other types are left out, and the original
// context is given if the type uses one.
model::ModelSpec rescaled(const model::ModelSpec& spec, model::Scaling type, std::optional<double> factor) {
  using model::Scaling;
  model::ModelSpec from = spec;
  const int64_t original =
      spec.rope_scaling.original_max_position > 0 ? spec.rope_scaling.original_max_position : spec.max_position;
  if (spec.rope_scaling.type != type) from.rope_scaling = {};
  model::ModelSpec out = model::with_scaling(from, type, factor);
  const bool reckons = type == Scaling::kYarn || type == Scaling::kYarnPaper || type == Scaling::kLlama3 ||
                       type == Scaling::kLongRope || type == Scaling::kClex;
  out.rope_scaling.original_max_position = reckons ? original : 0;
  return out;
}

}  // namespace

void check_plain_steps(const PositionOptions& p, int64_t steps) {
  COCA_CHECK(p.plain_steps >= 0 && p.plain_steps < steps, "plain_steps is {}; expected 0 or more, and less than the {}",
             p.plain_steps, counted(steps, "step"));
}

void check_positions(const PositionOptions& p, model::AttentionKind attention, int64_t length) {
  COCA_CHECK(p.rope_scaling || !p.factor, "factor is {}; it belongs to a rope_scaling, and none is given",
             p.factor.value_or(0));
  if (!p.draws()) {
    COCA_CHECK(p.target_length == 0, "target_length is {}; positions \"plain\" does not use it", p.target_length);
    return;
  }
  COCA_CHECK(!model::uses_alibi(attention),
             "positions \"{}\": ALiBi's bias depends on the distance in tokens; attention \"{}\" takes no positions",
             enum_name(p.draw), enum_name(attention));
  COCA_CHECK(model::uses_rotary(attention), "positions \"{}\": attention \"{}\" does not use positions",
             enum_name(p.draw), enum_name(attention));
  COCA_CHECK(p.target_length > length, "target_length is {}; positions \"{}\" needs more than the length {}",
             p.target_length, enum_name(p.draw), length);
  COCA_CHECK(p.target_length <= int64_t{1} << 40, "target_length {} exceeds 2^40", p.target_length);
}

model::ModelSpec scaled_spec(const PositionOptions& p, const model::ModelSpec& spec) {
  model::ModelSpec out = p.rope_scaling ? rescaled(spec, *p.rope_scaling, p.factor) : spec;
  const bool clex = out.rope_scaling.type == model::Scaling::kClex;
  COCA_CHECK(p.plain_steps == 0 || clex || p.draws(),
             "plain_steps is {}; without positions random or pose, or rope scaling clex, all steps are plain",
             p.plain_steps);
  COCA_CHECK(!clex || !p.draws(), "positions \"{}\": rope scaling clex draws its own", enum_name(p.draw));
  return out;
}

ClexDraws clex_draws(const model::ModelSpec& s) {
  if (s.rope_scaling.type != model::Scaling::kClex) return {};
  return {.max_factor = s.rope_scaling.max_factor, .trained_length = model::clex_trained_length(s)};
}

Rng position_rng(uint64_t seed, int64_t k) { return Rng(seed, mix64(static_cast<uint64_t>(k)) ^ 0x705e); }

// Floyd's sampling would need fewer draws, but a set and a sort. This one (Knuth, algorithm S) visits every
// position once and takes it with the remaining probability.
void draw_random(Rng& rng, int64_t target_length, std::span<double> out) {
  int64_t place = 0;
  for (size_t taken = 0; taken < out.size(); ++place)
    if (rng.below(static_cast<uint64_t>(target_length - place)) < out.size() - taken)
      out[taken++] = static_cast<double>(place);
}

// The published code cuts a text to five windows, and draws the end of the second chunk within it.
PoseCut draw_pose(Rng& rng, int64_t N, int64_t target_length, int64_t readable) {
  constexpr int64_t kWindows = 5;
  PoseCut cut;
  cut.first = between(rng, 1, (N + 1) / 2);
  cut.skipped_tokens = between(rng, 0, std::min(kWindows * N, readable - 1) - N);
  cut.skipped_positions = between(rng, 0, target_length - N);
  return cut;
}

void pose_positions(const PoseCut& cut, std::span<double> out) {
  for (size_t i = 0; i < out.size(); ++i) {
    const auto place = static_cast<int64_t>(i);
    out[i] = static_cast<double>(place < cut.first ? place : place + cut.skipped_positions);
  }
}

int64_t draw_clex_factor(uint64_t seed, int64_t step, int64_t max_factor) {
  Rng rng(seed, mix64(static_cast<uint64_t>(step)) ^ 0xc1e8);
  return between(rng, 1, max_factor);
}

void draw_clex(Rng& rng, int64_t factor, int64_t trained_length, std::span<double> out) {
  const auto N = static_cast<int64_t>(out.size());
  out[0] = 0;
  if (N < 2) return;
  const int64_t divisor = std::max<int64_t>(1, N / trained_length);
  const std::span<double> between_ends = out.subspan(1, out.size() - 2);
  draw_random(rng, N * factor - 2, between_ends);
  for (double& place : between_ends) place = (place + 1) / static_cast<double>(divisor);
  const int64_t last = N * factor / divisor - 1;
  out.back() = static_cast<double>(last);
}

}  // namespace coca::train
