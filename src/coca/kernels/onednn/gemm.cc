// fp32 goes to dnnl_sgemm. bf16 has no such call: a matmul primitive is made per shape and kept, a set for each thread.
// SPDX-License-Identifier: Apache-2.0
#include "coca/kernels/onednn/gemm.h"

#include <dnnl.h>

#include <array>
#include <map>
#include <memory>
#include <vector>

namespace coca::onednn {

namespace {

// A oneDNN handle that is destroyed with its owner.
template <typename Handle, dnnl_status_t (*destroy)(Handle)>
class Owned {
 public:
  Owned() = default;
  Owned(const Owned&) = delete;
  Owned& operator=(const Owned&) = delete;
  ~Owned() {
    if (handle_) destroy(handle_);
  }
  Handle* slot() { return &handle_; }
  Handle get() const { return handle_; }

 private:
  Handle handle_ = nullptr;
};
using Memory = Owned<dnnl_memory_t, dnnl_memory_destroy>;

dnnl_engine_t engine() {  // lives as long as the process
  static const dnnl_engine_t kEngine = [] {
    dnnl_engine_t made = nullptr;
    return dnnl_engine_create(&made, dnnl_cpu, 0) == dnnl_success ? made : nullptr;
  }();
  return kEngine;
}

struct Product {
  Owned<dnnl_primitive_t, dnnl_primitive_destroy> primitive;
  Memory a, b, c, scratch;
  std::vector<std::byte> scratch_bytes;
};

dnnl_memory_desc_t matrix(int64_t rows, int64_t cols, int64_t ld, Trans trans, dnnl_data_type_t type) {
  const dnnl_dims_t dims = {rows, cols};
  const dnnl_dims_t strides = {trans == Trans::kYes ? 1 : ld, trans == Trans::kYes ? ld : 1};
  dnnl_memory_desc_t desc;
  dnnl_memory_desc_init_by_strides(&desc, 2, dims, type, strides);
  return desc;
}

// Null when oneDNN refuses.
std::unique_ptr<Product> make_product(const Gemm<BF16>& g) {
  const dnnl_memory_desc_t a = matrix(g.m, g.k, g.lda, g.trans_a, dnnl_bf16),
                           b = matrix(g.k, g.n, g.ldb, g.trans_b, dnnl_bf16),
                           c = matrix(g.m, g.n, g.ldc, Trans::kNo, dnnl_f32);
  dnnl_matmul_desc_t desc;
  Owned<dnnl_primitive_attr_t, dnnl_primitive_attr_destroy> attributes;
  Owned<dnnl_post_ops_t, dnnl_post_ops_destroy> post_ops;
  Owned<dnnl_primitive_desc_t, dnnl_primitive_desc_destroy> primitive;
  auto p = std::make_unique<Product>();
  bool ok = dnnl_matmul_desc_init(&desc, &a, &b, nullptr, &c) == dnnl_success &&
            dnnl_primitive_attr_create(attributes.slot()) == dnnl_success &&
            dnnl_primitive_attr_set_scratchpad_mode(attributes.get(), dnnl_scratchpad_mode_user) == dnnl_success;
  if (ok && g.beta != 0.0f)
    ok = dnnl_post_ops_create(post_ops.slot()) == dnnl_success &&
         dnnl_post_ops_append_sum(post_ops.get(), 1.0f) == dnnl_success &&
         dnnl_primitive_attr_set_post_ops(attributes.get(), post_ops.get()) == dnnl_success;
  ok = ok && dnnl_primitive_desc_create(primitive.slot(), &desc, attributes.get(), engine(), nullptr) == dnnl_success &&
       dnnl_primitive_create(p->primitive.slot(), primitive.get()) == dnnl_success;
  if (!ok) return nullptr;
  const dnnl_memory_desc_t* scratch = dnnl_primitive_desc_query_md(primitive.get(), dnnl_query_scratchpad_md, 0);
  p->scratch_bytes.resize(dnnl_memory_desc_get_size(scratch) + 1);
  ok = dnnl_memory_create(p->a.slot(), &a, engine(), nullptr) == dnnl_success &&
       dnnl_memory_create(p->b.slot(), &b, engine(), nullptr) == dnnl_success &&
       dnnl_memory_create(p->c.slot(), &c, engine(), nullptr) == dnnl_success &&
       dnnl_memory_create(p->scratch.slot(), scratch, engine(), p->scratch_bytes.data()) == dnnl_success;
  return ok ? std::move(p) : nullptr;
}

// The calling thread's primitive for a shape. A model has a few dozen shapes; the bound only stops endless growth.
Product* find_product(const Gemm<BF16>& g) {
  using Key = std::array<int64_t, 9>;
  constexpr size_t kMostShapes = 512;
  static thread_local std::map<Key, std::unique_ptr<Product>> products;
  const Key key = {g.m,           g.n, g.k, g.lda, g.ldb, g.ldc, g.trans_a == Trans::kYes, g.trans_b == Trans::kYes,
                   g.beta != 0.0f};
  const auto found = products.find(key);
  if (found != products.end()) return found->second.get();
  if (products.size() >= kMostShapes) products.clear();
  return (products[key] = make_product(g)).get();
}

}  // namespace

bool gemm(const Gemm<float>& g) noexcept {
  if (g.m == 0 || g.n == 0) return true;
  return dnnl_sgemm(g.trans_a == Trans::kYes ? 'T' : 'N', g.trans_b == Trans::kYes ? 'T' : 'N', g.m, g.n, g.k, 1.0f,
                    g.a, g.lda, g.b, g.ldb, g.beta, g.c, g.ldc) == dnnl_success;
}

bool gemm(const Gemm<BF16>& g) noexcept try {
  if (g.m == 0 || g.n == 0) return true;
  static thread_local Owned<dnnl_stream_t, dnnl_stream_destroy> stream;
  if (!stream.get() &&
      (!engine() || dnnl_stream_create(stream.slot(), engine(), dnnl_stream_default_flags) != dnnl_success))
    return false;
  Product* p = find_product(g);
  if (!p) return false;
  const bool ok = dnnl_memory_set_data_handle(p->a.get(), const_cast<BF16*>(g.a)) == dnnl_success &&
                  dnnl_memory_set_data_handle(p->b.get(), const_cast<BF16*>(g.b)) == dnnl_success &&
                  dnnl_memory_set_data_handle(p->c.get(), g.c) == dnnl_success;
  const std::array<dnnl_exec_arg_t, 4> args = {{{DNNL_ARG_SRC, p->a.get()},
                                                {DNNL_ARG_WEIGHTS, p->b.get()},
                                                {DNNL_ARG_DST, p->c.get()},
                                                {DNNL_ARG_SCRATCHPAD, p->scratch.get()}}};
  return ok && dnnl_primitive_execute(p->primitive.get(), stream.get(), args.size(), args.data()) == dnnl_success;
} catch (...) {  // out of memory for a new shape
  return false;
}

bool bf16_products() noexcept {
  return (dnnl_get_effective_cpu_isa() & dnnl_cpu_isa_avx512_core) == dnnl_cpu_isa_avx512_core;
}

void limit_isa(std::string_view cpu_target) noexcept {
  // Too late after the first primitive; oneDNN then keeps what it has, which is harmless.
  if (cpu_target == "SSSE3" || cpu_target == "SSE4" || cpu_target == "SCALAR")
    (void)dnnl_set_max_cpu_isa(dnnl_cpu_isa_sse41);
  else if (cpu_target == "AVX2")
    (void)dnnl_set_max_cpu_isa(dnnl_cpu_isa_avx2);
}

}  // namespace coca::onednn
