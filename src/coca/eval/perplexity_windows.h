// coca/eval/perplexity_windows.h - from documents to texts to windows: the tokens that a protocol runs and scores,
// without a model.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "coca/eval/perplexity_protocol.h"

namespace coca::eval {

// The text from which windows are cut: a document, shortened by the protocol, or all of them joined.
struct Text {
  std::vector<int32_t> ids;  // with a leading bos token if the protocol has it there
  int64_t document = 0;      // index among the documents given; of joined texts the first
};

struct Texts {
  std::vector<Text> texts;
  int64_t documents = 0;        // used
  int64_t passed_over = 0;      // fewer than two tokens, or than min_tokens
  int64_t document_tokens = 0;  // of the documents used, as cut
};

// Error when no document is left.
Texts make_texts(std::span<const std::vector<int32_t>> documents, const Protocol&, std::optional<int32_t> bos);

// Indices count the ids of the text.
struct WindowSpan {
  int64_t begin = 0, end = 0;                // tokens run (after a leading bos, for BosPlace::kEveryWindow)
  int64_t first_target = 0, end_target = 0;  // tokens scored; t is predicted from those of the window before it

  int64_t tokens() const { return end - begin; }
  int64_t targets() const { return end_target - first_target; }
  bool operator==(const WindowSpan&) const = default;
};

// Windows without a target are left out. `front` is the number of tokens before each window's text, 0 or 1; `room`
// is the rest of its length, at least 1.
struct WindowShape {
  int64_t front = 0, room = 0, stride = 0;  // the stride used
};
WindowShape window_shape(const Protocol&, int64_t W, std::optional<int32_t> bos);
std::vector<WindowSpan> plan_windows(int64_t text_tokens, const Protocol&, const WindowShape&);

}  // namespace coca::eval
