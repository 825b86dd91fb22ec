// The fused loss calls the linear op for its three products; its scratch holds one chunk of logits.
// SPDX-License-Identifier: Apache-2.0
#include "coca/ops/cross_entropy.h"

#include <algorithm>
#include <vector>

#include "coca/base/parallel.h"
#include "coca/kernels/cpu/cross_entropy.h"
#include "coca/kernels/ref/cross_entropy.h"
#include "coca/ops/check.h"
#include "coca/ops/impl.h"
#include "coca/ops/linear.h"

namespace coca::ops {

namespace {

constexpr std::string_view kOp = "cross_entropy";

void check_targets(std::string_view op, TensorRef targets, int64_t M, int64_t V) {
  check_ids(op, "targets", targets, M);
  const int32_t* id = targets.as<int32_t>();
  for (int64_t m = 0; m < M; ++m)
    COCA_CHECK((id[m] >= 0 && id[m] < V) || id[m] == kIgnoreTarget,
               "[{}] targets[{}] = {} is not in 0..{} and not {}", op, m, id[m], V - 1, kIgnoreTarget);
}

void check_logits(TensorRef logits, TensorRef targets) {
  check_rank2(kOp, "logits", logits);
  check_packed(kOp, "logits", logits);
  COCA_CHECK(logits.size(1) >= 1, "[{}] logits {}: V must be at least 1", kOp, logits.shape.text());
  check_targets(kOp, targets, logits.size(0), logits.size(1));
}

void forward_rows(Context& context, TensorRef logits, const int32_t* targets, float* nll, float* lse) {
  const int64_t M = logits.size(0), V = logits.size(1);
  const float* x = logits.as<float>();
  if (use_ref(context, kOp, "cpu")) return ref::cross_entropy_forward(M, V, x, targets, nll, lse);
  parallel_blocks(M, grain_of(V), [&](int64_t m0, int64_t m1) {
    cpu::cross_entropy_rows({x + m0 * V, targets + m0, V}, nll + m0, lse ? lse + m0 : nullptr, m1 - m0);
  });
}

void backward_rows(Context& context, TensorRef logits, const int32_t* targets, const float* lse, float scale,
                   float* dlogits) {
  const int64_t M = logits.size(0), V = logits.size(1);
  const float* x = logits.as<float>();
  if (use_ref(context, kOp, "cpu")) return ref::cross_entropy_backward(M, V, x, targets, lse, scale, dlogits);
  parallel_blocks(M, grain_of(V), [&](int64_t m0, int64_t m1) {
    cpu::cross_entropy_rows_backward({x + m0 * V, targets + m0, V}, lse + m0, scale, dlogits + m0 * V,
                                     m1 - m0);
  });
}

// logits become dlogits in place.
void fused_rows(Context& context, MutTensorRef logits, const int32_t* targets, float scale, float* nll) {
  const int64_t M = logits.size(0), V = logits.size(1);
  float* x = logits.as<float>();
  if (use_ref(context, kOp, "cpu")) {
    std::vector<float> lse(static_cast<size_t>(M));
    ref::cross_entropy_forward<float>(M, V, x, targets, nll, lse.data());
    return ref::cross_entropy_backward<float>(M, V, x, targets, lse.data(), scale, x);
  }
  parallel_blocks(M, grain_of(V), [&](int64_t m0, int64_t m1) {
    cpu::cross_entropy_rows_fused(x + m0 * V, targets + m0, V, scale, nll + m0, m1 - m0);
  });
}

// 16 MiB of logits, but at least 128 rows: every chunk reads all of W (and dW), which must be worth it.
int64_t choose_chunk(const LmLoss& a) {
  const int64_t M = a.x.size(0), V = a.w.size(0);
  const int64_t rows = a.chunk_rows > 0 ? a.chunk_rows : std::max<int64_t>(128, (int64_t{4} << 20) / V);
  return std::clamp<int64_t>(rows, 1, std::max<int64_t>(1, M));
}

void check_lm_loss(const LmLoss& a) {
  constexpr std::string_view kLm = "lm_loss";
  check_rank2(kLm, "x", a.x);
  check_rank2(kLm, "w", a.w);
  COCA_CHECK(a.x.size(1) == a.w.size(1), "[{}] x {} and w {}: C differs ({} and {})", kLm, a.x.shape.text(),
             a.w.shape.text(), a.x.size(1), a.w.size(1));
  COCA_CHECK(a.w.size(0) >= 1, "[{}] w {}: V must be at least 1", kLm, a.w.shape.text());
  COCA_CHECK(a.chunk_rows >= 0, "[{}] chunk_rows = {} must not be negative", kLm, a.chunk_rows);
  check_packed(kLm, "x", a.x);
  check_packed(kLm, "w", a.w);
  check_targets(kLm, a.targets, a.x.size(0), a.w.size(0));
  check_packed(kLm, "nll", a.nll, {a.x.size(0)});
}

// Calls body(first row, rows, logits of these rows) chunk by chunk. linear without db leaves the scratch
// alone.
template <typename Body>
void for_chunks(Context& context, const LmLoss& a, const Body& body) {
  const int64_t M = a.x.size(0), V = a.w.size(0), chunk = choose_chunk(a);
  const MutTensorRef logits = context.scratch_tensor({chunk, V});
  for (int64_t m = 0; m < M; m += chunk) {
    const int64_t rows = std::min(chunk, M - m);
    const MutTensorRef part = logits.narrow(0, 0, rows);
    linear_forward(context, {.x = a.x.narrow(0, m, rows), .w = a.w, .y = part});
    body(m, rows, part);
  }
}

}  // namespace

void cross_entropy_forward(Context& context, const CrossEntropyForward& a) {
  check_logits(a.logits, a.targets);
  check_packed(kOp, "nll", a.nll, {a.logits.size(0)});
  if (!a.lse.empty()) check_packed(kOp, "lse", a.lse, {a.logits.size(0)});
  forward_rows(context, a.logits, a.targets.as<int32_t>(), a.nll.as<float>(), a.lse.as<float>());
}

void cross_entropy_backward(Context& context, const CrossEntropyBackward& a) {
  check_logits(a.logits, a.targets);
  check_packed(kOp, "lse", a.lse, {a.logits.size(0)});
  check_packed(kOp, "dlogits", a.dlogits, a.logits.shape);
  backward_rows(context, a.logits, a.targets.as<int32_t>(), a.lse.as<float>(), a.scale,
                a.dlogits.as<float>());
}

void lm_loss_forward(Context& context, const LmLoss& a) {
  check_lm_loss(a);
  const int32_t* targets = a.targets.as<int32_t>();
  float* nll = a.nll.as<float>();
  for_chunks(context, a, [&](int64_t m, int64_t, MutTensorRef logits) {
    forward_rows(context, logits, targets + m, nll + m, nullptr);
  });
}

void lm_loss_forward_backward(Context& context, const LmLoss& a, const LmLossGrad& grad) {
  check_lm_loss(a);
  check_packed("lm_loss", "dx", grad.dx, a.x.shape);
  if (!grad.dw.empty()) check_packed("lm_loss", "dw", grad.dw, a.w.shape);
  const int32_t* targets = a.targets.as<int32_t>();
  float* nll = a.nll.as<float>();
  for_chunks(context, a, [&](int64_t m, int64_t rows, MutTensorRef logits) {
    fused_rows(context, logits, targets + m, grad.scale, nll + m);
    linear_backward(context, {.x = a.x.narrow(0, m, rows),
                              .w = a.w,
                              .dy = logits,
                              .dx = grad.dx.narrow(0, m, rows),
                              .dw = grad.dw});
  });
}

}  // namespace coca::ops
