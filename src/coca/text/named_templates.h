// coca/text/named_templates.h - the prompt formats that have names, as Jinja sources.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <span>
#include <string_view>

namespace coca::text {

struct NamedTemplate {
  std::string_view name, bos, eos, source;
};
std::span<const NamedTemplate> named_templates();

}  // namespace coca::text
