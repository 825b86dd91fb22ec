// SPDX-License-Identifier: Apache-2.0
#include "cli.h"

#include <fcntl.h>
#include <poll.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <set>

#include "coca/io/names.h"

#include "arguments.h"
#include "ranks.h"
#include "terminal.h"

namespace coca::tools {

void print_note(std::string_view text) {
  static std::set<std::string, std::less<>> said;
  if (!said.emplace(text).second || !first_rank()) return;
  constexpr std::string_view kNote = "note: ";
  const std::string line = wrapped(std::string(kNote) + std::string(text), terminal_columns(Stream::kError), 2);
  std::fprintf(stderr, "%s%s\n", painted(Stream::kError, Style::kWarning, kNote).c_str(), line.c_str() + kNote.size());
}

report::Progress make_progress(report::ProgressOptions options) {
  if (const int columns = terminal_columns(Stream::kError))
    options.columns = columns - 1;  // leaves the last column for the cursor
  options.label = io::shown_name(options.label);
  options.terminal = isatty(STDERR_FILENO) ? report::Terminal::kYes : report::Terminal::kNo;
  return report::Progress(std::move(options), [](std::string_view text) {
    if (!first_rank()) return;
    std::fwrite(text.data(), 1, text.size(), stderr);
    std::fflush(stderr);
  });
}

std::string command_name(const CLI::App& command) { return command_path(command); }

namespace {

std::set<std::string, std::less<>> typed_as_flags;

bool typed_as_flag(std::string_view flag) { return typed_as_flags.contains(flag); }

}  // namespace

void note_typed_as_flags(const std::vector<std::string>& flags) { typed_as_flags.insert(flags.begin(), flags.end()); }

std::vector<TypedFlag> typed_flags(const CLI::App& command) {
  std::vector<TypedFlag> flags;
  for (const CLI::Option* option : command.get_options()) {
    if (option->get_type_size_max() == 0) continue;
    const std::vector<std::string>& names = option->get_lnames();
    const bool argument = option->get_positional() && std::ranges::none_of(names, [](const std::string& name) {
                            return typed_as_flag("--" + name);
                          });
    flags.push_back({names, argument ? option->get_name(true, false) : "", option->results()});
  }
  return flags;
}

namespace {
int output_error = 0;                 // errno of the first failed write to standard output
int text_descriptor = STDOUT_FILENO;  // where print() writes to

void write_to(int descriptor, std::string_view bytes) {
  if (!first_rank()) return;
  while (!bytes.empty() && output_error == 0) {
    const ssize_t n = ::write(descriptor, bytes.data(), bytes.size());
    if (n >= 0) {
      bytes.remove_prefix(static_cast<size_t>(n));
    } else if (errno == EAGAIN) {
      pollfd ready{.fd = descriptor, .events = POLLOUT, .revents = 0};
      ::poll(&ready, 1, -1);
    } else if (errno != EINTR) {
      if (descriptor != STDOUT_FILENO) return;
      output_error = errno;
    }
  }
}

}  // namespace

void print(std::string_view text) { write_to(text_descriptor, io::shown_name(text)); }
void print_bytes(std::string_view bytes) {
  if (is_terminal(text_descriptor == STDOUT_FILENO ? Stream::kOut : Stream::kError))
    write_to(text_descriptor, harmless(bytes));
  else
    write_to(text_descriptor, bytes);
}
void write_stdout(std::string_view bytes) { write_to(STDOUT_FILENO, bytes); }
void print_to_stderr() { text_descriptor = STDERR_FILENO; }

bool output_is_lost() { return output_error != 0; }

int check_output(int code) {
  // Some file systems report a full disk only when the file is closed.
  if (output_error == 0 && ::close(STDOUT_FILENO) != 0 && errno != EBADF && errno != EINTR) output_error = errno;
  if (output_error == 0) return code;
  if (output_error == EPIPE) return code != 0 ? code : kExitNoReader;
  std::fprintf(stderr, "coca: standard output: cannot write: %s\n",
               output_error == EBADF ? "it is closed" : std::strerror(output_error));
  return code != 0 ? code : kExitFailed;
}

void hold_standard_streams() {
  for (const int descriptor : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO}) {
    if (::fcntl(descriptor, F_GETFD) >= 0 || errno != EBADF) continue;
    // open() returns the lowest free descriptor, which is this one. It is opened for the opposite direction, so that
    // using it still fails.
    if (::open("/dev/null", descriptor == STDIN_FILENO ? O_WRONLY : O_RDONLY) < 0) return;
  }
}

namespace {
int text_columns() { return terminal_columns(text_descriptor == STDOUT_FILENO ? Stream::kOut : Stream::kError); }
}  // namespace

void print_prose(std::string_view text) { print(wrapped(io::shown_name(text), text_columns(), 2)); }

std::string table_text(const report::Table& table) { return report::to_text_within(table, text_columns()); }

namespace detail {

std::string flag_name(std::string_view option) {
  std::string flag = "--" + std::string(option);
  for (char& c : flag)
    if (c == '_') c = '-';
  return flag;
}

void drop_repeated(std::string_view flag, std::vector<int64_t>& values) {
  std::set<int64_t> seen;
  std::erase_if(values, [&](int64_t value) {
    if (seen.insert(value).second) return false;
    print_note(fmt::format("{}: {} is given more than once and counts once", flag, value));
    return true;
  });
}

void parse_text(std::string_view flag, const std::string& text, int64_t& out) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), out);
  COCA_CHECK(end == text.data() + text.size() && !text.empty(), "{}: \"{}\" is not an integer", flag, text);
  COCA_CHECK(error == std::errc(), "{}: {} is too {}: it does not fit into 64 bits", flag, text,
             text[0] == '-' ? "small" : "large");
}

void parse_text(std::string_view flag, const std::string& text, double& out) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), out);
  COCA_CHECK(end == text.data() + text.size() && !text.empty(), "{}: \"{}\" is not a finite number", flag, text);
  COCA_CHECK(error == std::errc(), "{}: {} is too large or too close to 0 for a number of 64 bits", flag, text);
  COCA_CHECK(std::isfinite(out), "{}: \"{}\" is not a finite number", flag, text);
}

void parse_text(std::string_view flag, const std::string& text, float& out) {
  double wide = 0;
  parse_text(flag, text, wide);
  out = static_cast<float>(wide);
}

void parse_text(std::string_view flag, const std::string& text, bool& out) {
  COCA_CHECK(text == "true" || text == "false", "{}: \"{}\" is neither true nor false", flag, text);
  out = text == "true";
}

}  // namespace detail

namespace {

std::vector<std::string> keys_of(const nlohmann::json& object) {
  std::vector<std::string> keys;
  for (const auto& item : object.items()) keys.push_back(item.key());
  return keys;
}

std::string option_name(std::string_view flag) {  // rope-theta -> rope_theta
  std::string name(flag);
  std::ranges::replace(name, '-', '_');
  return name;
}

}  // namespace

void OptionFlags::add_config_flag() {
  app_->add_option("--config", config_file_, "JSON file with these options (underscores for dashes); flags override it")
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeLast)
      ->type_name("PATH")
      ->group("Configuration");
}

std::shared_ptr<std::vector<std::string>> OptionFlags::add(std::string_view name, std::string_view help,
                                                           std::string type, std::string fallback, Repeats repeats) {
  auto texts = std::make_shared<std::vector<std::string>>();
  given_.emplace_back(detail::flag_name(name), texts);
  std::string names = detail::flag_name(name);
  for (const Positional& p : positionals_)
    if (p.option == name) names += "," + std::string(p.label);
  const bool text = type.starts_with("TEXT") || type.starts_with("FILE");
  if (text && takes_path(names.substr(2, names.find(',') - 2))) type.replace(0, 4, "PATH");
  CLI::Option* option = app_->add_option(names, *texts, std::string(help))
                            ->type_name(std::move(type))
                            ->group(group_)
                            ->expected(1)
                            ->allow_extra_args(false);
  const bool list = repeats == Repeats::kAddUp;
  option->multi_option_policy(list ? CLI::MultiOptionPolicy::TakeAll : CLI::MultiOptionPolicy::TakeLast);
  if (list && option->get_positional()) option->expected(1, CLI::detail::expected_max_vector_size)->allow_extra_args();
  const bool in_words = help.find("default: ") != std::string_view::npos;  // a 0 that stands for another number
  if (!fallback.empty() && !in_words) option->default_str(std::move(fallback));
  return texts;
}

namespace {

// Finds where the text names the option: as "NAME:" at the beginning of the text; as "NAME is", "NAME holds" or "NAME
// has" at the beginning of a sentence; or followed by its value, as "NAME VALUE" or "NAME, VALUE".
size_t place_of(std::string_view text, const std::string& name, const std::string& value) {
  for (size_t at = text.find(name); at != std::string::npos; at = text.find(name, at + 1)) {
    const bool begins = at == 0 || (at >= 2 && text.substr(at - 2, 2) == ": ");
    const std::string_view rest = text.substr(at + name.size());
    const auto valued = [&](const std::string& between) {
      const std::string all = between + value;
      return !value.empty() && rest.starts_with(all) &&
             (rest.size() == all.size() || std::isalnum(static_cast<unsigned char>(rest[all.size()])) == 0);
    };
    if (at == 0 && rest.starts_with(":")) return at;
    if (begins && (rest.starts_with(" is ") || rest.starts_with(" holds ") || rest.starts_with(" has "))) return at;
    if ((begins || text[at - 1] == ' ') && (valued(" ") || valued(", "))) return at;
  }
  return std::string::npos;
}

// Replaces option names by flags wherever they occur. Only names with an underscore, which do not occur in prose.
void show_flags(std::string& text, const std::string& key, const std::string& flag) {
  if (key.find('_') == std::string::npos) return;
  const auto part = [](char c) {
    return std::isalnum(static_cast<unsigned char>(c)) != 0 ||
           std::string_view("_-/.\"").find(c) != std::string_view::npos;
  };
  for (size_t at = text.find(key); at != std::string::npos; at = text.find(key, at + 1)) {
    const size_t end = at + key.size();
    if ((at > 0 && part(text[at - 1])) || (end < text.size() && (part(text[end]) && text[end] != '.'))) continue;
    text.replace(at, key.size(), flag);
  }
}

}  // namespace

std::string OptionFlags::shown(std::string_view option) const {
  const std::string flag = detail::flag_name(option);
  const auto argument = std::ranges::find(positionals_, option, &Positional::option);
  return argument == positionals_.end() || typed_as_flag(flag) ? flag : std::string(argument->label);
}

void OptionFlags::refuse(const Error& error) const {
  std::string text = error.what();
  for (const auto& [typed, texts] : given_) {
    const std::string option = typed.substr(2), key = option_name(option), flag = shown(key);
    if (flag != typed && (text.starts_with(typed + ":") || text.starts_with(typed + " ")))
      text.replace(0, typed.size(), flag);
    const bool in_file = texts->empty() && config_.is_object() && config_.contains(key);
    if (texts->empty() && !in_file) {
      if (text.starts_with(key + ":")) text.replace(0, key.size(), flag);
      show_flags(text, key, flag);
      continue;
    }
    const std::string value = in_file ? config_[key].dump() : texts->back();
    for (const std::string& name : {key, option}) {
      const size_t at = place_of(text, name, value);
      if (at == std::string::npos) continue;
      text.replace(at, name.size(), in_file ? fmt::format("\"{}\" of {}", key, config_file_) : flag);
      break;
    }
    if (!in_file) show_flags(text, key, flag);
  }
  throw Error(error.kind(), text);
}

bool OptionFlags::typed(std::string_view flag) const {
  return std::ranges::any_of(given_, [&](const auto& given) { return given.first == flag && !given.second->empty(); });
}

bool OptionFlags::given(std::string_view flag) const {
  return typed(flag) || (config_.is_object() && config_.contains(option_name(flag.substr(2))));
}

void OptionFlags::check_effect(std::string_view flag, bool has_effect, std::string_view why) const {
  const std::string key = option_name(flag.substr(2));
  const bool chosen = typed(flag) || (given(flag) && to_json_()[key] != defaults_[key]);
  COCA_CHECK(has_effect || !chosen, "{}: {}", flag, why);
}

void OptionFlags::finish() {
  if (!config_file_.empty()) {
    nlohmann::json object = io::read_json(config_file_);
    for (const std::string& key : object.is_object() ? keys_of(object) : std::vector<std::string>()) {
      const std::string name = option_name(renamed(command_path(*app_), detail::flag_name(key).substr(2)));
      if (name.empty()) continue;
      COCA_CHECK(!object.contains(name), "{}: \"{}\" is an old name of \"{}\", which is also given", config_file_, key,
                 name);
      print_note(fmt::format("{}: \"{}\" is deprecated: use \"{}\"", config_file_, key, name));
      object[name] = object[key];
      object.erase(key);
    }
    config_ = object;
    try {
      from_json_(object, config_file_);
    } catch (const Error&) {
      COCA_CHECK(!object.is_object() || !(object.contains("model_type") || object.contains("hidden_size")),
                 "--config {}: describes a model; expected the options of coca {}. coca init --model-config {} makes a "
                 "model folder of it",
                 config_file_, command_path(*app_), config_file_);
      throw;
    }
  }
  for (const auto& apply : apply_) apply();
  std::vector<SettledFlag> settled;
  for (const auto& flag : settled_) settled.push_back(flag());
  check_paths(typed_flags(*app_), settled);
  compare_ranks(command_name(*app_), to_json_());
}

CLI::App& add_group(CLI::App& parent, const char* name, const char* help, const char* footer) {
  CLI::App* app = parent.add_subcommand(name, help);
  app->footer(footer);
  app->require_subcommand(1);
  return *app;
}

CLI::App& add_leaf(CLI::App& parent, const char* name, const char* help, const char* footer) {
  CLI::App* app = parent.add_subcommand(name, help);
  app->footer(footer);
  return *app;
}

void when_chosen(CLI::App& command, std::function<void()> callback) { command.callback(std::move(callback)); }

}  // namespace coca::tools
