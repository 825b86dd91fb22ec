// coca/study/corpus.h - the text of a study: given, or the C++ standard library headers of the installed compiler;
// split into training, validation and test.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "coca/data/overlap.h"
#include "coca/data/token_file.h"
#include "coca/study/config.h"

namespace coca::study {

// Files of the compiler's C++ standard library, sorted. Asks the compiler named by CXX, else c++, g++, clang++.
std::vector<std::string> standard_library_headers();

struct Corpus {
  std::string description;  // one sentence for the report
  std::unique_ptr<text::Tokenizer> tokenizer;
  std::optional<data::TokenFile> train, validation;
  std::vector<std::vector<int32_t>> test;  // documents to evaluate on, of each at most eval_tokens from its middle
  std::vector<std::string> test_names;     // "document 12 (345,678 tokens)", "end of document 1 (...)"
  data::Overlap shared;                    // documents to train on that are in the test text as well
};

// Tokenizes into <out>/data and holds out about a twentieth of the tokens of `text` for validation and, without
// test_text, a tenth for the test. These are whole documents (every twentieth, every tenth) if their share is between
// half of that and twice it; else, as with few documents or very unequal ones, the end of each document. Test documents
// that reach the longest evaluated length come first.
// kNothing: nothing is written, and of a text of more than 2^24 tokens and 60 documents no more is tokenized.
enum class Keep : uint8_t { kInFolder, kNothing };
Corpus load_corpus(const StudyConfig& resolved, Keep keep = Keep::kInFolder);

}  // namespace coca::study
