// coca/bench/machine.h - what a figure was measured with, and the two rates it is compared with: a large
// matrix product and reading memory.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>

#include "coca/bench/timing.h"
#include "coca/tensor/context.h"

namespace coca::bench {

struct Machine {
  std::string version, commit, build_type, compiler;  // of the program
  std::string cpu, cpu_target;                        // the processor's own name; the SIMD target in use
  std::string device;                                 // the GPU's name, if Contexts are on one
  int threads = 0;

  std::string text() const;  // one line
};
Machine this_machine();
nlohmann::ordered_json to_json(const Machine&);

// Uniform values in [-0.5, 0.5), f32 or bf16; the same for the same seed.
Tensor random_tensor(const Dims& shape, DType dtype, uint64_t seed);

// y = x w^T of 2048^3 in the given type, summed in f32.
class MatrixProduct {
 public:
  MatrixProduct(Context&, DType);
  Contestant contestant();
  static double gflops(const Timing&);

 private:
  Context& cx_;
  Tensor x_, w_, y_;
};

// Reads 256 MiB, far more than the caches hold.
class MemoryRead {
 public:
  explicit MemoryRead(Context&);
  Contestant contestant();
  static double gbytes_per_second(const Timing&);

 private:
  Context& cx_;
  Tensor x_;
};

}  // namespace coca::bench
