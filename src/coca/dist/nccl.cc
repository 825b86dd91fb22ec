// SPDX-License-Identifier: Apache-2.0
#include "coca/dist/nccl.h"

#include <cuda_runtime.h>
#include <nccl.h>

#include <chrono>
#include <thread>

namespace coca::dist {

namespace {

void check(ncclResult_t code, const char* call) {
  COCA_CHECK_AS(kIo, code == ncclSuccess, "[dist] {}: {}", call, ncclGetErrorString(code));
}
void check(cudaError_t code, const char* call) {
  COCA_CHECK_AS(kIo, code == cudaSuccess, "[dist] {}: {}", call, cudaGetErrorString(code));
}

class NcclRanks : public Communicator {
 public:
  explicit NcclRanks(Communicator& hosts) : hosts_(hosts) {
    ncclUniqueId id{};
    if (hosts.rank() == 0) check(ncclGetUniqueId(&id), "ncclGetUniqueId");
    broadcast(hosts, 0, std::as_writable_bytes(std::span(&id, 1)));
    check(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "cudaStreamCreateWithFlags");
    check(ncclCommInitRank(&comm_, hosts.size(), id, hosts.rank()), "ncclCommInitRank");
  }
  ~NcclRanks() override {
    if (comm_) ncclCommDestroy(comm_);
    cudaStreamDestroy(stream_);
  }
  NcclRanks(const NcclRanks&) = delete;
  NcclRanks& operator=(const NcclRanks&) = delete;

  int rank() const override { return hosts_.rank(); }
  int size() const override { return hosts_.size(); }

  void exchange(std::span<const Send> sends, std::span<const Receive> receives) override {
    check(ncclGroupStart(), "ncclGroupStart");
    for (const Send& s : sends)
      if (!s.bytes.empty()) check(ncclSend(s.bytes.data(), s.bytes.size(), ncclInt8, s.to, comm_, stream_), "ncclSend");
    for (const Receive& r : receives)
      if (!r.bytes.empty())
        check(ncclRecv(r.bytes.data(), r.bytes.size(), ncclInt8, r.from, comm_, stream_), "ncclRecv");
    check(ncclGroupEnd(), "ncclGroupEnd");
    wait();
  }

  std::unique_ptr<Communicator> duplicate() override { return std::make_unique<NcclRanks>(hosts_); }

 private:
  // cudaStreamSynchronize would wait forever for a peer that is gone.
  void wait() {
    const auto start = std::chrono::steady_clock::now();
    const double limit = timeout_seconds();
    while (true) {
      const cudaError_t state = cudaStreamQuery(stream_);
      if (state == cudaSuccess) return;
      if (state != cudaErrorNotReady) give_up(cudaGetErrorString(state));
      ncclResult_t error = ncclSuccess;
      check(ncclCommGetAsyncError(comm_, &error), "ncclCommGetAsyncError");
      if (error != ncclSuccess) give_up(ncclGetErrorString(error));
      if (std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count() > limit)
        give_up("the others stay silent");
      std::this_thread::sleep_for(std::chrono::microseconds(20));
    }
  }
  [[noreturn]] void give_up(const char* why) {
    ncclCommAbort(comm_);
    comm_ = nullptr;
    fail(ErrorKind::kIo, "[dist] NCCL on rank {} of {}: {}", rank(), size(), why);
  }

  Communicator& hosts_;
  cudaStream_t stream_ = nullptr;
  ncclComm_t comm_ = nullptr;
};

}  // namespace

std::unique_ptr<Communicator> nccl_ranks(Communicator& hosts) { return std::make_unique<NcclRanks>(hosts); }

}  // namespace coca::dist
