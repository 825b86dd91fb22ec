// coca/base/rng.h - a counter-based random generator: the same (seed, stream) gives the same numbers on every
// machine and for any number of threads; seed, stream and counter are all that is needed to resume.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cmath>
#include <cstdint>
#include <numbers>

namespace coca {

// The finaliser of SplitMix64 (Steele, Lea, Flood 2014): a bijection of 64 bits with good avalanche.
constexpr uint64_t mix64(uint64_t x) {
  x += 0x9e3779b97f4a7c15ull;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebull;
  return x ^ (x >> 31);
}

__extension__ using Uint128 = unsigned __int128;  // GNU extension, not ISO C++

class Rng {
 public:
  explicit Rng(uint64_t seed, uint64_t stream = 0) : key_(mix64(seed ^ mix64(stream ^ 0xc0cac0cac0cac0caull))) {}

  uint64_t next() { return mix64(key_ + 0x9e3779b97f4a7c15ull * counter_++); }
  // Uniform in [0, 1), 53 bits.
  double uniform() { return static_cast<double>(next() >> 11) * 0x1.0p-53; }
  // Uniform in {0, ..., n-1}; n >= 1. Bias is below n / 2^64.
  uint64_t below(uint64_t n) { return static_cast<uint64_t>((static_cast<Uint128>(next()) * n) >> 64); }
  // Standard normal (Box-Muller; one value per call, so that the counter alone is the state).
  double normal() {
    const double u = 1.0 - uniform();  // (0, 1]
    return std::sqrt(-2.0 * std::log(u)) * std::cos(2.0 * std::numbers::pi * uniform());
  }
  uint64_t counter() const { return counter_; }
  void set_counter(uint64_t counter) { counter_ = counter; }

 private:
  uint64_t key_;
  uint64_t counter_ = 0;
};

}  // namespace coca
