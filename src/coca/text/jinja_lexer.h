// coca/text/jinja_lexer.h - a chat template cut into text and tokens, with Jinja's rules for the blanks around them.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace coca::text::jinja {

struct Token {
  enum class Kind {
    kText,
    kPrintBegin,
    kPrintEnd,
    kBlockBegin,
    kBlockEnd,
    kName,
    kString,
    kInteger,
    kFloat,
    kSign,
    kEnd
  };
  Kind kind;
  std::string text;
  size_t at;  // byte of the source
};

std::vector<Token> lex_template(const std::string& source, const std::string& origin);

}  // namespace coca::text::jinja
