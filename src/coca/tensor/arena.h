// coca/tensor/arena.h - activation memory in one block, in two passes: plan every tensor, then bind.
//
//   ArenaPlan plan;
//   struct Acts { MutTensorRef ln1, q; } acts;
//   plan.add("layer.0.ln1", {B * N, C}, DType::kF32, &acts.ln1);
//   plan.add("layer.0.q", {B, N, H, D}, DType::kF32, &acts.q);
//   Arena arena(plan);          // one allocation; every registered ref now points into it
//
// Scopes reuse memory: what is added between mark() and rewind(mark) shares its bytes with what is added later.
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
  const std::vector<Entry>& entries() const { return entries_; }

 private:
  std::vector<Entry> entries_;
  size_t cursor_ = 0;
  size_t peak_ = 0;
};

class Arena {
 public:
  Arena() = default;
  explicit Arena(const ArenaPlan& plan);  // allocates (or grows) and binds every slot
  void bind(const ArenaPlan& plan);       // re-uses the block when it is large enough; contents are unspecified
  size_t bytes() const { return capacity_; }

 private:
  AlignedBuffer buffer_;
  size_t capacity_ = 0;
};

}  // namespace coca
