// tests/e2e/program.h - runs the built program and captures its exit code and output.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>

#include <cstdlib>
#include <filesystem>
#include <string>
#include <vector>

#include "coca/base/error.h"
#include "coca/io/fs.h"

extern char** environ;

namespace coca::test {

struct Outcome {
  int code = -1;  // exit code, or 1000 + signal
  std::string out, err;
};

// The program running with one thread; its standard output and error go to files in `dir`. A launcher such as mpirun,
// with arguments, may start it.
class Program {
 public:
  Program(const std::filesystem::path& dir, std::vector<std::string> args,
          const std::vector<std::string>& launcher = {})
      : out_(dir / "stdout.txt"), err_(dir / "stderr.txt") {
    for (const char* set_for_tests : {"GOMP_SPINCOUNT", "OMP_WAIT_POLICY"})
      unsetenv(set_for_tests);  // so that it runs as for a user
    args.insert(args.begin(), {COCA_PROGRAM, "--threads", "1"});
    args.insert(args.begin(), launcher.begin(), launcher.end());
    std::vector<char*> argv;
    for (std::string& arg : args) argv.push_back(arg.data());
    argv.push_back(nullptr);
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
    posix_spawn_file_actions_addopen(&actions, 1, out_.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0666);
    posix_spawn_file_actions_addopen(&actions, 2, err_.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0666);
    const int error = posix_spawnp(&pid_, argv[0], &actions, nullptr, argv.data(), environ);
    posix_spawn_file_actions_destroy(&actions);
    COCA_CHECK_AS(kIo, error == 0, "cannot run {}: error {}", COCA_PROGRAM, error);
  }
  ~Program() {
    if (running_) {
      kill(pid_, SIGKILL);
      waitpid(pid_, nullptr, 0);
    }
  }
  Program(const Program&) = delete;
  Program& operator=(const Program&) = delete;

  void interrupt() { kill(pid_, SIGINT); }
  void terminate() { kill(pid_, SIGTERM); }
  void kill_now() { kill(pid_, SIGKILL); }
  pid_t pid() const { return pid_; }
  bool ended() {  // does not wait
    if (running_ && waitpid(pid_, &status_, WNOHANG) == pid_) running_ = false;
    return !running_;
  }
  Outcome wait() {
    if (running_) waitpid(pid_, &status_, 0);
    running_ = false;
    return {WIFEXITED(status_) ? WEXITSTATUS(status_) : 1000 + WTERMSIG(status_), io::read_file(out_),
            io::read_file(err_)};
  }

 private:
  std::filesystem::path out_, err_;
  pid_t pid_ = -1;
  int status_ = 0;
  bool running_ = true;
};

inline Outcome run_program(const std::filesystem::path& dir, std::vector<std::string> args) {
  return Program(dir, std::move(args)).wait();
}

}  // namespace coca::test
