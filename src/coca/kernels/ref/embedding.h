// coca/kernels/ref/embedding.h - table look-up, plainly. Math: docs/math/embedding.md. All arrays contiguous.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

namespace coca::ref {

// y[m, :] = table[ids[m], :]
template <typename T>
void embedding_forward(int64_t M, int64_t C, const int32_t* ids, const T* table, T* y) {
  for (int64_t m = 0; m < M; ++m)
    for (int64_t c = 0; c < C; ++c) y[m * C + c] = table[ids[m] * C + c];
}

// dtable[ids[m], :] += dy[m, :]
template <typename T>
void embedding_backward(int64_t M, int64_t C, const int32_t* ids, const T* dy, T* dtable) {
  for (int64_t m = 0; m < M; ++m)
    for (int64_t c = 0; c < C; ++c) dtable[ids[m] * C + c] += dy[m * C + c];
}

}  // namespace coca::ref
