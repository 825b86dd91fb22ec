// coca/analyse/report.h - an analysis as a document: what was found, tables, charts and how to read them.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <vector>

#include "coca/analyse/analyse.h"
#include "coca/report/document.h"

namespace coca::analyse {

// Sentences with figures; marks as in report/document.h.
std::vector<std::string> findings(const Analysis&);
// Why a slack model has anomalous initial angles, to be shown beside their tables; empty for other models.
std::string slack_note(const Analysis&);
// source: one line on the model and the text. Without gnuplot there are no charts, and the document says so.
report::Document make_document(const Analysis&, const std::string& title, const std::string& source);

}  // namespace coca::analyse
