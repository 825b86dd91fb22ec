// SPDX-License-Identifier: Apache-2.0
#include "coca/ops/attention.h"

#include <algorithm>
#include <cmath>

#include "coca/ops/check.h"
#include "coca/ops/run.h"

namespace coca::ops {

namespace {

constexpr std::string_view kOp = "attention";

void check_attention(const Site& at, const AttentionOptions& options, TensorRef q, TensorRef k, TensorRef v,
                     TensorRef slopes) {
  COCA_CHECK(q.rank() == 4 && k.rank() == 4 && v.rank() == 4,
             "[attention] q {}, k {} and v {} must be [B, N, H, E], [B, S, G, E] and [B, S, G, D]", q.shape.text(),
             k.shape.text(), v.shape.text());
  check_heads(at, "q", q, q.shape, kF32OrBF16);
  check_heads(at, "k", k, {q.size(0), k.size(1), k.size(2), q.size(3)}, std::span(&q.dtype, 1));
  check_heads(at, "v", v, {k.size(0), k.size(1), k.size(2), v.size(3)}, std::span(&q.dtype, 1));
  COCA_CHECK(k.size(2) > 0 && q.size(2) % k.size(2) == 0, "[attention] H={} must be a multiple of G={}", q.size(2),
             k.size(2));
  if (!slopes.empty()) check_dtype(at, "slopes", slopes, DType::kF32);
  COCA_CHECK(slopes.empty() || slopes.shape == Dims({q.size(2)}), "[attention] slopes {} must be [{}]",
             slopes.shape.text(), q.size(2));
  COCA_CHECK(options.query_start >= 0, "[attention] query_start={} is negative", options.query_start);
  COCA_CHECK(options.scale >= 0, "[attention] scale={} must be positive (0: 1/sqrt(E))", options.scale);
  COCA_CHECK(options.spacing >= 1 && options.first_place >= 0,
             "[attention] spacing={} must be at least 1 and first_place={} must not be negative", options.spacing,
             options.first_place);
  const bool windowed = options.mask == Mask::kSlidingWindow || options.mask == Mask::kSymmetricWindow;
  COCA_CHECK(windowed ? options.window >= 1 : options.window == 0, "[attention] window={}: expected {}", options.window,
             windowed ? "at least 1 with a window" : "0 without a window");
}

// As x, with heads of the width of y.
Dims with_width(TensorRef x, TensorRef y) { return {x.size(0), x.size(1), x.size(2), y.size(3)}; }

void check_far(const Site& at, const AttentionOptions& options, const FarKeys& far, TensorRef q, TensorRef k,
               TensorRef v) {
  if (far.q.empty() && far.k.empty()) return;
  COCA_CHECK(
      options.mask == Mask::kSlidingWindow || (options.mask == Mask::kSymmetricWindow && far.range == FarRange::kAll),
      "[attention] far keys need a sliding window, or a symmetric window and FarRange::kAll");
  check_heads(at, "far.q", far.q, q.shape, std::span(&q.dtype, 1));
  COCA_CHECK(far.k.rank() == 4 && (far.k.size(1) <= k.size(1) || !far.v.empty()),
             "[attention] far.k {} must be [B, F, G, E] with F at most {}", far.k.shape.text(), k.size(1));
  check_heads(at, "far.k", far.k, {k.size(0), far.k.size(1), k.size(2), k.size(3)}, std::span(&q.dtype, 1));
  if (!far.v.empty()) check_heads(at, "far.v", far.v, with_width(far.k, v), std::span(&q.dtype, 1));
  COCA_CHECK(far.most_distance >= 0 && far.most_position >= 0,
             "[attention] far.most_distance={} and far.most_position={} must not be negative", far.most_distance,
             far.most_position);
}

constexpr DType kF32[] = {DType::kF32};

void check_shape(const Site& at, std::string_view name, TensorRef t, const Dims& wanted) {
  check_dtype(at, name, t, DType::kF32);
  COCA_CHECK(!t.empty() && t.shape == wanted, "[attention] {} has shape {}; expected {}", name, t.shape.text(),
             wanted.text());
}

template <typename Args>
void check_decay(const Site& at, const AttentionOptions& options, const Args& a) {
  if (a.decay.empty()) {
    COCA_CHECK(a.query_decay.empty(), "[attention] query_decay {} needs decay", a.query_decay.shape.text());
    return;
  }
  const int64_t B = a.q.size(0), N = a.q.size(1), H = a.q.size(2), S = a.k.size(1);
  COCA_CHECK(a.far.k.empty(), "[attention] decay cannot be combined with far keys");
  check_shape(at, "decay", a.decay, {B, H, S});
  if (!a.query_decay.empty()) return check_shape(at, "query_decay", a.query_decay, {B, H, N});
  COCA_CHECK(options.query_start + N <= S,
             "[attention] decay {} ends before the last query at {}: give query_decay, or keys up to that query",
             a.decay.shape.text(), options.query_start + N - 1);
}

bool check_parts(Write write, const FarKeys& far) {
  const bool parts = write == Write::kAccumulate;
  COCA_CHECK(!parts || far.k.empty(), "[attention] keys in parts cannot be combined with far keys");
  return parts;
}

void check_documents(const Site& at, const AttentionOptions& options, TensorRef q, TensorRef starts) {
  if (starts.empty()) return;
  COCA_CHECK(options.mask != Mask::kNone, "[attention] document_start needs a causal mask or a window");
  check_dtype(at, "document_start", starts, DType::kI32);
  COCA_CHECK(starts.shape == Dims({q.size(0), q.size(1)}), "[attention] document_start has shape {}; expected {}",
             starts.shape.text(), Dims({q.size(0), q.size(1)}).text());
  COCA_CHECK(starts.size(1) <= 1 || starts.stride(1) == 1,
             "[attention] document_start: the innermost stride must be 1, not {}", starts.stride(1));
  if (!at.device.is_cpu()) return;  // its implementations read the starts themselves
  const auto view = starts.view<int32_t, 2>();
  for (int64_t b = 0; b < q.size(0); ++b)
    for (int64_t n = 0, least = 0; n < q.size(1); least = view(b, n++))
      COCA_CHECK(view(b, n) >= least && view(b, n) <= options.query_start + n,
                 "[attention] document_start[{}, {}]={} must be at least {} and at most {}", b, n, view(b, n), least,
                 options.query_start + n);
}

}  // namespace

void attention_forward(Context& context, const AttentionOptions& options, const AttentionForward& a) {
  const Site at(kOp, context);
  check_attention(at, options, a.q, a.k, a.v, a.slopes);
  check_documents(at, options, a.q, a.document_start);
  check_far(at, options, a.far, a.q, a.k, a.v);
  check_decay(at, options, a);
  const bool parts = check_parts(a.write, a.far);
  COCA_CHECK(!parts || !a.lse.empty(), "[attention] keys in parts need lse");
  check_heads(at, "o", a.o, with_width(a.q, a.v), parts ? std::span<const DType>(kF32) : std::span(&a.q.dtype, 1));
  const Dims lse_shape{a.q.size(0), a.q.size(2), a.q.size(1)};
  if (!a.lse.empty()) check_shape(at, "lse", a.lse, lse_shape);
  run<AttentionImpl>(context, {.type = a.q.dtype, .options = &options, .forward = &a}, &AttentionFunctions::forward,
                     options, a);
}

void attention_backward(Context& context, const AttentionOptions& options, const AttentionBackward& a) {
  const Site at(kOp, context);
  check_attention(at, options, a.q, a.k, a.v, a.slopes);
  check_documents(at, options, a.q, a.document_start);
  check_far(at, options, a.far, a.q, a.k, a.v);
  check_decay(at, options, a);
  const auto same = std::span(&a.q.dtype, 1);
  check_heads(at, "o", a.o, with_width(a.q, a.v), same);
  check_heads(at, "d_o", a.d_o, with_width(a.q, a.v), same);
  const bool parts = check_parts(a.write, a.far);
  const auto sums = parts ? std::span<const DType>(kF32) : same;
  check_heads(at, "dq", a.dq, a.q.shape, sums);
  check_heads(at, "dk", a.dk, a.k.shape, sums);
  check_heads(at, "dv", a.dv, a.v.shape, sums);
  if (!a.far.k.empty()) {
    check_heads(at, "dq_far", a.dq_far, a.q.shape, same);
    check_heads(at, "dk_far", a.dk_far, a.far.k.shape, same);
    if (!a.far.v.empty()) check_heads(at, "dv_far", a.dv_far, with_width(a.far.k, a.v), same);
  }
  const Dims lse_shape{a.q.size(0), a.q.size(2), a.q.size(1)};
  check_shape(at, "lse", a.lse, lse_shape);
  if (!a.decay.empty()) check_shape(at, "ddecay", a.ddecay, a.decay.shape);
  if (!a.query_decay.empty()) check_shape(at, "dquery_decay", a.dquery_decay, a.query_decay.shape);
  run<AttentionImpl>(context, {.type = a.q.dtype, .options = &options, .backward = &a}, &AttentionFunctions::backward,
                     options, a);
}

std::vector<float> alibi_slopes(int64_t H) {
  COCA_CHECK(H >= 1, "[attention] ALiBi needs at least one head, not {}", H);
  const auto powers = [](int64_t n) {  // geometric from 2^(-8/n) with that ratio, for n a power of two
    std::vector<float> slopes;
    for (int64_t i = 1; i <= n; ++i)
      slopes.push_back(static_cast<float>(std::exp2(-8.0 * static_cast<double>(i) / static_cast<double>(n))));
    return slopes;
  };
  int64_t closest = 1;
  while (2 * closest <= H) closest *= 2;
  std::vector<float> slopes = powers(closest);
  const std::vector<float> extra = powers(2 * closest);
  for (int64_t i = 0; i < H - closest; ++i) slopes.push_back(extra[static_cast<size_t>(2 * i)]);
  return slopes;
}

}  // namespace coca::ops
