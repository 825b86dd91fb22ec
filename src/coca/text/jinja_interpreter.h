// coca/text/jinja_interpreter.h - runs a parsed chat template, within limits.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ctime>
#include <string>
#include <utility>
#include <vector>

#include "coca/text/jinja_ast.h"

namespace coca::text::jinja {

struct Output {
  std::string text;
  std::vector<std::pair<size_t, size_t>> generations;  // what {% generation %} blocks wrote: begin, end
};

struct RunOptions {
  std::time_t now = 0;  // for strftime_now
};

// `source` and `origin` are what the body was parsed from. Error kBadFile names the place; raise_exception in a
// template is an Error of kInvalidArgument, since it is about the messages.
Output run_template(const Body& body, const Dict& variables, const RunOptions& options, const std::string& source,
                    const std::string& origin);

}  // namespace coca::text::jinja
