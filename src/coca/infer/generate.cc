// SPDX-License-Identifier: Apache-2.0
#include "coca/infer/generate.h"

#include <algorithm>

#include "coca/base/clock.h"
#include "coca/base/stop.h"

namespace coca::infer {

namespace {
constexpr int64_t kPrefillTokens = 1024;
}

GenerateResult generate(Context& cx, const model::ModelSpec& spec, const model::Weights& weights,
                        std::span<const int32_t> prompt, const GenerateOptions& options,
                        const std::function<bool(int32_t)>& on_token) {
  COCA_CHECK(!prompt.empty(), "the prompt is empty; give at least one token");
  COCA_CHECK(options.max_new_tokens >= 0, "max-new-tokens {} must be at least 0", options.max_new_tokens);
  check_sampling(options.sampling);
  const auto length = static_cast<int64_t>(prompt.size());
  CachedDecoder decoder(spec, weights, 1, options.dynamic_base, length + options.max_new_tokens, options.cache);
  Rng rng(options.seed, 0x9e4e);
  GenerateResult result;
  Stopwatch watch;
  // A pattern that forgets needs no more room for a long prompt than for a short one.
  const int64_t piece = spec.pattern.forgets() ? kPrefillTokens : length;
  for (int64_t at = 0; at < length; at += piece)
    decoder.append(cx, TensorRef(prompt.data() + at, DType::kI32, {1, std::min(piece, length - at)}));
  result.prefill_seconds = watch.seconds();
  watch.restart();
  std::vector<int32_t> seen(prompt.begin(), prompt.end());
  std::vector<float> logits(static_cast<size_t>(spec.V));
  while (static_cast<int64_t>(result.ids.size()) < options.max_new_tokens) {
    if (stop_requested()) {
      result.finish = Finish::kInterrupted;
      break;
    }
    const TensorRef last = decoder.last_logits(cx);
    std::copy_n(last.as<float>(), spec.V, logits.begin());
    penalize_repetition(logits, seen, options.sampling.repetition_penalty);
    const int32_t id = sample(logits, options.sampling, rng);
    if (std::find(options.stop_ids.begin(), options.stop_ids.end(), id) != options.stop_ids.end()) {
      result.finish = Finish::kStopId;
      break;
    }
    result.ids.push_back(id);
    seen.push_back(id);
    if (on_token && !on_token(id)) {
      result.finish = Finish::kCallback;
      break;
    }
    if (static_cast<int64_t>(result.ids.size()) == options.max_new_tokens) break;  // no logits needed any more
    decoder.append(cx, TensorRef(&id, DType::kI32, {1, 1}));
  }
  result.decode_seconds = watch.seconds();
  result.cache_bytes = decoder.cache().bytes();
  return result;
}

}  // namespace coca::infer
