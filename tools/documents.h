// tools/documents.h - the documents behind --text as token ids.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <vector>

#include "coca/data/corpus.h"
#include "coca/text/tokenizer.h"

namespace coca::tools {

struct Documents {
  std::vector<std::vector<int32_t>> ids;
  int64_t bytes = 0;
};

// Each document cut after max_tokens (0: whole). Shows progress; warnings about the text go to standard error.
Documents read_documents(const data::CorpusOptions&, const text::Tokenizer&, int64_t max_tokens);

}  // namespace coca::tools
