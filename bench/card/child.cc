// SPDX-License-Identifier: Apache-2.0
#include "card/child.h"

#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>

#include <chrono>
#include <thread>

#include "coca/base/clock.h"
#include "coca/base/error.h"

extern char** environ;

namespace coca::card {

namespace {

pid_t start(const Child& child) {
  std::vector<std::string> args = child.argv;
  std::vector<char*> argv;
  for (std::string& arg : args) argv.push_back(arg.data());
  argv.push_back(nullptr);
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
  posix_spawn_file_actions_addopen(&actions, 1, child.text.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0666);
  posix_spawn_file_actions_adddup2(&actions, 1, 2);
  posix_spawnattr_t attributes;
  posix_spawnattr_init(&attributes);
  posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETPGROUP);  // so that what it starts is killed with it
  pid_t pid = -1;
  const int error = posix_spawnp(&pid, argv[0], &actions, &attributes, argv.data(), environ);
  posix_spawnattr_destroy(&attributes);
  posix_spawn_file_actions_destroy(&actions);
  COCA_CHECK_AS(kIo, error == 0, "{} cannot be started: error {}", child.argv[0], error);
  return pid;
}

}  // namespace

std::vector<Ended> run(const std::vector<Child>& children) {
  std::vector<pid_t> pids;
  for (const Child& child : children) pids.push_back(start(child));
  std::vector<Ended> ended(children.size());
  const Stopwatch watch;
  for (size_t left = children.size(); left > 0; std::this_thread::sleep_for(std::chrono::milliseconds(5)))
    for (size_t i = 0; i < children.size(); ++i) {
      if (pids[i] < 0) continue;
      int status = 0;
      if (::waitpid(pids[i], &status, WNOHANG) == pids[i]) {
        ended[i].code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
        ended[i].seconds = watch.seconds();
        pids[i] = -1;
        --left;
      } else if (watch.seconds() > children[i].limit && !ended[i].timed_out) {
        ended[i].timed_out = true;
        ::kill(-pids[i], SIGKILL);
      }
    }
  return ended;
}

std::string describe(const Ended& ended, const Child& child) {
  if (ended.timed_out) return fmt::format("took longer than {:.0f} s", child.limit);
  if (ended.code > 128) return fmt::format("was ended by signal {}", ended.code - 128);
  return fmt::format("ended with exit code {}", ended.code);
}

}  // namespace coca::card
