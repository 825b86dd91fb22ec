// coca/data/overlap.h - documents that training and evaluation text have in common, found by their content.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace coca::data {

// A 64-bit hash of the text, with each run of white space as one blank, and none at the ends. 0 for a text of white
// space.
uint64_t content_hash(std::string_view text);

// A list of documents has a line for each, in their order: the hash in 16 hexadecimal digits, a blank, the name. A
// document that can be written in several ways may have a line for each, one after the other.
std::string document_line(std::string_view name, std::string_view text);

struct Overlap {
  struct Pair {
    std::string training, evaluation;  // names of the same document
  };
  int64_t documents = 0;    // documents of the evaluation text that are also in the training text
  std::vector<Pair> pairs;  // the first kMaxOverlapNames of them
};
inline constexpr size_t kMaxOverlapNames = 5;

// The overlap of two lists of documents; memory grows with the evaluation's list.
Overlap find_overlap(std::string_view training, std::string_view evaluation);

// "a.txt (training) and b.txt (validation) are the same document"; the last line says how many more there are.
std::vector<std::string> overlap_sentences(const Overlap&, std::string_view evaluation);

}  // namespace coca::data
