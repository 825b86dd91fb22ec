// coca/text/sentencepiece_check.h - what the library sentencepiece takes from a model without looking: the table of its
// normalizer, a double array whose units point at each other and into a block of strings.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string_view>

namespace coca::text {

// Error kBadFile when the serialized model holds a table that leads out of itself, or is no message of protocol buffers.
void check_sentencepiece(std::string_view model, std::string_view origin);

}  // namespace coca::text
