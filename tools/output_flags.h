// tools/output_flags.h - --json and --csv of the subcommands that measure.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <nlohmann/json.hpp>
#include <string>

namespace coca::tools {

struct OutputFlags {
  std::string json, csv;

  template <class V>
  void visit(V&& v) {
    v.group("Output");
    v("json", "write options and results to this file", json);
    v("csv", "write the results to this file as a table", csv);
  }
};

// The whole as JSON; the list of flat objects under `results` as a table for programs: one row per result,
// one column per key, numbers in full.
void write_outputs(const OutputFlags&, const nlohmann::ordered_json& json, const char* results);

}  // namespace coca::tools
