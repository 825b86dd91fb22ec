// coca/text/tokenizer_import.h - tokenizers in other formats: Meta's tokenizer.model in tiktoken's format, Mistral's
// tekken.json, and vocab.json with merges.txt. Each becomes the text of a tokenizer.json, which everything else reads.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <string_view>

#include "coca/text/tokenizer.h"

namespace coca::text {

// The text of a tokenizer.json, and of files that belong beside it (bos and eos).
struct ImportedTokenizer {
  std::string json;
  std::map<std::string, std::string> beside;
};

// Whether a file begins as tiktoken's do: base64, a blank, a rank.
bool is_tiktoken(std::string_view content);
// LLaMA 3's pattern, and 256 special tokens after the ranks. Error for more ranks than LLaMA 3 has: those of other
// models have other patterns.
ImportedTokenizer import_tiktoken(std::string_view content, const std::string& origin);
// Special tokens come first, then the vocabulary up to the size that the file names.
ImportedTokenizer import_tekken(std::string_view content, const std::string& origin);
// tokenizer_class of tokenizer_config.json, else model_type of config.json, says how a text is cut: GPT-2's way or
// Qwen2's. Error naming another class.
ImportedTokenizer import_vocab_and_merges(const std::filesystem::path& dir,
                                          const std::map<std::string, std::string>& beside);

// Whether a folder's tokenizer is Meta's tiktoken file or tekken.json, which save() writes as a tokenizer.json.
bool is_imported(const std::filesystem::path& dir);
// A Tokenizer of a tokenizer.json's text; origin names it in errors.
std::unique_ptr<Tokenizer> make_json_tokenizer(const std::string& origin, std::string json,
                                               std::map<std::string, std::string> beside);

}  // namespace coca::text
