// tools/output_flags.h - --json and --csv of the subcommands that evaluate a model.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <initializer_list>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "coca/io/options.h"

namespace coca::tools {

struct OutputFlags {
  std::string json, csv;

  template <class V>
  void visit(V&& v) {
    v.group("Output");
    v("json", "write options and results to this file; -: to standard output, and the text to standard error", json);
    v("csv", "write the results to this file as a table; -: as with --json", csv);
  }
};

namespace detail {
struct ResultOptions : io::detail::OptionWriter {
  using OptionWriter::group;
  template <typename T>
  void operator()(std::string_view name, std::string_view help, T& field, Least = {}) {
    OptionWriter::operator()(name, help, field);
    if constexpr (std::is_same_v<T, std::string>)
      if (field.empty()) object[std::string(name)] = nullptr;
  }
};
}  // namespace detail

// The options of a run, to be written with its results: null where none was given. --config reads them back.
template <class S>
nlohmann::ordered_json result_options(S& options) {
  detail::ResultOptions writer;
  options.visit(writer);
  return std::move(writer.object);
}

// Throws an error if a result's name has the ending of another kind of file. Names without an ending are pipes or
// devices.
void check_ending(std::string_view flag, const std::string& file, std::initializer_list<std::string_view> endings);
bool is_stdout(const std::string& file);  // whether the name means standard output: "-" or /dev/stdout
// Writes to the file or to standard output; does nothing if the name is empty.
void write_json_output(const std::string& file, const nlohmann::ordered_json&);

// Writes everything as JSON, and the list of flat objects under `results` as CSV: one row per result, one column per
// key, numbers at full precision. The first columns say which model a row is of: model, adapter, rope_scaling, pattern
// (of header_json; none if no model was measured). A partial result has a column "partial" too.
void write_outputs(const OutputFlags&, const nlohmann::ordered_json& json, const char* results);

// Calls every writer even if one fails, so that a full disk under one file does not lose the others. Then throws the
// first error.
void write_each(const std::vector<std::function<void()>>& writers);

}  // namespace coca::tools
