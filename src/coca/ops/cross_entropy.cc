// The fused loss calls the linear op for its three products; its scratch holds one chunk of logits (and, in bf16, of
// their gradients).
// SPDX-License-Identifier: Apache-2.0
#include "coca/ops/cross_entropy.h"

#include <algorithm>

#include "coca/ops/check.h"
#include "coca/ops/linear.h"
#include "coca/ops/run.h"

namespace coca::ops {

namespace {

constexpr std::string_view kOp = "cross_entropy";

void check_targets(const Site& at, TensorRef targets, int64_t M, int64_t V) {
  check_ids(at, "targets", targets, M);
  if (!targets.device.is_cpu()) return;  // a loss of a bad target is NaN there
  const int32_t* id = targets.as<int32_t>();
  for (int64_t m = 0; m < M; ++m)
    COCA_CHECK((id[m] >= 0 && id[m] < V) || id[m] == kIgnoreTarget, "[{}] targets[{}] = {} is not in 0..{} and not {}",
               at.op, m, id[m], V - 1, kIgnoreTarget);
}

void check_logits(const Site& at, TensorRef logits, TensorRef targets) {
  check_rank2(at, "logits", logits);
  check_packed(at, "logits", logits);
  COCA_CHECK(logits.size(1) >= 1, "[{}] logits {}: V must be at least 1", kOp, logits.shape.text());
  check_targets(at, targets, logits.size(0), logits.size(1));
}

// 16 MiB of logits, but at least 128 rows: every chunk reads all of W (and dW), which pays only for enough rows.
int64_t choose_chunk(const LmLoss& a) {
  const int64_t M = a.x.size(0), V = a.w.size(0);
  const int64_t rows = a.chunk_rows > 0 ? a.chunk_rows : std::max<int64_t>(128, (int64_t{4} << 20) / V);
  return std::clamp<int64_t>(rows, 1, std::max<int64_t>(1, M));
}

void check_lm_loss(const Site& at, const LmLoss& a) {
  check_rank2(at, "x", a.x);
  check_rank2(at, "w", a.w);
  COCA_CHECK(a.x.size(1) == a.w.size(1), "[{}] x {} and w {}: C differs ({} and {})", at.op, a.x.shape.text(),
             a.w.shape.text(), a.x.size(1), a.w.size(1));
  COCA_CHECK(a.w.size(0) >= 1, "[{}] w {}: V must be at least 1", at.op, a.w.shape.text());
  COCA_CHECK(a.chunk_rows >= 0, "[{}] chunk_rows = {} must not be negative", at.op, a.chunk_rows);
  check_packed(at, "x", a.x, kF32OrBF16);
  check_packed(at, "w", a.w, a.w.shape, a.x.dtype);
  check_targets(at, a.targets, a.x.size(0), a.w.size(0));
  check_packed(or_host(at, a.nll), "nll", a.nll, {a.x.size(0)});
}

// A loss whose targets and nll lie where the op runs. finish() brings the nll to where it is wanted.
class Carried {
 public:
  Carried(Context& context, const LmLoss& wanted) : context_(context), wanted_(wanted), here_(wanted) {
    here_.targets = sent_ids(context, wanted.targets);
    if (fetches()) here_.nll = context.scratch_tensor(wanted.nll.shape, DType::kF32, ScratchUser::kLoss);
  }
  const LmLoss& loss() const { return here_; }
  void finish() {
    if (!fetches()) return;
    context_.memory()->download(wanted_.nll.data, here_.nll.data, here_.nll.bytes());
    context_.memory()->synchronize();
  }

 private:
  bool fetches() const { return wanted_.nll.device != context_.device(); }

  Context& context_;
  const LmLoss& wanted_;
  LmLoss here_;
};

enum class Sweep { kLoss, kLossAndGradient };

struct Chunk {
  int64_t row0, rows;
  MutTensorRef logits;   // [rows, V] f32
  MutTensorRef dlogits;  // [rows, V] the gradient, in x's type: the logits' own memory if that is f32
};

// Calls body(chunk) chunk by chunk.
template <typename Body>
void for_chunks(Context& context, const LmLoss& a, Sweep sweep, const Body& body) {
  const int64_t M = a.x.size(0), V = a.w.size(0), chunk = choose_chunk(a), numbers = chunk * V;
  const bool beside = sweep == Sweep::kLossAndGradient && a.x.dtype == DType::kBF16;
  const size_t logit_bytes = static_cast<size_t>(numbers) * sizeof(float);
  const size_t bytes = logit_bytes + (beside ? static_cast<size_t>(numbers) * sizeof(BF16) : 0);
  auto* scratch = static_cast<char*>(context.scratch(bytes, ScratchUser::kLogits));
  const MutTensorRef logits(scratch, DType::kF32, {chunk, V}, context.device());
  const MutTensorRef dlogits =
      beside ? MutTensorRef(scratch + logit_bytes, DType::kBF16, {chunk, V}, context.device()) : logits;
  for (int64_t m = 0; m < M; m += chunk) {
    const int64_t rows = std::min(chunk, M - m);
    const MutTensorRef part = logits.narrow(0, 0, rows);
    linear_forward(context, {.x = a.x.narrow(0, m, rows), .w = a.w, .y = part});
    body(Chunk{m, rows, part, dlogits.narrow(0, 0, rows)});
  }
}

}  // namespace

void cross_entropy_forward(Context& context, const CrossEntropyForward& a) {
  const Site at(kOp, context);
  check_logits(at, a.logits, a.targets);
  check_packed(at, "nll", a.nll, {a.logits.size(0)});
  if (!a.lse.empty()) check_packed(at, "lse", a.lse, {a.logits.size(0)});
  CrossEntropyForward here = a;
  here.targets = sent_ids(context, a.targets);
  run<CrossEntropyImpl>(context, a.logits.dtype, &CrossEntropyFunctions::forward, here);
}

void cross_entropy_backward(Context& context, const CrossEntropyBackward& a) {
  const Site at(kOp, context);
  check_logits(at, a.logits, a.targets);
  check_packed(at, "lse", a.lse, {a.logits.size(0)});
  check_packed(at, "dlogits", a.dlogits, a.logits.shape);
  CrossEntropyBackward here = a;
  here.targets = sent_ids(context, a.targets);
  run<CrossEntropyImpl>(context, a.logits.dtype, &CrossEntropyFunctions::backward, here);
}

void lm_loss_forward(Context& context, const LmLoss& wanted) {
  check_lm_loss(Site("lm_loss", context), wanted);
  Carried carried(context, wanted);
  const LmLoss& a = carried.loss();
  for_chunks(context, a, Sweep::kLoss, [&](const Chunk& c) {
    run<CrossEntropyImpl>(context, DType::kF32, &CrossEntropyFunctions::forward,
                          CrossEntropyForward{.logits = c.logits,
                                              .targets = a.targets.narrow(0, c.row0, c.rows),
                                              .nll = a.nll.narrow(0, c.row0, c.rows)});
  });
  carried.finish();
}

void lm_loss_forward_backward(Context& context, const LmLoss& wanted, const LmLossGrad& grad) {
  const Site at("lm_loss", context);
  check_lm_loss(at, wanted);
  Carried carried(context, wanted);
  const LmLoss& a = carried.loss();
  if (a.x.dtype == DType::kBF16)
    check_packed(at, "dx", grad.dx, a.x.shape, kF32OrBF16);
  else
    check_packed(at, "dx", grad.dx, a.x.shape);
  if (!grad.dw.empty()) check_packed(at, "dw", grad.dw, a.w.shape);
  for_chunks(context, a, Sweep::kLossAndGradient, [&](const Chunk& c) {
    run<CrossEntropyImpl>(context, DType::kF32, &CrossEntropyFunctions::fused,
                          CrossEntropyFused{.logits = c.logits,
                                            .targets = a.targets.narrow(0, c.row0, c.rows),
                                            .scale = grad.scale,
                                            .nll = a.nll.narrow(0, c.row0, c.rows),
                                            .dlogits = c.dlogits});
    linear_backward(context, {.x = a.x.narrow(0, c.row0, c.rows),
                              .w = a.w,
                              .dy = c.dlogits,
                              .dx = grad.dx.narrow(0, c.row0, c.rows),
                              .dw = grad.dw});
  });
  carried.finish();
}

}  // namespace coca::ops
