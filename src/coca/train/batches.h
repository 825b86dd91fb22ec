// coca/train/batches.h - training batches as a pure function of (config, step), from a text's windows or from packed
// documents, and the windows of a validation.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "coca/data/masking.h"
#include "coca/data/packing.h"
#include "coca/data/sampler.h"
#include "coca/data/token_file.h"
#include "coca/tensor/tensor.h"
#include "coca/text/tokenizer.h"
#include "coca/train/config.h"

namespace coca::train {

struct Batch {
  MutTensorRef ids, targets;         // [B, N] i32
  MutTensorRef document_start;       // [B, N] i32, of packed documents only; empty otherwise
  std::span<double> positions = {};  // [B, N], only of a source that draws them; empty otherwise
};

// How steps are made of windows: window k = (step * accumulation + part) * batch + row.
struct BatchShape {
  int64_t batch = 1, accumulation = 1, length = 1;
  int64_t step_tokens() const { return batch * accumulation * length; }
};

// The same windows in micro-batches that do not span two of `slices` equal parts of a step. Their size is the largest
// that divides a part and is not larger than before. Error if the step's windows cannot be divided into this many
// parts.
BatchShape shape_in_slices(const BatchShape&, int64_t slices);

// The number of slices of a step whose windows are split over ranks: as requested, a multiple of the ranks; 0: one per
// rank.
int64_t slices_for(int64_t asked, int ranks);

enum class Packing : uint8_t { kNone, kDocuments };

class BatchSource {
 public:
  virtual ~BatchSource() = default;
  virtual Packing packing() const { return Packing::kNone; }
  // The sequence length that the drawn positions of a step represent; 0: positions are consecutive.
  virtual int64_t drawn_length(int64_t /*step*/) const { return 0; }
  // Writes micro-batch `part` of `step`.
  virtual void fill(int64_t step, int64_t part, const Batch&) const = 0;
  // The number of targets of the whole step that count in the loss.
  virtual int64_t counted(int64_t step) const = 0;
};

// The windows of a text, and among them the given share of windows that teach the passkey task (all windows of the
// first steps, if requested).
class Batches : public BatchSource {
 public:
  struct Options {
    BatchShape shape;
    uint64_t seed = 0;
    double passkey_share = 0.0;
    data::PasskeyWording passkey_wording = data::PasskeyWording::kCompact;
    int64_t passkey_digits = 5, passkey_first_steps = 0;
    PositionOptions positions = {};
    ClexDraws clex = {};
  };
  // The token file and the tokenizer must outlive this.
  Batches(const Options&, const data::TokenFile&, const text::Tokenizer&);
  Batches(const TrainConfig&, const data::TokenFile&, const text::Tokenizer&);
  static Options options_of(const TrainConfig&);
  // Error if passkey windows are requested and the task does not fit into a window. The constructor checks this too.
  static void check_passkeys(const Options&, const text::Tokenizer&);

  int64_t drawn_length(int64_t step) const override;
  void fill(int64_t step, int64_t part, const Batch&) const override;
  int64_t counted(int64_t) const override { return options_.shape.step_tokens(); }

 private:
  void text_window(int64_t k, const PoseCut&, std::span<int32_t> ids) const;
  bool draws() const { return options_.positions.draws() || options_.clex.max_factor > 0; }
  bool plain(int64_t step) const { return step < options_.positions.plain_steps; }
  int64_t clex_factor(int64_t step) const;
  // Window k of N + 1 tokens, and the positions of the first N of them if they are drawn.
  void make_window(int64_t step, int64_t k, std::vector<int32_t>& ids, std::span<double> positions) const;

  Options options_;
  const data::TokenFile& tokens_;
  const text::Tokenizer& tokenizer_;
  data::WindowSampler sampler_;
};

// The windows of another source with tokens masked (data/masking.h), for bidirectional models. The mask of window k
// depends on (seed, k) alone. The source must outlive this.
class MaskedBatches : public BatchSource {
 public:
  MaskedBatches(const BatchSource&, const BatchShape&, const data::MaskedTokens&, uint64_t seed);

  Packing packing() const override { return source_.packing(); }
  int64_t drawn_length(int64_t step) const override { return source_.drawn_length(step); }
  void fill(int64_t step, int64_t part, const Batch&) const override;
  int64_t counted(int64_t step) const override;

 private:
  const BatchSource& source_;
  BatchShape shape_;
  data::MaskedTokens tokens_;
  uint64_t seed_;
};

// Packed documents; the windows must outlive this.
class PackedBatches : public BatchSource {
 public:
  PackedBatches(const BatchShape&, const data::PackedWindows&);

  Packing packing() const override { return Packing::kDocuments; }
  void fill(int64_t step, int64_t part, const Batch&) const override;
  int64_t counted(int64_t step) const override;

 private:
  BatchShape shape_;
  const data::PackedWindows& windows_;
};

// Windows in a fixed order.
class ValidationSource {
 public:
  virtual ~ValidationSource() = default;
  virtual Packing packing() const { return Packing::kNone; }
  virtual int64_t windows() const = 0;
  virtual void window(int64_t i, const data::WindowRow&) const = 0;  // document_start for packed documents only
};

// Adjacent windows without overlap. The token file must outlive this.
class TextValidation : public ValidationSource {
 public:
  TextValidation(const data::TokenFile&, int64_t length);
  int64_t windows() const override { return (tokens_.size() - 1) / length_; }
  void window(int64_t i, const data::WindowRow&) const override;

 private:
  const data::TokenFile& tokens_;
  int64_t length_;
};

// The windows of another validation with tokens masked, always the same tokens. The source must outlive this.
class MaskedValidation : public ValidationSource {
 public:
  MaskedValidation(const ValidationSource& source, const data::MaskedTokens& tokens)
      : source_(source), tokens_(tokens) {}
  Packing packing() const override { return source_.packing(); }
  int64_t windows() const override { return source_.windows(); }
  void window(int64_t i, const data::WindowRow&) const override;

 private:
  const ValidationSource& source_;
  data::MaskedTokens tokens_;
};

class PackedValidation : public ValidationSource {
 public:
  explicit PackedValidation(const data::PackedWindows& windows) : windows_(windows) {}
  Packing packing() const override { return Packing::kDocuments; }
  int64_t windows() const override { return windows_.windows(); }
  void window(int64_t i, const data::WindowRow& out) const override { windows_.window(i, out); }

 private:
  const data::PackedWindows& windows_;
};

}  // namespace coca::train
