// SPDX-License-Identifier: Apache-2.0
#include "arguments.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <map>
#include <span>

#include "coca/base/error.h"
#include "coca/base/suggest.h"

namespace coca::tools {

namespace {

// Options that have been renamed. The old names still work, on the command line and in --config files, with a note.
struct Renamed {
  std::string_view command, old_name, name;
};
constexpr Renamed kRenamed[] = {
    {"data build", "input", "text"},           {"data build", "output", "out"},
    {"data import", "input", "dataset"},       {"data import", "output", "out"},
    {"tokenizer train", "input", "text"},      {"tokenizer train", "output", "out"},
    {"eval ruler", "haystack", "text"},        {"bench attention", "kind", "attention"},
    {"bench attention", "dtype", "precision"}, {"bench train", "kind", "attention"},
    {"bench train", "vocab", "vocab-size"},    {"bench eval", "kind", "attention"},
    {"bench eval", "vocab", "vocab-size"},     {"bench decode", "kind", "attention"},
    {"bench decode", "vocab", "vocab-size"},   {"bench ring", "kind", "attention"},
    {"bench ring", "dtype", "precision"},
};

// Commands whose --json used to be a switch that took no file.
constexpr std::string_view kJsonWasASwitch[] = {"generate", "convert", "info", "data info", "tokenizer info"};

// What other programs call these options, for "did you mean". Of several entries for one word, the first that the
// command has is suggested.
const std::multimap<std::string_view, std::string_view>& words_of_others() {
  static const std::multimap<std::string_view, std::string_view> words = {
      {"lr", "learning-rate"},
      {"bs", "batch"},
      {"batch-size", "batch"},
      {"wd", "weight-decay"},
      {"hidden-size", "width"},
      {"d-model", "width"},
      {"dim", "width"},
      {"seq-len", "length"},
      {"seq-len", "lengths"},
      {"seq-length", "length"},
      {"seq-length", "lengths"},
      {"context", "length"},
      {"context", "lengths"},
      {"context-length", "length"},
      {"context-length", "lengths"},
      {"ctx", "length"},
      {"ctx", "lengths"},
      {"block-size", "length"},
      {"max-seq-len", "length"},
      {"max-length", "length"},
      {"max-length", "lengths"},
      {"max-tokens", "max-new-tokens"},
      {"n-predict", "max-new-tokens"},
      {"num-epochs", "epochs"},
      {"max-steps", "steps"},
      {"iters", "steps"},
      {"gradient-accumulation-steps", "accumulation"},
      {"grad-clip", "clip-norm"},
      {"max-grad-norm", "clip-norm"},
      {"warmup", "warmup-steps"},
      {"output", "out"},
      {"output-dir", "out"},
      {"output-file", "out"},
      {"out-dir", "out"},
      {"save-dir", "out"},
      {"input", "text"},
      {"file", "text"},
      {"dataset", "text"},
      {"train-file", "text"},
      {"data", "text"},
      {"checkpoint", "model"},
      {"model-path", "model"},
      {"model-dir", "model"},
      {"dtype", "precision"},
      {"kind", "attention"},
      {"method", "attention"},
      {"nproc", "threads"},
      {"temp", "temperature"},
      {"grad-accum", "accumulation"},
      {"lora-r", "lora-rank"},
      {"n-layers", "layers"},
      {"n-heads", "heads"},
      {"rope-base", "rope-theta"},
      {"rope-factor", "factor"},
      {"scaling", "rope-scaling"}};
  return words;
}

struct Walk {
  const CLI::App* at;
  const CLI::Option* last = nullptr;  // the option whose value was read last
  std::map<const CLI::Option*, std::string> given;
  std::map<std::string, int> said;
  bool says_something = false;  // --help or --version was given
  Arguments out;

  // An option of this command, or one of the program's own, which every command accepts.
  const CLI::Option* find(const std::string& flag) const {
    for (const CLI::App* app = at; app; app = app->get_parent())
      if (const CLI::Option* option = app->get_option_no_throw(flag)) return option;
    return nullptr;
  }
  std::vector<std::string> flags() const {
    std::vector<std::string> names;
    for (const CLI::App* app = at; app; app = app->get_parent())
      for (const CLI::Option* option : app->get_options())
        for (const std::string& name : option->get_lnames()) names.push_back("--" + name);
    return names;
  }
  std::string program() const {
    const std::string path = command_path(*at);
    return path.empty() ? "coca" : "coca " + path;
  }
  void note(const std::string& text) {
    if (said[text]++ == 0) out.notes.push_back(text);
  }
};

std::vector<const CLI::App*> commands_of(const CLI::App& app) {
  return app.get_subcommands([](const CLI::App*) { return true; });
}

std::vector<std::string> names_of_commands(const CLI::App& app) {
  std::vector<std::string> names;
  for (const CLI::App* command : commands_of(app)) names.push_back(command->get_name());
  return names;
}

std::string joined(const std::vector<std::string>& names) {
  std::string text;
  for (const std::string& name : names) text += (text.empty() ? "" : ", ") + name;
  return text;
}

const CLI::App* command_named(const CLI::App& app, const std::string& name) {
  for (const CLI::App* command : commands_of(app))
    if (command->get_name() == name) return command;
  return nullptr;
}

// The number of positional arguments that the command takes.
int positionals_of(const CLI::App& app) {
  int64_t count = 0;
  for (const CLI::Option* option : app.get_options())
    if (option->get_positional()) count += option->get_items_expected_max();
  return static_cast<int>(std::min<int64_t>(count, CLI::detail::expected_max_vector_size));
}

bool is_list(const CLI::Option& option) { return option.get_multi_option_policy() == CLI::MultiOptionPolicy::TakeAll; }

// rest: the arguments after the flag.
[[noreturn]] void unknown_flag(const Walk& walk, const std::string& flag, std::span<const std::string> rest) {
  const std::vector<std::string> flags = walk.flags();
  std::vector<std::string> near;
  const auto [begin, end] =
      words_of_others().equal_range(std::string_view(flag).substr(std::min<size_t>(flag.size(), 2)));
  for (auto it = begin; it != end && near.empty(); ++it)
    if (std::ranges::find(flags, "--" + std::string(it->second)) != flags.end())
      near.push_back("--" + std::string(it->second));
  if (near.empty()) near = nearest_names(flag, flags);
  for (const CLI::App* command : commands_of(*walk.at))
    if (command->get_option_no_throw(flag) && std::ranges::find(rest, command->get_name()) != rest.end())
      fail(ErrorKind::kInvalidArgument,
           "{}: no such option of {}; give the options of a command after its name: {} {} {} ...", flag, walk.program(),
           walk.program(), command->get_name(), flag);
  fail(ErrorKind::kInvalidArgument, "{}: no such option of {}{}", flag, walk.program(), did_you_mean(near));
}

[[noreturn]] void unknown_word(const Walk& walk, const std::string& word) {
  const std::vector<std::string> names = names_of_commands(*walk.at);
  if (!names.empty()) {
    std::vector<std::string> near = nearest_names(word, names);
    if (near.empty())  // the user left out the group: coca ppl
      for (const CLI::App* command : commands_of(*walk.at))
        if (command_named(*command, word)) near.push_back(command->get_name() + " " + word);
    for (std::string& name : near) name = walk.program() + " " + name;
    fail(ErrorKind::kInvalidArgument, "{}: no such command of {}{}", word, walk.program(),
         near.empty() ? "; expected one of " + joined(names) : did_you_mean(near));
  }
  if (walk.last && is_list(*walk.last))
    fail(ErrorKind::kInvalidArgument,
         "\"{}\": give {} once for each value, or the values separated by commas; put a pattern of file names in "
         "quotes",
         word, walk.last->get_name());
  fail(ErrorKind::kInvalidArgument, "\"{}\": {} takes no argument here{}", word, walk.program(),
       walk.find("--" + word) ? did_you_mean(std::vector<std::string>{"--" + word}) : "");
}

// Handles "name=value", or "name" and possibly the argument after it. Advances `i` past what it used.
void understand_flag(Walk& walk, const std::vector<std::string>& args, size_t& i) {
  const size_t equals = args[i].find('=');
  std::string flag = args[i].substr(0, equals);
  const CLI::Option* option = walk.find(flag);
  const std::string path = command_path(*walk.at);
  if (!option && flag.starts_with("--")) {
    if (const std::string_view name = renamed(path, flag.substr(2)); !name.empty()) {
      walk.note(fmt::format("{} is deprecated: use --{}", flag, name));
      option = walk.find(flag = "--" + std::string(name));
    }
  }
  if (!option) unknown_flag(walk, flag, std::span(args).subspan(i + 1));
  if (option->get_items_expected_max() == 0) {  // --help, --version
    COCA_CHECK(equals == std::string::npos, "{}: takes no value", args[i]);
    walk.out.args.push_back(flag);
    walk.says_something = true;
    return;
  }
  const bool more = i + 1 < args.size(), switches = option->get_type_name() == "[BOOL]";
  const auto looks_like_a_flag = [&](const std::string& text) {
    const std::string name = text.substr(0, text.find('='));
    return name.size() > 1 && name[0] == '-' &&
           (walk.find(name) || (name.size() > 2 && !renamed(path, name.substr(2)).empty()));
  };
  std::string value;
  if (equals != std::string::npos) {
    value = args[i].substr(equals + 1);
  } else if (switches) {
    value = more && (args[i + 1] == "true" || args[i + 1] == "false") ? args[++i] : "true";
  } else if (more && !looks_like_a_flag(args[i + 1])) {
    value = args[++i];
  } else if (flag == "--json" && std::ranges::find(kJsonWasASwitch, path) != std::end(kJsonWasASwitch)) {
    walk.note("--json without a file is deprecated: use --json -");
    value = "-";
  } else {
    const std::string kind = option->get_type_name().empty() ? "a value" : "a value (" + option->get_type_name() + ")";
    COCA_CHECK(!more, "{}: needs {}, but {} follows, which is a flag; if that is the value, write {}={}", flag, kind,
               args[i + 1], flag, args[i + 1]);
    fail(ErrorKind::kInvalidArgument, "{}: needs {}", flag, kind);
  }
  const auto [before, first] = walk.given.try_emplace(option, value);
  if (!first && !is_list(*option) && before->second != value) {
    COCA_CHECK(flag != "--model",
               "--model: given more than once ({}, {}), but `coca {}` takes one model; run it once for each{}",
               before->second, value, path,
               path.starts_with("eval ") ? ", or compare several with `coca eval ppl`" : "");
    walk.note(fmt::format("{} is given more than once; only the last, {}, counts", flag, value));
    before->second = value;
  }
  walk.last = option;
  walk.out.flags.push_back(flag);
  walk.out.args.push_back(flag);
  walk.out.args.push_back(value);
}

}  // namespace

std::string command_path(const CLI::App& app) {
  if (!app.get_parent()) return "";
  const std::string above = command_path(*app.get_parent());
  return above.empty() ? app.get_name() : above + " " + app.get_name();
}

std::string_view renamed(std::string_view command, std::string_view name) {
  for (const Renamed& r : kRenamed)
    if (r.command == command && r.old_name == name) return r.name;
  return "";
}

Arguments understand(const CLI::App& root, const std::vector<std::string>& args, std::string& command) {
  Walk walk{.at = &root, .last = nullptr, .given = {}, .said = {}, .out = {}};
  bool help = false, literal = false;
  int positionals = 0;
  for (size_t i = 0; i < args.size(); ++i) {
    if (args[i] == "--" && !literal) {  // everything after it is positional
      literal = true;
      walk.out.args.push_back(args[i]);
    } else if (literal) {
      if (positionals++ >= positionals_of(*walk.at)) unknown_word(walk, args[i]);
      walk.out.args.push_back(args[i]);
    } else if (args[i].size() > 1 && args[i][0] == '-') {
      understand_flag(walk, args, i);
    } else if (const CLI::App* next = command_named(*walk.at, args[i])) {
      walk.at = next;
      command = command_path(*next);
      walk.out.args.push_back(args[i]);
    } else if (args[i] == "help" && !commands_of(*walk.at).empty()) {
      help = true;
    } else if (!help && positionals++ < positionals_of(*walk.at)) {
      walk.out.args.push_back(args[i]);
    } else {
      unknown_word(walk, args[i]);
    }
  }
  if (help) walk.out.args.emplace_back("--help");
  COCA_CHECK(help || walk.says_something || commands_of(*walk.at).empty(), "{} needs a command: one of {}",
             walk.program(), joined(names_of_commands(*walk.at)));
  return walk.out;
}

}  // namespace coca::tools
