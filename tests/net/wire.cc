// A learning Ethernet switch in user space. It moves frames between interfaces (the near ends of veth pairs), each port
// with its own bandwidth and delay, so that tests can use slow and broken networks without the kernel's netem.
//   wire --mbit M --delay-ms D INTERFACE...      SIGUSR1 cuts off the last interface, SIGUSR2 reconnects it
// SPDX-License-Identifier: Apache-2.0
#include <arpa/inet.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <net/if.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <map>
#include <string>
#include <vector>

namespace {

using Clock = std::chrono::steady_clock;
using Seconds = std::chrono::duration<double>;
using Address = std::array<unsigned char, ETH_ALEN>;

constexpr size_t kHeader = 10;  // virtio_net_hdr: pending checksums and segmentation, passed on unchanged
constexpr size_t kMostQueued = size_t{8} << 20;  // bytes queued at a port; a full queue drops frames, as in a switch

volatile std::sig_atomic_t cut = 0;
void on_signal(int signal) { cut = signal == SIGUSR1; }

struct Frame {
  Clock::time_point due;
  std::string bytes;  // virtio header and frame
};

struct Port {
  int fd = -1;
  std::deque<Frame> out;
  size_t queued = 0;
  Clock::time_point busy_until;  // when the line has sent everything queued so far
};

[[noreturn]] void give_up(const std::string& what) {
  std::fprintf(stderr, "wire: %s: %s\n", what.c_str(), std::strerror(errno));
  std::exit(1);
}

int open_port(const char* interface) {
  const int fd = socket(AF_PACKET, SOCK_RAW | SOCK_NONBLOCK, htons(ETH_P_ALL)), on = 1;
  if (fd < 0) give_up("socket");
  if (setsockopt(fd, SOL_PACKET, PACKET_VNET_HDR, &on, sizeof on) != 0) give_up("PACKET_VNET_HDR");
  if (setsockopt(fd, SOL_PACKET, PACKET_IGNORE_OUTGOING, &on, sizeof on) != 0) give_up("PACKET_IGNORE_OUTGOING");
  sockaddr_ll address{};
  address.sll_family = AF_PACKET;
  address.sll_protocol = htons(ETH_P_ALL);
  address.sll_ifindex = static_cast<int>(if_nametoindex(interface));
  if (address.sll_ifindex == 0) give_up(interface);
  if (bind(fd, reinterpret_cast<sockaddr*>(&address), sizeof address) != 0) give_up(interface);
  return fd;
}

class Wire {
 public:
  Wire(double mbit, double delay_ms, const std::vector<const char*>& interfaces)
      : bytes_per_second_(mbit * 1e6 / 8), delay_(delay_ms / 1e3) {
    for (const char* interface : interfaces) ports_.push_back({.fd = open_port(interface)});
  }

  [[noreturn]] void run() {
    while (true) {
      std::vector<pollfd> waits;
      auto next = Clock::now() + std::chrono::milliseconds(200);
      for (const Port& port : ports_) {
        waits.push_back({port.fd, POLLIN, 0});
        if (!port.out.empty()) next = std::min(next, port.out.front().due);
      }
      const auto left = std::max(Clock::duration::zero(), next - Clock::now());
      const timespec timeout{0, static_cast<long>(std::chrono::duration_cast<std::chrono::nanoseconds>(left).count())};
      ppoll(waits.data(), waits.size(), &timeout, nullptr);
      for (size_t i = 0; i < ports_.size(); ++i)
        if (waits[i].revents & POLLIN) receive(i);
      for (Port& port : ports_) send_due(port);
    }
  }

 private:
  bool is_cut(size_t port) const { return cut && port + 1 == ports_.size(); }

  void receive(size_t from) {
    static std::vector<char> buffer(kHeader + 65536 + 64);
    for (int i = 0; i < 64; ++i) {
      const ssize_t n = read(ports_[from].fd, buffer.data(), buffer.size());
      if (n < static_cast<ssize_t>(kHeader + ETH_HLEN)) return;
      if (is_cut(from)) continue;
      Address to, source;
      std::memcpy(to.data(), buffer.data() + kHeader, ETH_ALEN);
      std::memcpy(source.data(), buffer.data() + kHeader + ETH_ALEN, ETH_ALEN);
      where_[source] = from;
      const auto known = where_.find(to);
      for (size_t port = 0; port < ports_.size(); ++port)
        if (port != from && !is_cut(port) && (known == where_.end() || known->second == port))
          queue(ports_[port], std::string(buffer.data(), static_cast<size_t>(n)));
    }
  }

  void queue(Port& port, std::string bytes) {
    if (port.queued + bytes.size() > kMostQueued) return;
    const auto ticks = [](double seconds) { return std::chrono::duration_cast<Clock::duration>(Seconds(seconds)); };
    port.busy_until =
        std::max(port.busy_until, Clock::now()) + ticks(static_cast<double>(bytes.size()) / bytes_per_second_);
    port.queued += bytes.size();
    port.out.push_back({port.busy_until + ticks(delay_), std::move(bytes)});
  }

  static void send_due(Port& port) {
    while (!port.out.empty() && port.out.front().due <= Clock::now()) {
      const std::string& bytes = port.out.front().bytes;
      if (write(port.fd, bytes.data(), bytes.size()) < 0 && errno == EAGAIN) return;
      port.queued -= bytes.size();
      port.out.pop_front();
    }
  }

  double bytes_per_second_, delay_;
  std::vector<Port> ports_;
  std::map<Address, size_t> where_;
};

}  // namespace

int main(int argc, char** argv) {
  double mbit = 1000, delay_ms = 0;
  std::vector<const char*> interfaces;
  for (int i = 1; i < argc; ++i) {
    const std::string arg = argv[i];
    if (arg == "--mbit" && i + 1 < argc)
      mbit = std::atof(argv[++i]);
    else if (arg == "--delay-ms" && i + 1 < argc)
      delay_ms = std::atof(argv[++i]);
    else
      interfaces.push_back(argv[i]);
  }
  if (interfaces.size() < 2 || !(mbit > 0) || !(delay_ms >= 0)) {
    std::fprintf(stderr, "usage: wire --mbit M --delay-ms D INTERFACE INTERFACE...\n");
    return 2;
  }
  std::signal(SIGUSR1, on_signal);
  std::signal(SIGUSR2, on_signal);
  Wire wire(mbit, delay_ms, interfaces);
  std::puts("ready");
  std::fflush(stdout);
  wire.run();
}
