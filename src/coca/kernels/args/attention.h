// coca/kernels/args/attention.h - what attention takes; ops/attention.h says what it does.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "coca/kernels/args/write.h"
#include "coca/kernels/args/implementation.h"

namespace coca::ops {

// kSlidingWindow is causal too; kSymmetricWindow sees as far ahead as back (Longformer's encoder).
enum class Mask : uint8_t { kNone, kCausal, kSlidingWindow, kSymmetricWindow };

struct AttentionOptions {
  float scale = 0.0f;       // positive; 0 selects 1/sqrt(D)
  Mask mask = Mask::kCausal;
  // With windows only: keys a query sees on each side, itself included (>= 1); others are skipped in blocks.
  int64_t window = 0;
  int64_t query_start = 0;  // position of query 0 among the keys; decoding passes S - N
  // ALiBi's distances: neighbours here stand `spacing` places apart, the first key at `first_place` (dilated_attention.h).
  int64_t spacing = 1, first_place = 0;
};

// More keys under the same softmax, seen through other vectors than those in the window: the first tokens of StreamingLLM
// and LM-Infinite, the distant ones of Self-Extend and ReRoPE, Longformer's global ones. They are the first F tokens, with
// the same values unless they bring their own. With a symmetric window, all of them only (kAll); else sliding windows only.
enum class FarRange : uint8_t {
  kBehindWindow,  // those of them that the window no longer holds, none in front of a document's start
  kAll,           // all, for every query; the caller keeps them out of the window (document_start)
};
struct FarKeys {
  TensorRef q, k;             // [B, N, H, D]  [B, F, G, D]; empty: none
  TensorRef v;                // [B, F, G, D]; empty: the first F of v, F <= S
  FarRange range = FarRange::kBehindWindow;
  // ALiBi: farther keys count as this far away, and later queries as standing at this position; 0: as they are.
  int64_t most_distance = 0, most_position = 0;
};

// Query head h reads key/value head h / (H / G). Any strides with an innermost stride of 1.
struct AttentionForward {
  TensorRef q, k, v;    // [B, N, H, D]  [B, S, G, D]  [B, S, G, D]
  TensorRef slopes;     // [H] f32: adds -slope_h * |m - n| to the scaled score (ALiBi); empty: none
  // [B, N] i32, rows contiguous: packed documents. A query sees no key before this index, at which its document begins:
  // 0 <= document_start <= query_start + n, growing along n; not with Mask::kNone; symmetric windows are cut at their
  // far end by the caller. Empty: none.
  TensorRef document_start;
  FarKeys far;
  MutTensorRef o;       // [B, N, H, D] written; rows that see no key are zero
  MutTensorRef lse;     // [B, H, N] f32, any strides, written (-inf for rows that see no key); empty when no backward follows
  // kAccumulate: the keys are a part of all. o (f32, whatever q is) and lse hold what other parts gave, lse -inf where
  // nothing yet, and these keys join their softmax. Not with far keys.
  Write write = Write::kAssign;
};
struct AttentionBackward {
  TensorRef q, k, v, slopes, document_start;  // as above
  FarKeys far;
  TensorRef o, lse, d_o;
  MutTensorRef dq, dk, dv;      // written (=); may be strided views
  MutTensorRef dq_far, dk_far;  // of far.q and far.k, written; with far keys
  MutTensorRef dv_far;          // of far.v, written; with far keys that have values of their own (else these are in dv)
  // kAccumulate: the keys are a part of all, o and lse those of all; dq, dk and dv are f32, whatever q is, and added to.
  Write write = Write::kAssign;
};

struct AttentionFunctions {
  void (*forward)(Context&, const AttentionOptions&, const AttentionForward&);
  void (*backward)(Context&, const AttentionOptions&, const AttentionBackward&);
};
using AttentionImpl = Implementation<AttentionFunctions>;

}  // namespace coca::ops
