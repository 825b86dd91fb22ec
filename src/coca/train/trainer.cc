// SPDX-License-Identifier: Apache-2.0
#include "coca/train/trainer.h"

#include <algorithm>

#include "coca/base/count.h"
#include "coca/io/json_file.h"
#include "coca/train/slices.h"

namespace coca::train {

namespace {

std::optional<int64_t> widen(std::optional<int32_t> id) { return id ? std::optional<int64_t>(*id) : std::nullopt; }

model::ModelSpec spec_for(const TrainConfig& config, const TrainData& data) {
  COCA_CHECK(data.tokens.vocab_size() <= data.tokenizer.vocab_size(),
             "training data uses {}, but the tokenizer has {}: they do not belong together",
             counted(data.tokens.vocab_size(), "id"), grouped(data.tokenizer.vocab_size()));
  return trained_spec(config, data.tokenizer);
}

const TrainConfig& checked(const TrainConfig& config) {
  check_config(config);
  return config;
}

std::optional<TextValidation> validation_for(const TrainConfig& config, const TrainData& data) {
  if (!data.validation || config.validation_windows == 0) return std::nullopt;
  return std::optional<TextValidation>(std::in_place, *data.validation, config.length);
}

LoopOptions loop_options(const TrainConfig& c, const TrainConfig& given) {
  return loop_options_of(c, given, {.batch = c.batch, .accumulation = c.accumulation, .length = c.length},
                         {{.train = {}, .steps = c.steps, .schedule = make_schedule(c), .adamw = make_adamw(c)}});
}

std::optional<MaskedBatches> masked_batches(const TrainConfig& c, const TrainData& data, const Batches& source) {
  if (c.direction == model::Direction::kCausal) return std::nullopt;
  return std::optional<MaskedBatches>(std::in_place, source,
                                      BatchShape{.batch = c.batch, .accumulation = c.accumulation, .length = c.length},
                                      data::masked_tokens(data.tokenizer), static_cast<uint64_t>(c.seed));
}

std::optional<MaskedValidation> masked_validation(const TrainConfig& c, const TrainData& data,
                                                  const std::optional<TextValidation>& source) {
  if (c.direction == model::Direction::kCausal || !source) return std::nullopt;
  return std::optional<MaskedValidation>(std::in_place, *source, data::masked_tokens(data.tokenizer));
}

std::optional<data::TaskMaker> task_maker(const TrainConfig& c, const TrainData& data) {
  if (c.tasks.tasks.empty()) return std::nullopt;
  check_tasks(c, data.tokenizer);
  return std::optional<data::TaskMaker>(std::in_place, c.tasks.sizes, c.length, data.tokenizer);
}

std::optional<TaskBatches> task_batches(const TrainConfig& c, const TrainData& data, const BatchSource& source,
                                        const std::optional<data::TaskMaker>& maker) {
  if (!maker) return std::nullopt;
  return std::optional<TaskBatches>(
      std::in_place, source, BatchShape{.batch = c.batch, .accumulation = c.accumulation, .length = c.length}, c.tasks,
      *maker, data.tokens, task_share(c.tasks, data.tokenizer), static_cast<uint64_t>(c.seed));
}

// Its needles are hidden in text that is not trained on, if there is some.
std::optional<TaskExam> exam_of(const TrainConfig& c, const TrainData& data,
                                const std::optional<data::TaskMaker>& maker) {
  if (!maker) return std::nullopt;
  return std::optional<TaskExam>(std::in_place, c.tasks, c.length, static_cast<uint64_t>(c.seed), *maker,
                                 data.validation ? *data.validation : data.tokens);
}

// What the model was taught beside its text.
CompleteFolder completed_by(const TrainConfig& c) {
  if (c.passkey_share == 0 && c.passkey_first_steps == 0) return {};
  return [task = data::PasskeyTask{.wording = c.passkey_wording, .digits = c.passkey_digits}](
             const std::filesystem::path& dir) { data::save_passkey_task(dir, task); };
}

LoopData loop_data(const TrainConfig& c, const TrainData& data, const BatchSource& batches,
                   const ValidationSource* validation, const TaskExam* exam) {
  return {.batches = batches,
          .validation = validation,
          .tokenizer = data.tokenizer,
          .tokens = task_share(c.tasks, data.tokenizer) == 1 ? 0 : data.tokens.size(),
          .fingerprint = data.tokens.content_fingerprint(),
          .complete = completed_by(c),
          .exam = exam};
}

}  // namespace

int64_t padded_vocabulary(const text::Tokenizer& tokenizer, model::Direction direction) {
  int64_t ids = tokenizer.vocab_size();
  if (direction == model::Direction::kBidirectional)
    ids = std::max<int64_t>(ids, data::masked_tokens(tokenizer).mask_id + 1);
  return (ids + 15) / 16 * 16;
}

model::ModelSpec trained_spec(const TrainConfig& config, const text::Tokenizer& tokenizer) {
  model::ModelSpec spec = make_spec(config, padded_vocabulary(tokenizer, config.direction), widen(tokenizer.bos_id()),
                                    widen(tokenizer.eos_id()));
  if (config.direction == model::Direction::kBidirectional) spec.mask_id = data::masked_tokens(tokenizer).mask_id;
  return spec;
}

std::filesystem::path check_start(const TrainConfig& given, const text::Tokenizer& tokenizer, Start start, int ranks) {
  const TrainConfig config = in_slices(checked(given), ranks);
  Batches::check_passkeys(Batches::options_of(config), tokenizer);
  check_tasks(config, tokenizer);
  return check_start(loop_options(config, given), trained_spec(config, tokenizer), start, ranks);
}

void warn_of_start(const TrainConfig& given, const std::filesystem::path& checkpoint, int ranks) {
  warn_of_start(loop_options(in_slices(given, ranks), given), checkpoint);
}

void check_data(const TrainConfig& config, const TrainData& data) {
  spec_for(config, data);
  const Batches batches(config, data.tokens, data.tokenizer);
  check_tasks(config, data.tokenizer);
  validation_for(config, data);
}

Trainer::Trainer(const TrainConfig& config, const TrainData& data, Start start, dist::Communicator& ranks, Claim claim)
    : config_(in_slices(checked(config), ranks.size())),
      batches_(config_, data.tokens, data.tokenizer),
      validation_(validation_for(config_, data)),
      maker_(task_maker(config_, data)),
      task_batches_(task_batches(config_, data, batches_, maker_)),
      exam_(exam_of(config_, data, maker_)),
      masked_(masked_batches(config_, data, batches_)),
      masked_validation_(masked_validation(config_, data, validation_)),
      loop_(
          loop_options(config_, config), spec_for(config, data),
          loop_data(config, data,
                    masked_         ? static_cast<const BatchSource&>(*masked_)
                    : task_batches_ ? *task_batches_
                                    : static_cast<const BatchSource&>(batches_),
                    masked_validation_ ? static_cast<const ValidationSource*>(&*masked_validation_)
                    : validation_      ? &*validation_
                                       : nullptr,
                    exam_ ? &*exam_ : nullptr),
          start,
          [&](model::ParamStore& params) {
            model::initialise(spec_for(config, data), static_cast<uint64_t>(config.seed), params);
          },
          ranks, std::move(claim)) {}

}  // namespace coca::train
