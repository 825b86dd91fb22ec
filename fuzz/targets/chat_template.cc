// A chat template and the user's message (parts 0 and 1). A template is a program, so its memory is bounded by limits
// on steps, values and text, not by its size.
// SPDX-License-Identifier: Apache-2.0
#include "coca/text/chat_template.h"
#include "coca/text/utf8.h"
#include "support/harness.h"

COCA_FUZZ_TARGET({.base = size_t{256} << 20, .per_byte = 1024}) {
  using namespace coca;
  const auto parts = fuzz::parts_of(input);
  text::ChatTemplate chat = text::ChatTemplate::from_source(std::string(parts[0]), "template");
  chat.set_token("bos_token", "<s>");
  chat.set_token("eos_token", "</s>");
  const std::vector<text::ChatMessage> messages = {{"system", "Be brief."},
                                                   {"user", text::replace_invalid(fuzz::part(parts, 1))},
                                                   {"assistant", "Yes."},
                                                   {"user", "Why?"},
                                                   {"assistant", "So."}};
  const text::ChatOptions options{.prompt = text::GenerationPrompt::kAdd, .now = 1721952000};
  fuzz::attempt([&] { chat.render(std::span(messages).first(4), options); });
  const text::RenderedChat rendered = chat.render_with_answers(messages, {.now = 1721952000});
  size_t end = 0;
  for (const text::TextSpan& answer : rendered.answers) {
    fuzz::require(end <= answer.begin && answer.begin <= answer.end && answer.end <= rendered.text.size(),
                  "an answer outside the text");
    end = answer.end;
  }
}
