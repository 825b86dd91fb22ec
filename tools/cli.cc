// SPDX-License-Identifier: Apache-2.0
#include "cli.h"

#include <fcntl.h>
#include <poll.h>
#include <unistd.h>

#include <cerrno>
#include <cmath>
#include <cstdio>
#include <cstring>

#include "coca/io/names.h"

#include "ranks.h"

namespace coca::tools {

report::Progress make_progress(report::ProgressOptions options) {
  options.terminal = isatty(STDERR_FILENO) ? report::Terminal::kYes : report::Terminal::kNo;
  return report::Progress(std::move(options), [](std::string_view text) {
    if (!first_rank()) return;
    std::fwrite(text.data(), 1, text.size(), stderr);
    std::fflush(stderr);
  });
}

std::string command_name(const CLI::App& command) {
  const CLI::App* parent = command.get_parent();
  if (!parent) return "";
  const std::string before = command_name(*parent);
  return before.empty() ? command.get_name() : before + " " + command.get_name();
}

namespace {
int output_error = 0;  // of the first write to standard output that failed
}

void print(std::string_view text) { print_bytes(io::shown_name(text)); }

void print_bytes(std::string_view bytes) {
  if (!first_rank()) return;
  while (!bytes.empty() && output_error == 0) {
    const ssize_t n = ::write(STDOUT_FILENO, bytes.data(), bytes.size());
    if (n >= 0) {
      bytes.remove_prefix(static_cast<size_t>(n));
    } else if (errno == EAGAIN) {
      pollfd ready{.fd = STDOUT_FILENO, .events = POLLOUT, .revents = 0};
      ::poll(&ready, 1, -1);
    } else if (errno != EINTR) {
      output_error = errno;
    }
  }
}

bool output_is_lost() { return output_error != 0; }

int check_output(int code) {
  // Some file systems tell of a full disk no sooner than this.
  if (output_error == 0 && ::close(STDOUT_FILENO) != 0 && errno != EBADF && errno != EINTR) output_error = errno;
  if (output_error == 0) return code;
  if (output_error == EPIPE) return code != 0 ? code : kExitNoReader;
  std::fprintf(stderr, "coca: standard output: cannot write: %s\n", output_error == EBADF ? "it is closed" : std::strerror(output_error));
  return code != 0 ? code : kExitFailed;
}

void hold_standard_streams() {
  for (const int descriptor : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO}) {
    if (::fcntl(descriptor, F_GETFD) >= 0 || errno != EBADF) continue;
    // open() gives the lowest free number, which is this one. The wrong way round, so that using it is still an error.
    if (::open("/dev/null", descriptor == STDIN_FILENO ? O_WRONLY : O_RDONLY) < 0) return;
  }
}

namespace detail {

std::string flag_name(std::string_view option) {
  std::string flag = "--" + std::string(option);
  for (char& c : flag)
    if (c == '_') c = '-';
  return flag;
}

void parse_text(std::string_view flag, const std::string& text, int64_t& out) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), out);
  COCA_CHECK(error == std::errc() && end == text.data() + text.size(), "{}: \"{}\" is not an integer", flag, text);
}

void parse_text(std::string_view flag, const std::string& text, double& out) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), out);
  COCA_CHECK(error == std::errc() && end == text.data() + text.size() && std::isfinite(out), "{}: \"{}\" is not a finite number",
             flag, text);
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

void OptionFlags::add_config_flag() {
  app_->add_option("--config", config_file_, "JSON file with these options (underscores for dashes); flags win over it")
      ->type_name("FILE")->group("Configuration");
}

void OptionFlags::finish() {
  if (!config_file_.empty()) from_json_(io::read_json(config_file_), config_file_);
  for (const auto& apply : apply_) apply();
  std::vector<SettledFlag> settled;
  for (const auto& flag : settled_) settled.push_back(flag());
  check_paths(*app_, settled);
  compare_ranks(command_name(*app_), to_json_());
}

}  // namespace coca::tools
