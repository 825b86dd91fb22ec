// SPDX-License-Identifier: Apache-2.0
#include "help.h"

#include <algorithm>

#include "terminal.h"

namespace coca::tools {

namespace {

class HelpFormatter : public CLI::Formatter {
 public:
  std::string make_group(std::string group, bool is_positional,
                         std::vector<const CLI::Option*> options) const override {
    std::string out =
        (is_positional || group == "Options" ? "\n" : "") + heading(group);  // CLI11 already separates the other groups
    for (const CLI::Option* option : options) out += make_option(option, is_positional);
    return out;
  }
  std::string make_option(const CLI::Option* option, bool is_positional) const override {
    return entry(make_option_name(option, is_positional), make_option_opts(option), option->get_description());
  }
  std::string make_option_name(const CLI::Option* option, bool is_positional) const override {
    if (is_positional) return option->get_name(true, false);
    std::string names;  // for example: -V, --version
    for (const std::string& name : option->get_snames()) names += (names.empty() ? "-" : ", -") + name;
    for (const std::string& name : option->get_lnames()) names += (names.empty() ? "--" : ", --") + name;
    return names;
  }
  std::string make_option_opts(const CLI::Option* option) const override {
    if (option->get_items_expected_max() == 0) return "";
    const std::string fallback = option->get_default_str();
    return " " + option->get_type_name() + (fallback.empty() ? "" : "=" + fallback);
  }
  std::string make_subcommands(const CLI::App* app, CLI::AppFormatMode) const override {
    std::string out;
    for (const CLI::App* command : app->get_subcommands([](const CLI::App*) { return true; })) {
      if (out.empty()) out = "\n" + heading("Subcommands");
      out += entry(command->get_name(), "", command->get_description());
    }
    return out;
  }
  std::string make_description(const CLI::App* app) const override {
    return wrapped(app->get_description(), columns(), 0) + "\n";
  }
  std::string make_footer(const CLI::App* app) const override {
    std::string text = app->get_footer();
    if (app->get_parent())
      text +=
          std::string(text.empty() ? "" : "\n") +
          "Every command also takes --device, --threads, --cpu-target and --force-impl; coca --help describes them.";
    return text.empty() ? "" : wrapped(text, columns(), 4) + "\n";
  }

 private:
  static int columns() { return terminal_columns(Stream::kOut); }
  static std::string heading(const std::string& text) {
    return painted(Stream::kOut, Style::kHeading, text + ":") + "\n";
  }

  // "  --name TYPE=default   description", with the descriptions aligned in a column.
  std::string entry(const std::string& name, const std::string& type, const std::string& description) const {
    const int left =
        columns() > 0 ? std::min(static_cast<int>(column_width_), columns() / 2) : static_cast<int>(column_width_);
    std::string text = wrapped("  " + name + type, columns(), 6);
    const bool beside = static_cast<int>(text.size()) + 1 < left && text.find('\n') == std::string::npos;
    const std::string space(static_cast<size_t>(left), ' ');
    const std::string gap = description.empty() ? "" : beside ? space.substr(text.size()) : "\n" + space;
    text.replace(2, name.size(), painted(Stream::kOut, Style::kName, name));
    return text + gap + wrapped_at(description, left) + "\n";
  }
  static std::string wrapped_at(const std::string& text, int left) {
    const std::string out = wrapped(text, columns() > 0 ? columns() - left : 0, 0);
    std::string indented;
    for (const char c : out) {
      indented += c;
      if (c == '\n') indented += std::string(static_cast<size_t>(left), ' ');
    }
    return indented;
  }
};

}  // namespace

std::shared_ptr<CLI::Formatter> make_help_formatter() {
  auto formatter = std::make_shared<HelpFormatter>();
  formatter->column_width(34);
  return formatter;
}

}  // namespace coca::tools
