// SPDX-License-Identifier: Apache-2.0
#include "coca/text/leading_id.h"

#include "coca/base/count.h"
#include "coca/base/error.h"

namespace coca::text {

std::optional<int32_t> leading_id(const Tokenizer& tokenizer, std::optional<int64_t> config_bos) {
  if (!tokenizer.has_frame())
    return config_bos ? std::optional<int32_t>(static_cast<int32_t>(*config_bos)) : std::nullopt;
  const SequenceFrame frame = tokenizer.frame();
  COCA_CHECK(frame.before.size() <= 1, "the tokenizer puts {} in front of a text; expected at most one, a bos",
             counted(frame.before.size(), "id"));
  return frame.before.empty() ? std::nullopt : std::optional<int32_t>(frame.before.front());
}

}  // namespace coca::text
