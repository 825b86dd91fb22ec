// coca/dist/communicator.h - the ranks of a job and the messages between them. Everything is built on one call,
// exchange(): a group of sends and receives, which both MPI (Isend/Irecv/Waitall) and NCCL (grouped ncclSend/ncclRecv)
// offer. Backends: mpi.h (processes), thread_group.h (threads of one process, for tests), alone() (one rank).
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "coca/base/error.h"

namespace coca::dist {

struct Send {
  int to = 0;
  std::span<const std::byte> bytes;
};
struct Receive {
  int from = 0;
  std::span<std::byte> bytes;
};

// For one thread at a time; another thread needs a duplicate(). All ranks make the same calls in the same order.
class Communicator {
 public:
  virtual ~Communicator() = default;
  virtual int rank() const = 0;
  virtual int size() const = 0;
  // Runs all of them at once; returns when all are done. Between two ranks messages keep their order, and each receive
  // has the size of its send. A rank may send to itself. Error kIo naming the peers that stay silent for
  // timeout_seconds().
  virtual void exchange(std::span<const Send>, std::span<const Receive>) = 0;
  // A channel of its own between the same ranks, for use by another thread. All ranks call it together.
  virtual std::unique_ptr<Communicator> duplicate() = 0;
};

// A job of one rank. Safe to share: it has no state.
Communicator& alone();

// COCA_DIST_TIMEOUT, or 600: how long a rank waits for another before it gives up.
double timeout_seconds();

// Copies a message that a rank sends to itself; true if `send` was one. For backends.
bool delivered_to_self(int rank, const Send& send, std::span<const Receive> receives);

// Collectives. All ranks call them in the same order.
void barrier(Communicator&);
void broadcast(Communicator&, int root, std::span<std::byte>);
std::string broadcast_text(Communicator&, int root, std::string_view);
// Writes all [size() * mine.size()]: the equally large pieces of all ranks, in the order of the ranks.
void all_gather(Communicator&, std::span<const std::byte> mine, std::span<std::byte> all);
// Texts of any length, by rank.
std::vector<std::string> gather_texts(Communicator&, std::string_view mine);

template <typename T>
std::vector<T> all_gather_values(Communicator& ranks, std::span<const T> mine) {
  std::vector<T> all(mine.size() * static_cast<size_t>(ranks.size()));
  all_gather(ranks, std::as_bytes(mine), std::as_writable_bytes(std::span(all)));
  return all;
}
template <typename T>
std::vector<T> all_gather_value(Communicator& ranks, const T& mine) {
  return all_gather_values(ranks, std::span<const T>(&mine, 1));
}

// Sends values[i] of rank owner(i) to all: the results of work that was dealt out among ranks.
template <typename T, typename Owner>
void share(Communicator& ranks, std::span<T> values, const Owner& owner) {
  const std::vector<T> all = all_gather_values<T>(ranks, values);
  for (size_t i = 0; i < values.size(); ++i) values[i] = all[static_cast<size_t>(owner(i)) * values.size() + i];
}
// Whether it is true on any rank.
bool any(Communicator&, bool mine);

// An error that all ranks throw at the same place: each can continue from it, or end, without waiting for the others.
class SharedError : public Error {
 public:
  using Error::Error;
};

// Runs `work` on every rank and waits for all. If it threw on some rank, every rank throws a SharedError of the same
// kind: that rank with its own message, the others with a message that names it. `work` must not use the communicator.
// A job of one rank throws what the work threw.
void together(Communicator&, const std::function<void()>& work);
// Like together(), but `work` runs on rank 0 first and then on the others, which find what rank 0 wrote to disk.
void first_rank_first(Communicator&, const std::function<void()>& work);

// Something that must be the same on all ranks: an option and its value, a file and its fingerprint.
struct Fact {
  std::string what, value;
};
// If the list of any rank differs from that of rank 0, every rank throws the same SharedError (kInvalidArgument), which
// names the lowest such rank and the first fact that differs. Lists may have any length.
void require_same(Communicator&, const std::vector<Fact>& mine);

}  // namespace coca::dist
