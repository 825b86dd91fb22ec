// Files instead of pipes: the child can neither block on a full pipe nor can a dead child raise SIGPIPE here.
// SPDX-License-Identifier: Apache-2.0
#include "coca/report/child_process.h"

#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <memory>

#include "coca/base/error.h"

namespace coca::report {

namespace {

struct FileCloser {
  void operator()(std::FILE* file) const { std::fclose(file); }
};
using File = std::unique_ptr<std::FILE, FileCloser>;

File temporary_file() {
  File file(std::tmpfile());
  COCA_CHECK_AS(kIo, file != nullptr, "could not make a temporary file: {}", std::strerror(errno));
  // tmpfile does not set close-on-exec; without it a child started meanwhile by another thread would inherit
  // this.
  fcntl(fileno(file.get()), F_SETFD, FD_CLOEXEC);
  return file;
}

std::string content(const File& file) {
  std::string text;
  std::rewind(file.get());
  char block[65536];
  size_t got = 0;
  while ((got = std::fread(block, 1, sizeof block, file.get())) > 0) text.append(block, got);
  return text;
}

struct FileActions {
  posix_spawn_file_actions_t actions;
  FileActions() { posix_spawn_file_actions_init(&actions); }
  ~FileActions() { posix_spawn_file_actions_destroy(&actions); }
  FileActions(const FileActions&) = delete;
  FileActions& operator=(const FileActions&) = delete;
  void connect(const File& file, int descriptor) {
    posix_spawn_file_actions_adddup2(&actions, fileno(file.get()), descriptor);
  }
};

// The child handles signals as programs do by default, whatever this process blocks or ignores.
struct DefaultSignals {
  posix_spawnattr_t attributes;
  DefaultSignals() {
    sigset_t none, all;
    sigemptyset(&none);
    sigfillset(&all);
    posix_spawnattr_init(&attributes);
    posix_spawnattr_setsigmask(&attributes, &none);
    posix_spawnattr_setsigdefault(&attributes, &all);
    posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
  }
  ~DefaultSignals() { posix_spawnattr_destroy(&attributes); }
  DefaultSignals(const DefaultSignals&) = delete;
  DefaultSignals& operator=(const DefaultSignals&) = delete;
};

// This process's environment with numbers and text fixed to the C locale in UTF-8.
std::vector<std::string> child_environment() {
  std::vector<std::string> kept;
  for (char** entry = environ; entry && *entry; ++entry) {
    const std::string_view text = *entry;
    if (!text.starts_with("LC_") && !text.starts_with("LANG") && !text.starts_with("GNUTERM")) kept.emplace_back(text);
  }
  kept.emplace_back("LC_ALL=C.UTF-8");
  return kept;
}

std::vector<char*> pointers(std::vector<std::string>& strings) {
  std::vector<char*> out;
  out.reserve(strings.size() + 1);
  for (std::string& s : strings) out.push_back(s.data());
  out.push_back(nullptr);
  return out;
}

}  // namespace

ProcessResult run_process(const std::vector<std::string>& arguments, std::string_view input) {
  COCA_CHECK(!arguments.empty(), "[process] no program named");
  const File in = temporary_file(), out = temporary_file(), err = temporary_file();
  const bool written =
      std::fwrite(input.data(), 1, input.size(), in.get()) == input.size() && std::fflush(in.get()) == 0;
  COCA_CHECK_AS(kIo, written, "could not write the input of {} to a temporary file: {}", arguments[0],
                std::strerror(errno));
  std::rewind(in.get());

  FileActions actions;
  actions.connect(in, STDIN_FILENO);
  actions.connect(out, STDOUT_FILENO);
  actions.connect(err, STDERR_FILENO);
  const DefaultSignals signals;
  std::vector<std::string> argument_copies = arguments, environment = child_environment();
  pid_t child = 0;
  const int error = posix_spawnp(&child, arguments[0].c_str(), &actions.actions, &signals.attributes,
                                 pointers(argument_copies).data(), pointers(environment).data());
  COCA_CHECK_AS(kIo, error == 0, "could not start {}: {}", arguments[0], std::strerror(error));

  int status = 0;
  while (waitpid(child, &status, 0) < 0)
    COCA_CHECK_AS(kIo, errno == EINTR, "could not wait for {}: {}", arguments[0], std::strerror(errno));
  const int code = WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
  return {code, content(out), content(err)};
}

bool program_in_path(const std::string& program) {
  const char* path = std::getenv("PATH");
  std::string_view rest = path ? path : "";
  while (!rest.empty()) {
    const size_t colon = rest.find(':');
    const std::string folder(rest.substr(0, colon));
    if (!folder.empty() && access((std::filesystem::path(folder) / program).c_str(), X_OK) == 0) return true;
    rest = colon == std::string_view::npos ? "" : rest.substr(colon + 1);
  }
  return false;
}

}  // namespace coca::report
