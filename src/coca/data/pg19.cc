// SPDX-License-Identifier: Apache-2.0
#include "coca/data/pg19.h"

#include <algorithm>
#include <charconv>

#include "coca/io/csv.h"
#include "coca/io/fs.h"

namespace coca::data {

namespace fs = std::filesystem;

namespace {

std::optional<int64_t> integer(const std::string& text) {
  int64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return value;
}

bool has_layout(const fs::path& dir) {
  return io::is_folder(dir / "test") && (io::is_folder(dir / "train") || io::is_regular_file(dir / "metadata.csv"));
}

}  // namespace

SplitInputs choose_split(const std::vector<std::string>& inputs, std::optional<Split> split, Split otherwise) {
  SplitInputs out;
  for (const std::string& input : inputs) {
    if (!split && !has_layout(input)) {
      out.inputs.push_back(input);
      continue;
    }
    out.used = split.value_or(otherwise);
    const fs::path dir = fs::path(input) / enum_name(*out.used);
    COCA_CHECK_AS(kIo, io::is_folder(dir), "split {}: {} is not a folder", enum_name(*out.used), dir.string());
    out.inputs.push_back(dir.string());
  }
  return out;
}

std::vector<std::string> validation_of(const std::vector<std::string>& inputs) {
  std::vector<std::string> folders;
  for (const std::string& input : inputs) {
    const fs::path dir = fs::path(input) / enum_name(Split::kValidation);
    if (!has_layout(input) || !io::is_folder(dir)) continue;
    const auto is_text = [](const fs::path& file) {
      return file.extension() == ".txt" || file.extension() == ".jsonl";
    };
    if (std::ranges::any_of(io::list_folder(dir), is_text)) folders.push_back(dir.string());
  }
  return folders;
}

std::map<std::string, Book> read_book_list(const fs::path& metadata_csv) {
  std::map<std::string, Book> books;
  const auto rows = io::parse_csv(io::read_file(metadata_csv));
  for (size_t i = 0; i < rows.size(); ++i) {
    const std::vector<std::string>& row = rows[i];
    if (i == 0 && !integer(row[0])) continue;
    if (row.size() == 1 && row[0].empty()) continue;
    COCA_CHECK_AS(kBadFile, row.size() >= 3 && integer(row[0]),
                  "{}: row {} is \"{}\", ...; expected id,title,year[,url]", metadata_csv.string(), i + 1, row[0]);
    books[row[0]] = {.title = row[1], .year = integer(row[2])};
  }
  return books;
}

std::optional<Book> BookLists::find(const fs::path& document) {
  const fs::path folder = document.parent_path();
  for (const fs::path& place : {folder.parent_path(), folder}) {
    const fs::path file = place / "metadata.csv";
    auto it = lists_.find(file);
    if (it == lists_.end())
      it = lists_.emplace(file, io::is_regular_file(file) ? read_book_list(file) : std::map<std::string, Book>()).first;
    const auto book = it->second.find(document.stem().string());
    if (book != it->second.end()) return book->second;
  }
  return std::nullopt;
}

}  // namespace coca::data
