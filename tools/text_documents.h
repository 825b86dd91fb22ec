// tools/text_documents.h - the documents of evaluation subcommands: their flags, reading and tokenizing.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "coca/data/corpus.h"
#include "coca/data/pg19.h"
#include "coca/eval/protocol.h"
#include "coca/text/tokenizer.h"

namespace coca::tools {

struct TextFlags {
  std::vector<std::string> text;
  std::optional<data::Split> split;
  std::string field;
  data::InvalidUtf8 invalid_utf8 = data::InvalidUtf8::kReplace;

  template <class V>
  void visit(V&& v) {
    v.group("Text");
    v("text", "files, globs or folders (their .txt and .jsonl files); a PG-19 folder", text);
    v("split", "split of a folder in PG-19's layout; default for such folders: test", split);
    v("field", "field of JSON lines; default: content, then text", field);
    v("invalid_utf8", "what to do with text that is not UTF-8", invalid_utf8);
  }
};

// Limits on what is read; 0: no limit.
struct DocumentLimits {
  int64_t min_tokens = 0;              // shorter documents stay in the list, empty
  int64_t max_tokens = 0;              // per document; at least min_tokens are kept
  eval::Cut cut = eval::Cut::kMiddle;  // which part of a longer document is kept
  int64_t max_documents = 0;           // counts documents with at least min_tokens and at least two tokens
  int64_t all_targets = 0;             // over all documents together, counting all tokens but the first of each
};

struct Documents {
  std::vector<std::vector<int32_t>> ids;
  std::vector<std::string> names;
  std::optional<data::Split> split;
  int64_t bytes = 0;
};

// Warnings go to standard error.
Documents read_documents(const TextFlags&, const DocumentLimits&, const text::Tokenizer&);

}  // namespace coca::tools
