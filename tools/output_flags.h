// tools/output_flags.h - --json and --csv of the subcommands that measure.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <initializer_list>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

namespace coca::tools {

struct OutputFlags {
  std::string json, csv;

  template <class V>
  void visit(V&& v) {
    v.group("Output");
    v("json", "write options and results to this file; -: to standard output, and the text to standard error", json);
    v("csv", "write the results to this file as a table", csv);
  }
};

// Whether an output's name means standard output: "-", /dev/stdout.
// Error where the name of a result ends as that of another kind of file; names without an ending are pipes and devices.
void check_ending(std::string_view flag, const std::string& file, std::initializer_list<std::string_view> endings);
bool is_stdout(const std::string& file);
// To a file, or to standard output; nothing where the name is empty.
void write_json_output(const std::string& file, const nlohmann::ordered_json&);

// The whole as JSON; the list of flat objects under `results` as a table for programs: one row per result,
// one column per key, numbers in full. Where the JSON is marked "partial" the table has a column for that too.
void write_outputs(const OutputFlags&, const nlohmann::ordered_json& json, const char* results);

// Each of them, also where one before it has failed: a full disk under one file takes nothing from the others. Then the
// first error.
void write_each(const std::vector<std::function<void()>>& writers);

}  // namespace coca::tools
