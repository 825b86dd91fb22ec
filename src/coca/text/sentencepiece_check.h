// coca/text/sentencepiece_check.h - the serialized model itself: values that the library sentencepiece uses without
// checks (the table of its normalizer, a double array whose units point at each other and into a block of strings), and
// properties that the library does not report.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string_view>

namespace coca::text {

// Error kBadFile if the serialized model holds a table that points outside itself, or is not a protocol buffers
// message.
void check_sentencepiece(std::string_view model, std::string_view origin);

// Whether it merges pairs of pieces (BPE), and its normalization is one of those that come with the library.
bool merges_plainly(std::string_view model, std::string_view origin);

}  // namespace coca::text
