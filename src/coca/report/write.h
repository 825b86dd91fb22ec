// coca/report/write.h - writes a document to disk: <folder>/report.html, report.md and figures/<name>.svg.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <filesystem>
#include <string>

#include "coca/report/document.h"

namespace coca::report {

struct ReportFiles {
  std::filesystem::path html, markdown;
};

// Files are either complete or absent (io::write_file_atomic); figures are written first, the HTML last.
ReportFiles write_document(const Document& document, const std::filesystem::path& folder,
                           const std::string& stem = "report");

}  // namespace coca::report
