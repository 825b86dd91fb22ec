// Materialised attention as in the official code, in both forms, compared with the library's ops.
// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include "coca/bench/answers.h"
#include "coca/bench/einsum_attention.h"
#include "coca/bench/machine.h"
#include "coca/model/rope_table.h"
#include "coca/ops/attention.h"
#include "coca/ops/collinear.h"

namespace coca::bench::einsum_attention_test {
namespace {

class Einsum : public testing::TestWithParam<EinsumForm> {};

// o and its gradients, with grouped heads, two sequences and uneven lengths. The tolerance is 32 roundings, as in
// attention.cc.
TEST_P(Einsum, EqualsTheOps) {
  for (const EinsumShape s : {EinsumShape{2, 19, 4, 2, 6}, EinsumShape{1, 33, 2, 2, 16}, EinsumShape{1, 1, 1, 1, 2}}) {
    const Dims query{s.B, s.N, s.H, s.D}, key{s.B, s.N, s.G, s.D};
    const Tensor q = random_tensor(query, DType::kF32, 1), t = random_tensor(key, DType::kF32, 2);
    const Tensor v = random_tensor(key, DType::kF32, 3), d_o = random_tensor(query, DType::kF32, 4);
    model::ModelSpec positions;
    positions.D = positions.R = s.D;
    model::RopeTable table;
    table.build(model::rope_rotation(positions, s.N), 0, s.N);
    const ops::RopeRows rows = table.rows(0, s.N);

    Context plain = reference_context(), cx;
    Tensor q_eff(query), k_eff(key), o(query), lse({s.B, s.H, s.N}), dq(query), dt(key), dv(key);
    ops::collinear_forward(plain, {}, {.rows = rows, .q = q, .t = t, .q_eff = q_eff, .k_eff = k_eff});
    ops::attention_forward(plain, {}, {.q = q_eff, .k = k_eff, .v = v, .o = o, .lse = lse});
    ops::attention_backward(
        plain, {}, {.q = q_eff, .k = k_eff, .v = v, .o = o, .lse = lse, .d_o = d_o, .dq = dq, .dk = dt, .dv = dv});
    ops::collinear_backward(plain, {}, {.rows = rows, .q = q, .t = t, .dq_eff = dq, .dk_eff = dt, .dq = dq, .dt = dt});

    EinsumAttention einsum(GetParam(), s, Gradients::kWanted);
    Tensor eo(query), edq(query), edt(key), edv(key);
    einsum.forward(cx, {.rows = rows, .q = q, .t = t, .v = v, .o = eo});
    einsum.backward(cx, {.rows = rows, .q = q, .t = t, .v = v, .d_o = d_o, .dq = edq, .dt = edt, .dv = edv});
    EXPECT_NO_THROW(check_close(eo, o, Precision::kF32, 32, "o"));
    EXPECT_NO_THROW(check_close(edv, dv, Precision::kF32, 32, "dv"));
    if (s.N == 1) continue;  // with one key its probability is 1 for any q and t, whose gradients are zero
    EXPECT_NO_THROW(check_close(edq, dq, Precision::kF32, 32, "dq"));
    EXPECT_NO_THROW(check_close(edt, dt, Precision::kF32, 32, "dt"));
  }
}
INSTANTIATE_TEST_SUITE_P(Forms, Einsum, testing::Values(EinsumForm::kPairs, EinsumForm::kTriples));

TEST(EinsumBytes, CountWhatIsMaterialised) {
  const EinsumShape s{2, 10, 3, 1, 8};
  EXPECT_EQ(EinsumAttention::bytes(EinsumForm::kPairs, s, Gradients::kNone), 2 * 3 * 100 * 4);
  EXPECT_EQ(EinsumAttention::bytes(EinsumForm::kTriples, s, Gradients::kWanted), 2 * 2 * 3 * 100 * 9 * 4);
}

}  // namespace
}  // namespace coca::bench::einsum_attention_test
