// SPDX-License-Identifier: Apache-2.0
#include "coca/dist/mpi.h"

#include <mpi.h>

#include <algorithm>
#include <chrono>
#include <thread>

namespace coca::dist {

namespace {

constexpr size_t kMostBytes = size_t{1} << 30;  // of one MPI message, whose count is an int

void check(int code, const char* call) {
  if (code == MPI_SUCCESS) return;
  char text[MPI_MAX_ERROR_STRING] = "";
  int length = 0;
  MPI_Error_string(code, text, &length);
  fail(ErrorKind::kIo, "[dist] {}: {}", call, std::string_view(text, static_cast<size_t>(length)));
}

class MpiRanks : public Communicator {
 public:
  explicit MpiRanks(MPI_Comm comm) : comm_(comm) {
    check(MPI_Comm_set_errhandler(comm_, MPI_ERRORS_RETURN), "MPI_Comm_set_errhandler");
    check(MPI_Comm_rank(comm_, &rank_), "MPI_Comm_rank");
    check(MPI_Comm_size(comm_, &size_), "MPI_Comm_size");
  }
  ~MpiRanks() override {
    if (comm_ != MPI_COMM_WORLD) MPI_Comm_free(&comm_);
  }

  int rank() const override { return rank_; }
  int size() const override { return size_; }

  void exchange(std::span<const Send> sends, std::span<const Receive> receives) override {
    std::vector<MPI_Request> requests;
    std::vector<int> peers;
    const auto begin = [&](int peer, size_t bytes, const auto& call) {
      for (size_t at = 0; at < bytes; at += kMostBytes) {
        requests.push_back(MPI_REQUEST_NULL);
        peers.push_back(peer);
        call(at, static_cast<int>(std::min(kMostBytes, bytes - at)), &requests.back());
      }
    };
    for (const Receive& r : receives)
      if (r.from != rank_)
        begin(r.from, r.bytes.size(), [&](size_t at, int count, MPI_Request* request) {
          check(MPI_Irecv(r.bytes.data() + at, count, MPI_BYTE, r.from, 0, comm_, request), "MPI_Irecv");
        });
    for (const Send& s : sends)
      if (!delivered_to_self(rank_, s, receives))
        begin(s.to, s.bytes.size(), [&](size_t at, int count, MPI_Request* request) {
          check(MPI_Isend(s.bytes.data() + at, count, MPI_BYTE, s.to, 0, comm_, request), "MPI_Isend");
        });
    wait(requests, peers);
  }

  std::unique_ptr<Communicator> duplicate() override {
    MPI_Comm copy = MPI_COMM_NULL;
    check(MPI_Comm_dup(comm_, &copy), "MPI_Comm_dup");
    return std::make_unique<MpiRanks>(copy);
  }

 private:
  // MPI_Waitall would spin, take a core from the computing threads, and never give up.
  void wait(std::vector<MPI_Request>& requests, const std::vector<int>& peers) {
    const auto start = std::chrono::steady_clock::now();
    const double limit = timeout_seconds();
    for (int polls = 0;; ++polls) {
      int done = 0;
      check(MPI_Testall(static_cast<int>(requests.size()), requests.data(), &done, MPI_STATUSES_IGNORE), "MPI_Testall");
      if (done) return;
      if (polls < 100) {
        std::this_thread::yield();
        continue;
      }
      std::this_thread::sleep_for(std::chrono::microseconds(polls < 1000 ? 20 : 200));
      if (std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count() < limit) continue;
      std::string silent;
      for (size_t i = 0; i < requests.size(); ++i) {
        const std::string peer = std::to_string(peers[i]);
        if (requests[i] != MPI_REQUEST_NULL && silent.find(peer) == std::string::npos)
          silent += (silent.empty() ? "" : ", ") + peer;
      }
      fail(ErrorKind::kIo,
           "[dist] rank {} has waited {} s for rank {}: it has died, hangs, or cannot be reached (COCA_DIST_TIMEOUT)",
           rank_, limit, silent);
    }
  }

  MPI_Comm comm_;
  int rank_ = 0, size_ = 1;
};

}  // namespace

bool mpi_built() { return true; }

std::string mpi_version() {
  char text[MPI_MAX_LIBRARY_VERSION_STRING] = "";
  int length = 0;
  MPI_Get_library_version(text, &length);
  const std::string all(text, static_cast<size_t>(length));
  return all.substr(0, all.find(','));
}

MpiJob::MpiJob() {
  int provided = 0;
  check(MPI_Init_thread(nullptr, nullptr, MPI_THREAD_MULTIPLE, &provided), "MPI_Init_thread");
  COCA_CHECK(provided == MPI_THREAD_MULTIPLE, "this MPI ({}) does not support several threads (MPI_THREAD_MULTIPLE)",
             mpi_version());
  ranks_ = std::make_unique<MpiRanks>(MPI_COMM_WORLD);
}

MpiJob::~MpiJob() {
  ranks_.reset();
  MPI_Finalize();
}

void MpiJob::end_all(int exit_code) { MPI_Abort(MPI_COMM_WORLD, exit_code); }

}  // namespace coca::dist
