// SPDX-License-Identifier: Apache-2.0
#include "coca/train/batches.h"

#include <algorithm>
#include <numeric>
#include <vector>

#include "coca/base/count.h"
#include "coca/base/rng.h"

namespace coca::train {

namespace {

std::span<int32_t> row_of(const MutTensorRef& t, int64_t row) {
  return {t.as<int32_t>() + row * t.size(1), static_cast<size_t>(t.size(1))};
}

}  // namespace

Batches::Options Batches::options_of(const TrainConfig& c) {
  return {.shape = {.batch = c.batch, .accumulation = c.accumulation, .length = c.length},
          .seed = static_cast<uint64_t>(c.seed),
          .passkey_share = c.passkey_share,
          .passkey_wording = c.passkey_wording,
          .passkey_digits = c.passkey_digits,
          .passkey_first_steps = c.passkey_first_steps,
          .positions = c.positions,
          .clex = clex_draws(make_spec(c, 1, {}, {}))};
}

Batches::Batches(const TrainConfig& config, const data::TokenFile& tokens, const text::Tokenizer& tokenizer)
    : Batches(options_of(config), tokens, tokenizer) {}

int64_t slices_for(int64_t asked, int ranks) {
  COCA_CHECK(asked >= 0 && asked % ranks == 0, "slices is {}; expected 0 (one a rank) or a multiple of the {}", asked,
             counted(ranks, "rank"));
  return asked > 0 ? asked : ranks;
}

BatchShape shape_in_slices(const BatchShape& shape, int64_t slices) {
  const int64_t windows = shape.batch * shape.accumulation;
  COCA_CHECK(slices >= 1 && windows % slices == 0,
             "a step of {} ({} x {}) cannot be divided into {} equal slices, one or more for each rank",
             counted(windows, "window"), shape.batch, shape.accumulation, slices);
  const int64_t slice = windows / slices;
  int64_t batch = std::min(shape.batch, slice);
  while (slice % batch != 0) --batch;
  return {.batch = batch, .accumulation = windows / batch, .length = shape.length};
}

Batches::Batches(const Options& options, const data::TokenFile& tokens, const text::Tokenizer& tokenizer)
    : options_(options), tokens_(tokens), tokenizer_(tokenizer), sampler_(tokens, options.shape.length, options.seed) {
  check_passkeys(options, tokenizer);
}

void Batches::check_passkeys(const Options& o, const text::Tokenizer& tokenizer) {
  if (o.passkey_share == 0 && o.passkey_first_steps == 0) return;
  try {
    Rng rng(0);
    data::make_passkey_prompt(o.passkey_wording, o.shape.length + 1, 0.5, tokenizer, rng, o.passkey_digits);
  } catch (const Error& error) {
    fail(error.kind(), "length {}: no window has room for the passkey task: {}; {} 0 leaves the task out",
         o.shape.length, error.what(), o.passkey_share > 0 ? "--passkey-share" : "--passkey-first-steps");
  }
}

// 1 in the plain steps, where the ODE starts and the network has no effect.
int64_t Batches::clex_factor(int64_t step) const {
  return plain(step) ? 1 : draw_clex_factor(options_.seed, step, options_.clex.max_factor);
}

// CLEX's positions represent t times the trained length, or t times a longer window.
int64_t Batches::drawn_length(int64_t step) const {
  if (options_.clex.max_factor > 0) return clex_factor(step) * options_.clex.trained_length;
  return plain(step) ? options_.shape.length : options_.positions.target_length;
}

// The second chunk of a cut window is taken from a later part of the text.
void Batches::text_window(int64_t k, const PoseCut& cut, std::span<int32_t> ids) const {
  if (cut.skipped_tokens == 0) return sampler_.window(k, ids);
  const int64_t start = sampler_.window_start(k);
  const auto first = static_cast<size_t>(cut.first);
  tokens_.read(start, ids.first(first));
  tokens_.read(start + cut.first + cut.skipped_tokens, ids.subspan(first));
}

void Batches::make_window(int64_t step, int64_t k, std::vector<int32_t>& ids, std::span<double> positions) const {
  const int64_t N = options_.shape.length;
  const double share = step < options_.passkey_first_steps ? 1.0 : options_.passkey_share;
  Rng rng(options_.seed, mix64(static_cast<uint64_t>(k)) ^ 0xba7c4);
  const bool passkey = rng.uniform() < share;
  Rng places = position_rng(options_.seed, k);
  PoseCut cut;
  if (options_.clex.max_factor > 0) {
    draw_clex(places, clex_factor(step), options_.clex.trained_length, positions);
  } else if (plain(step)) {
    std::iota(positions.begin(), positions.end(), 0.0);
  } else if (options_.positions.draw == PositionDraw::kRandom) {
    draw_random(places, options_.positions.target_length, positions);
  } else if (options_.positions.draw == PositionDraw::kPose) {
    // No part of a passkey prompt may be left out, or its question has no answer.
    cut = draw_pose(places, N, options_.positions.target_length,
                    passkey ? N + 1 : tokens_.size() - sampler_.window_start(k));
    pose_positions(cut, positions);
  }
  if (passkey)
    ids = data::passkey_training_window(options_.passkey_wording, N + 1, tokenizer_, rng, options_.passkey_digits);
  else
    text_window(k, cut, ids);
}

void Batches::fill(int64_t step, int64_t part, const Batch& out) const {
  const auto& [B, accumulation, length] = options_.shape;
  const auto N = static_cast<size_t>(length);
  COCA_CHECK(!draws() || out.positions.size() == N * static_cast<size_t>(B), "batches: room for {}; {} are drawn",
             coca::counted(out.positions.size(), "position"), N * static_cast<size_t>(B));
  std::vector<int32_t> ids(N + 1);
  for (int64_t row = 0; row < B; ++row) {
    const std::span<double> positions =
        draws() ? out.positions.subspan(static_cast<size_t>(row) * N, N) : std::span<double>();
    make_window(step, (step * accumulation + part) * B + row, ids, positions);
    std::copy_n(ids.begin(), N, row_of(out.ids, row).begin());
    std::copy_n(ids.begin() + 1, N, row_of(out.targets, row).begin());
  }
}

MaskedBatches::MaskedBatches(const BatchSource& source, const BatchShape& shape, const data::MaskedTokens& tokens,
                             uint64_t seed)
    : source_(source), shape_(shape), tokens_(tokens), seed_(seed) {}

void MaskedBatches::fill(int64_t step, int64_t part, const Batch& out) const {
  source_.fill(step, part, out);
  for (int64_t row = 0; row < shape_.batch; ++row) {
    const int64_t k = (step * shape_.accumulation + part) * shape_.batch + row;
    Rng rng(seed_, mix64(static_cast<uint64_t>(k)) ^ 0x3a5c);
    data::mask_window(tokens_, rng, row_of(out.ids, row), row_of(out.targets, row));
  }
}

int64_t MaskedBatches::counted(int64_t) const {
  return shape_.batch * shape_.accumulation * data::chosen_tokens(shape_.length);
}

void MaskedValidation::window(int64_t i, const data::WindowRow& out) const {
  source_.window(i, out);
  Rng rng(0, mix64(static_cast<uint64_t>(i)) ^ 0x3a5c);
  data::mask_window(tokens_, rng, out.ids, out.targets);
}

PackedBatches::PackedBatches(const BatchShape& shape, const data::PackedWindows& windows)
    : shape_(shape), windows_(windows) {
  COCA_CHECK(windows.length() == shape.length, "documents packed into windows of {}; the batches have {}",
             windows.length(), shape.length);
}

void PackedBatches::fill(int64_t step, int64_t part, const Batch& out) const {
  for (int64_t row = 0; row < shape_.batch; ++row)
    windows_.shuffled((step * shape_.accumulation + part) * shape_.batch + row,
                      {row_of(out.ids, row), row_of(out.targets, row), row_of(out.document_start, row)});
}

int64_t PackedBatches::counted(int64_t step) const {
  std::vector<int32_t> ids(static_cast<size_t>(shape_.length)), targets(ids.size()), starts(ids.size());
  int64_t count = 0;
  const int64_t windows = shape_.accumulation * shape_.batch;
  for (int64_t k = step * windows; k < (step + 1) * windows; ++k) {
    windows_.shuffled(k, {ids, targets, starts});
    count += std::ranges::count_if(targets, [](int32_t id) { return id != data::kNoTarget; });
  }
  return count;
}

TextValidation::TextValidation(const data::TokenFile& tokens, int64_t length) : tokens_(tokens), length_(length) {
  COCA_CHECK(tokens.size() > length, "validation text has {}; one window needs {}", counted(tokens.size(), "token"),
             grouped(length + 1));
}

void TextValidation::window(int64_t i, const data::WindowRow& out) const {
  std::vector<int32_t> window(static_cast<size_t>(length_) + 1);
  tokens_.read(i * length_, window);
  std::copy_n(window.begin(), length_, out.ids.begin());
  std::copy_n(window.begin() + 1, length_, out.targets.begin());
}

}  // namespace coca::train
