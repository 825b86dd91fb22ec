// A safetensors file. If it is accepted, every byte of every tensor can be read.
// SPDX-License-Identifier: Apache-2.0
#include "coca/io/safetensors.h"
#include "support/harness.h"

COCA_FUZZ_TARGET({.per_byte = 64}) {
  using namespace coca;
  const fuzz::MemoryFile file(input);
  const io::SafetensorsFile stored(file.path());
  size_t bytes = 0;
  unsigned sum = 0;
  for (const io::StoredTensor& tensor : stored.tensors()) {
    fuzz::require(stored.find(tensor.name) == &tensor, "a tensor that is not found by its name");
    for (size_t i = 0; i < tensor.bytes; ++i) sum += static_cast<unsigned>(tensor.data[i]);
    bytes += tensor.bytes;
    fuzz::require(tensor.ref().bytes() == tensor.bytes, "a shape that is not of its bytes");
    if (dtype_name(tensor.dtype).front() == 'F' || tensor.dtype == DType::kBF16) io::to_f32(tensor);
    stored.release(tensor);
  }
  fuzz::require(bytes <= input.size() && sum + 1 != 0, "more data than there is");
}
