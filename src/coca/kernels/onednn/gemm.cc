// SPDX-License-Identifier: Apache-2.0
#include "coca/kernels/onednn/gemm.h"

#include <dnnl.h>

namespace coca::onednn {

bool gemm_f32(const Gemm& g) noexcept {
  if (g.m == 0 || g.n == 0) return true;
  return dnnl_sgemm(g.trans_a == Trans::kYes ? 'T' : 'N', g.trans_b == Trans::kYes ? 'T' : 'N', g.m, g.n, g.k, g.alpha,
                    g.a, g.lda, g.b, g.ldb, g.beta, g.c, g.ldc) == dnnl_success;
}

void limit_isa(std::string_view cpu_target) noexcept {
  // Too late after the first primitive; oneDNN then keeps what it has, which is harmless.
  if (cpu_target == "SSSE3" || cpu_target == "SSE4" || cpu_target == "SCALAR")
    (void)dnnl_set_max_cpu_isa(dnnl_cpu_isa_sse41);
  else if (cpu_target == "AVX2")
    (void)dnnl_set_max_cpu_isa(dnnl_cpu_isa_avx2);
}

}  // namespace coca::onednn
