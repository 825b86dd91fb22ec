// coca/kernels/args/collinear.h - what collinear takes; ops/collinear.h says what it does.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string_view>

#include "coca/kernels/args/forms_list.h"
#include "coca/kernels/args/implementation.h"
#include "coca/kernels/args/rope.h"

namespace coca::ops {

// The forms by name: kAbs, kPope, kSlack, ... Their numbers depend on the list and are stored nowhere.
#define COCA_FORM_NAME(X) k##X,
enum class Collinear : uint8_t { COCA_FORMS(COCA_FORM_NAME) };
#undef COCA_FORM_NAME

// Calls body with an object of the form's type.
template <typename Body>
constexpr decltype(auto) with_form(Collinear kind, const Body& body) {
  switch (kind) {
#define COCA_FORM_CASE(X) \
  case Collinear::k##X: return body(forms::X());
    COCA_FORMS(COCA_FORM_CASE)
#undef COCA_FORM_CASE
  }
  __builtin_unreachable();
}
inline const FormInfo& form_info(Collinear kind) {
  return with_form(kind, [](auto form) -> const FormInfo& { return decltype(form)::kInfo; });
}
inline KeyDirection key_direction(Collinear kind) {
  return with_form(kind, [](auto form) { return decltype(form)::kKey; });
}

enum class Fold : uint8_t { kRotary, kOfficial };

struct CollinearOptions {
  Collinear kind = Collinear::kSlack;
  Fold fold = Fold::kRotary;
  Magnitude magnitude = Magnitude::kRelu;  // of keys
  int64_t content = 0;                     // the last channels, whose share of the score is an ordinary q . k
};

// Widths of a head: q_eff and k_eff have E numbers, two for each of P planes and one for each of C content channels.
inline int64_t planes_of(const CollinearOptions& o, int64_t E) { return (E - o.content) / 2; }
inline int64_t query_width(const CollinearOptions& o, int64_t E) {  // of q: members P + C
  return form_info(o.kind).members * planes_of(o, E) + o.content;
}
inline int64_t stored_width(const CollinearOptions& o, int64_t E) {  // of tbar, and of t from a projection that has
  return planes_of(o, E) + o.content;                                // one number for each plane: P + C
}
inline int64_t effective_width(const CollinearOptions& o, int64_t stored) {  // E, from P + C
  return 2 * (stored - o.content) + o.content;
}

struct CollinearForward {
  RopeRows rows;
  RopeRows key_rows;   // of the keys, if they differ from those of the queries (xPos); empty: rows
  TensorRef q;         // [B, N, H, members P + C]
  TensorRef t;         // [B, N, G, P + C], or with two members also [B, N, G, E], folded by pairs
  MutTensorRef q_eff;  // [B, N, H, E] written; not q
  MutTensorRef k_eff;  // [B, N, G, E] written; not t
};
struct CollinearBackward {
  RopeRows rows, key_rows;  // as above
  TensorRef q, t;           // as above
  TensorRef dq_eff, dk_eff;
  MutTensorRef dq, dt;  // written; dq may be dq_eff, and dt may be dk_eff, if both have the same shape
};

// The steps that the cache needs: t is stored folded and before rotation, one number for each plane and content
// channel.
struct CollinearFold {
  int64_t R = 0;      // rotary dims
  TensorRef t;        // [B, N, G, P + C or E]
  MutTensorRef tbar;  // [B, N, G, P + C] written; f32 or bf16, whatever t is
};
struct CollinearQuery {
  RopeRows rows;
  TensorRef q;         // [B, N, H, members P + C]
  MutTensorRef q_eff;  // [B, N, H, E] written; not q
};
struct CollinearKey {
  RopeRows rows;       // rows of the keys' positions
  TensorRef tbar;      // [B, S, G, P + C]; f32 or bf16, whatever k_eff is
  MutTensorRef k_eff;  // [B, S, G, E] written
};
// Their gradients, for ring attention, where one rank makes keys from the tbar of another and sends back sums in fp32.
struct CollinearKeyBackward {
  RopeRows rows;
  TensorRef dk_eff;    // [B, S, G, E] f32
  MutTensorRef dtbar;  // [B, S, G, P + C] f32, added to (+=)
};
struct CollinearFoldBackward {
  int64_t R = 0;
  TensorRef t;      // [B, N, G, P + C or E]
  TensorRef dtbar;  // [B, N, G, P + C] f32
  MutTensorRef dt;  // as t: written, of t's type
};

// The official fold with R < E is for old checkpoints only: the CPU leaves it to the reference.
struct CollinearCase {
  DType type;
  bool official_partial = false;
};
struct CollinearFunctions {
  void (*forward)(Context&, const CollinearOptions&, const CollinearForward&);
  void (*backward)(Context&, const CollinearOptions&, const CollinearBackward&);
  void (*fold)(Context&, const CollinearOptions&, const CollinearFold&);
  void (*query)(Context&, const CollinearOptions&, const CollinearQuery&);
  void (*key)(Context&, const CollinearOptions&, const CollinearKey&);
  void (*key_backward)(Context&, const CollinearOptions&, const CollinearKeyBackward&);
  void (*fold_backward)(Context&, const CollinearOptions&, const CollinearFoldBackward&);
};
using CollinearImpl = Implementation<CollinearFunctions, CollinearCase>;

}  // namespace coca::ops
