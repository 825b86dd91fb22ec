// tools/cli.h - shared by the subcommands: options structs as flags, progress on the terminal, exit codes.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <type_traits>
#include <typeinfo>
#include <utility>
#include <vector>

#include "coca/base/clock.h"
#include "coca/base/count.h"
#include "coca/base/enum_names.h"
#include "coca/base/stop.h"
#include "coca/io/json_file.h"
#include "coca/io/options.h"
#include "coca/report/progress.h"
#include "coca/report/table.h"
#include "paths.h"

namespace CLI {
class App;  // forward-declared because including CLI11 everywhere would slow down compilation
}

namespace coca::tools {

// Exit codes: 0 success, 1 failure or a failed check, 2 wrong usage, 130 interrupted (state saved), 141 standard output
// was closed by its reader.
inline constexpr int kExitFailed = 1, kExitUsage = 2, kExitInterrupted = 130, kExitNoReader = 141;

// "note: ..." on stderr. With several ranks, only the first prints.
void print_note(std::string_view text);
report::Progress make_progress(report::ProgressOptions options);  // on stderr; rewrites its line on a terminal
// The progress of work whose extent is known only at its first report. The work begins when this is constructed.
class LateProgress {
 public:
  // The options of the first call count.
  report::Progress& shown(report::ProgressOptions options) {
    options.began = watch_.seconds();
    if (!progress_) progress_ = make_progress(std::move(options));
    return *progress_;
  }
  // Writes nothing if there was no report. The next work begins.
  void finish(std::string_view text = {}) {
    if (progress_) progress_->finish(text);
    progress_.reset();
    watch_.restart();
  }

 private:
  Stopwatch watch_;
  std::optional<report::Progress> progress_;
};
std::string command_name(const CLI::App& command);            // "train", "eval ppl"
std::vector<TypedFlag> typed_flags(const CLI::App& command);  // the flags that take a value
// Call after the command line is understood (arguments.h). Values of other flags were typed as arguments without a
// flag.
void note_typed_as_flags(const std::vector<std::string>& flags);
// Writes to standard output without buffering. With several ranks, only the first prints. File names in `text` that are
// not UTF-8 are escaped (io/names.h). If a write fails, nothing more is printed but the command continues, since it may
// still have files to write; check_output() then sets the exit code.
void print(std::string_view text);
void print_prose(std::string_view text);  // the same, with lines wrapped to the width of the terminal
// Writes generated or decoded text byte for byte; on a terminal, passes it through harmless() first.
void print_bytes(std::string_view bytes);
bool output_is_lost();  // a write has failed: the reader has gone, or the disk is full
// Call last in main. Returns `code`. If standard output could not be written in full, prints an error and returns
// kExitFailed; if its reader has gone, returns kExitNoReader silently.
int check_output(int code);
// Call first in main. Replaces closed standard streams by unusable descriptors, so that no file opened later takes
// their numbers.
void hold_standard_streams();
void write_stdout(std::string_view bytes);
void print_to_stderr();  // redirects print() to stderr, when standard output carries a result

// Fits the table to the terminal, if standard output is one.
std::string table_text(const report::Table&);

namespace detail {

std::string flag_name(std::string_view option);  // rope_theta -> --rope-theta

void drop_repeated(std::string_view flag,
                   std::vector<int64_t>& values);  // with a note, since each duplicate would be measured again
void parse_text(std::string_view flag, const std::string& text, int64_t& out);
void parse_text(std::string_view flag, const std::string& text, double& out);
void parse_text(std::string_view flag, const std::string& text, float& out);
void parse_text(std::string_view flag, const std::string& text, bool& out);
inline void parse_text(std::string_view, const std::string& text, std::string& out) { out = text; }

template <typename T>
void parse_value(std::string_view flag, const std::vector<std::string>& texts, T& out) {
  if constexpr (requires { out.from_option_texts(texts); }) {
    out.from_option_texts(texts);
  } else if constexpr (requires { out.from_option_text(flag, texts.back()); }) {
    for (const std::string& text : texts) out.from_option_text(flag, text);
  } else if constexpr (io::detail::IsVector<T>::value) {
    T items;
    for (const std::string& text : texts) {
      std::string_view rest = text;
      while (true) {  // comma-separated values; the flag may also be repeated
        const size_t comma = rest.find(',');
        typename T::value_type item{};
        parse_value(flag, {std::string(rest.substr(0, comma))}, item);
        items.push_back(std::move(item));
        if (comma == std::string_view::npos) break;
        rest.remove_prefix(comma + 1);
      }
    }
    out = std::move(items);
  } else if constexpr (io::detail::IsOptional<T>::value) {
    typename T::value_type item{};
    parse_value(flag, texts, item);
    out = std::move(item);
  } else if constexpr (Named<T>) {
    for (const auto& entry : EnumTraits<T>::names())
      if (entry.name == texts.back()) {
        out = entry.value;
        return;
      }
    fail(ErrorKind::kInvalidArgument, "{}: \"{}\" is unknown; expected one of {}", flag, texts.back(),
         enum_choices_for<T>(texts.back()));
  } else {
    parse_text(flag, texts.back(), out);
  }
}

inline std::vector<std::string> texts_of(const std::string& value) { return {value}; }
inline std::vector<std::string> texts_of(const std::optional<std::string>& value) { return {value.value_or("")}; }
inline std::vector<std::string> texts_of(const std::vector<std::string>& values) { return values; }

template <typename T>
std::string default_text(const T& value) {
  if constexpr (requires { value.to_option_json(); }) {
    return "";
  } else if constexpr (std::is_same_v<T, bool>) {
    return value ? "true" : "";
  } else if constexpr (std::is_same_v<T, std::string>) {
    return value;
  } else if constexpr (Named<T>) {
    return std::string(enum_name(value));
  } else if constexpr (io::detail::IsOptional<T>::value) {
    return value ? default_text(*value) : "";
  } else if constexpr (io::detail::IsVector<T>::value) {
    std::string text;
    for (const auto& item : value) text += (text.empty() ? "" : ",") + default_text(item);
    return text;
  } else {
    return io::detail::option_to_json(value).dump();
  }
}

template <typename T>
std::string type_text() {
  if constexpr (std::is_same_v<T, bool>)
    return "[BOOL]";  // the flag alone means true
  else if constexpr (std::is_same_v<T, int64_t>)
    return "INT";
  else if constexpr (std::is_floating_point_v<T>)
    return "NUMBER";
  else if constexpr (Named<T>)
    return "{" + enum_choices<T>() + "}";
  else if constexpr (io::detail::IsVector<T>::value)
    return type_text<typename T::value_type>() + ",...";
  else if constexpr (io::detail::IsOptional<T>::value)
    return type_text<typename T::value_type>();
  else
    return "TEXT";
}

}  // namespace detail

// A list of texts that may contain commas. The flag is repeated, once for each text.
struct Texts {
  std::vector<std::string> items;

  nlohmann::ordered_json to_option_json() const { return items; }
  void from_option_json(const nlohmann::json& value, const std::string& origin) {
    io::detail::option_from_json(value, {origin, ""}, items);
  }
  void from_option_texts(const std::vector<std::string>& texts) { items = texts; }
};

// An option that may also be given without its flag: coca info DIR means coca info --model DIR.
struct Positional {
  std::string_view option, label;
};

// Turns every field of an options struct (see coca/io/options.h) into a flag, and adds --config FILE. finish() applies
// the values; flags override the --config file, which overrides the defaults. arguments.cc lists renamed options.
class OptionFlags {
 public:
  template <class S>
  OptionFlags(CLI::App& app, S& options, std::vector<Positional> positionals = {})
      : app_(&app), positionals_(std::move(positionals)) {
    from_json_ = [&options](const nlohmann::json& object, std::string_view origin) {
      if constexpr (requires { options.takes_config(object, origin); })
        if (options.takes_config(object, origin)) return;
      io::options_from_json(options, object, origin);
    };
    to_json_ = [&options] { return io::options_to_json(options); };
    defaults_ = to_json_();
    options.visit(*this);
    add_config_flag();
  }
  // Rethrows the error. If its message names an option that the user gave, the name is replaced by the flag or by the
  // key in the --config file: "steps is -3" becomes "--steps is -3".
  [[noreturn]] void refuse(const Error&) const;
  bool typed(std::string_view flag) const;  // on the command line; `flag` is "--lora-alpha"
  bool given(std::string_view flag) const;  // on the command line or in the --config file
  // What the user calls the option: its flag, or as in --help if it was given as an argument without a flag.
  std::string shown(std::string_view option) const;
  // Error "FLAG: WHY" unless the flag has an effect. A --config file may have its default value.
  void check_effect(std::string_view flag, bool has_effect, std::string_view why) const;
  void finish();  // call after parsing; checks paths, and compares the options of all ranks (ranks.h)

  void group(std::string_view name) { group_ = name; }
  template <typename T>
  void operator()(std::string_view name, std::string_view help, T& field, Least least = {}) {
    constexpr bool list = io::detail::IsVector<T>::value || requires { field.from_option_texts({}); }
    || requires { field.from_option_text(name, ""); };
    const auto texts = add(name, help, name == "json" ? "FILE" : detail::type_text<T>(), detail::default_text(field),
                           list ? Repeats::kAddUp : Repeats::kLastCounts);
    const bool set = name == "lengths" || name == "multiples" || name == "machines" || name == "shifts";
    apply_.push_back([this, texts, set, least, option = std::string(name), &field] {
      if (!texts->empty()) detail::parse_value(shown(option), *texts, field);
      io::detail::check_option_range(option, option, field, least);
      if constexpr (std::is_same_v<T, std::vector<int64_t>>)
        if (set) detail::drop_repeated(shown(option), field);
    });
    if constexpr (requires { detail::texts_of(field); })
      settled_.push_back([flag = detail::flag_name(name), &field] {
        return SettledFlag{flag, detail::texts_of(field)};
      });
  }

 private:
  enum class Repeats : uint8_t { kLastCounts, kAddUp };

  void add_config_flag();
  std::shared_ptr<std::vector<std::string>> add(std::string_view name, std::string_view help, std::string type,
                                                std::string fallback, Repeats);

  CLI::App* app_;
  std::vector<Positional> positionals_;
  std::string group_ = "Options";
  std::string config_file_;
  nlohmann::json config_;  // contents of the --config file
  nlohmann::ordered_json defaults_;
  std::vector<std::pair<std::string, std::shared_ptr<std::vector<std::string>>>> given_;  // by flag
  std::function<void(const nlohmann::json&, std::string_view)> from_json_;
  std::function<nlohmann::ordered_json()> to_json_;
  std::vector<std::function<void()>> apply_;
  std::vector<std::function<SettledFlag()>> settled_;
};

using Action = std::function<int()>;

// A command with subcommands, one of which is required.
CLI::App& add_group(CLI::App& parent, const char* name, const char* help, const char* footer);

CLI::App& add_leaf(CLI::App& parent, const char* name, const char* help, const char* footer);
void when_chosen(CLI::App& command, std::function<void()> callback);

// Runs work that puts its result into place only when it is complete. A signal ends it early.
template <typename Work>
int all_or_nothing(const Work& work) {
  int code = 0;
  run_interruptible([] { return "stopped; nothing was written"; }, [&] { code = work(); });
  return code;
}

// A command whose options are an `Options` struct. It calls run(options) or run(flags, options).
template <class Options, class Run>
void add_command(CLI::App& parent, Action* action, const char* name, const char* help, const char* footer, Run run,
                 std::vector<Positional> positionals = {}) {
  CLI::App& app = add_leaf(parent, name, help, footer);
  auto options = std::make_shared<Options>();
  auto flags = std::make_shared<OptionFlags>(app, *options, std::move(positionals));
  when_chosen(app, [=] {
    *action = [=] {
      try {
        flags->finish();
        if constexpr (std::is_invocable_v<Run, OptionFlags&, Options&>)
          return run(*flags, *options);
        else
          return run(*options);
      } catch (const Error& error) {
        if (typeid(error) == typeid(Error) && error.kind() == ErrorKind::kInvalidArgument) flags->refuse(error);
        throw;
      }
    };
  });
}

// Each of these registers its subcommand and stores the action in *run.
void add_verify(CLI::App& root, Action* run);
void add_methods(CLI::App& root, Action* run);
void add_init(CLI::App& root, Action* run);
void add_train(CLI::App& root, Action* run);
void add_finetune(CLI::App& root, Action* run);
void add_merge(CLI::App& root, Action* run);
void add_eval(CLI::App& root, Action* run);
void add_analyse(CLI::App& root, Action* run);
void add_generate(CLI::App& root, Action* run);
void add_study(CLI::App& root, Action* run);
void add_data(CLI::App& root, Action* run);
void add_tokenizer(CLI::App& root, Action* run);
void add_convert(CLI::App& root, Action* run);
void add_info(CLI::App& root, Action* run);
void add_bench(CLI::App& root, Action* run);
void add_completion(CLI::App& root, Action* run);  // and man

}  // namespace coca::tools
