// tests/train/tiny_run.h - a tiny training run: config, data, whole runs, and comparison of their files.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <string>
#include <vector>

#include "coca/base/rng.h"
#include "coca/io/csv.h"
#include "coca/io/fs.h"
#include "coca/train/trainer.h"
#include "support/paths.h"

namespace coca::test {

inline train::TrainConfig tiny_config(const std::filesystem::path& out) {
  train::TrainConfig c;
  c.layers = 2;
  c.width = 32;
  c.heads = 2;
  c.length = 16;
  c.batch = 2;
  c.steps = 12;
  c.warmup_steps = 3;
  c.learning_rate = 3e-3;
  c.min_learning_rate = 3e-4;
  c.out = out.string();
  c.log_interval = 3;
  c.validation_interval = 0;
  c.checkpoint_interval = 4;
  return c;
}

// n random lower-case letters, the first `alphabet` ones, as tokens of the byte tokenizer.
inline data::TokenFile random_letters(int64_t n, uint64_t seed, uint64_t alphabet = 26) {
  Rng rng(seed);
  std::vector<int32_t> tokens(static_cast<size_t>(n));
  for (int32_t& id : tokens) id = static_cast<int32_t>('a' + rng.below(alphabet));
  return data::TokenFile::from_tokens(std::move(tokens), {0, n}, 257);
}

struct TinyData {
  std::unique_ptr<text::Tokenizer> tokenizer = text::make_byte_tokenizer();
  data::TokenFile tokens = random_letters(2000, 1), validation = random_letters(200, 2);

  train::TrainData with_validation() const {
    return {.tokens = tokens, .validation = &validation, .tokenizer = *tokenizer};
  }
  train::TrainData without_validation() const { return {.tokens = tokens, .tokenizer = *tokenizer}; }
};

inline std::vector<float> values_of(const model::TensorStore& params) {
  const float* values = params.flat().as<float>();
  return {values, values + params.flat().numel()};
}

// Weights and moments of a run's newest checkpoint, as bytes of the files.
inline std::string newest_bytes(const std::filesystem::path& out) {
  const auto newest = train::latest_checkpoint(out);
  if (!newest) return "no checkpoint";
  return newest->filename().string() + io::read_file(*newest / "model.safetensors") +
         io::read_file(*newest / "optimizer.safetensors");
}

// metrics.csv without the columns that hold times.
inline std::vector<std::vector<std::string>> metrics_without_times(const std::filesystem::path& out) {
  auto rows = io::parse_csv(io::read_file(out / "metrics.csv"));
  const std::vector<std::string> header = rows.at(0);
  for (auto& row : rows)
    for (size_t i = header.size(); i-- > 0;)
      if (header[i] == "seconds" || header[i] == "tokens_per_second")
        row.erase(row.begin() + static_cast<std::ptrdiff_t>(i));
  return rows;
}

template <typename Action>
void expect_error(const Action& action, ErrorKind kind, const std::string& text) {
  try {
    action();
    ADD_FAILURE() << "no Error; expected \"" << text << "\"";
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), kind) << error.what();
    EXPECT_THAT(error.what(), testing::HasSubstr(text));
  }
}

}  // namespace coca::test
