// coca/dist/background.h - one thread that runs tasks in order, so that messages are sent while the caller
// computes. (Backends move large messages only inside their calls.)
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <condition_variable>
#include <deque>
#include <exception>
#include <functional>
#include <mutex>
#include <thread>

namespace coca::dist {

class Background {
 public:
  Background() = default;
  ~Background();  // tasks that have not begun are dropped
  Background(const Background&) = delete;
  Background& operator=(const Background&) = delete;

  void start(std::function<void()> task);
  // Waits for all tasks. Rethrows the first error of a task; the tasks after it were dropped.
  void wait();

 private:
  void run();

  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<std::function<void()>> tasks_;
  bool busy_ = false, stop_ = false;
  std::exception_ptr error_;
  std::thread thread_;  // started with the first task
};

}  // namespace coca::dist
