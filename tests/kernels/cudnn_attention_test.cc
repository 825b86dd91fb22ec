// Which calls attention by cuDNN takes, and how it divides them. cuDNN is replaced (support/gpu/attention_graph.h);
// tests/ops/attention_test.cc checks more values and gradients.
// SPDX-License-Identifier: Apache-2.0
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <functional>

#include "coca/base/log.h"
#include "coca/base/rng.h"
#include "coca/kernels/cuda/device.h"
#include "coca/kernels/cuda/rows.h"
#include "coca/tensor/transfer.h"
#include "gpu/attention_graph.h"
#include "support/fake_device.h"

namespace coca::cuda::cudnn_attention_test {
namespace {

using gpu::fake_cudnn;
using ops::AttentionBackward;
using ops::AttentionForward;
using ops::AttentionOptions;
using ops::Mask;
using testing::HasSubstr;

Tensor random(Context& cx, const Dims& shape, uint64_t seed) {
  Tensor t(shape, DType::kBF16);
  Rng rng(seed);
  for (BF16& x : t.values<BF16>()) x = BF16(static_cast<float>(4 * rng.uniform() - 2));
  return to_device(cx, t);
}

struct Sizes {
  int64_t B = 2, N = 24, S = 24, H = 4, G = 2, D = 16;
};
enum class Documents : uint8_t { kNone, kTwo };

// The operands of both passes on the simulated GPU.
struct Operands {
  Tensor q, k, v, d_o, starts, o, lse, dq, dk, dv;

  Operands(Context& cx, const Sizes& s, Documents documents = Documents::kNone)
      : q(random(cx, {s.B, s.N, s.H, s.D}, 1)),
        k(random(cx, {s.B, s.S, s.G, s.D}, 2)),
        v(random(cx, {s.B, s.S, s.G, s.D}, 3)),
        d_o(random(cx, {s.B, s.N, s.H, s.D}, 4)),
        o({s.B, s.N, s.H, s.D}, DType::kBF16, cx.memory()),
        lse({s.B, s.H, s.N}, DType::kF32, cx.memory()),
        dq({s.B, s.N, s.H, s.D}, DType::kBF16, cx.memory()),
        dk(random(cx, {s.B, s.S, s.G, s.D}, 5)),  // overwritten
        dv(random(cx, {s.B, s.S, s.G, s.D}, 6)) {
    if (documents == Documents::kNone) return;
    Tensor host({s.B, s.N}, DType::kI32);
    for (int64_t i = 0; i < s.B * s.N; ++i)  // the second document begins at b + 3
      host.values<int32_t>()[static_cast<size_t>(i)] = static_cast<int32_t>(i % s.N < i / s.N + 3 ? 0 : i / s.N + 3);
    starts = to_device(cx, host);
  }
  AttentionForward forward() { return {.q = q, .k = k, .v = v, .document_start = starts, .o = o, .lse = lse}; }
  AttentionBackward backward() {
    return {
        .q = q, .k = k, .v = v, .document_start = starts, .o = o, .lse = lse, .d_o = d_o, .dq = dq, .dk = dk, .dv = dv};
  }
};

class CudnnAttention : public testing::Test {
 protected:
  CudnnAttention() {
    fake_cudnn() = {};
    set_attention_workspace_limit(0);
    set_log_sink([this](LogLevel, std::string_view text) { log += std::string(text) + "\n"; });
  }
  ~CudnnAttention() override {
    set_log_sink({});
    fake_cudnn() = {};
    set_attention_workspace_limit(0);
  }

  // The bytes of o, lse, dq, dk and dv.
  std::string results(const ops::AttentionImpl& row, const AttentionOptions& options, Operands& x) {
    row.run.forward(cx, options, x.forward());
    row.run.backward(cx, options, x.backward());
    std::string bytes;
    for (const Tensor* t : {&x.o, &x.lse, &x.dq, &x.dk, &x.dv}) {
      const Tensor host = to_host(cx, *t);
      bytes.append(static_cast<const char*>(host.ref().data), host.ref().bytes());
    }
    return bytes;
  }
  std::string results(const AttentionOptions& options, const Sizes& s, Documents documents = Documents::kNone) {
    Operands x(cx, s, documents);
    return results(cudnn_attention_row, options, x);
  }
  // B and H of the runs of one pass: "2x4 2x4".
  static std::string runs(AttentionGraph::Pass pass, AttentionGraph::Order order = AttentionGraph::Order::kAny) {
    std::string text;
    for (const AttentionGraph& g : fake_cudnn().runs)
      if (g.pass == pass && g.order == order) text += fmt::format("{}{}x{}", text.empty() ? "" : " ", g.B, g.H);
    return text;
  }

  DeviceMemory& memory = device_memory(0);
  Context cx{&memory};
  std::string log;
};

constexpr auto kForward = AttentionGraph::Pass::kForward, kBackward = AttentionGraph::Pass::kBackward;
constexpr auto kFixed = AttentionGraph::Order::kFixed;

TEST_F(CudnnAttention, AShapeIsPlannedOnceAndAllocatesOnce) {
  Operands x(cx, {}, Documents::kTwo);
  const std::string first = results(cudnn_attention_row, {}, x);
  const size_t used = dynamic_cast<test::FakeDevice&>(memory).used();
  EXPECT_EQ(fake_cudnn().plans.size(), 2u);
  EXPECT_EQ(results(cudnn_attention_row, {}, x), first);
  EXPECT_EQ(fake_cudnn().plans.size(), 2u);
  EXPECT_EQ(fake_cudnn().runs.size(), 4u);
  EXPECT_EQ(dynamic_cast<test::FakeDevice&>(memory).used(), used);
  Operands other(cx, {.N = 32, .S = 32}, Documents::kTwo);
  results(cudnn_attention_row, {}, other);
  EXPECT_EQ(fake_cudnn().plans.size(), 4u);
  EXPECT_EQ(log, "");
}

// The fake needs 2 N S + 4 N (D + 1) bytes for gradients of a head in a fixed order: here 7,872, and 125,952 in all.
TEST_F(CudnnAttention, GradientsInAFixedOrderComeInSlices) {
  const Sizes s{.B = 4, .N = 48, .S = 48, .H = 4, .G = 2, .D = 16};
  const std::string whole = results({}, s);
  EXPECT_EQ(runs(kBackward, kFixed), "4x4");
  const auto slices = [&](size_t limit) {
    set_attention_workspace_limit(limit);
    fake_cudnn() = {};
    EXPECT_EQ(results({}, s), whole) << limit;
    EXPECT_EQ(runs(kForward), "4x4") << limit;
    return runs(kBackward, kFixed);
  };
  EXPECT_EQ(slices(63000), "2x4 2x4");
  EXPECT_EQ(slices(40000), "1x4 1x4 1x4 1x4");
  EXPECT_EQ(slices(16000), "1x2 1x2 1x2 1x2 1x2 1x2 1x2 1x2");
  EXPECT_EQ(log, "");
  EXPECT_EQ(slices(10000), "");
  EXPECT_EQ(runs(kBackward), "4x4");
  EXPECT_THAT(log, HasSubstr("[attention] B=4 N=48 S=48 H=4 G=2 D=16: gradients differ in their last bits"));
}

TEST_F(CudnnAttention, MasksOfDocumentsComeInSlices) {
  const Sizes s{.B = 4, .N = 40, .S = 40};
  const std::string whole = results({}, s, Documents::kTwo);
  EXPECT_EQ(runs(kForward), "4x4");
  set_attention_workspace_limit(2 * 2 * 40 * 40);  // two masks
  fake_cudnn() = {};
  EXPECT_EQ(results({}, s, Documents::kTwo), whole);
  EXPECT_EQ(runs(kForward), "2x4 2x4");
}

// Then the kernels of attention.cu run.
TEST_F(CudnnAttention, WithoutAnEngineAnotherKernelRuns) {
  Operands x(cx, {.N = 20, .S = 20});
  const std::string own = results(attention_row, {}, x);
  fake_cudnn().no_engine = "no engine, says the fake";
  EXPECT_EQ(results(cudnn_attention_row, {}, x), own);
  EXPECT_TRUE(fake_cudnn().runs.empty());
  EXPECT_THAT(log, HasSubstr("N=20 S=20 H=4 G=2 D=16: a slower kernel runs, because cuDNN has none: no engine, says"));
}

TEST_F(CudnnAttention, WithoutAFixedOrderAnyOrderIsUsed) {
  const std::string fixed = results({}, {.N = 22, .S = 22});
  set_attention_workspace_limit(0);
  fake_cudnn() = {};
  fake_cudnn().fixed_order = false;
  EXPECT_EQ(results({}, {.N = 22, .S = 22}), fixed);
  EXPECT_EQ(runs(kBackward), "2x4");
  EXPECT_THAT(log, HasSubstr("N=22 S=22 H=4 G=2 D=16: gradients differ in their last bits from run to run"));
}

// The scratch memory of the backward pass must not hold what the forward pass still needs, nor the reverse; and keys
// behind the last query get no gradient.
TEST_F(CudnnAttention, KeysThatNoQuerySeesGetZeroGradients) {
  const Sizes s{.N = 16, .S = 40};
  Operands x(cx, s);
  results(cudnn_attention_row, {.query_start = 8}, x);
  const std::vector<AttentionGraph>& runs = fake_cudnn().runs;
  ASSERT_EQ(runs.size(), 2u);
  EXPECT_EQ(runs[0].S, 24);
  EXPECT_EQ(runs[0].diagonal, AttentionGraph::Diagonal::kFromEnd);
  for (const Tensor* t : {&x.dk, &x.dv}) {
    const Tensor host = to_host(cx, *t);
    const auto values = host.ref().view<BF16, 4>();
    for (int64_t b = 0; b < s.B; ++b)
      for (int64_t n = 0; n < s.S; ++n) {
        bool zero = true;
        for (int64_t i = 0; i < s.G * s.D; ++i) zero = zero && static_cast<float>(values.ptr(b, n, 0)[i]) == 0.0f;
        EXPECT_EQ(zero, n >= 24) << b << " " << n;
      }
  }
}

TEST_F(CudnnAttention, TakesOnlyWhatCudnnComputesExactly) {
  Operands x(cx, {}), narrow(cx, {.D = 12}), wide(cx, {.D = 264}), one(cx, {.N = 1, .S = 24}),
      documents(cx, {}, Documents::kTwo);
  Tensor slopes({4}, DType::kF32, &memory), odd_lse({2, 24, 4}, DType::kF32, &memory),
      f32({2, 24, 4, 16}, DType::kF32, &memory), decay({2, 4, 24}, DType::kF32, &memory),
      fused({2, 24, 4, 3, 16}, DType::kBF16, &memory), gaps({2, 24, 4, 20}, DType::kBF16, &memory);
  const auto takes = [](Operands& t, const AttentionOptions& options,
                        const std::function<void(AttentionForward&, AttentionBackward&)>& change = nullptr) {
    AttentionForward f = t.forward();
    AttentionBackward b = t.backward();
    if (change) change(f, b);
    const bool forward = cudnn_attention_row.supports({.type = f.q.dtype, .options = &options, .forward = &f});
    EXPECT_EQ(cudnn_attention_row.supports({.type = b.q.dtype, .options = &options, .backward = &b}), forward);
    return forward;
  };
  EXPECT_TRUE(takes(x, {}));
  EXPECT_TRUE(takes(x, {.mask = Mask::kNone}));
  EXPECT_TRUE(takes(x, {.mask = Mask::kSlidingWindow, .window = 5}));
  EXPECT_TRUE(takes(documents, {}));
  EXPECT_TRUE(takes(documents, {.mask = Mask::kSlidingWindow, .window = 5}));
  EXPECT_TRUE(takes(x, {}, [&](auto& f, auto& b) { f.k = b.k = x.k.ref().narrow(1, 0, 24); }));
  EXPECT_TRUE(takes(x, {}, [&](auto& f, auto& b) { f.q = b.q = fused.ref().select(3, 1); }));

  EXPECT_FALSE(takes(narrow, {}));
  EXPECT_FALSE(takes(wide, {}));
  EXPECT_FALSE(takes(one, {.query_start = 23}));
  EXPECT_FALSE(takes(x, {.mask = Mask::kSymmetricWindow, .window = 5}));
  EXPECT_FALSE(takes(x, {.query_start = 1}));  // the last query is behind the last key
  EXPECT_FALSE(takes(x, {}, [&](auto& f, auto& b) { f.v = b.v = x.v.ref().narrow(3, 0, 8); }));  // narrower than k
  EXPECT_FALSE(takes(x, {}, [&](auto& f, auto& b) { f.slopes = b.slopes = slopes; }));
  EXPECT_FALSE(takes(x, {}, [&](auto& f, auto& b) { f.decay = b.decay = decay; }));
  EXPECT_FALSE(takes(x, {.mask = Mask::kSlidingWindow, .window = 5},
                     [&](auto& f, auto& b) { f.far = b.far = {.q = x.q, .k = x.k}; }));
  EXPECT_FALSE(takes(x, {}, [](auto& f, auto& b) { f.write = b.write = ops::Write::kAccumulate; }));
  EXPECT_FALSE(takes(x, {}, [&](auto& f, auto& b) {  // [B, N, H] in memory
    MutTensorRef view = odd_lse;
    view.shape = {2, 4, 24};
    view.strides = {96, 1, 4};
    f.lse = view;
    b.lse = view;
  }));
  EXPECT_FALSE(takes(x, {}, [&](auto& f, auto& b) { f.q = b.q = f32; }));
  EXPECT_FALSE(takes(x, {}, [&](auto& f, auto& b) { f.q = b.q = gaps.ref().narrow(3, 0, 16); }));  // rows of 40 bytes
  EXPECT_FALSE(takes(x, {}, [&](auto& f, auto& b) {  // not at a multiple of 16 bytes
    f.q = b.q = TensorRef(static_cast<const std::byte*>(x.q.ref().data) + 2, DType::kBF16, {2, 23, 4, 16},
                          {24 * 64, 64, 16, 1}, x.q.ref().device);
  }));
  EXPECT_FALSE(takes(documents, {.query_start = 0}, [&](auto&, auto&) { set_attention_workspace_limit(1000); }));
  EXPECT_TRUE(cudnn_attention_row.supports({.type = DType::kBF16}));
  EXPECT_FALSE(cudnn_attention_row.supports({.type = DType::kF32}));
}

}  // namespace
}  // namespace coca::cuda::cudnn_attention_test
