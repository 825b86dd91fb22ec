// bench/card/child.h - runs programs with a time limit, several at a time, and keeps what they print.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <filesystem>
#include <string>
#include <vector>

namespace coca::card {

struct Child {
  std::vector<std::string> argv;
  double limit = 60;           // seconds, after which it is killed
  std::filesystem::path text;  // standard output and error go to this file
};

struct Ended {
  int code = -1;           // exit code; 128 + the signal that ended it
  bool timed_out = false;  // killed at its limit
  double seconds = 0;
};

// Runs all of them at the same time, and waits for all. Throws Error kIo if one cannot be started.
std::vector<Ended> run(const std::vector<Child>&);
inline Ended run(const Child& child) { return run(std::vector{child}).front(); }

// "took longer than 60 s", "ended with exit code 2", "was ended by signal 9".
std::string describe(const Ended&, const Child&);

}  // namespace coca::card
