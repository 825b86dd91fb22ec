// coca/text/jinja_ast.h - a chat template as a tree.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "coca/text/jinja_value.h"

namespace coca::text::jinja {

struct Expression;
using ExpressionPtr = std::unique_ptr<Expression>;

struct Argument {
  std::string name;  // "": by position; "*", "**": all of a list, of a dict
  ExpressionPtr value;
};

struct Expression {
  enum class Kind {
    kLiteral,      // value
    kName,         // name
    kList,         // parts; name "()": a tuple
    kDict,         // parts: key, value, key, value, ...
    kAttribute,    // parts[0].name
    kItem,         // parts[0][parts[1]]
    kSlice,        // parts[0][parts[1]:parts[2]:parts[3]], any of the last three null
    kCall,         // parts[0](arguments)
    kFilter,       // parts[0] | name(arguments)
    kTest,         // parts[0] is name(arguments); negated
    kUnary,        // name: not - +
    kBinary,       // name: or and + - * / // % ** ~
    kCompare,      // parts[0] names[0] parts[1] names[1] ...: == != < <= > >= in "not in"
    kConditional,  // parts[1] if parts[0] else parts[2], which may be null
  };
  Kind kind = Kind::kLiteral;
  size_t at = 0;  // byte of the source
  std::string name;
  std::vector<std::string> names;
  std::vector<ExpressionPtr> parts;
  std::vector<Argument> arguments;
  Value value;
  bool negated = false;
};

struct Statement;
using Body = std::vector<std::unique_ptr<Statement>>;

struct Macro {
  std::string name;
  std::vector<std::string> parameters;
  std::vector<ExpressionPtr> defaults;  // null: none
  Body body;
  bool takes_rest = false;   // whether it uses varargs
  bool takes_named = false;  // for kwargs
};

// The name under which a filter finds the text of its block.
inline constexpr const char* kBlockText = "{text}";

struct Statement {
  enum class Kind {
    kText,    // text
    kPrint,   // value
    kIf,      // conditions and bodies; one body more is the else
    kFor,     // names in value if condition: bodies[0], else bodies[1]; text "recursive": loop(...) runs it again
    kSet,     // names = value; with `attribute`: names[0].attribute = value; with bodies: value (if any) of their text
    kWith,    // names = conditions, within bodies[0]
    kFilter,  // value of the text of bodies[0]
    kCall,    // value, a call, in which caller() is `macro`
    kMacro,   // macro
    kBreak,
    kContinue,
    kGeneration,  // bodies[0] is an answer of the assistant
  };
  Kind kind = Kind::kText;
  size_t at = 0;
  std::string text, attribute;
  std::vector<std::string> names;
  ExpressionPtr value, condition;
  std::vector<ExpressionPtr> conditions;
  std::vector<Body> bodies;
  std::unique_ptr<Macro> macro;
};

// `origin` names the template in errors, which are of kBadFile and say line and construct. Blocks take their newline
// and the blanks in front of them away, as transformers sets Jinja up (trim_blocks, lstrip_blocks).
Body parse_template(const std::string& source, const std::string& origin);
// "origin: line 3"
std::string place_of(const std::string& source, const std::string& origin, size_t at);

}  // namespace coca::text::jinja
