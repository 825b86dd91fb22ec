// coca - Collinear Constrained Attention: train, evaluate, verify, generate, study. Each subcommand has its own file in
// this folder.
// SPDX-License-Identifier: Apache-2.0
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <filesystem>
#include <new>
#include <sstream>
#include <string>
#include <system_error>
#include <thread>

#include "arguments.h"
#include "cli.h"
#include "coca/base/count.h"
#include "coca/base/log.h"
#include "coca/base/parallel.h"
#include "coca/base/version.h"
#include "coca/io/names.h"
#include "coca/ops/device.h"
#include "coca/ops/table.h"
#include "help.h"
#include "ranks.h"
#include "signals.h"
#include "terminal.h"

namespace {

std::string rank_text() {
  const auto& ranks = coca::tools::ranks();
  return ranks.size() == 1 ? "" : fmt::format("rank {}: ", ranks.rank());
}

void log_to_stderr(coca::LogLevel level, std::string_view text) {
  if (level == coca::LogLevel::kInfo && !coca::tools::first_rank()) return;
  const char* prefix = level == coca::LogLevel::kWarning ? "warning: "
                       : level == coca::LogLevel::kError ? "error: "
                       : level == coca::LogLevel::kInfo  ? "note: "
                                                         : "";
  using namespace coca::tools;
  const Style style = level == coca::LogLevel::kError ? Style::kError : Style::kWarning;
  const std::string front = rank_text() + prefix;
  const std::string line = wrapped(front + coca::io::shown_name(text), terminal_columns(Stream::kError), 2);
  std::fprintf(stderr, "%s%s%s\n", rank_text().c_str(), painted(Stream::kError, style, prefix).c_str(),
               line.substr(front.size()).c_str());
}

// libgomp reads its settings when it is loaded, so the program restarts itself with one of them changed. By default
// idle threads spin for about a millisecond. When other programs need the cores too, spinning uses up the time slice of
// the very thread that they wait for: next to two busy processes, training ran at 2,078 tokens/s, and at 8,575 with
// this setting. On an idle machine both run equally fast. docs/environment.md says how to override it.
void bound_spinning(char** argv) {
  if (std::getenv("GOMP_SPINCOUNT") || std::getenv("OMP_WAIT_POLICY")) return;
  setenv("GOMP_SPINCOUNT", "2000", 1);
  char self[4096];  // the real path: if /proc/self/exe were executed, the process would be called "exe"
  const ssize_t length = readlink("/proc/self/exe", self, sizeof self - 1);
  if (length <= 0) return;
  self[length] = '\0';
  execv(self, argv);  // returns only on failure; the program then continues with the default
}

// The commands that compute, where --device says.
bool takes_device(std::string_view command) {
  for (const std::string_view name : {"study", "train", "finetune", "analyse", "generate", "verify"})
    if (command == name) return true;
  return command.starts_with("eval ") || (command.starts_with("bench ") && command != "bench ring");
}

// The memory of the chosen device; null: the CPU's. `auto` is the CPU for commands and jobs that need it.
coca::DeviceMemory* chosen_memory(const std::string& name, const std::string& command) {
  const coca::Device device = coca::ops::chosen_device(name);
  const bool alone = coca::tools::ranks().size() == 1, takes = takes_device(command);
  if (device.is_cpu() || (name == "auto" && (!takes || !alone))) return nullptr;
  COCA_CHECK(takes, "--device is {}; coca {} runs on the CPU", name, command);
  COCA_CHECK(alone, "--device is {}; several ranks compute on the CPU", name);
  return coca::ops::device_memory(device);
}

// Sets the SIMD target, the device, and the implementations that every Context of this run must use, from the flags or
// else from the environment.
void set_computing(const std::string& target, const std::string& forced, coca::DeviceMemory* memory) {
  const auto given = [](const std::string& flag, const char* variable) {
    const char* value = flag.empty() ? std::getenv(variable) : nullptr;
    return value ? std::string(value) : flag;
  };
  if (const std::string name = given(target, "COCA_CPU_TARGET"); !name.empty()) coca::ops::set_cpu_target(name);
  coca::set_default_context_options({.forced = coca::parse_forced(forced.empty() ? "COCA_FORCE_IMPL" : "--force-impl",
                                                                  given(forced, "COCA_FORCE_IMPL"))},
                                    memory);
  coca::ops::check_forced(coca::Context());
}

const CLI::App& chosen_command(const CLI::App& app) {
  const CLI::App* at = &app;
  while (!at->get_subcommands().empty()) at = at->get_subcommands().front();
  return *at;
}

// Prints "coca: rank 1: message", wrapped if standard error is a terminal.
void print_error(const std::string& who, std::string_view message) {
  using namespace coca::tools;
  constexpr std::string_view kProgram = "coca: ";
  const std::string line =
      wrapped(std::string(kProgram) + who + coca::io::shown_name(message), terminal_columns(Stream::kError), 2);
  std::fprintf(stderr, "%s%s\n", painted(Stream::kError, Style::kError, kProgram).c_str(),
               line.substr(kProgram.size()).c_str());
}

// Prints what was wrong with the command line and where to find help.
int refuse(const std::string& command, std::string_view message) {
  using namespace coca::tools;
  print_error("", message);
  std::fprintf(stderr, "Try: coca %s%s--help\n", command.c_str(), command.empty() ? "" : " ");
  return kExitUsage;
}

// Flags that hold a count. If memory runs out, one of them may be the reason.
std::string& sizes_given() {
  static std::string text;
  return text;
}

void note_sizes(const CLI::App& command) {
  for (const CLI::Option* option : command.get_options())
    for (const std::string& value : option->results()) {
      const bool counts = value.find_first_not_of("0123456789,") == std::string::npos && !value.empty();
      if (counts || option->check_lname("config")) sizes_given() += fmt::format(" {} {}", option->get_name(), value);
    }
}

int run(int argc, char** argv) {
  CLI::App app("coca: Collinear Constrained Attention (arXiv 2309.08646) - train, evaluate, verify, generate, study",
               "coca");
  app.require_subcommand(1);
  app.set_version_flag("-V,--version",
                       fmt::format("coca {} ({}, {})", coca::version(), coca::git_commit(), coca::build_type()));
  app.formatter(coca::tools::make_help_formatter());
  app.set_help_flag("-h,--help", "print this text");
  app.footer("coca help COMMAND, or coca COMMAND --help, describes a command.");
  app.option_defaults()->multi_option_policy(
      CLI::MultiOptionPolicy::TakeLast);  // understand() prints a note about overridden values
  std::string threads_given;
  int64_t threads = 0;
  app.add_option("--threads", threads_given, "threads to use (default: all cores, or OMP_NUM_THREADS)")
      ->type_name("INT");
  std::string target, forced, device = "cpu";
  app.add_option("--device", device, "where to compute: cpu, cuda or cuda:N, auto (a GPU if there is one)")
      ->default_str("cpu");
  app.add_option("--cpu-target", target,
                 "SIMD target to use, one of those that coca info lists (default: the best, or COCA_CPU_TARGET)");
  app.add_option("--force-impl", forced,
                 "implementations to use, as op:implementation,...; coca info lists them (or COCA_FORCE_IMPL)");
  app.fallthrough();

  coca::tools::Action action;
  coca::tools::add_study(app, &action);
  coca::tools::add_init(app, &action);
  coca::tools::add_train(app, &action);
  coca::tools::add_finetune(app, &action);
  coca::tools::add_merge(app, &action);
  coca::tools::add_eval(app, &action);
  coca::tools::add_analyse(app, &action);
  coca::tools::add_generate(app, &action);
  coca::tools::add_verify(app, &action);
  coca::tools::add_methods(app, &action);
  coca::tools::add_data(app, &action);
  coca::tools::add_tokenizer(app, &action);
  coca::tools::add_convert(app, &action);
  coca::tools::add_info(app, &action);
  coca::tools::add_bench(app, &action);
  coca::tools::add_completion(app, &action);
  std::string understood;  // the part of the command's name that was understood
  coca::tools::Arguments arguments;
  try {
    arguments = coca::tools::understand(app, {argv + 1, argv + argc}, understood);
    app.parse(std::vector<std::string>(arguments.args.rbegin(), arguments.args.rend()));  // reversed, as CLI11 expects
    if (!threads_given.empty()) {
      coca::tools::detail::parse_text("--threads", threads_given, threads);
      COCA_CHECK(threads >= 1 && threads <= 4096, "--threads is {}; expected 1 to 4096", threads);
    }
  } catch (const CLI::Success& success) {  // --help, --version
    std::ostringstream out, err;
    const int code = app.exit(success, out, err);
    coca::tools::print(out.str());
    return code;
  } catch (const CLI::ParseError& error) {
    return refuse(understood, error.what());
  } catch (const coca::Error& error) {
    return refuse(understood, error.what());
  }
  coca::tools::note_typed_as_flags(arguments.flags);
  if (threads > 0) coca::set_max_threads(static_cast<int>(threads));
  coca::tools::start_ranks();
  if (const unsigned cpus = std::thread::hardware_concurrency(); cpus > 0 && threads > cpus)
    coca::tools::print_note(
        fmt::format("--threads {}: this process has {}; more threads than that slow each other down", threads,
                    coca::counted(cpus, "CPU")));
  for (const std::string& note : arguments.notes) coca::tools::print_note(note);
  coca::tools::check_ranks(coca::tools::command_name(chosen_command(app)));
  set_computing(target, forced, chosen_memory(device, coca::tools::command_name(chosen_command(app))));
  note_sizes(chosen_command(app));
  coca::tools::check_paths(coca::tools::typed_flags(chosen_command(app)), {});
  return action();
}

std::string asked_for() {
  return sizes_given().empty() ? "" : ", asked for" + sizes_given() + ": lower what is too large";
}

// Prints the current exception and returns its exit code.
int report_error() {
  const std::string who =
      coca::tools::painted(coca::tools::Stream::kError, coca::tools::Style::kError, "coca: ") + rank_text();
  try {
    throw;
  } catch (const coca::Error& error) {
    const bool interrupted = error.kind() == coca::ErrorKind::kInterrupted;  // all ranks are interrupted together
    const bool shared = interrupted || dynamic_cast<const coca::dist::SharedError*>(&error) != nullptr;
    if (!shared || coca::tools::first_rank()) print_error(shared ? "" : rank_text(), error.what());
    if (interrupted) return coca::tools::kExitInterrupted;
    return error.kind() == coca::ErrorKind::kInvalidArgument ? coca::tools::kExitUsage : coca::tools::kExitFailed;
  } catch (const std::bad_alloc&) {
    std::fprintf(stderr, "%sout of memory%s\n", who.c_str(), asked_for().c_str());
  } catch (const std::length_error&) {
    std::fprintf(stderr, "%sa size is larger than memory can be%s\n", who.c_str(), asked_for().c_str());
  } catch (const std::filesystem::filesystem_error& error) {
    std::fprintf(stderr, "%s%s: %s\n", who.c_str(), coca::io::shown_name(error.path1().string()).c_str(),
                 error.code().message().c_str());
  } catch (const std::system_error& error) {  // the system refused a library function a thread or another resource
    std::fprintf(stderr, "%sthe system refuses a thread or other resource: %s (ulimit -a shows the limits)\n",
                 who.c_str(), error.code().message().c_str());
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%sinternal error: %s\n", who.c_str(), error.what());
  }
  return coca::tools::kExitFailed;
}

}  // namespace

int main(int argc, char** argv) {
  coca::tools::hold_standard_streams();
  bound_spinning(argv);
  // Also reports exceptions that nothing can catch, such as those thrown in a worker thread or a destructor.
  std::set_terminate([] { std::_Exit(std::current_exception() ? report_error() : coca::tools::kExitFailed); });
  int code = 0;
  try {
    coca::tools::watch_signals();
    coca::set_log_sink(log_to_stderr);
    code = run(argc, argv);
  } catch (const coca::dist::SharedError&) {
    code = report_error();
  } catch (...) {
    // Ensures that an error common to all ranks is printed once: rank 0 ends the others before they print it.
    if (!coca::tools::first_rank()) std::this_thread::sleep_for(std::chrono::seconds(3));
    code = report_error();
    if (code != coca::tools::kExitInterrupted)
      coca::tools::abort_ranks(code);  // the others may be waiting for this rank
  }
  coca::tools::finish_ranks();
  return coca::tools::check_output(code);
}
