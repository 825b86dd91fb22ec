// coca methods: which attention kinds, position scalings and patterns can be combined, according to the code that
// validates them.
// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <map>

#include "cli.h"
#include "coca/base/count.h"
#include "coca/model/methods.h"
#include "coca/report/table.h"
#include "output_flags.h"
#include "terminal.h"

namespace coca::tools {

namespace {

using model::Method;
using model::MethodUse;
using nlohmann::ordered_json;

struct Options {
  bool reasons = false;
  std::string json;

  template <class V>
  void visit(V&& v) {
    v("reasons", "say why the others are refused", reasons);
    v("json", "write all combinations to this file; -: to standard output, and the text to standard error", json);
  }
};

// The validity of a combination does not depend on these sizes.
model::ModelSpec example_spec() {
  model::ModelSpec s;
  s.V = 256;
  s.C = 256;
  s.F = 1024;
  s.L = 4;
  s.H = s.G = 4;
  s.D = s.R = 64;
  s.max_position = 512;
  return s;
}

// How a method may be used with each pattern.
using Uses = std::vector<MethodUse>;

std::string joined(const std::vector<std::string>& names) { return fmt::format("{}", fmt::join(names, ", ")); }

// "none, linear", or "all but clex".
std::string scalings_text(const std::vector<std::string>& names) {
  std::vector<std::string> others;
  for (const auto& entry : EnumTraits<model::Scaling>::names())
    if (std::ranges::find(names, entry.name) == names.end()) others.emplace_back(entry.name);
  if (others.empty()) return "all";
  return others.size() < names.size() ? "all but " + joined(others) : joined(names);
}

// Scalings with the same uses share a row, and attention kinds with the same rows are listed together.
report::Table table_of(const std::vector<Method>& methods) {
  const auto patterns = EnumTraits<model::Sight>::names();
  std::vector<std::pair<std::vector<std::pair<Uses, std::string>>, std::vector<std::string>>> groups;  // rows, kinds
  for (const auto& attention : EnumTraits<model::AttentionKind>::names()) {
    std::vector<std::pair<Uses, std::vector<std::string>>> rows;
    for (size_t i = 0; i < methods.size(); i += patterns.size()) {
      if (methods[i].attention != attention.value) continue;
      Uses uses;
      for (size_t p = 0; p < patterns.size(); ++p) uses.push_back(methods[i + p].use);
      if (std::ranges::all_of(uses, [](MethodUse use) { return use == MethodUse::kNone; })) continue;
      auto same = std::ranges::find(rows, uses, [](const auto& row) { return row.first; });
      if (same == rows.end()) same = rows.insert(same, {uses, {}});
      same->second.emplace_back(enum_name(methods[i].scaling));
    }
    std::vector<std::pair<Uses, std::string>> named;
    for (const auto& [uses, scalings] : rows) named.emplace_back(uses, scalings_text(scalings));
    auto alike = std::ranges::find(groups, named, [](const auto& group) { return group.first; });
    if (alike == groups.end()) alike = groups.insert(alike, {named, {}});
    alike->second.emplace_back(attention.name);
  }
  report::Table table{
      .title = "",
      .header = {"attention", "position scaling", "trained and evaluated", "evaluated only"},
      .rows = {},
      .align = {report::Align::kLeft, report::Align::kLeft, report::Align::kLeft, report::Align::kLeft}};
  for (const auto& [rows, kinds] : groups)
    for (const auto& [uses, scalings] : rows) {
      const auto with = [&, &uses = uses](MethodUse use) {
        std::vector<std::string> names;
        for (size_t p = 0; p < patterns.size(); ++p)
          if (uses[p] == use) names.emplace_back(patterns[p].name);
        return names.empty() ? "-" : joined(names);
      };
      table.rows.push_back({joined(kinds), scalings, with(MethodUse::kTraining), with(MethodUse::kEvaluation)});
    }
  return table;
}

// The reasons for which a modifier is refused, each with the kinds: "alibi, none and others (10): reason".
std::string refusals_text(const model::Modifier& m) {
  std::map<std::string, std::vector<std::string>> kinds;
  for (const auto& attention : EnumTraits<model::AttentionKind>::names()) {
    std::string reason = model::refusal(example_spec(), attention.value, m);
    if (reason.empty()) continue;
    if (const size_t end = reason.rfind(": "); end != std::string::npos) reason.erase(0, end + 2);
    kinds[reason].emplace_back(attention.name);
  }
  std::string text;
  for (const auto& [reason, names] : kinds)
    text += fmt::format("{}{} ({})", text.empty() ? "" : "; ", reason, counted(names.size(), "kind"));
  return text.empty() ? "-" : text;
}

report::Table modifier_table() {
  report::Table table{.title = "",
                      .header = {"modifier", "what it does", "not where"},
                      .rows = {},
                      .align = {report::Align::kLeft, report::Align::kLeft, report::Align::kLeft}};
  for (const model::Modifier* m : model::all_modifiers())
    table.rows.push_back(
        {std::string(m->info().name), fmt::format("{} ({})", m->info().summary, m->info().source), refusals_text(*m)});
  return table;
}

// Reasons that differ only in the names of the methods involved.
struct ReasonKind {
  int64_t count = 0;
  std::map<char, std::vector<std::string>> names;  // by letter: attention kinds (A), scalings (S), patterns (P)
};

void print_reasons(const std::vector<Method>& methods) {
  std::map<std::string, ReasonKind> kinds;
  for (const Method& m : methods) {
    if (m.use != MethodUse::kNone) continue;
    std::string reason = m.reason.substr(m.reason.starts_with("model: ") ? 7 : 0);
    std::vector<std::pair<char, std::string>> found;
    const auto take = [&](char letter, const std::string& front, std::string_view name, const std::string& back) {
      const size_t at = reason.find(front + std::string(name) + back);
      if (at == std::string::npos) return;
      reason.replace(at + front.size(), name.size() + back.size(), 1, letter);
      if (front.ends_with('"')) reason.erase(at + front.size() - 1, 1);
      found.emplace_back(letter, name);
    };
    take('A', "\"", enum_name(m.attention), "\"");
    take('S', "rope scaling ", enum_name(m.scaling), "");
    take('P', "pattern ", enum_name(m.sight), "");
    ReasonKind& kind = kinds[reason];
    ++kind.count;
    for (const auto& [letter, name] : found)
      if (std::ranges::find(kind.names[letter], name) == kind.names[letter].end()) kind.names[letter].push_back(name);
  }
  const std::map<char, std::string_view> words = {{'A', "attention"}, {'P', "pattern"}, {'S', "rope scaling"}};
  print("\nrefused because\n");
  for (const auto& [reason, kind] : kinds) {
    print_prose(fmt::format("  {} ({})\n", reason, counted(kind.count, "combination")));
    for (const auto& [letter, names] : kind.names)
      print_prose(fmt::format("    {} {}: {}\n", words.at(letter), letter, joined(names)));
  }
}

ordered_json json_of_modifiers() {
  ordered_json all = ordered_json::array();
  for (const model::Modifier* m : model::all_modifiers()) {
    ordered_json refused = ordered_json::object();
    for (const auto& attention : EnumTraits<model::AttentionKind>::names())
      if (const std::string reason = model::refusal(example_spec(), attention.value, *m); !reason.empty())
        refused[std::string(attention.name)] = reason;
    all.push_back({{"modifier", m->info().name},
                   {"summary", m->info().summary},
                   {"source", m->info().source},
                   {"refused", refused}});
  }
  return all;
}

ordered_json json_of(const std::vector<Method>& methods) {
  ordered_json all = ordered_json::array();
  for (const Method& m : methods)
    all.push_back({{"attention", enum_name(m.attention)},
                   {"rope_scaling", enum_name(m.scaling)},
                   {"pattern", enum_name(m.sight)},
                   {"use", enum_name(m.use)},
                   {"reason", m.reason}});
  return all;
}

int run(const Options& options) {
  const std::vector<Method> methods = model::all_methods(example_spec());
  const auto count = [&](MethodUse use) {
    return std::count_if(methods.begin(), methods.end(), [&](const Method& m) { return m.use == use; });
  };
  const int columns = terminal_columns(Stream::kOut);
  print(report::to_text_within(table_of(methods), columns > 0 ? std::min(columns, 100) : 100));
  print_prose(fmt::format(
      "\n{} of {} can be evaluated, {} of these trained (what is not listed is refused, see --reasons).\n"
      "Those with windows are of the model (coca train --layer-window, --dilation, --global-tokens, --direction), the "
      "others of --pattern.\n",
      grouped(count(MethodUse::kEvaluation) + count(MethodUse::kTraining)), counted(methods.size(), "combination"),
      grouped(count(MethodUse::kTraining))));
  print_prose("\nModifiers, for any number of them at once (coca train --modifiers):\n");
  print(report::to_text_within(modifier_table(), columns > 0 ? std::min(columns, 100) : 100));
  if (options.reasons) print_reasons(methods);
  write_json_output(options.json, {{"combinations", json_of(methods)}, {"modifiers", json_of_modifiers()}});
  return 0;
}

}  // namespace

void add_methods(CLI::App& root, Action* action) {
  add_command<Options>(root, action, "methods",
                       "List which attention kinds, position scalings and patterns can be combined",
                       "Example: coca methods --reasons", run);
}

}  // namespace coca::tools
