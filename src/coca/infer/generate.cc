// SPDX-License-Identifier: Apache-2.0
#include "coca/infer/generate.h"

#include "coca/base/clock.h"
#include "coca/base/stop.h"

namespace coca::infer {

GenerateResult generate(Context& cx, BatchDecoder& decoder, const Request& request, const SessionOptions& options,
                        const std::function<bool(int32_t)>& on_token) {
  Session session(decoder, request, options);
  GenerateResult result;
  std::optional<Finish> early;
  const auto length = static_cast<int64_t>(request.prompt.size());
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
  result.cache_bytes = session.sequence().cache().bytes();
  return result;
}

}  // namespace coca::infer
