// SPDX-License-Identifier: Apache-2.0
#include "coca/ops/dilated_attention.h"

#include <algorithm>
#include <cstring>
#include <vector>

#include "coca/ops/check.h"
#include "coca/ops/float_types.h"
#include "coca/ops/heads.h"

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

// Adjacent heads with one dilation, and the key/value heads they read.
struct Run {
  int64_t dilation, h, H, g, G;
};

// Among S keys, a dilation of S and more leaves each query its own key.
std::vector<Run> runs_of(const DilatedAttentionOptions& o, int64_t S, int64_t H, int64_t G) {
  if (o.dilation.empty()) return {{1, 0, H, 0, G}};
  COCA_CHECK(static_cast<int64_t>(o.dilation.size()) == H, "[dilated_attention] {} dilations; expected {}, one per head", o.dilation.size(), H);
  COCA_CHECK(G >= 1 && H % G == 0, "[dilated_attention] H={} must be a multiple of G={}", H, G);
  const int64_t group = H / G;
  std::vector<Run> runs;
  for (int64_t h = 0; h < H; ++h) {
    const int64_t given = o.dilation[static_cast<size_t>(h)], d = std::min(given, std::max<int64_t>(S, 1));
    COCA_CHECK(given >= 1, "[dilated_attention] dilation[{}]={} must be at least 1", h, given);
    if (!runs.empty() && runs.back().dilation == d) {
      ++runs.back().H;
      continue;
    }
    COCA_CHECK(h % group == 0, "[dilated_attention] dilation[{}]={}, but head {} reads the same key/value head with dilation {}", h, d, h - 1,
               o.dilation[static_cast<size_t>(h - 1)]);
    runs.push_back({d, h, 1, h / group, 0});
  }
  for (Run& run : runs) run.G = run.H / group;
  return runs;
}

void check_dilated(const DilatedAttentionOptions& o, const std::vector<Run>& runs, const FarKeys& far) {
  const bool dilated = std::ranges::any_of(runs, [](const Run& run) { return run.dilation > 1; });
  if (!dilated) return;
  const Mask mask = o.attention.mask;
  COCA_CHECK(mask == Mask::kSlidingWindow || mask == Mask::kSymmetricWindow, "[dilated_attention] dilation needs a window");
  COCA_CHECK(o.attention.spacing == 1 && o.attention.first_place == 0, "[dilated_attention] spacing={} and first_place={} must be 1 and 0",
             o.attention.spacing, o.attention.first_place);
  COCA_CHECK(far.k.empty() || far.range == FarRange::kAll, "[dilated_attention] far keys beside dilated windows must be seen by every query");
}

// The positions r, r + d, ... as a sequence: which queries and keys these are, and where its documents begin.
struct Residue {
  int64_t r, d, first_query, queries, query_start;
  Tensor starts;

  Residue(int64_t r_, int64_t d_, int64_t start, int64_t N, TensorRef documents) : r(r_), d(d_) {
    first_query = ((r - start) % d + d) % d;
    queries = N > first_query ? (N - first_query + d - 1) / d : 0;
    query_start = (start + first_query - r) / d;
    if (documents.empty() || queries == 0) return;
    starts = Tensor({documents.size(0), queries}, DType::kI32);
    const auto from = documents.view<int32_t, 2>();
    const auto to = starts.ref().view<int32_t, 2>();
    for (int64_t b = 0; b < to.size(0); ++b)
      for (int64_t n = 0; n < queries; ++n)
        to(b, n) = static_cast<int32_t>((from(b, first_query + n * d) - r + d - 1) / d);
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
  Ref of_keys(Ref t) const {
    return every(t, 1, r, d);
  }
  TensorRef documents() const { return starts.empty() ? TensorRef() : starts.ref(); }
};

// The far keys of a run's heads; all positions' values lie in v.
FarKeys far_of(const FarKeys& far, TensorRef v, const Run& run) {
  if (far.k.empty()) return {};
  FarKeys own = far;
  own.q = heads(far.q, 2, run.h, run.H);
  own.k = heads(far.k, 2, run.g, run.G);
  own.v = heads(far.v.empty() ? v.narrow(1, 0, far.k.size(1)) : far.v, 2, run.g, run.G);
  return own;
}

// The part of the call that belongs to a run's heads.
AttentionForward part_of(const AttentionForward& a, const Run& run) {
  return {.q = heads(a.q, 2, run.h, run.H), .k = heads(a.k, 2, run.g, run.G), .v = heads(a.v, 2, run.g, run.G),
          .slopes = heads(a.slopes, 0, run.h, run.H), .document_start = a.document_start, .far = far_of(a.far, a.v, run),
          .o = heads(a.o, 2, run.h, run.H), .lse = heads(a.lse, 1, run.h, run.H)};
}
AttentionBackward part_of(const AttentionBackward& a, const Run& run) {
  return {.q = heads(a.q, 2, run.h, run.H), .k = heads(a.k, 2, run.g, run.G), .v = heads(a.v, 2, run.g, run.G),
          .slopes = heads(a.slopes, 0, run.h, run.H), .document_start = a.document_start, .far = far_of(a.far, a.v, run),
          .o = heads(a.o, 2, run.h, run.H), .lse = heads(a.lse, 1, run.h, run.H), .d_o = heads(a.d_o, 2, run.h, run.H),
          .dq = heads(a.dq, 2, run.h, run.H), .dk = heads(a.dk, 2, run.g, run.G), .dv = heads(a.dv, 2, run.g, run.G),
          .dq_far = heads(a.dq_far, 2, run.h, run.H), .dk_far = heads(a.dk_far, 2, run.g, run.G),
          .dv_far = heads(a.dv_far, 2, run.g, run.G)};
}

// visit(innermost row of t, index of its first number in a packed tensor of t's shape).
template <typename T, typename Visit>
void rows_of(MutTensorRef t, const Visit& visit) {
  const auto view = t.view<T, 4>();
  int64_t at = 0;
  for (int64_t b = 0; b < t.size(0); ++b)
    for (int64_t n = 0; n < t.size(1); ++n)
      for (int64_t h = 0; h < t.size(2); ++h, at += t.size(3)) visit(view.ptr(b, n, h), at);
}

// sum += t, and t = sum or t + sum, of packed f32 sums.
void add_rows(MutTensorRef t, float* sum) {
  with_float_type(t.dtype, [&](auto zero) {
    using T = decltype(zero);
    rows_of<T>(t, [&](const T* row, int64_t at) {
      for (int64_t i = 0; i < t.size(3); ++i) sum[at + i] += static_cast<float>(row[i]);
    });
  });
}
enum class Store : uint8_t { kWrite, kAdd };
void store_rows(const float* sum, Store store, MutTensorRef t) {
  with_float_type(t.dtype, [&](auto zero) {
    using T = decltype(zero);
    rows_of<T>(t, [&](T* row, int64_t at) {
      for (int64_t i = 0; i < t.size(3); ++i) row[i] = static_cast<T>(sum[at + i] + (store == Store::kAdd ? static_cast<float>(row[i]) : 0.0f));
    });
  });
}

// What the residues' queries add to the gradients of the far keys.
struct FarSums {
  MutTensorRef dk, dv;                         // of one residue
  float *dk_sum = nullptr, *dv_sum = nullptr;  // of all

  FarSums(Context& context, TensorRef k) {
    if (k.empty()) return;
    const auto numbers = static_cast<size_t>(k.numel()), own = (numbers * dtype_size(k.dtype) + 63) / 64 * 64;
    auto* memory = static_cast<std::byte*>(context.scratch(2 * own + 2 * numbers * sizeof(float), ScratchUser::kCaller));
    dk = {memory, k.dtype, k.shape}, dv = {memory + own, k.dtype, k.shape};
    dk_sum = reinterpret_cast<float*>(memory + 2 * own), dv_sum = dk_sum + numbers;
    std::fill_n(dk_sum, 2 * numbers, 0.0f);
  }
  void add() {
    if (dk.empty()) return;
    add_rows(dk, dk_sum);
    add_rows(dv, dv_sum);
  }
};

void backward_run(Context& context, const AttentionOptions& options, const Run& run, const AttentionBackward& a, const AttentionBackward& whole) {
  FarSums far(context, a.far.k);
  for (int64_t r = 0; r < run.dilation; ++r) {
    const Residue residue(r, run.dilation, options.query_start, a.q.size(1), a.document_start);
    AttentionBackward part = a;
    part.k = residue.of_keys(a.k), part.v = residue.of_keys(a.v);
    part.dk = residue.of_keys(a.dk), part.dv = residue.of_keys(a.dv);
    if (residue.queries == 0) {
      zero_heads(part.dk), zero_heads(part.dv);
      continue;
    }
    for (TensorRef* t : {&part.q, &part.o, &part.d_o, &part.far.q}) *t = residue.of_queries(*t);
    for (MutTensorRef* t : {&part.dq, &part.dq_far}) *t = residue.of_queries(*t);
    part.lse = residue.of_queries(a.lse, 2);
    part.document_start = residue.documents();
    part.dk_far = far.dk, part.dv_far = far.dv;
    attention_backward(context, residue.options(options), part);
    far.add();
  }
  if (far.dk.empty()) return;
  store_rows(far.dk_sum, Store::kWrite, a.dk_far);
  const bool own = !whole.far.v.empty();
  store_rows(far.dv_sum, own ? Store::kWrite : Store::kAdd, own ? a.dv_far : a.dv.narrow(1, 0, a.far.k.size(1)));
}

}  // namespace

void dilated_attention_forward(Context& context, const DilatedAttentionOptions& options, const AttentionForward& a) {
  COCA_CHECK(a.q.rank() == 4 && a.k.rank() == 4, "[dilated_attention] q {} and k {} must be [B, N, H, D] and [B, S, G, D]", a.q.shape.text(),
             a.k.shape.text());
  const std::vector<Run> runs = runs_of(options, a.k.size(1), a.q.size(2), a.k.size(2));
  if (runs.size() == 1 && runs.front().dilation == 1) return attention_forward(context, options.attention, a);
  check_dilated(options, runs, a.far);
  for (const Run& run : runs) {
    const AttentionForward heads_part = part_of(a, run);
    for (int64_t r = 0; r < run.dilation; ++r) {
      const Residue residue(r, run.dilation, options.attention.query_start, a.q.size(1), a.document_start);
      if (residue.queries == 0) continue;
      AttentionForward part = heads_part;
      for (TensorRef* t : {&part.q, &part.far.q}) *t = residue.of_queries(*t);
      part.k = residue.of_keys(part.k), part.v = residue.of_keys(part.v);
      part.o = residue.of_queries(part.o), part.lse = residue.of_queries(part.lse, 2);
      part.document_start = residue.documents();
      attention_forward(context, residue.options(options.attention), part);
    }
  }
}

void dilated_attention_backward(Context& context, const DilatedAttentionOptions& options, const AttentionBackward& a) {
  COCA_CHECK(a.q.rank() == 4 && a.k.rank() == 4, "[dilated_attention] q {} and k {} must be [B, N, H, D] and [B, S, G, D]", a.q.shape.text(),
             a.k.shape.text());
  const std::vector<Run> runs = runs_of(options, a.k.size(1), a.q.size(2), a.k.size(2));
  if (runs.size() == 1 && runs.front().dilation == 1) return attention_backward(context, options.attention, a);
  check_dilated(options, runs, a.far);
  for (const Run& run : runs) backward_run(context, options.attention, run, part_of(a, run), a);
}

}  // namespace coca::ops
