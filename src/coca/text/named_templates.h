// coca/text/named_templates.h - the prompt formats that have names, as Jinja sources.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <span>
#include <string_view>

namespace coca::text {

struct NamedTemplate {
  std::string_view name, bos, eos, source;
};
// The form that fine-tuning gives messages when there is no template. data/instruct.h writes it, with the ids of bos
// and eos; this source is for files and other programs.
inline constexpr std::string_view kPlainName = "plain";
std::span<const NamedTemplate> named_templates();

}  // namespace coca::text
