// coca/tensor/arena.h - activation memory in one block, in two passes: plan every tensor, then bind.
//
//   ArenaPlan plan;
//   struct Acts { MutTensorRef ln1, q; } acts;
//   plan.add("layer.0.ln1", {B * N, C}, DType::kF32, &acts.ln1);
//   plan.add("layer.0.q", {B, N, H, D}, DType::kF32, &acts.q);
//   Arena arena(plan);          // one allocation, on the host or a device; every registered ref now points into it
//
// Scopes reuse memory: tensors added between mark() and rewind(mark) share their bytes with tensors added later.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <vector>

#include "coca/tensor/tensor.h"

namespace coca {

class ArenaPlan {
 public:
  struct Entry {
    std::string name;
    size_t offset;
    Dims shape;
    DType dtype;
    MutTensorRef* slot;
  };

  void add(std::string name, const Dims& shape, DType dtype, MutTensorRef* slot);
  size_t mark() const { return cursor_; }
  void rewind(size_t mark) { cursor_ = mark; }
  size_t bytes() const { return peak_; }
  std::string text() const;  // "40 activations, the largest layer.0.q [2, 8, 64] F32", for messages
  const std::vector<Entry>& entries() const { return entries_; }

 private:
  std::vector<Entry> entries_;
  size_t cursor_ = 0;
  size_t peak_ = 0;
};

class Arena {
 public:
  Arena() = default;
  explicit Arena(DeviceMemory* memory) : memory_(memory) {}               // null: the host's
  explicit Arena(const ArenaPlan& plan, DeviceMemory* memory = nullptr);  // allocates (or grows) and binds every slot
  // Reuses the block if it is large enough; contents are unspecified. If there is not enough memory, throws Error (kIo)
  // naming the sizes, the largest tensor and what to lower; the slots are then unchanged, and the old block is freed.
  void bind(const ArenaPlan& plan);
  size_t bytes() const { return capacity_; }

 private:
  DeviceMemory* memory_ = nullptr;
  Buffer buffer_;
  size_t capacity_ = 0;
};

}  // namespace coca
