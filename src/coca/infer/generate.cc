// SPDX-License-Identifier: Apache-2.0
#include "coca/infer/generate.h"

#include "coca/base/clock.h"
#include "coca/base/stop.h"

namespace coca::infer {

GenerateResult generate(Context& cx, const model::ModelSpec& spec, const model::Weights& weights,
                        std::span<const int32_t> prompt, const GenerateOptions& options,
                        const std::function<bool(int32_t)>& on_token) {
  Session session(spec, weights,
                  {.prompt = {prompt.begin(), prompt.end()},
                   .max_new_tokens = options.max_new_tokens,
                   .sampling = options.sampling,
                   .seed = options.seed,
                   .stop_ids = options.stop_ids},
                  options.session);
  GenerateResult result;
  std::optional<Finish> early;
  const auto length = static_cast<int64_t>(prompt.size());
  Stopwatch watch;
  while (!session.finished() && !early) {
    if (stop_requested()) {
      early = Finish::kInterrupted;
      break;
    }
    const bool in_prompt = session.prompt_tokens_done() < length;
    const std::optional<int32_t> id = session.step(cx);
    if (in_prompt && session.prompt_tokens_done() == length) {
      result.prefill_seconds = watch.seconds();
      watch.restart();
    }
    if (id && on_token && !on_token(*id)) early = Finish::kCallback;
  }
  result.decode_seconds = watch.seconds();
  result.ids = session.ids();
  result.finish = early ? *early : session.finish();
  result.cache_bytes = session.cache().bytes();
  return result;
}

}  // namespace coca::infer
