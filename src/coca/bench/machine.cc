// SPDX-License-Identifier: Apache-2.0
#include "coca/bench/machine.h"

#include <fstream>
#include <nlohmann/json.hpp>

#include "coca/base/count.h"
#include "coca/base/parallel.h"
#include "coca/base/rng.h"
#include "coca/base/version.h"
#include "coca/ops/adamw.h"
#include "coca/ops/linear.h"
#include "coca/ops/table.h"
#include "coca/tensor/transfer.h"

namespace coca::bench {

namespace {

constexpr int64_t kProduct = 2048, kReadFloats = int64_t{64} << 20;

std::string cpu_name() {
  std::ifstream file("/proc/cpuinfo");
  for (std::string line; std::getline(file, line);)
    if (line.starts_with("model name"))
      if (const size_t at = line.find_first_not_of(" \t", line.find(':') + 1); at != std::string::npos)
        return line.substr(at);
  return "unknown";
}

std::string compiler_name() {
#if defined(__clang__)
  return fmt::format("clang {}.{}.{}", __clang_major__, __clang_minor__, __clang_patchlevel__);
#else
  return fmt::format("g++ {}.{}.{}", __GNUC__, __GNUC_MINOR__, __GNUC_PATCHLEVEL__);
#endif
}

}  // namespace

Machine this_machine() {
  const Context cx;
  return {.version = std::string(version()),
          .commit = std::string(git_commit()),
          .build_type = std::string(build_type()),
          .compiler = compiler_name(),
          .cpu = cpu_name(),
          .cpu_target = ops::cpu_target(),
          .device = cx.memory() ? cx.memory()->name() : "",
          .threads = max_threads()};
}

std::string Machine::text() const {
  return fmt::format("coca {} ({}, {}, {}); {}{}, {}, {}", version, commit, build_type, compiler,
                     device.empty() ? "" : device + ", ", cpu, cpu_target, counted(threads, "thread"));
}

nlohmann::ordered_json to_json(const Machine& m) {
  nlohmann::ordered_json j;
  j["version"] = m.version;
  j["commit"] = m.commit;
  j["build_type"] = m.build_type;
  j["compiler"] = m.compiler;
  j["cpu"] = m.cpu;
  j["cpu_target"] = m.cpu_target;
  if (!m.device.empty()) j["device"] = m.device;
  j["threads"] = m.threads;
  return j;
}

Tensor random_tensor(const Dims& shape, DType dtype, uint64_t seed) {
  Tensor t(shape, dtype);
  Rng rng(seed, 0xbe7c);
  const auto fill = [&](auto values) {
    for (auto& value : values) value = std::decay_t<decltype(value)>(static_cast<float>(rng.uniform() - 0.5));
  };
  if (dtype == DType::kBF16)
    fill(t.values<BF16>());
  else
    fill(t.values<float>());
  return t;
}

MatrixProduct::MatrixProduct(Context& cx, DType dtype)
    : cx_(cx),
      x_(to_device(cx, random_tensor({kProduct, kProduct}, dtype, 1))),
      w_(to_device(cx, random_tensor({kProduct, kProduct}, dtype, 2))),
      y_({kProduct, kProduct}, DType::kF32, cx.memory()) {}

Contestant MatrixProduct::contestant() {
  return {"matrix product", [this] {
            ops::linear_forward(cx_, {.x = x_, .w = w_, .y = y_});
            cx_.synchronize();
          }};
}

double MatrixProduct::gflops(const Timing& t) {
  return 2e-9 * static_cast<double>(kProduct * kProduct * kProduct) / t.fastest();
}

MemoryRead::MemoryRead(Context& cx) : cx_(cx), x_(to_device(cx, random_tensor({kReadFloats}, DType::kF32, 3))) {}

Contestant MemoryRead::contestant() {
  return {"memory read", [this] { ops::sum_of_squares(cx_, x_); }};
}

double MemoryRead::gbytes_per_second(const Timing& t) {
  return 1e-9 * static_cast<double>(sizeof(float)) * static_cast<double>(kReadFloats) / t.fastest();
}

}  // namespace coca::bench
