// SPDX-License-Identifier: Apache-2.0
#include "describe.h"

#include <CLI/CLI.hpp>
#include <algorithm>

#include "arguments.h"
#include "coca/data/ruler.h"
#include "coca/eval/passkey_protocol.h"
#include "coca/eval/perplexity_protocol.h"
#include "coca/study/method.h"
#include "coca/text/chat_template.h"
#include "paths.h"

namespace coca::tools {

namespace {

std::vector<std::string> split(std::string_view names) {  // "a, b, c"
  std::vector<std::string> out;
  while (!names.empty()) {
    const size_t comma = std::min(names.find(", "), names.size());
    out.emplace_back(names.substr(0, comma));
    names.remove_prefix(std::min(comma + 2, names.size()));
  }
  return out;
}

// Adds the known values of flags that take text. The type of a flag already lists those of enums.
void add_known_names(const std::string& command, const std::string& flag, FlagDescription& out) {
  if (flag == "protocol" && command == "eval ppl") out.values = split(eval::protocol_names());
  if (flag == "protocol" && command == "eval passkey") out.values = split(eval::passkey_protocol_names());
  if (flag == "tasks") out.values = split(enum_choices<data::RulerTask>());
  if (flag == "type" && command == "tokenizer train") out.values = {"bpe", "unigram"};
  if (flag == "tokenizer") out.values = {"byte"};
  if (flag == "chat-template") {
    out.values = text::chat_template_names();
    out.values.insert(out.values.begin(), "auto");
  }
  if (flag == "methods" || flag == "ntk-methods") {
    out.values = study::survey_methods();  // other combinations are allowed too
    out.open = true;
  }
  if (flag == "stages") {  // or the name of a file
    out.values = {"coca-paper"};
    out.path = true;
  }
}

FlagDescription describe_flag(const std::string& command, const CLI::Option& option, bool positional) {
  FlagDescription out;
  out.positional = positional;
  if (positional) {
    out.names = {option.get_name(true, false)};
  } else {
    for (const std::string& name : option.get_snames()) out.names.push_back("-" + name);
    for (const std::string& name : option.get_lnames()) out.names.push_back("--" + name);
  }
  out.text = option.get_description();
  out.group = option.get_group();
  if (option.get_items_expected_max() == 0) {
    out.takes = FlagDescription::Takes::kNothing;
    return out;
  }
  out.type = option.get_type_name();
  out.fallback = option.get_default_str();
  if (out.type == "[BOOL]") out.takes = FlagDescription::Takes::kPerhapsBool;
  out.list = option.get_multi_option_policy() == CLI::MultiOptionPolicy::TakeAll;
  out.path = out.type.starts_with("PATH");
  if (out.type.starts_with("{")) out.values = split(std::string_view(out.type).substr(1, out.type.find('}') - 1));
  const std::string name = option.get_lnames().empty() ? out.names.front() : option.get_lnames().front();
  add_known_names(command, name, out);
  return out;
}

void describe_command(const CLI::App& app, std::vector<CommandDescription>& out) {
  CommandDescription command{.path = command_path(app),
                             .text = app.get_description(),
                             .footer = app.get_footer(),
                             .commands = {},
                             .flags = {}};
  for (const CLI::Option* option : app.get_options()) {
    if (option->get_positional()) command.flags.push_back(describe_flag(command.path, *option, true));
    if (!option->get_lnames().empty()) command.flags.push_back(describe_flag(command.path, *option, false));
  }
  const auto inner = app.get_subcommands([](const CLI::App*) { return true; });
  for (const CLI::App* one : inner) command.commands.push_back(one->get_name());
  out.push_back(std::move(command));
  for (const CLI::App* one : inner) describe_command(*one, out);
}

}  // namespace

std::vector<CommandDescription> describe(const CLI::App& root) {
  std::vector<CommandDescription> out;
  describe_command(root, out);
  return out;
}

}  // namespace coca::tools
