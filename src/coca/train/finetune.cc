// SPDX-License-Identifier: Apache-2.0
#include "coca/train/finetune.h"

#include <cmath>

#include "coca/base/count.h"
#include "coca/formats/adapter_file.h"
#include "coca/model/t_width.h"
#include "coca/model/windows.h"
#include "coca/text/leading_id.h"
#include "coca/train/slices.h"

namespace coca::train {

namespace {

BatchShape shape_of(const FinetuneConfig& c, int64_t length) {
  return {.batch = c.batch, .accumulation = c.accumulation, .length = length};
}

int64_t steps_of(double epochs, int64_t windows, const BatchShape& shape) {
  const double steps = epochs * static_cast<double>(windows) / static_cast<double>(shape.batch * shape.accumulation);
  COCA_CHECK(steps <= static_cast<double>(kMostCount),
             "epochs is {}; with {} these are {:.3g} steps, expected at most {}", epochs, counted(windows, "window"),
             steps, kMostCount);
  return std::max<int64_t>(1, static_cast<int64_t>(std::ceil(steps - 1e-9)));
}

std::shared_ptr<model::Adapter> adapter_of(const FinetuneConfig& c, const FinetuneTarget& target) {
  const model::ModelSpec& spec = target.spec;
  if (!c.adapter.empty()) return formats::load_adapter(c.adapter, spec, target.source->fingerprint());
  if (c.lora_rank == 0) return nullptr;
  const model::LoraSettings settings{.rank = c.lora_rank,
                                     .alpha = c.lora_alpha,
                                     .dropout = c.lora_dropout,
                                     .scaling = c.lora_scaling,
                                     .base = c.model,
                                     .base_fingerprint = target.source->fingerprint()};
  auto adapter =
      std::make_shared<model::Adapter>(spec, settings, model::select_lora_targets(spec, settings, c.lora_targets));
  adapter->initialise(static_cast<uint64_t>(c.seed));
  return adapter;
}

// The source may lack CLEX's network, or have one that this run does without.
void load_start(const FinetuneConfig& c, const FinetuneTarget& target, model::ParamStore& params) {
  formats::load_params(*target.source, params);
  if (target.spec.rope_scaling.type == model::Scaling::kClex &&
      target.source->spec().rope_scaling.type != model::Scaling::kClex)
    model::initialise_clex(static_cast<uint64_t>(c.seed), params);
}

}  // namespace

FinetuneTarget finetune_target(const FinetuneConfig& config, const text::Tokenizer& tokenizer,
                               std::shared_ptr<formats::ModelFolder> source) {
  check_config(config);
  if (!source) source = std::make_shared<formats::ModelFolder>(config.model);
  source->weights();
  FinetuneTarget target{.source = source, .spec = scaled_spec(config.positions, source->spec())};
  if (!config.keep_t_width && !trains_adapter(config)) target.spec = model::folded_t(target.spec);
  target.length = config.length > 0 ? config.length : target.spec.max_position;
  check_positions(config.positions, target.spec.attention, target.length);
  COCA_CHECK(tokenizer.vocab_size() <= target.spec.V,
             "the tokenizer has {}; the model {} has {}: they do not belong together",
             counted(tokenizer.vocab_size(), "id"), config.model, grouped(target.spec.V));
  make_stages(config, target.spec, 1);  // finds mistakes in patterns before any data is read
  if (config.lora_rank > 0)
    model::select_lora_targets(target.spec, {.rank = config.lora_rank, .alpha = config.lora_alpha},
                               config.lora_targets);
  if (config.bos == LeadingBos::kAuto) target.bos = text::leading_id(tokenizer, target.spec.bos_id);
  return target;
}

FinetuneSetup::FinetuneSetup(const FinetuneConfig& given, const FinetuneData& data, int ranks)
    : target_(finetune_target(given, data.tokenizer, data.model)) {
  const FinetuneConfig config = in_slices(given, ranks);
  const BatchShape shape = shape_of(config, target_.length);
  COCA_CHECK((data.examples != nullptr) != (data.text != nullptr),
             "fine-tuning data: expected examples or text, one of them");
  int64_t windows = 0;
  if (data.examples) {
    model::require_causal(target_.spec, "fine-tuning on examples");
    pack(config, data);
    windows = windows_->windows();
  } else {
    cut_text(config, data);
    windows = data::WindowSampler(*data.text, target_.length, 0).windows_per_epoch();
  }
  options_ =
      loop_options_of(config, given, shape, make_stages(config, target_.spec, steps_of(config.epochs, windows, shape)));
  options_.adapter = adapter_of(config, target_);
  options_.dropout_seed = static_cast<uint64_t>(config.seed);
  int64_t steps = 0;
  for (const Stage& stage : options_.stages) steps += stage.steps;
  check_plain_steps(config.positions, steps);
}

Finetuner::Finetuner(const FinetuneConfig& config, const FinetuneData& data, Start start, dist::Communicator& ranks,
                     Claim claim)
    : setup_(config, data, ranks.size()) {
  const LoopData loop_data{
      .batches = setup_.batches(),
      .validation = setup_.validation(),
      .tokenizer = data.tokenizer,
      .tokens = data.examples ? data.examples->tokens() : data.text->size(),
      .fingerprint = data.examples ? data.examples->fingerprint() : data.text->content_fingerprint(),
      .complete = data.complete};
  const model::ModelSpec& spec = setup_.target().spec;
  loop_ = std::make_unique<Loop>(
      setup_.loop_options(), spec, loop_data, start,
      [&](model::ParamStore& params) { load_start(config, setup_.target(), params); }, ranks, std::move(claim));
}

void FinetuneSetup::pack(const FinetuneConfig& config, const FinetuneData& data) {
  const data::PackingOptions options{
      .length = target_.length, .seed = static_cast<uint64_t>(config.seed), .long_documents = config.long_documents};
  windows_.emplace(*data.examples, options);
  batches_ = std::make_unique<PackedBatches>(shape_of(config, target_.length), *windows_);
  if (!data.validation_examples || config.validation_windows == 0) return;
  validation_windows_.emplace(*data.validation_examples, options);
  validation_ = std::make_unique<PackedValidation>(*validation_windows_);
}

void FinetuneSetup::cut_text(const FinetuneConfig& config, const FinetuneData& data) {
  COCA_CHECK(data.text->vocab_size() <= data.tokenizer.vocab_size(),
             "the text uses {}, but the tokenizer has {}: they do not belong together",
             counted(data.text->vocab_size(), "id"), grouped(data.tokenizer.vocab_size()));
  batches_ = std::make_unique<Batches>(Batches::Options{.shape = shape_of(config, target_.length),
                                                        .seed = static_cast<uint64_t>(config.seed),
                                                        .positions = config.positions,
                                                        .clex = clex_draws(target_.spec)},
                                       *data.text, data.tokenizer);
  if (data.validation_text && config.validation_windows > 0)
    validation_ = std::make_unique<TextValidation>(*data.validation_text, target_.length);
  if (target_.spec.direction == model::Direction::kBidirectional) mask(config, data);
}

// Masked with the model's own mask token.
void FinetuneSetup::mask(const FinetuneConfig& config, const FinetuneData& data) {
  const data::MaskedTokens tokens{.mask_id = model::require_masked(target_.spec, "fine-tuning"),
                                  .vocabulary = data.tokenizer.vocab_size()};
  plain_ = std::move(batches_);
  batches_ = std::make_unique<MaskedBatches>(*plain_, shape_of(config, target_.length), tokens,
                                             static_cast<uint64_t>(config.seed));
  if (!validation_) return;
  plain_validation_ = std::move(validation_);
  validation_ = std::make_unique<MaskedValidation>(*plain_validation_, tokens);
}

}  // namespace coca::train
