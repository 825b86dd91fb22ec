// tools/help.h - help texts that fit the terminal, in colour if it supports it.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <CLI/CLI.hpp>
#include <memory>

namespace coca::tools {

std::shared_ptr<CLI::Formatter> make_help_formatter();

}  // namespace coca::tools
