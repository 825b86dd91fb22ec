// coca/kernels/args/attention.h - what attention takes; ops/attention.h says what it does.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "coca/kernels/args/implementation.h"
#include "coca/kernels/args/write.h"

namespace coca::ops {

// kSlidingWindow is causal; kSymmetricWindow reaches as far forward as back (Longformer's encoder).
enum class Mask : uint8_t { kNone, kCausal, kSlidingWindow, kSymmetricWindow };

struct AttentionOptions {
  float scale = 0.0f;  // positive; 0 selects 1/sqrt(E)
  Mask mask = Mask::kCausal;
  // With windows only: visible keys on each side of a query, itself included (>= 1); others are skipped in blocks.
  int64_t window = 0;
  int64_t query_start = 0;  // position of query 0 among the keys; decoding passes S - N
  // For ALiBi's distances: neighbouring tokens are `spacing` positions apart, and the first key is at `first_place`
  // (dilated_attention.h).
  int64_t spacing = 1, first_place = 0;
};

// More keys under the same softmax, with query and key vectors of their own: the first tokens in StreamingLLM and
// LM-Infinite, the distant tokens in Self-Extend and ReRoPE, the global tokens in Longformer. They are the first F
// tokens, and have the same values unless `v` is given. They need a sliding window, or kAll with a symmetric one.
enum class FarRange : uint8_t {
  kBehindWindow,  // those that have left the window, and none before the start of the document
  kAll,           // all, for every query; the caller keeps them out of the window (document_start)
};
struct FarKeys {
  TensorRef q, k;  // [B, N, H, E]  [B, F, G, E]; empty: none
  TensorRef v;     // [B, F, G, D]; empty: the first F of v, F <= S
  FarRange range = FarRange::kBehindWindow;
  // For ALiBi, the largest distance of a key and the largest position of a query that count; 0: no limit.
  int64_t most_distance = 0, most_position = 0;
};

// Query head h uses key/value head h / (H / G). Any strides, with an innermost stride of 1. The width E of queries and
// keys may differ from the width D of values and o.
struct AttentionForward {
  TensorRef q, k, v;  // [B, N, H, E]  [B, S, G, E]  [B, S, G, D]
  TensorRef slopes;   // [H] f32: adds -slope_h * |m - n| to the scaled score (ALiBi); empty: none
  // Cumulative log forget gates (Forgetting Transformer): the scaled score gets + (the query's decay - the key's
  // decay), which is subtracted in fp32 before anything else is added. [B, H, S] f32 of the keys and [B, H, N] f32 of
  // the queries, any strides. Empty queries: those of the keys at query_start + n, which must exist. Empty keys: none.
  // Not with far keys.
  TensorRef decay, query_decay;
  // [B, N] i32, rows contiguous: packed documents. Keys before this index, at which the query's document begins, are
  // not visible. 0 <= document_start <= query_start + n, not decreasing along n; not with Mask::kNone. The caller cuts
  // symmetric windows at their far end. Empty: none.
  TensorRef document_start;
  FarKeys far;
  MutTensorRef o;    // [B, N, H, D] written; rows without visible keys are zero
  MutTensorRef lse;  // [B, H, N] f32, any strides, written (-inf without visible keys); empty if no backward follows
  // kAccumulate: the keys are a part of all keys. o (f32, whatever q is) and lse hold the result of the other parts so
  // far (lse is -inf before the first), and these keys join their softmax. Not with far keys.
  Write write = Write::kAssign;
};
struct AttentionBackward {
  TensorRef q, k, v, slopes, decay, query_decay, document_start;  // as above
  FarKeys far;
  TensorRef o, lse, d_o;              // [B, N, H, D]  [B, H, N]  [B, N, H, D]; o and lse may include a learnt sink
  MutTensorRef dq, dk, dv;            // of q, k and v, written (=); may be strided views
  MutTensorRef dq_far, dk_far;        // of far.q and far.k, written; with far keys
  MutTensorRef dv_far;                // of far.v, written; for far keys with values of their own (others add to dv)
  MutTensorRef ddecay, dquery_decay;  // of decay and query_decay, f32, any strides: added to (+=)
  // kAccumulate: the keys are a part of all keys, and o and lse are those of all. dq, dk and dv are f32, whatever q is,
  // and are added to.
  Write write = Write::kAssign;
};

// The decays of the queries, or their gradients: as given, or a part of those of the keys [B, H, S].
template <typename Ref>
Ref queries_of(const AttentionOptions& options, const Ref& given, const Ref& of_keys, TensorRef q) {
  return given.empty() ? of_keys.narrow(2, options.query_start, q.size(1)) : given;
}

// What decides which implementation runs: the type, and the call if there is one (its pass, and null for the other).
struct AttentionCase {
  DType type;
  const AttentionOptions* options = nullptr;  // null: the simplest call of this type
  const AttentionForward* forward = nullptr;
  const AttentionBackward* backward = nullptr;
};
struct AttentionFunctions {
  void (*forward)(Context&, const AttentionOptions&, const AttentionForward&);
  void (*backward)(Context&, const AttentionOptions&, const AttentionBackward&);
};
using AttentionImpl = Implementation<AttentionFunctions, AttentionCase>;

}  // namespace coca::ops
