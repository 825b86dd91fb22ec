// SPDX-License-Identifier: Apache-2.0
#include "output_flags.h"

#include "coca/base/error.h"
#include "coca/io/csv.h"
#include "coca/io/fs.h"
#include "coca/io/json_file.h"
#include "coca/io/names.h"
#include "ranks.h"

namespace coca::tools {

namespace {

using nlohmann::ordered_json;

std::string csv_of(const ordered_json& results) {
  std::vector<std::string> header;
  for (const auto& item : results.front().items()) header.push_back(item.key());
  std::string text = io::csv_line(header);
  for (const ordered_json& result : results) {
    std::vector<std::string> row;
    for (const auto& item : result.items()) {
      const auto& value = item.value();
      row.push_back(value.is_string() ? io::shown_name(value.get_ref<const std::string&>()) : value.is_null() ? "" : value.dump());
    }
    text += io::csv_line(row);
  }
  return text;
}

}  // namespace

void write_outputs(const OutputFlags& o, const ordered_json& json, const char* results) {
  if (!first_rank()) return;
  if (!o.json.empty()) io::write_json(o.json, json);
  if (!o.csv.empty()) io::write_file_atomic(o.csv, csv_of(json.at(results)));
}

}  // namespace coca::tools
