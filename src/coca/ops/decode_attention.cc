// SPDX-License-Identifier: Apache-2.0
#include "coca/ops/decode_attention.h"

#include "coca/ops/check.h"
#include "coca/ops/run.h"

namespace coca::ops {

namespace {

constexpr std::string_view kOp = "decode_attention";

void check_decode(const Site& at, const DecodeAttentionOptions& options, const DecodeAttention& a) {
  const KvLayout& l = a.cache.layout;
  const int64_t S = a.cache.length;
  COCA_CHECK(a.q.rank() == 4 && (a.q.dtype == DType::kF32 || a.q.dtype == DType::kBF16),
             "[decode_attention] q {} {} must be F32 or BF16 [B, N, H, D]", dtype_name(a.q.dtype), a.q.shape.text());
  const int64_t B = a.q.size(0), N = a.q.size(1), H = a.q.size(2), D = a.q.size(3);
  check_heads(at, "q", a.q, {l.B, N, H, l.D});
  check_heads(at, "o", a.o, a.q.shape);
  COCA_CHECK(a.o.dtype == a.q.dtype, "[decode_attention] o has type {}; expected {}, that of q", dtype_name(a.o.dtype),
             dtype_name(a.q.dtype));
  if (!a.lse.empty()) check_packed(at, "lse", a.lse, {B, H, N});
  COCA_CHECK(H % l.G == 0, "[decode_attention] H={} must be a multiple of G={}", H, l.G);
  COCA_CHECK(S >= N, "[decode_attention] the cache holds {} tokens, fewer than the {} queries", S, N);
  COCA_CHECK(a.slopes.empty() || (a.slopes.shape == Dims{H} && a.slopes.dtype == DType::kF32),
             "[decode_attention] slopes {} must be F32 [{}]", a.slopes.shape.text(), H);
  COCA_CHECK(options.window >= 0, "[decode_attention] the window {} must be positive, or 0 for all tokens",
             options.window);
  COCA_CHECK(options.dilation.empty() || static_cast<int64_t>(options.dilation.size()) == H,
             "[decode_attention] {} dilations; expected {}, one per head", options.dilation.size(), H);
  for (size_t h = 0; h < options.dilation.size(); ++h) {
    COCA_CHECK(options.dilation[h] == 1 || options.window > 0, "[decode_attention] dilation[{}]={} needs a window", h,
               options.dilation[h]);
    COCA_CHECK(
        options.dilation[h] >= 1 &&
            options.dilation[h] == options.dilation[h / static_cast<size_t>(H / l.G) * static_cast<size_t>(H / l.G)],
        "[decode_attention] dilation[{}]={} must be at least 1, and that of all heads with its key/value head", h,
        options.dilation[h]);
  }
  const bool folded = options.score == Score::kCollinear;
  COCA_CHECK(!folded || D % 2 == 0, "[decode_attention] the head dim {} must be even", D);
  COCA_CHECK(l.W == (folded ? D / 2 : D), "[decode_attention] the cache's keys have {} numbers; expected {}", l.W,
             folded ? D / 2 : D);
  COCA_CHECK(a.far.tokens >= 0 && a.far.tokens <= S && (a.far.tokens == 0 || options.window > 0),
             "[decode_attention] far tokens {}; expected 0 to {}, and a window", a.far.tokens, S);
  COCA_CHECK(a.far.most_distance >= 0 && a.far.most_position >= 0 && a.far.forgotten >= 0,
             "[decode_attention] far.most_distance={}, far.most_position={} and far.forgotten={} must not be negative",
             a.far.most_distance, a.far.most_position, a.far.forgotten);
  if (options.score == Score::kDot) return;
  check_rows(at, a.rows, a.q);
  const int64_t half = a.rows.cos.size(2);
  const bool given = !a.key_rows.cos.empty();
  COCA_CHECK(given != (a.angles != nullptr), "[decode_attention] give either angles or key_rows");
  if (given) {
    const Dims &c = a.key_rows.cos.shape, &s = a.key_rows.sin.shape;
    COCA_CHECK(c == s && c.rank == 3 && (c[0] == 1 || c[0] == B) && c[1] == S && c[2] == half,
               "[decode_attention] key cos {} and sin {} must be [1 or {}, {}, {}]", c.text(), s.text(), B, S, half);
  } else {
    COCA_CHECK(a.angles->half() == half && a.angles->tokens() >= S,
               "[decode_attention] angles of {} pairs and {} tokens do not fit {} pairs and {} tokens",
               a.angles->half(), a.angles->tokens(), half, S);
  }
  COCA_CHECK(a.turn.cos.empty() || (a.turn.cos.shape == a.rows.cos.shape && a.turn.sin.shape == a.rows.cos.shape),
             "[decode_attention] turn {} and {} must have the shape of the rows, {}", a.turn.cos.shape.text(),
             a.turn.sin.shape.text(), a.rows.cos.shape.text());
  if (a.far.tokens > 0) {
    COCA_CHECK(a.far.rows.cos.shape == a.rows.cos.shape && a.far.rows.sin.shape == a.rows.cos.shape,
               "[decode_attention] far rows {} must have the shape of the rows, {}", a.far.rows.cos.shape.text(),
               a.rows.cos.shape.text());
    COCA_CHECK(a.far.angles && a.far.angles->half() == half && a.far.angles->tokens() >= a.far.tokens,
               "[decode_attention] far angles do not fit {} pairs and {} tokens", half, a.far.tokens);
  }
  COCA_CHECK(!folded || options.collinear.fold != Fold::kOfficial || 2 * half == D ||
                 options.collinear.kind == Collinear::kSlack,
             "[decode_attention] the official fold with rotary dims {} < {} is slack only", 2 * half, D);
}

}  // namespace

void decode_attention(Context& context, const DecodeAttentionOptions& options, const DecodeAttention& a) {
  check_decode(Site(kOp, context), options, a);
  if (a.q.size(1) == 0) return;
  run<DecodeAttentionImpl>(context, a.q.dtype, &DecodeAttentionFunctions::forward, options, a);
}

}  // namespace coca::ops
