// coca/text/leading_id.h - the id that is put before a text.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>

#include "coca/text/tokenizer.h"

namespace coca::text {

// A tokenizer.json, or add_bos_token beside a tokenizer.model, says what comes first (Qwen's config.json names a bos
// that its tokenizer never adds); for other tokenizers it is the bos of config.json. Error for more than one leading
// id.
std::optional<int32_t> leading_id(const Tokenizer&, std::optional<int64_t> config_bos);

}  // namespace coca::text
