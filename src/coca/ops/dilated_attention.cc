// SPDX-License-Identifier: Apache-2.0
#include "coca/ops/dilated_attention.h"

#include <algorithm>
#include <vector>

#include "coca/ops/attention.h"
#include "coca/ops/check.h"
#include "coca/ops/heads.h"
#include "coca/ops/run.h"
#include "coca/tensor/tensor.h"

namespace coca::ops {

namespace {

// Elements start, start + step, ... of one dimension.
template <typename Ref>
Ref every(Ref t, int dim, int64_t start, int64_t step) {
  if (t.empty()) return t;
  const int64_t left = std::max<int64_t>(0, t.size(dim) - start);
  Ref view = t.narrow(dim, std::min(start, t.size(dim)), left);
  view.shape[dim] = (left + step - 1) / step;
  view.strides[dim] *= step;
  return view;
}
template <typename Ref>
Ref heads(Ref t, int dim, int64_t first, int64_t count) {
  return t.empty() ? t : t.narrow(dim, first, count);
}

// Adjacent heads with the same dilation, and the key/value heads they use.
struct HeadSpan {
  int64_t dilation, h, H, g, G;
};

// With S keys, a dilation of S or more leaves each query only its own key.
std::vector<HeadSpan> runs_of(const DilatedAttentionOptions& o, int64_t S, int64_t H, int64_t G) {
  if (o.dilation.empty()) return {{1, 0, H, 0, G}};
  COCA_CHECK(static_cast<int64_t>(o.dilation.size()) == H,
             "[dilated_attention] {} dilations; expected {}, one per head", o.dilation.size(), H);
  COCA_CHECK(G >= 1 && H % G == 0, "[dilated_attention] H={} must be a multiple of G={}", H, G);
  const int64_t group = H / G;
  std::vector<HeadSpan> runs;
  for (int64_t h = 0; h < H; ++h) {
    const int64_t given = o.dilation[static_cast<size_t>(h)], d = std::min(given, std::max<int64_t>(S, 1));
    COCA_CHECK(given >= 1, "[dilated_attention] dilation[{}]={} must be at least 1", h, given);
    if (!runs.empty() && runs.back().dilation == d) {
      ++runs.back().H;
      continue;
    }
    COCA_CHECK(h % group == 0,
               "[dilated_attention] dilation[{}]={}, but head {} reads the same key/value head with dilation {}", h, d,
               h - 1, o.dilation[static_cast<size_t>(h - 1)]);
    runs.push_back({d, h, 1, h / group, 0});
  }
  for (HeadSpan& span : runs) span.G = span.H / group;
  return runs;
}

void check_dilated(const DilatedAttentionOptions& o, const std::vector<HeadSpan>& runs, const FarKeys& far) {
  const bool dilated = std::ranges::any_of(runs, [](const HeadSpan& span) { return span.dilation > 1; });
  if (!dilated) return;
  const Mask mask = o.attention.mask;
  COCA_CHECK(mask == Mask::kSlidingWindow || mask == Mask::kSymmetricWindow,
             "[dilated_attention] dilation needs a window");
  COCA_CHECK(o.attention.spacing == 1 && o.attention.first_place == 0,
             "[dilated_attention] spacing={} and first_place={} must be 1 and 0", o.attention.spacing,
             o.attention.first_place);
  COCA_CHECK(far.k.empty() || far.range == FarRange::kAll,
             "[dilated_attention] far keys beside dilated windows must be seen by every query");
}

// The positions r, r + d, ... as a sequence: its queries and keys, and where its documents begin.
struct Residue {
  int64_t r, d, first_query, queries, query_start;
  Tensor starts;

  Residue(Context& context, int64_t r_, int64_t d_, int64_t start, int64_t N, TensorRef documents) : r(r_), d(d_) {
    first_query = ((r - start) % d + d) % d;
    queries = N > first_query ? (N - first_query + d - 1) / d : 0;
    query_start = (start + first_query - r) / d;
    if (documents.empty() || queries == 0) return;
    starts = Tensor({documents.size(0), queries}, DType::kI32, context.memory());
    run<DilatedAttentionImpl>(
        context, DType::kI32, &DilatedAttentionFunctions::residue_starts,
        ResidueStarts{
            .document_start = documents, .residue = r, .dilation = d, .first_query = first_query, .starts = starts});
  }
  AttentionOptions options(AttentionOptions o) const {
    o.query_start = query_start;
    o.spacing = d;
    o.first_place = r;
    return o;
  }
  template <typename Ref>
  Ref of_queries(Ref t, int dim = 1) const {
    return every(t, dim, first_query, d);
  }
  template <typename Ref>
  Ref of_keys(Ref t, int dim = 1) const {
    return every(t, dim, r, d);
  }
  TensorRef documents() const { return starts.empty() ? TensorRef() : starts.ref(); }
};

// The far keys of a run's heads; v holds the values of all positions.
FarKeys far_of(const FarKeys& far, TensorRef v, const HeadSpan& span) {
  if (far.k.empty()) return {};
  FarKeys own = far;
  own.q = heads(far.q, 2, span.h, span.H);
  own.k = heads(far.k, 2, span.g, span.G);
  own.v = heads(far.v.empty() ? v.narrow(1, 0, far.k.size(1)) : far.v, 2, span.g, span.G);
  return own;
}

// The part of the call that belongs to a run's heads.
AttentionForward part_of(const AttentionForward& a, const HeadSpan& span) {
  return {.q = heads(a.q, 2, span.h, span.H),
          .k = heads(a.k, 2, span.g, span.G),
          .v = heads(a.v, 2, span.g, span.G),
          .slopes = heads(a.slopes, 0, span.h, span.H),
          .decay = heads(a.decay, 1, span.h, span.H),
          .query_decay = heads(a.query_decay, 1, span.h, span.H),
          .document_start = a.document_start,
          .far = far_of(a.far, a.v, span),
          .o = heads(a.o, 2, span.h, span.H),
          .lse = heads(a.lse, 1, span.h, span.H)};
}
AttentionBackward part_of(const AttentionBackward& a, const HeadSpan& span) {
  return {.q = heads(a.q, 2, span.h, span.H),
          .k = heads(a.k, 2, span.g, span.G),
          .v = heads(a.v, 2, span.g, span.G),
          .slopes = heads(a.slopes, 0, span.h, span.H),
          .decay = heads(a.decay, 1, span.h, span.H),
          .query_decay = heads(a.query_decay, 1, span.h, span.H),
          .document_start = a.document_start,
          .far = far_of(a.far, a.v, span),
          .o = heads(a.o, 2, span.h, span.H),
          .lse = heads(a.lse, 1, span.h, span.H),
          .d_o = heads(a.d_o, 2, span.h, span.H),
          .dq = heads(a.dq, 2, span.h, span.H),
          .dk = heads(a.dk, 2, span.g, span.G),
          .dv = heads(a.dv, 2, span.g, span.G),
          .dq_far = heads(a.dq_far, 2, span.h, span.H),
          .dk_far = heads(a.dk_far, 2, span.g, span.G),
          .dv_far = heads(a.dv_far, 2, span.g, span.G),
          .ddecay = heads(a.ddecay, 1, span.h, span.H),
          .dquery_decay = heads(a.dquery_decay, 1, span.h, span.H)};
}

// The residues' parts of the gradients of the far keys: of one residue in the type of k, and of all in fp32.
struct FarSums {
  Context& context;
  MutTensorRef dk, dv, dk_sum, dv_sum;

  FarSums(Context& context_, TensorRef k, int64_t D) : context(context_) {
    if (k.empty()) return;
    const Dims values{k.size(0), k.size(1), k.size(2), D};
    const auto bytes = [](const Dims& dims, DType type) {
      return (static_cast<size_t>(dims.product()) * dtype_size(type) + 63) / 64 * 64;
    };
    struct Wanted {
      MutTensorRef& to;
      DType type;
      const Dims& dims;
    };
    const Wanted all[] = {
        {dk, k.dtype, k.shape}, {dv, k.dtype, values}, {dk_sum, DType::kF32, k.shape}, {dv_sum, DType::kF32, values}};
    size_t total = 0;
    for (const Wanted& w : all) total += bytes(w.dims, w.type);
    auto* memory = static_cast<std::byte*>(context.scratch(total, ScratchUser::kDilated));
    for (const Wanted& w : all) {
      w.to = {memory, w.type, w.dims, context.device()};
      memory += bytes(w.dims, w.type);
    }
    zero_heads(context, dk_sum);
    zero_heads(context, dv_sum);
  }
  void add() {
    if (dk.empty()) return;
    add_heads(context, dk, dk_sum);
    add_heads(context, dv, dv_sum);
  }
};

void backward_run(Context& context, const AttentionOptions& options, const HeadSpan& span, const AttentionBackward& a,
                  const AttentionBackward& whole) {
  FarSums far(context, a.far.k, a.v.size(3));
  for (int64_t r = 0; r < span.dilation; ++r) {
    const Residue residue(context, r, span.dilation, options.query_start, a.q.size(1), a.document_start);
    AttentionBackward part = a;
    part.k = residue.of_keys(a.k);
    part.v = residue.of_keys(a.v);
    part.dk = residue.of_keys(a.dk);
    part.dv = residue.of_keys(a.dv);
    if (residue.queries == 0) {
      zero_heads(context, part.dk);
      zero_heads(context, part.dv);
      continue;
    }
    for (TensorRef* t : {&part.q, &part.o, &part.d_o, &part.far.q}) *t = residue.of_queries(*t);
    for (MutTensorRef* t : {&part.dq, &part.dq_far}) *t = residue.of_queries(*t);
    part.lse = residue.of_queries(a.lse, 2);
    part.decay = residue.of_keys(a.decay, 2);
    part.query_decay = residue.of_queries(a.query_decay, 2);
    part.ddecay = residue.of_keys(a.ddecay, 2);
    part.dquery_decay = residue.of_queries(a.dquery_decay, 2);
    part.document_start = residue.documents();
    part.dk_far = far.dk;
    part.dv_far = far.dv;
    attention_backward(context, residue.options(options), part);
    far.add();
  }
  if (far.dk.empty()) return;
  copy_heads(context, far.dk_sum, a.dk_far);
  if (whole.far.v.empty())
    add_heads(context, far.dv_sum, a.dv.narrow(1, 0, a.far.k.size(1)));
  else
    copy_heads(context, far.dv_sum, a.dv_far);
}

}  // namespace

void dilated_attention_forward(Context& context, const DilatedAttentionOptions& options, const AttentionForward& a) {
  COCA_CHECK(a.q.rank() == 4 && a.k.rank() == 4,
             "[dilated_attention] q {} and k {} must be [B, N, H, E] and [B, S, G, E]", a.q.shape.text(),
             a.k.shape.text());
  const std::vector<HeadSpan> runs = runs_of(options, a.k.size(1), a.q.size(2), a.k.size(2));
  if (runs.size() == 1 && runs.front().dilation == 1) return attention_forward(context, options.attention, a);
  check_dilated(options, runs, a.far);
  for (const HeadSpan& span : runs) {
    const AttentionForward heads_part = part_of(a, span);
    for (int64_t r = 0; r < span.dilation; ++r) {
      const Residue residue(context, r, span.dilation, options.attention.query_start, a.q.size(1), a.document_start);
      if (residue.queries == 0) continue;
      AttentionForward part = heads_part;
      for (TensorRef* t : {&part.q, &part.far.q}) *t = residue.of_queries(*t);
      part.k = residue.of_keys(part.k);
      part.v = residue.of_keys(part.v);
      part.o = residue.of_queries(part.o);
      part.lse = residue.of_queries(part.lse, 2);
      part.decay = residue.of_keys(part.decay, 2);
      part.query_decay = residue.of_queries(part.query_decay, 2);
      part.document_start = residue.documents();
      attention_forward(context, residue.options(options.attention), part);
    }
  }
}

void dilated_attention_backward(Context& context, const DilatedAttentionOptions& options, const AttentionBackward& a) {
  COCA_CHECK(a.q.rank() == 4 && a.k.rank() == 4,
             "[dilated_attention] q {} and k {} must be [B, N, H, E] and [B, S, G, E]", a.q.shape.text(),
             a.k.shape.text());
  const std::vector<HeadSpan> runs = runs_of(options, a.k.size(1), a.q.size(2), a.k.size(2));
  if (runs.size() == 1 && runs.front().dilation == 1) return attention_backward(context, options.attention, a);
  check_dilated(options, runs, a.far);
  for (const HeadSpan& span : runs) backward_run(context, options.attention, span, part_of(a, span), a);
}

}  // namespace coca::ops
