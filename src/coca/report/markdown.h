// coca/report/markdown.h - a document as Markdown; figures are links to figures/<name>.svg (see write.h).
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "coca/report/document.h"

namespace coca::report {

std::string to_markdown(const Document& document);

}  // namespace coca::report
