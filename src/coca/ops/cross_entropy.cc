// The fused loss calls the linear op for its three products; its scratch holds one chunk of logits (and, in bf16, of
// their gradients).
// SPDX-License-Identifier: Apache-2.0
#include "coca/ops/cross_entropy.h"

#include <algorithm>
#include <vector>

#include "coca/base/parallel.h"
#include "coca/kernels/cpu/cross_entropy.h"
#include "coca/kernels/ref/cast.h"
#include "coca/kernels/ref/cross_entropy.h"
#include "coca/ops/check.h"
#include "coca/ops/float_types.h"
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
  if (use_ref(context, kOp)) return ref::cross_entropy_forward(M, V, x, targets, nll, lse);
  parallel_blocks(M, grain_of(V), [&](int64_t m0, int64_t m1) {
    cpu::cross_entropy_rows({x + m0 * V, targets + m0, V}, nll + m0, lse ? lse + m0 : nullptr, m1 - m0);
  });
}

void backward_rows(Context& context, TensorRef logits, const int32_t* targets, const float* lse, float scale,
                   float* dlogits) {
  const int64_t M = logits.size(0), V = logits.size(1);
  const float* x = logits.as<float>();
  if (use_ref(context, kOp)) return ref::cross_entropy_backward(M, V, x, targets, lse, scale, dlogits);
  parallel_blocks(M, grain_of(V), [&](int64_t m0, int64_t m1) {
    cpu::cross_entropy_rows_backward({x + m0 * V, targets + m0, V}, lse + m0, scale, dlogits + m0 * V,
                                     m1 - m0);
  });
}

// logits become dlogits: in place when they are fp32, else in bf16 beside them.
template <typename T>
void fused_rows_as(MutTensorRef logits, const int32_t* targets, float scale, float* nll, MutTensorRef dlogits) {
  const int64_t M = logits.size(0), V = logits.size(1);
  float* x = logits.as<float>();
  T* dx = dlogits.as<T>();
  parallel_blocks(M, grain_of(V), [&](int64_t m0, int64_t m1) {
    cpu::cross_entropy_rows_fused(x + m0 * V, targets + m0, V, scale, nll + m0, dx + m0 * V, m1 - m0);
  });
}

void fused_rows(Context& context, MutTensorRef logits, const int32_t* targets, float scale, float* nll,
                MutTensorRef dlogits) {
  if (use_ref(context, kOp)) {
    const int64_t M = logits.size(0), V = logits.size(1);
    float* x = logits.as<float>();
    std::vector<float> lse(static_cast<size_t>(M));
    ref::cross_entropy_forward<float>(M, V, x, targets, nll, lse.data());
    ref::cross_entropy_backward<float>(M, V, x, targets, lse.data(), scale, x);
    if (dlogits.dtype == DType::kBF16) ref::cast(M * V, x, dlogits.as<BF16>());
    return;
  }
  with_float_type(dlogits.dtype,
                  [&](auto zero) { fused_rows_as<decltype(zero)>(logits, targets, scale, nll, dlogits); });
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
  check_packed(kLm, "x", a.x, kF32OrBF16);
  check_packed(kLm, "w", a.w, a.w.shape, a.x.dtype);
  check_targets(kLm, a.targets, a.x.size(0), a.w.size(0));
  check_packed(kLm, "nll", a.nll, {a.x.size(0)});
}

enum class Sweep { kLoss, kLossAndGradient };

struct Chunk {
  int64_t row0, rows;
  MutTensorRef logits;   // [rows, V] f32
  MutTensorRef dlogits;  // [rows, V] room of x's type for the gradient: the logits themselves when that is f32
};

// Calls body(chunk) chunk by chunk.
template <typename Body>
void for_chunks(Context& context, const LmLoss& a, Sweep sweep, const Body& body) {
  const int64_t M = a.x.size(0), V = a.w.size(0), chunk = choose_chunk(a), numbers = chunk * V;
  const bool beside = sweep == Sweep::kLossAndGradient && a.x.dtype == DType::kBF16;
  const size_t logit_bytes = static_cast<size_t>(numbers) * sizeof(float);
  const size_t bytes = logit_bytes + (beside ? static_cast<size_t>(numbers) * sizeof(BF16) : 0);
  auto* scratch = static_cast<char*>(context.scratch(bytes, ScratchUser::kCaller));
  const MutTensorRef logits(scratch, DType::kF32, {chunk, V});
  const MutTensorRef dlogits = beside ? MutTensorRef(scratch + logit_bytes, DType::kBF16, {chunk, V}) : logits;
  for (int64_t m = 0; m < M; m += chunk) {
    const int64_t rows = std::min(chunk, M - m);
    const MutTensorRef part = logits.narrow(0, 0, rows);
    linear_forward(context, {.x = a.x.narrow(0, m, rows), .w = a.w, .y = part});
    body(Chunk{m, rows, part, dlogits.narrow(0, 0, rows)});
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
  for_chunks(context, a, Sweep::kLoss, [&](const Chunk& c) {
    forward_rows(context, c.logits, targets + c.row0, nll + c.row0, nullptr);
  });
}

void lm_loss_forward_backward(Context& context, const LmLoss& a, const LmLossGrad& grad) {
  check_lm_loss(a);
  if (a.x.dtype == DType::kBF16)
    check_packed("lm_loss", "dx", grad.dx, a.x.shape, kF32OrBF16);
  else
    check_packed("lm_loss", "dx", grad.dx, a.x.shape);
  if (!grad.dw.empty()) check_packed("lm_loss", "dw", grad.dw, a.w.shape);
  const int32_t* targets = a.targets.as<int32_t>();
  float* nll = a.nll.as<float>();
  for_chunks(context, a, Sweep::kLossAndGradient, [&](const Chunk& c) {
    fused_rows(context, c.logits, targets + c.row0, grad.scale, nll + c.row0, c.dlogits);
    linear_backward(context, {.x = a.x.narrow(0, c.row0, c.rows),
                              .w = a.w,
                              .dy = c.dlogits,
                              .dx = grad.dx.narrow(0, c.row0, c.rows),
                              .dw = grad.dw});
  });
}

}  // namespace coca::ops
