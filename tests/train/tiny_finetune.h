// tests/train/tiny_finetune.h - a tiny model folder, examples for it, and a config to fine-tune it with.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "coca/formats/model_folder.h"
#include "coca/train/finetune.h"
#include "support/tiny_model.h"
#include "train/tiny_run.h"

namespace coca::test {

// Adapts a model of two layers to the byte tokenizer.
inline model::ModelSpec byte_spec(model::ModelSpec s) {
  s.V = 272;
  s.max_position = 24;
  s.bos_id = 256;
  s.eos_ids = {256};
  return s;
}

inline void put_model(const std::filesystem::path& dir, const model::ModelSpec& spec, uint64_t seed = 1) {
  const TinyModel m(spec, seed);
  io::make_dirs(dir);
  formats::save_model(dir, spec, m.params);
  text::make_byte_tokenizer()->save(dir);
}

// Questions such as "2+3=" with their answers, of different lengths.
inline data::TokenDocuments tiny_examples(int64_t count, uint64_t seed, std::optional<int32_t> bos = 256) {
  Rng rng(seed);
  data::TokenDocuments documents;
  for (int64_t i = 0; i < count; ++i) {
    data::TokenDocument d;
    const auto add = [&](int32_t id, bool counts) { d.ids.push_back(id), d.counts.push_back(counts); };
    if (bos) add(*bos, false);
    const uint64_t prompt = 2 + rng.below(8), answer = 1 + rng.below(5);
    for (uint64_t k = 0; k < prompt; ++k) add(static_cast<int32_t>('a' + rng.below(6)), false);
    for (uint64_t k = 0; k < answer; ++k) add(static_cast<int32_t>('0' + k), true);
    add(256, true);
    documents.add(d);
  }
  return documents;
}

struct TinyExamples {
  std::unique_ptr<text::Tokenizer> tokenizer = text::make_byte_tokenizer();
  data::TokenDocuments examples = tiny_examples(60, 1), validation = tiny_examples(10, 2);

  train::FinetuneData data() const {
    return {.tokenizer = *tokenizer, .examples = &examples, .validation_examples = &validation};
  }
};

inline train::FinetuneConfig tiny_finetune(const std::filesystem::path& model, const std::filesystem::path& out) {
  train::FinetuneConfig c;
  c.model = model.string();
  c.out = out.string();
  c.data = {"given"};
  c.steps = 3;
  c.batch = 2;
  c.accumulation = 2;
  c.warmup_steps = 1;
  c.learning_rate = 3e-3;
  c.validation_interval = 2;
  c.validation_windows = 3;
  c.log_interval = 2;
  c.checkpoint_interval = 0;
  return c;
}

}  // namespace coca::test
