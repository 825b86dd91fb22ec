// coca/data/corpus.h - documents from text files, folders and JSON lines, one at a time. Rules: docs/data.md.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "coca/base/enum_names.h"

namespace coca::data {

struct Document {
  std::string name;  // path, with ":line" for JSON lines
  std::string text;
};

enum class InvalidUtf8 {
  kReplace,  // invalid parts become U+FFFD
  kKeep,     // bytes are kept (but replaced in JSON lines, because JSON is UTF-8)
  kError,
};

struct CorpusOptions {
  std::vector<std::string> inputs;  // files, globs, folders (their .txt and .jsonl files, recursively)
  InvalidUtf8 invalid_utf8 = InvalidUtf8::kReplace;
  std::string json_field;        // empty: "content", then "text"
  int64_t max_documents = 0;     // 0: all
  std::function<bool()> enough;  // called before each document: true ends the reading; may be empty
};

struct CorpusReport {
  int64_t files = 0, documents = 0, empty_documents = 0, invalid_utf8_documents = 0;
  int64_t bytes = 0;                  // of text handed out
  int64_t skipped_lines = 0;          // blank lines in JSON lines
  std::vector<std::string> warnings;  // at most kMaxWarnings
};
inline constexpr size_t kMaxWarnings = 20;

// Passes on every document that is not empty, in the order of the sorted files. Error if there is none.
CorpusReport read_corpus(const CorpusOptions& options, const std::function<void(Document&&)>& take);

// Size of the files that read_corpus would open.
int64_t corpus_file_bytes(const CorpusOptions& options);

}  // namespace coca::data

COCA_ENUM_NAMES(coca::data::InvalidUtf8, "invalid_utf8", {coca::data::InvalidUtf8::kReplace, "replace"},
                {coca::data::InvalidUtf8::kKeep, "keep"}, {coca::data::InvalidUtf8::kError, "error"})
