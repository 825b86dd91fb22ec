// SPDX-License-Identifier: Apache-2.0
#include "coca/kernels/cpu/rows.h"

namespace coca::cpu {

namespace {

void residue_starts(Context&, const ops::ResidueStarts& a) {
  const auto from = a.document_start.view<int32_t, 2>();
  const auto to = a.starts.view<int32_t, 2>();
  for (int64_t b = 0; b < to.size(0); ++b)
    for (int64_t n = 0; n < to.size(1); ++n)
      to(b, n) =
          static_cast<int32_t>((from(b, a.first_query + n * a.dilation) - a.residue + a.dilation - 1) / a.dilation);
}

}  // namespace

const ops::DilatedAttentionImpl dilated_attention_row{.name = "cpu", .run = {residue_starts}};

}  // namespace coca::cpu
