// Replaces cuDNN: checks graphs and addresses as cuDNN requires them, and computes in double.
// SPDX-License-Identifier: Apache-2.0
#include "gpu/attention_graph.h"

#include <cmath>
#include <cstring>

#include "coca/kernels/ref/attention.h"
#include "gpu/stand_in.h"
#include "support/views.h"

namespace coca::gpu {

FakeCudnn& fake_cudnn() {
  static FakeCudnn fake;
  return fake;
}

}  // namespace coca::gpu

namespace coca::cuda {

namespace {

using Pass = AttentionGraph::Pass;
using Diagonal = AttentionGraph::Diagonal;
using Steps = AttentionGraph::Steps;

void expect(bool holds, const char* what) { COCA_CHECK_AS(kInternal, holds, "[cudnn] {}", what); }

// A tensor [B, tokens, heads, D] of bf16 in a graph.
struct Operand {
  Steps steps;
  int64_t B, tokens, heads, D;

  int64_t place(int64_t b, int64_t n, int64_t h) const { return b * steps.b + n * steps.n + h * steps.h; }
  int64_t last() const { return place(B - 1, tokens - 1, heads - 1) + D - 1; }
  Dims shape() const { return {B, tokens, heads, D}; }
};
Operand queries(const AttentionGraph& g, const Steps& s) { return {s, g.B, g.N, g.H, g.D}; }
Operand keys(const AttentionGraph& g, const Steps& s) { return {s, g.B, g.S, g.G, g.D}; }

std::vector<double> read(const Operand& t, const void* data) {
  std::vector<double> x;
  for (int64_t b = 0; b < t.B; ++b)
    for (int64_t n = 0; n < t.tokens; ++n)
      for (int64_t h = 0; h < t.heads; ++h)
        for (int64_t d = 0; d < t.D; ++d)
          x.push_back(static_cast<double>(static_cast<float>(static_cast<const BF16*>(data)[t.place(b, n, h) + d])));
  return x;
}
void write(const Operand& t, const std::vector<double>& x, void* data) {
  size_t i = 0;
  for (int64_t b = 0; b < t.B; ++b)
    for (int64_t n = 0; n < t.tokens; ++n)
      for (int64_t h = 0; h < t.heads; ++h)
        for (int64_t d = 0; d < t.D; ++d)
          static_cast<BF16*>(data)[t.place(b, n, h) + d] = BF16(static_cast<float>(x[i++]));
}
// What cuDNN and cudnn-frontend require of a graph.
void check_graph(const AttentionGraph& g) {
  expect(g.B > 0 && g.N > 1 && g.S > 0 && g.G > 0 && g.H > 0 && g.H % g.G == 0, "sizes");
  expect(g.D % 8 == 0 && g.D >= 8 && g.D <= 256, "head dims are multiples of 8, at most 256");
  expect(g.scale > 0, "scale");
  expect(g.window >= 0 && (g.window == 0 || g.diagonal != Diagonal::kNone), "a window needs a diagonal");
  expect(g.diagonal != Diagonal::kFromEnd || (g.N <= g.S && g.mask_step == 0), "a diagonal from the end");
  expect(g.window == 0 || g.N <= g.S, "a window with more queries than keys");
  expect(g.mask_step == 0 || (g.mask_step >= g.S && g.mask_step % 8 == 0), "strides of the mask");
  expect(g.pass == Pass::kForward || g.lse == AttentionGraph::Lse::kPacked, "the backward pass reads lse");
  const auto check = [](const Steps& s) {
    expect(s.b > 0 && s.n > 0 && s.h > 0 && s.b % 8 == 0 && s.n % 8 == 0 && s.h % 8 == 0, "strides of 16 bytes");
  };
  for (const Steps& s : {g.q, g.k, g.v, g.o}) check(s);
  if (g.pass == Pass::kBackward)
    for (const Steps& s : {g.d_o, g.dq, g.dk, g.dv}) check(s);
}

void check_address(Context& cx, const void* p, int64_t last_byte) {
  expect(p != nullptr && reinterpret_cast<uintptr_t>(p) % 16 == 0, "addresses are multiples of 16");
  gpu::check_pointer(cx, p);
  gpu::check_pointer(cx, static_cast<const std::byte*>(p) + last_byte);
}

void check_addresses(Context& cx, const AttentionGraph& g, const AttentionAddresses& a) {
  const auto operand = [&](const Operand& t, const void* p) { check_address(cx, p, 2 * t.last() + 1); };
  operand(queries(g, g.q), a.q);
  operand(keys(g, g.k), a.k);
  operand(keys(g, g.v), a.v);
  operand(queries(g, g.o), a.o);
  expect((g.mask_step > 0) == (a.mask != nullptr), "the mask's address");
  if (a.mask) check_address(cx, a.mask, 2 * g.B * g.N * g.mask_step - 1);
  expect((g.lse != AttentionGraph::Lse::kNone) == (a.lse != nullptr), "the address of lse");
  if (a.lse) {
    gpu::check_pointer(cx, a.lse);
    gpu::check_pointer(cx, static_cast<const float*>(a.lse) + g.B * g.H * g.N - 1);
  }
  if (g.pass == Pass::kForward) return expect(!a.d_o && !a.dq && !a.dk && !a.dv, "gradients in a forward pass");
  operand(queries(g, g.d_o), a.d_o);
  operand(queries(g, g.dq), a.dq);
  operand(keys(g, g.dk), a.dk);
  operand(keys(g, g.dv), a.dv);
}

// The starts of documents [B, N] that a mask expresses.
std::vector<int32_t> starts_of(const AttentionGraph& g, const void* data) {
  std::vector<int32_t> starts;
  const auto* mask = static_cast<const BF16*>(data);
  for (int64_t row = 0; row < g.B * g.N; ++row) {
    int32_t start = 0;
    const auto value = [&](int64_t s) { return static_cast<float>(mask[row * g.mask_step + s]); };
    while (start < g.S && value(start) != 0.0f) expect(value(start++) < -1e29f, "keys that are not seen");
    for (int64_t s = start; s < g.S; ++s) expect(value(s) == 0.0f, "keys that are seen");
    starts.push_back(start);
  }
  return starts;
}

void compute(const AttentionGraph& g, const AttentionAddresses& a) {
  const Operand q = queries(g, g.q), k = keys(g, g.k), v = keys(g, g.v), o = queries(g, g.o);
  const std::vector<double> qs = read(q, a.q), ks = read(k, a.k), vs = read(v, a.v);
  std::vector<int32_t> starts;
  ref::AttentionSpec spec{.scale = static_cast<double>(g.scale),
                          .causal = g.diagonal != Diagonal::kNone,
                          .window = g.window,
                          .query_start = g.diagonal == Diagonal::kFromEnd ? g.S - g.N : 0};
  if (a.mask) {
    starts = starts_of(g, a.mask);
    spec.document_start = test::as_view<const int32_t, 2>(starts, {g.B, g.N});
  }
  const std::vector<ref::AttentionKeys<double>> parts{
      {spec, test::as_view<const double, 4>(qs, q.shape()), test::as_view<const double, 4>(ks, k.shape())}};
  const auto values = test::as_view<const double, 4>(vs, v.shape());
  std::vector<double> os(qs.size()), lse(static_cast<size_t>(g.B * g.H * g.N));
  ref::attention_forward<double>(parts, values, test::as_view<double, 4>(os, o.shape()),
                                 test::as_view<double, 3>(lse, {g.B, g.H, g.N}));
  auto* stored = static_cast<float*>(a.lse);
  if (g.pass == Pass::kForward) {
    write(o, os, a.o);
    for (size_t i = 0; stored && i < lse.size(); ++i) stored[i] = static_cast<float>(lse[i]);
    return;
  }
  // o and lse may include a key of value 0 (a learnt sink): o is the own one times exp(own lse - lse). So the
  // statistics of the forward pass, whoever computed it, must be natural logarithms; o is rounded to bf16 up to twice.
  const std::vector<double> given = read(o, a.o), given_lse(stored, stored + lse.size());
  double largest = 0;
  for (const double x : os) largest = std::max(largest, std::abs(x));
  for (int64_t i = 0; i < g.B * g.H * g.N; ++i) {
    const int64_t b = i / (g.H * g.N), h = i / g.N % g.H, n = i % g.N;
    const double share = std::exp(lse[static_cast<size_t>(i)] - given_lse[static_cast<size_t>(i)]);
    expect(share < 1 + 1e-4 * (1 + std::abs(lse[static_cast<size_t>(i)])), "values of lse");
    for (int64_t d = 0; d < g.D; ++d) {
      const auto at = static_cast<size_t>(((b * g.N + n) * g.H + h) * g.D + d);
      expect(std::abs(given[at] - share * os[at]) < 0x1p-6 * largest, "values of o and lse");
    }
  }
  const Operand d_o = queries(g, g.d_o), dq = queries(g, g.dq), dk = keys(g, g.dk), dv = keys(g, g.dv);
  const std::vector<double> gradient = read(d_o, a.d_o);
  std::vector<double> dqs(qs.size()), dks(ks.size()), dvs(vs.size());
  std::vector<ref::AttentionKeyGrads<double>> grads{
      {test::as_view<double, 4>(dqs, dq.shape()), test::as_view<double, 4>(dks, dk.shape())}};
  const ref::AttentionSaved<double> saved{test::as_view<const double, 4>(given, o.shape()),
                                          test::as_view<const double, 3>(given_lse, {g.B, g.H, g.N})};
  ref::attention_backward<double>(parts, values, test::as_view<const double, 4>(gradient, d_o.shape()), grads,
                                  test::as_view<double, 4>(dvs, dv.shape()), &saved);
  write(dq, dqs, a.dq);
  write(dk, dks, a.dk);
  write(dv, dvs, a.dv);
}

class Plan : public AttentionPlan {
 public:
  explicit Plan(const AttentionGraph& g) : g_(g) {}
  // As cuDNN's on compute capability 9.0: gradients in a fixed order need N x S numbers for each head.
  size_t workspace() const override {
    const bool square = g_.pass == Pass::kBackward && g_.order == AttentionGraph::Order::kFixed;
    return static_cast<size_t>(g_.pass == Pass::kForward ? 24 : 4 * g_.B * g_.H * g_.N * (g_.D + 1)) +
           static_cast<size_t>(square ? 2 * g_.B * g_.H * g_.N * g_.S : 0);
  }
  void run(Context& cx, const AttentionAddresses& a, void* workspace) override {
    check_addresses(cx, g_, a);
    check_address(cx, workspace, static_cast<int64_t>(this->workspace()) - 1);
    gpu::fake_cudnn().runs.push_back(g_);
    gpu::queue(cx, [g = g_, a, workspace, bytes = this->workspace()] {
      std::memset(workspace, 0xff, bytes);
      compute(g, a);
    });
  }

 private:
  AttentionGraph g_;
};

}  // namespace

bool built_with_cudnn() { return true; }

PlannedAttention plan_attention(Context&, const AttentionGraph& g) {
  check_graph(g);
  gpu::FakeCudnn& fake = gpu::fake_cudnn();
  if (!fake.no_engine.empty()) return {.plan = nullptr, .why_not = fake.no_engine};
  if (g.order == AttentionGraph::Order::kFixed && !fake.fixed_order)
    return {.plan = nullptr, .why_not = "no fixed order, says the fake"};
  fake.plans.push_back(g);
  return {.plan = std::make_unique<Plan>(g), .why_not = {}};
}

}  // namespace coca::cuda
