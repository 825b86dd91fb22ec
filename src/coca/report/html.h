// coca/report/html.h - a document as one self-contained HTML5 file: inline style and figures, no scripts,
// no external resources.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

#include "coca/report/document.h"

namespace coca::report {

std::string to_html(const Document& document);

}  // namespace coca::report
