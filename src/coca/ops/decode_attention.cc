// SPDX-License-Identifier: Apache-2.0
#include "coca/ops/decode_attention.h"

#include "coca/ops/check.h"
#include "coca/ops/run.h"

namespace coca::ops {

namespace {

constexpr std::string_view kOp = "decode_attention";

struct Heads {
  int64_t H, E, half;  // half: rotary pairs
};

// Rotary pairs of a sequence's keys.
int64_t pairs_of(const DecodeSequence& a) {
  if (a.angles) return a.angles->half();
  return a.key_rows.cos.rank() == 3 ? a.key_rows.cos.size(2) : 0;
}

void check_options(const DecodeAttentionOptions& options, const Heads& x, const KvLayout& l) {
  COCA_CHECK(x.H % l.G == 0, "[decode_attention] H={} must be a multiple of G={}", x.H, l.G);
  COCA_CHECK(options.window >= 0, "[decode_attention] the window {} must be positive, or 0 for all tokens",
             options.window);
  COCA_CHECK(options.dilation.empty() || static_cast<int64_t>(options.dilation.size()) == x.H,
             "[decode_attention] {} dilations; expected {}, one per head", options.dilation.size(), x.H);
  const auto group = static_cast<size_t>(x.H / l.G);
  for (size_t h = 0; h < options.dilation.size(); ++h) {
    COCA_CHECK(options.dilation[h] == 1 || options.window > 0, "[decode_attention] dilation[{}]={} needs a window", h,
               options.dilation[h]);
    COCA_CHECK(
        options.dilation[h] >= 1 && options.dilation[h] == options.dilation[h / group * group],
        "[decode_attention] dilation[{}]={} must be at least 1, and the same for all heads that share a key/value head",
        h, options.dilation[h]);
  }
  const bool folded = options.score == Score::kCollinear;
  const int64_t C = folded ? options.collinear.content : 0;
  COCA_CHECK(
      C >= 0 && C <= x.E && (!folded || (x.E - C) % 2 == 0),
      "[decode_attention] heads of {} numbers with {} content channels; expected an even number of other numbers", x.E,
      C);
  const int64_t W = folded ? stored_width(options.collinear, x.E) : x.E;
  COCA_CHECK(l.W == W, "[decode_attention] the cache's keys have {} numbers; expected {}", l.W, W);
  COCA_CHECK(2 * x.half <= x.E - C, "[decode_attention] {} rotary dims exceed the {} that can rotate", 2 * x.half,
             x.E - C);
  COCA_CHECK(
      !folded || options.collinear.fold != Fold::kOfficial || 2 * x.half == x.E ||
          (options.collinear.kind == Collinear::kSlack && C == 0),
      "[decode_attention] the official fold with rotary dims {} < {} supports only slack without content channels",
      2 * x.half, x.E);
}

void check_angles(const DecodeSequence& a, const Heads& x) {
  const int64_t S = a.cache.length, half = x.half;
  const bool given = !a.key_rows.cos.empty();
  COCA_CHECK(given != (a.angles != nullptr), "[decode_attention] give either angles or key_rows");
  if (given) {
    const Dims &c = a.key_rows.cos.shape, &s = a.key_rows.sin.shape;
    COCA_CHECK(c == s && c == Dims({1, S, half}), "[decode_attention] key cos {} and sin {} must be [1, {}, {}]",
               c.text(), s.text(), S, half);
  } else {
    COCA_CHECK(a.angles->half() == half && a.angles->tokens() >= S,
               "[decode_attention] angles of {} pairs and {} tokens do not fit {} pairs and {} tokens",
               a.angles->half(), a.angles->tokens(), half, S);
  }
  if (a.far.tokens == 0) return;
  COCA_CHECK(a.far.angles && a.far.angles->half() == half && a.far.angles->tokens() >= a.far.tokens,
             "[decode_attention] far angles do not fit {} pairs and {} tokens", half, a.far.tokens);
}

void check_sequence(const Site& at, const DecodeAttentionOptions& options, const DecodeSequence& a, const Heads& x) {
  const int64_t S = a.cache.length, N = a.q.size(1);
  check_cache(at, a.cache);
  check_heads(at, "q", a.q, {1, N, x.H, x.E});
  check_heads(at, "o", a.o, {1, N, x.H, a.cache.layout.D});
  COCA_CHECK(a.o.dtype == a.q.dtype, "[decode_attention] o has type {}; expected {}, that of q", dtype_name(a.o.dtype),
             dtype_name(a.q.dtype));
  if (!a.lse.empty()) check_packed(at, "lse", a.lse, {1, x.H, N});
  COCA_CHECK(N >= 1 && S >= N, "[decode_attention] {} queries; expected at least 1, and at most the cache's {} tokens",
             N, S);
  COCA_CHECK(a.far.tokens >= 0 && a.far.tokens <= S && (a.far.tokens == 0 || options.window > 0),
             "[decode_attention] far tokens {}; expected 0 to {}, and a window", a.far.tokens, S);
  COCA_CHECK(a.far.most_distance >= 0 && a.far.most_position >= 0 && a.far.forgotten >= 0,
             "[decode_attention] far.most_distance={}, far.most_position={} and far.forgotten={} must not be negative",
             a.far.most_distance, a.far.most_position, a.far.forgotten);
  if (a.far.tokens > 0) {
    check_dtype(at, "far q", a.far.q, a.q.dtype);
    check_heads(at, "far q", a.far.q, a.q.shape);
  }
  if (options.score != Score::kDot) check_angles(a, x);
  if (a.decay.empty()) return;
  check_dtype(at, "decay", a.decay, DType::kF32);
  COCA_CHECK(a.decay.shape == Dims({x.H, S}) && (S == 1 || a.decay.stride(1) == 1),
             "[decode_attention] decay {} must be [{}, {}] with an innermost stride of 1", a.decay.shape.text(), x.H,
             S);
  COCA_CHECK(a.far.tokens == 0, "[decode_attention] decay cannot be combined with far tokens");
}

void check_decode(const Site& at, const DecodeAttentionOptions& options, const DecodeAttention& all) {
  const DecodeSequence& first = all.sequences.front();
  for (const DecodeSequence& a : all.sequences) {
    COCA_CHECK(a.q.rank() == 4 && (a.q.dtype == DType::kF32 || a.q.dtype == DType::kBF16),
               "[decode_attention] q {} {} must be F32 or BF16 [1, N, H, E]", dtype_name(a.q.dtype), a.q.shape.text());
    COCA_CHECK(
        a.q.dtype == first.q.dtype && a.cache.layout == first.cache.layout,
        "[decode_attention] all sequences of a call must have the same type of q and the same layout of the cache");
  }
  const Heads x{.H = first.q.size(2), .E = first.q.size(3), .half = options.score == Score::kDot ? 0 : pairs_of(first)};
  check_options(options, x, first.cache.layout);
  COCA_CHECK(all.slopes.empty() || (all.slopes.shape == Dims{x.H} && all.slopes.dtype == DType::kF32),
             "[decode_attention] slopes {} must be F32 [{}]", all.slopes.shape.text(), x.H);
  for (const DecodeSequence& a : all.sequences) check_sequence(at, options, a, x);
}

}  // namespace

void decode_attention(Context& context, const DecodeAttentionOptions& options, const DecodeAttention& a) {
  if (a.sequences.empty()) return;
  check_decode(Site(kOp, context), options, a);
  run<DecodeAttentionImpl>(context, a.sequences.front().q.dtype, &DecodeAttentionFunctions::forward, options, a);
}

}  // namespace coca::ops
