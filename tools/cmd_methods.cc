// coca methods: which attention kinds, position scalings and patterns go together, from the code that validates them.
// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <map>

#include "cli.h"
#include "coca/io/fs.h"
#include "coca/model/methods.h"
#include "coca/report/table.h"

namespace coca::tools {

namespace {

using model::Method;
using model::MethodUse;
using nlohmann::ordered_json;

struct Options {
  bool reasons = false;
  std::string json;
};

// A common shape; the choices do not depend on sizes.
model::ModelSpec example_spec() {
  model::ModelSpec s;
  s.V = 256, s.C = 256, s.F = 1024, s.L = 4, s.H = s.G = 4, s.D = s.R = 64;
  s.max_position = 512;
  return s;
}

std::string mark(MethodUse use) { return use == MethodUse::kTraining ? "train" : use == MethodUse::kEvaluation ? "eval" : "-"; }

// A row per attention kind and group of scalings that are used alike; a column per pattern.
report::Table table_of(const std::vector<Method>& methods) {
  report::Table table;
  table.header = {"attention", "position scaling"};
  for (const auto& pattern : EnumTraits<model::Sight>::names()) table.header.push_back(std::string(pattern.name));
  const size_t patterns = EnumTraits<model::Sight>::names().size();
  for (const auto& attention : EnumTraits<model::AttentionKind>::names()) {
    std::vector<std::pair<std::vector<std::string>, std::string>> groups;  // marks by pattern, names of scalings
    for (size_t i = 0; i < methods.size(); i += patterns) {
      if (methods[i].attention != attention.value) continue;
      std::vector<std::string> marks;
      for (size_t p = 0; p < patterns; ++p) marks.push_back(mark(methods[i + p].use));
      const std::string name(enum_name(methods[i].scaling));
      const auto same = std::find_if(groups.begin(), groups.end(), [&](const auto& group) { return group.first == marks; });
      if (same == groups.end())
        groups.emplace_back(marks, name);
      else
        same->second += ", " + name;
    }
    for (const auto& [marks, names] : groups) {
      std::vector<std::string> row = {std::string(attention.name), names};
      row.insert(row.end(), marks.begin(), marks.end());
      table.rows.push_back(std::move(row));
    }
  }
  return table;
}

void print_reasons(const std::vector<Method>& methods) {
  std::map<std::string, int64_t> reasons;
  for (const Method& m : methods)
    if (m.use == MethodUse::kNone) ++reasons[m.reason];
  print("\nrefused because\n");
  for (const auto& [reason, count] : reasons) print(fmt::format("  {} ({} combinations)\n", reason, count));
}

ordered_json json_of(const std::vector<Method>& methods) {
  ordered_json all = ordered_json::array();
  for (const Method& m : methods)
    all.push_back({{"attention", enum_name(m.attention)}, {"rope_scaling", enum_name(m.scaling)}, {"pattern", enum_name(m.sight)},
                   {"use", enum_name(m.use)}, {"reason", m.reason}});
  return all;
}

int run(const Options& options) {
  const std::vector<Method> methods = model::all_methods(example_spec());
  const auto count = [&](MethodUse use) { return std::count_if(methods.begin(), methods.end(), [&](const Method& m) { return m.use == use; }); };
  print(report::to_text(table_of(methods)));
  print(fmt::format("\n{} of {} combinations can be evaluated, {} of these trained (train: both; -: refused, see --reasons).\n"
                    "Those with windows are of the model (coca train --layer-window, --dilation, --global-tokens, --direction), the others of --pattern.\n",
                    count(MethodUse::kEvaluation) + count(MethodUse::kTraining), methods.size(), count(MethodUse::kTraining)));
  if (options.reasons) print_reasons(methods);
  if (!options.json.empty()) io::write_file_atomic(options.json, json_of(methods).dump(2) + "\n");
  return 0;
}

}  // namespace

void add_methods(CLI::App& root, Action* action) {
  CLI::App* app = root.add_subcommand("methods", "List which attention kinds, position scalings and patterns go together");
  auto options = std::make_shared<Options>();
  app->add_flag("--reasons", options->reasons, "say why the others are refused");
  app->add_option("--json", options->json, "write all combinations into this file");
  app->callback([=] { *action = [=] { return run(*options); }; });
}

}  // namespace coca::tools
