// SPDX-License-Identifier: Apache-2.0
#include "coca/analyse/sample.h"

#include <cmath>

namespace coca::analyse {

namespace {

// Pairs numbered row by row: row m begins at m (m + 1) / 2.
TokenPair pair_of(int64_t number) {
  auto m = static_cast<int64_t>((std::sqrt(8.0 * static_cast<double>(number) + 1.0) - 1.0) / 2.0);
  while (m * (m + 1) / 2 > number) --m;  // the root may be rounded either way
  while ((m + 1) * (m + 2) / 2 <= number) ++m;
  return {m, number - m * (m + 1) / 2};
}

}  // namespace

std::vector<TokenPair> sample_pairs(int64_t N, int64_t count, Rng& rng) {
  const int64_t all = N * (N + 1) / 2;
  const bool every = count == 0 || count >= all;
  std::vector<TokenPair> pairs(static_cast<size_t>(every ? all : count));
  for (size_t i = 0; i < pairs.size(); ++i)
    pairs[i] = pair_of(every ? static_cast<int64_t>(i) : static_cast<int64_t>(rng.below(static_cast<uint64_t>(all))));
  return pairs;
}

std::vector<int64_t> sample_rows(int64_t N, int64_t count, Rng& rng) {
  const int64_t all = N - 1;
  if (count == 0 || count > all) count = all;
  std::vector<int64_t> rows(static_cast<size_t>(count));
  for (int64_t i = 0; i < count; ++i) {
    const int64_t begin = i * all / count, end = (i + 1) * all / count;
    rows[static_cast<size_t>(i)] = 1 + begin + static_cast<int64_t>(rng.below(static_cast<uint64_t>(end - begin)));
  }
  return rows;
}

}  // namespace coca::analyse
