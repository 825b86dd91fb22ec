// SPDX-License-Identifier: Apache-2.0
#include "coca/train/batches.h"

#include <algorithm>
#include <vector>

#include "coca/base/rng.h"

namespace coca::train {

Batches::Batches(const TrainConfig& config, const data::TokenFile& tokens, const text::Tokenizer& tokenizer)
    : config_(config), tokenizer_(tokenizer), sampler_(tokens, config.length, static_cast<uint64_t>(config.seed)) {
  if (config.passkey_share > 0 || config.passkey_first_steps > 0) {  // fail now, not at the first prompt
    Rng rng(0);
    data::make_passkey_prompt(config.passkey_wording, config.length + 1, 0.5, tokenizer, rng, config.passkey_digits);
  }
}

void Batches::fill(int64_t step, int64_t part, Tensor& ids, Tensor& targets) const {
  const auto N = static_cast<size_t>(config_.length);
  const double share = step < config_.passkey_first_steps ? 1.0 : config_.passkey_share;
  std::vector<int32_t> window(N + 1);
  for (int64_t row = 0; row < config_.batch; ++row) {
    const int64_t k = (step * config_.accumulation + part) * config_.batch + row;
    Rng rng(static_cast<uint64_t>(config_.seed), mix64(static_cast<uint64_t>(k)) ^ 0xba7c4);
    if (rng.uniform() < share)
      window = data::passkey_training_window(config_.passkey_wording, config_.length + 1, tokenizer_, rng, config_.passkey_digits);
    else
      sampler_.window(k, window);
    std::copy_n(window.begin(), N, ids.values<int32_t>().begin() + static_cast<std::ptrdiff_t>(static_cast<size_t>(row) * N));
    std::copy_n(window.begin() + 1, N, targets.values<int32_t>().begin() + static_cast<std::ptrdiff_t>(static_cast<size_t>(row) * N));
  }
}

}  // namespace coca::train
