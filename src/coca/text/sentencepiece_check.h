// coca/text/sentencepiece_check.h - the serialized model itself: what the library sentencepiece takes from it without
// looking, the table of its normalizer, a double array whose units point at each other and into a block of strings; and
// what the library offers no way to ask.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string_view>

namespace coca::text {

// Error kBadFile when the serialized model holds a table that leads out of itself, or is no message of protocol buffers.
void check_sentencepiece(std::string_view model, std::string_view origin);

// Whether it merges pairs of pieces (BPE), and its normalization is one of those that come with the library.
bool merges_plainly(std::string_view model, std::string_view origin);

}  // namespace coca::text
