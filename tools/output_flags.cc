// SPDX-License-Identifier: Apache-2.0
#include "output_flags.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <cctype>
#include <exception>
#include <filesystem>

#include "cli.h"
#include "coca/base/error.h"
#include "coca/base/log.h"
#include "coca/io/csv.h"
#include "coca/io/fs.h"
#include "coca/io/json_file.h"
#include "coca/io/names.h"
#include "ranks.h"

namespace coca::tools {

namespace {

using nlohmann::ordered_json;

// The header of the model that the row is of; null if no model was measured.
const ordered_json* model_of(const ordered_json& json, const ordered_json& row) {
  if (!json.contains("models")) return json.contains("pattern") ? &json : nullptr;
  const auto found =
      std::ranges::find_if(json["models"], [&](const auto& one) { return one["model"] == row["model"]; });
  return found == json["models"].end() ? nullptr : &*found;
}

// The columns of a row, after those that say which model it is of.
ordered_json columns_of(const ordered_json& json, const ordered_json& row) {
  const ordered_json* const model = model_of(json, row);
  if (!model) return row;
  ordered_json columns;
  for (const char* key : {"model", "adapter", "rope_scaling", "pattern"}) columns[key] = model->at(key);
  columns.update(row);
  return columns;
}

std::string csv_of(const ordered_json& json, const char* results) {
  std::string text;
  for (const ordered_json& result : json.at(results)) {
    ordered_json columns = columns_of(json, result);
    if (json.contains("partial")) columns["partial"] = true;
    std::vector<std::string> header, row;
    for (const auto& item : columns.items()) {
      const auto& value = item.value();
      header.push_back(item.key());
      row.push_back(value.is_string() ? io::shown_name(value.get_ref<const std::string&>())
                    : value.is_null() ? ""
                                      : value.dump());
    }
    if (text.empty()) text = io::csv_line(header);
    text += io::csv_line(row);
  }
  return text;
}

}  // namespace

void check_ending(std::string_view flag, const std::string& file, std::initializer_list<std::string_view> endings) {
  std::string ending = std::filesystem::path(file).extension().string();
  std::ranges::transform(ending, ending.begin(), [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  COCA_CHECK(ending.empty() || std::ranges::find(endings, ending) != endings.end(),
             "{} {}: the file is written as {}; give it a name that ends in {}", flag, file, endings.begin()->substr(1),
             fmt::join(endings, " or "));
}

bool is_stdout(const std::string& file) {
  return file == "-" || file == "/dev/stdout" || file == "/dev/fd/1" || file == "/proc/self/fd/1";
}

void write_json_output(const std::string& file, const ordered_json& json) {
  if (file.empty() || !first_rank()) return;
  if (is_stdout(file))
    write_stdout(io::json_text(json) + "\n");
  else
    io::write_json(file, json);
}

void write_outputs(const OutputFlags& o, const ordered_json& json, const char* results) {
  if (!first_rank()) return;
  write_each({[&] { write_json_output(o.json, json); },
              [&] {
                if (o.csv.empty()) return;
                const std::string csv = csv_of(json, results);
                if (is_stdout(o.csv))
                  write_stdout(csv);
                else
                  io::write_file_atomic(o.csv, csv);
              }});
}

void write_each(const std::vector<std::function<void()>>& writers) {
  std::exception_ptr first;
  for (const auto& write : writers) {
    try {
      write();
    } catch (const std::exception& error) {
      if (first)
        log_message(LogLevel::kError, error.what());  // the program reports the first error itself
      else
        first = std::current_exception();
    }
  }
  if (first) std::rethrow_exception(first);
}

}  // namespace coca::tools
