// coca/infer/generate.h - continues a prompt token by token.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <vector>

#include "coca/infer/session.h"

namespace coca::infer {

struct GenerateResult {
  std::vector<int32_t> ids;  // new tokens only
  double prefill_seconds = 0, decode_seconds = 0;
  size_t cache_bytes = 0;
  Finish finish = Finish::kLength;
};

// Runs a session (session.h) until it finishes. on_token receives each new id at once and may return false to stop.
// stop_requested() also ends the session, even within the prompt.
GenerateResult generate(Context&, BatchDecoder&, const Request&, const SessionOptions& = {},
                        const std::function<bool(int32_t)>& on_token = {});

}  // namespace coca::infer
