// SPDX-License-Identifier: Apache-2.0
#include "coca/dist/thread_group.h"

#include <chrono>
#include <condition_variable>
#include <cstring>
#include <deque>
#include <exception>
#include <map>
#include <mutex>
#include <thread>
#include <tuple>
#include <utility>

namespace coca::dist {

namespace {

using Message = std::vector<std::byte>;

// Messages that have not been received, by (channel, from, to).
class Post {
 public:
  explicit Post(int size) : gone_(static_cast<size_t>(size), false) {}

  void put(int channel, int from, int to, std::span<const std::byte> bytes) {
    const std::lock_guard lock(mutex_);
    boxes_[{channel, from, to}].emplace_back(bytes.begin(), bytes.end());
    changed_.notify_all();
  }

  Message take(int channel, int from, int to) {
    std::unique_lock lock(mutex_);
    std::deque<Message>& box = boxes_[{channel, from, to}];
    const bool came = changed_.wait_for(lock, std::chrono::duration<double>(timeout_seconds()),
                                        [&] { return !box.empty() || gone_[static_cast<size_t>(from)]; });
    COCA_CHECK_AS(kIo, came, "[dist] rank {} has sent nothing for {} s", from, timeout_seconds());
    COCA_CHECK_AS(kIo, !box.empty(), "[dist] rank {} has left", from);
    Message message = std::move(box.front());
    box.pop_front();
    return message;
  }

  void leave(int rank) {
    const std::lock_guard lock(mutex_);
    gone_[static_cast<size_t>(rank)] = true;
    changed_.notify_all();
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::map<std::tuple<int, int, int>, std::deque<Message>> boxes_;
  std::vector<bool> gone_;
};

class ThreadRank : public Communicator {
 public:
  ThreadRank(Post& post, int rank, int size, int channel) : post_(post), rank_(rank), size_(size), channel_(channel) {}

  int rank() const override { return rank_; }
  int size() const override { return size_; }
  void exchange(std::span<const Send> sends, std::span<const Receive> receives) override {
    for (const Send& s : sends) post_.put(channel_, rank_, s.to, s.bytes);
    for (const Receive& r : receives) {
      const Message message = post_.take(channel_, r.from, rank_);
      COCA_CHECK_AS(kInternal, message.size() == r.bytes.size(), "[dist] rank {} sent {} bytes; expected {}", r.from,
                    message.size(), r.bytes.size());
      if (!message.empty()) std::memcpy(r.bytes.data(), message.data(), message.size());
    }
  }
  // Every rank makes the same duplicates in the same order, so a counter is enough to match them.
  std::unique_ptr<Communicator> duplicate() override {
    return std::make_unique<ThreadRank>(post_, rank_, size_, 1000 * (channel_ + 1) + ++duplicates_);
  }

 private:
  Post& post_;
  int rank_, size_, channel_, duplicates_ = 0;
};

}  // namespace

void run_ranks(int size, const std::function<void(Communicator&)>& body) {
  Post post(size);
  std::exception_ptr first;
  std::mutex mutex;
  std::vector<std::thread> threads;
  threads.reserve(static_cast<size_t>(size));
  for (int rank = 0; rank < size; ++rank)
    threads.emplace_back([&, rank] {
      try {
        ThreadRank ranks(post, rank, size, 0);
        body(ranks);
      } catch (...) {
        const std::lock_guard lock(mutex);
        if (!first) first = std::current_exception();
      }
      post.leave(rank);
    });
  for (std::thread& thread : threads) thread.join();
  if (first) std::rethrow_exception(first);
}

}  // namespace coca::dist
