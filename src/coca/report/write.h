// coca/report/write.h - puts a document on disk: <folder>/report.html, report.md and figures/<name>.svg.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <filesystem>
#include <string>

#include "coca/report/document.h"

namespace coca::report {

struct ReportFiles {
  std::filesystem::path html, markdown;
};

// Files appear whole or not at all (io::write_file_atomic); figures come first, the HTML last.
ReportFiles write_document(const Document& document, const std::filesystem::path& folder,
                           const std::string& stem = "report");

}  // namespace coca::report
