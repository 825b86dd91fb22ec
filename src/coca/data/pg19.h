// coca/data/pg19.h - a corpus in the layout of PG-19: folders train, validation and test of <id>.txt, and metadata.csv.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "coca/base/enum_names.h"

namespace coca::data {

enum class Split : uint8_t { kTrain, kValidation, kTest };

// Replaces folders in that layout by the folder of one split (`otherwise` if none is requested); other inputs stay as
// they are. Error if a split is requested and an input has no such folder.
struct SplitInputs {
  std::vector<std::string> inputs;
  std::optional<Split> used;  // when at least one input had the layout
};
SplitInputs choose_split(const std::vector<std::string>& inputs, std::optional<Split> split,
                         Split otherwise = Split::kTest);

// The validation folders, with text in them, that belong to training text: of those inputs that have the layout.
std::vector<std::string> validation_of(const std::vector<std::string>& inputs);

struct Book {
  std::string title;
  std::optional<int64_t> year;
};

// By id. Rows are id,title,year and perhaps url (the published file: 28,752 rows without a header); a first row whose
// id is not a number is a header. Error for any other row, naming it.
std::map<std::string, Book> read_book_list(const std::filesystem::path& metadata_csv);

// The list beside the folder of a document such as ".../test/145.txt", or in it. A list is read once.
class BookLists {
 public:
  std::optional<Book> find(const std::filesystem::path& document);

 private:
  std::map<std::filesystem::path, std::map<std::string, Book>> lists_;  // by file; empty for a file that is not there
};

}  // namespace coca::data

COCA_ENUM_NAMES(coca::data::Split, "split", {coca::data::Split::kTrain, "train"},
                {coca::data::Split::kValidation, "validation"}, {coca::data::Split::kTest, "test"})
