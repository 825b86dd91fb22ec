// coca/text/chat_answers.h - where the assistant's answers are in a rendered conversation. How: docs/chat-templates.md.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <span>
#include <string>

#include "coca/text/chat_template.h"
#include "coca/text/jinja_interpreter.h"

namespace coca::text {

using RenderChat = std::function<jinja::Output(std::span<const ChatMessage>, GenerationPrompt)>;

// `render` is a function of its arguments alone; `origin` names the template in errors.
RenderedChat find_answers(std::span<const ChatMessage> messages, GenerationPrompt prompt, const RenderChat& render,
                          const std::string& origin);

}  // namespace coca::text
