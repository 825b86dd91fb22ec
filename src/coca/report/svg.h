// coca/report/svg.h - runs gnuplot and edits its SVG for display.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <string_view>

namespace coca::report {

// Runs a gnuplot script that plots one SVG to standard output; throws Error kIo with gnuplot's words when
// that fails. `title` replaces gnuplot's own name in the file (screen readers read it out).
std::string run_gnuplot(std::string_view script, std::string_view title);

// An SVG for inside an HTML page: no prolog, no namespace declarations, every id and every reference to one
// prefixed (gnuplot uses the same ids in each file, and ids are global in a page). Throws Error
// kInvalidArgument when the text is not an SVG or could run or load something.
std::string inline_svg(std::string_view svg, std::string_view id_prefix);

}  // namespace coca::report
