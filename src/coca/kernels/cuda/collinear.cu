// The collinear prologue, pair by pair. Each tensor is read once and written once. Math: docs/math/collinear.md.
// SPDX-License-Identifier: Apache-2.0
#include "coca/kernels/args/collinear.h"

#include "coca/kernels/args/float_types.h"
#include "coca/kernels/cuda/head_parts.h"
#include "coca/kernels/cuda/rows.h"

namespace coca::cuda {

namespace {

using ops::Collinear;

// Pair j of D/2. For j < R/2 it is (j, j + R/2) with the row's angle; then, with i = j - R/2, it is (R + i, R + (D-R)/2
// + i) with angle 0.
struct Pairs {
  AngleRows rows;
  int half, rest;  // R/2, (D-R)/2

  __device__ int first(int j) const { return j < half ? j : j + half; }
  __device__ int second(int j) const { return j < half ? j + half : j + half + rest; }
};

template <int V>
struct Turn {
  Floats<V> cos, sin;
  __device__ Turn(const Pairs& pairs, const Place& p) {
    const int j = p.part * V;
    if (j < pairs.half) {
      cos = load_part<V>(pairs.rows.cos_at(p) + j);
      sin = load_part<V>(pairs.rows.sin_at(p) + j);
    } else {
      for (int i = 0; i < V; ++i) {
        cos.x[i] = 1.0f;
        sin.x[i] = 0.0f;
      }
    }
  }
};

// Input for the keys: t [D], t from a projection of half width [D/2], or tbar [D/2].
enum class Source : uint8_t { kWhole, kHalf, kFolded };

template <int V, typename T>
__device__ Floats<V> tbar_of(const T* head, Source source, const Pairs& fold, int j) {
  if (source == Source::kFolded) return load_part<V>(head + j);
  Floats<V> a = load_part<V>(head + (source == Source::kWhole ? fold.first(j) : j));
  if (source == Source::kWhole) {
    const Floats<V> b = load_part<V>(head + fold.second(j));
    for (int i = 0; i < V; ++i) a.x[i] = (a.x[i] + b.x[i]) * 0.5f;
  }
  for (int i = 0; i < V; ++i) a.x[i] = a.x[i] > 0.0f ? a.x[i] : 0.0f;
  return a;
}

// Writes the gradient with respect to the input of tbar_of().
template <int V, typename T>
__device__ void store_fold_gradient(const T* head, Source source, const Pairs& fold, int j, Floats<V> dtbar, T* out) {
  Floats<V> t = load_part<V>(head + (source == Source::kWhole ? fold.first(j) : j));
  if (source == Source::kWhole) {
    const Floats<V> b = load_part<V>(head + fold.second(j));
    for (int i = 0; i < V; ++i) {
      t.x[i] = (t.x[i] + b.x[i]) * 0.5f;
      dtbar.x[i] *= 0.5f;
    }
  }
  for (int i = 0; i < V; ++i) dtbar.x[i] = t.x[i] > 0.0f ? dtbar.x[i] : 0.0f;
  store_part<V>(out + (source == Source::kWhole ? fold.first(j) : j), dtbar);
  if (source == Source::kWhole) store_part<V>(out + fold.second(j), dtbar);
}

template <typename X, typename Y, int V>
struct FoldPart {
  Pairs fold;
  Source source;
  Heads<const X> t;
  Heads<Y> tbar;
  __device__ void operator()(const Place& p) const {
    store_part<V>(tbar.at(p) + p.part * V, tbar_of<V>(t.at(p), source, fold, p.part * V));
  }
};

template <typename T, int V>
struct FoldBackPart {
  Pairs fold;
  Source source;
  Heads<const T> t;
  Heads<const float> dtbar;
  Heads<T> dt;
  __device__ void operator()(const Place& p) const {
    const int j = p.part * V;
    store_fold_gradient<V>(t.at(p), source, fold, j, load_part<V>(dtbar.at(p) + j), dt.at(p));
  }
};

template <typename T, int V>
struct QueryPart {
  Collinear kind;
  Pairs pairs;
  Heads<const T> q;
  Heads<T> q_eff;
  __device__ void operator()(const Place& p) const {
    const Turn<V> turn(pairs, p);
    const int first = pairs.first(p.part * V), second = pairs.second(p.part * V);
    Floats<V> x = load_part<V>(q.at(p) + first), y = load_part<V>(q.at(p) + second);
    for (int i = 0; i < V; ++i) {
      const float c = turn.cos.x[i], s = turn.sin.x[i];
      float a = x.x[i], b = y.x[i];
      if (kind == Collinear::kTied) a = b = (a + b) * 0.5f;
      const float w = a * a + b * b;
      x.x[i] = kind == Collinear::kStrict ? w * c : a * (a * c - b * s);
      y.x[i] = kind == Collinear::kStrict ? w * s : b * (b * c + a * s);
    }
    store_part<V>(q_eff.at(p) + first, x);
    store_part<V>(q_eff.at(p) + second, y);
  }
};

template <typename T, int V>
struct QueryBackPart {
  Collinear kind;
  Pairs pairs;
  Heads<const T> q, dq_eff;
  Heads<T> dq;
  __device__ void operator()(const Place& p) const {
    const Turn<V> turn(pairs, p);
    const int first = pairs.first(p.part * V), second = pairs.second(p.part * V);
    const Floats<V> x = load_part<V>(q.at(p) + first), y = load_part<V>(q.at(p) + second);
    Floats<V> g = load_part<V>(dq_eff.at(p) + first), h = load_part<V>(dq_eff.at(p) + second);
    for (int i = 0; i < V; ++i) {
      const float c = turn.cos.x[i], s = turn.sin.x[i], ga = g.x[i], gb = h.x[i];
      float a = x.x[i], b = y.x[i];
      if (kind == Collinear::kStrict) {  // q_eff = (w c, w s), w = a^2 + b^2
        const float dw = ga * c + gb * s;
        g.x[i] = 2.0f * a * dw;
        h.x[i] = 2.0f * b * dw;
        continue;
      }
      if (kind == Collinear::kTied) a = b = (a + b) * 0.5f;
      const float da = ga * (2.0f * a * c - b * s) + gb * b * s,  // q_eff = (a^2 c - a b s, b^2 c + a b s)
          db = -ga * a * s + gb * (2.0f * b * c + a * s);
      g.x[i] = kind == Collinear::kTied ? (da + db) * 0.5f : da;
      h.x[i] = kind == Collinear::kTied ? (da + db) * 0.5f : db;
    }
    store_part<V>(dq.at(p) + first, g);
    store_part<V>(dq.at(p) + second, h);
  }
};

template <typename X, typename Y, int V>
struct KeyPart {
  Collinear kind;
  Pairs pairs;
  Source source;
  Heads<const X> from;
  Heads<Y> k_eff;
  __device__ void operator()(const Place& p) const {
    const Turn<V> turn(pairs, p);
    const int j = p.part * V;
    const Floats<V> tbar = tbar_of<V>(from.at(p), source, pairs, j);
    Floats<V> a, b;
    for (int i = 0; i < V; ++i) {
      const float c = turn.cos.x[i], s = turn.sin.x[i];
      a.x[i] = tbar.x[i] * (kind == Collinear::kStrict ? c : c - s);
      b.x[i] = tbar.x[i] * (kind == Collinear::kStrict ? s : c + s);
    }
    store_part<V>(k_eff.at(p) + pairs.first(j), a);
    store_part<V>(k_eff.at(p) + pairs.second(j), b);
  }
};

template <int V, typename T>
__device__ Floats<V> tbar_gradient(Collinear kind, const Pairs& pairs, const Place& p, const T* dk_eff) {
  const Turn<V> turn(pairs, p);
  Floats<V> a = load_part<V>(dk_eff + pairs.first(p.part * V));
  const Floats<V> b = load_part<V>(dk_eff + pairs.second(p.part * V));
  for (int i = 0; i < V; ++i) {
    const float c = turn.cos.x[i], s = turn.sin.x[i];
    a.x[i] = kind == Collinear::kStrict ? a.x[i] * c + b.x[i] * s : a.x[i] * (c - s) + b.x[i] * (c + s);
  }
  return a;
}

template <int V>
__device__ void add_part(float* to, const Floats<V>& values) {
  Floats<V> sum = load_part<V>(to);
  for (int i = 0; i < V; ++i) sum.x[i] += values.x[i];
  store_part<V>(to, sum);
}

template <int V>
struct TbarBackPart {
  Collinear kind;
  Pairs pairs;
  Heads<const float> dk_eff;
  Heads<float> dtbar;
  __device__ void operator()(const Place& p) const {
    add_part(dtbar.at(p) + p.part * V, tbar_gradient<V>(kind, pairs, p, dk_eff.at(p)));
  }
};

template <typename T, int V>
struct KeyBackPart {
  Collinear kind;
  Pairs pairs;
  Source source;
  Heads<const T> t, dk_eff;
  Heads<T> dt;
  __device__ void operator()(const Place& p) const {
    const Floats<V> dtbar = tbar_gradient<V>(kind, pairs, p, dk_eff.at(p));
    store_fold_gradient<V>(t.at(p), source, pairs, p.part * V, dtbar, dt.at(p));
  }
};

// The official fold with R < D: [tbar, tbar] is made from pairs (j, j + D/2), and then dims (i, i + R/2), i < R/2,
// rotate. The parts are those pairs, followed by the dims R..D-1, which do not rotate.
template <typename X, typename Y, int V>
struct OfficialKeyPart {
  AngleRows rows;
  int half;    // R/2
  Pairs fold;  // with half = D/2
  Source source;
  Heads<const X> from;
  Heads<Y> k_eff;
  __device__ Floats<V> copied(const X* head, int i) const { return tbar_of<V>(head, source, fold, i % fold.half); }
  __device__ void operator()(const Place& p) const {
    const X* head = from.at(p);
    Y* out = k_eff.at(p);
    const int j = p.part * V;
    if (j >= half) return store_part<V>(out + half + j, copied(head, half + j));
    const Floats<V> c = load_part<V>(rows.cos_at(p) + j), s = load_part<V>(rows.sin_at(p) + j);
    Floats<V> a = copied(head, j), b = copied(head, j + half);
    for (int i = 0; i < V; ++i) {
      const float x = a.x[i], y = b.x[i];
      a.x[i] = x * c.x[i] - y * s.x[i];
      b.x[i] = y * c.x[i] + x * s.x[i];
    }
    store_part<V>(out + j, a);
    store_part<V>(out + j + half, b);
  }
};

template <typename T, int V, bool kAdd>
struct OfficialTbarBackPart {
  AngleRows rows;
  int half, width;  // R/2, D/2
  Heads<const T> dk_eff;
  Heads<float> dtbar;
  // The gradient of the numbers i .. i + V - 1 before the rotation.
  __device__ Floats<V> back(const Place& p, const T* g, int i) const {
    Floats<V> x = load_part<V>(g + i);
    if (i >= 2 * half) return x;
    const int j = i < half ? i : i - half;
    const float sign = i < half ? 1.0f : -1.0f;
    const Floats<V> other = load_part<V>(g + (i < half ? i + half : j));
    const Floats<V> c = load_part<V>(rows.cos_at(p) + j), s = load_part<V>(rows.sin_at(p) + j);
    for (int e = 0; e < V; ++e) x.x[e] = x.x[e] * c.x[e] + sign * other.x[e] * s.x[e];
    return x;
  }
  __device__ void operator()(const Place& p) const {
    const T* g = dk_eff.at(p);
    const int j = p.part * V;
    Floats<V> sum = back(p, g, j);
    const Floats<V> upper = back(p, g, j + width);
    for (int i = 0; i < V; ++i) sum.x[i] += upper.x[i];
    if (kAdd) return add_part(dtbar.at(p) + j, sum);
    store_part<V>(dtbar.at(p) + j, sum);
  }
};

Pairs pairs_of(int64_t R, int64_t D, const ops::RopeRows& rows = {}) {
  return {.rows = rows.cos.empty() ? AngleRows{} : AngleRows(rows),
          .half = static_cast<int>(R / 2),
          .rest = static_cast<int>((D - R) / 2)};
}

// The R that determines the pairs for folding.
int64_t fold_dims(const ops::CollinearOptions& options, int64_t R, int64_t D) {
  return options.fold == ops::Fold::kOfficial ? D : R;
}
// If R = D the two folds are the same.
bool official(const ops::CollinearOptions& options, int64_t R, int64_t D) {
  return options.fold == ops::Fold::kOfficial && R != D;
}
int64_t rotary_dims(const ops::RopeRows& rows) { return 2 * rows.cos.size(2); }
Source source_of(TensorRef t, int64_t D) { return t.size(3) == D ? Source::kWhole : Source::kHalf; }
const ops::RopeRows& rows_of_keys(const ops::RopeRows& rows, const ops::RopeRows& key_rows) {
  return key_rows.cos.empty() ? rows : key_rows;
}

PartCounts parts_of(TensorRef x, int64_t numbers, int V) { return {x.size(0), x.size(1), x.size(2), numbers / V}; }

void fold(Context& cx, const ops::CollinearOptions& options, const ops::CollinearFold& a) {
  const int64_t D = 2 * a.tbar.size(3), R = fold_dims(options, a.R, D);
  ops::with_float_type(a.t.dtype, [&]<typename X>(X) {
    ops::with_float_type(a.tbar.dtype, [&]<typename Y>(Y) {
      with_parts({R / 2, D / 2}, {a.t, a.tbar}, [&]<int V>(std::integral_constant<int, V>) {
        each_part(cx, parts_of(a.tbar, D / 2, V),
                  FoldPart<X, Y, V>{.fold = pairs_of(R, D),
                                    .source = source_of(a.t, D),
                                    .t = heads_of<X>(a.t),
                                    .tbar = mut_heads_of<Y>(a.tbar)});
      });
    });
  });
}

void fold_backward(Context& cx, const ops::CollinearOptions& options, const ops::CollinearFoldBackward& a) {
  const int64_t D = 2 * a.dtbar.size(3), R = fold_dims(options, a.R, D);
  ops::with_float_type(a.t.dtype, [&]<typename T>(T) {
    with_parts({R / 2, D / 2}, {a.t, a.dtbar, a.dt}, [&]<int V>(std::integral_constant<int, V>) {
      each_part(cx, parts_of(a.dtbar, D / 2, V),
                FoldBackPart<T, V>{.fold = pairs_of(R, D),
                                   .source = source_of(a.t, D),
                                   .t = heads_of<T>(a.t),
                                   .dtbar = heads_of<float>(a.dtbar),
                                   .dt = mut_heads_of<T>(a.dt)});
    });
  });
}

// For queries the official fold equals slack: dims that do not rotate have the angle zero in both.
void query(Context& cx, const ops::CollinearOptions& options, const ops::CollinearQuery& a) {
  const int64_t D = a.q.size(3), R = rotary_dims(a.rows);
  ops::with_float_type(a.q.dtype, [&]<typename T>(T) {
    with_parts({R / 2, D / 2}, {a.rows.cos, a.rows.sin, a.q, a.q_eff}, [&]<int V>(std::integral_constant<int, V>) {
      each_part(cx, parts_of(a.q, D / 2, V),
                QueryPart<T, V>{.kind = options.kind,
                                .pairs = pairs_of(R, D, a.rows),
                                .q = heads_of<T>(a.q),
                                .q_eff = mut_heads_of<T>(a.q_eff)});
    });
  });
}

void make_keys(Context& cx, const ops::CollinearOptions& options, const ops::RopeRows& rows, Source source,
               TensorRef from, MutTensorRef k_eff) {
  const int64_t D = k_eff.size(3), R = rotary_dims(rows);
  ops::with_float_type(from.dtype, [&]<typename X>(X) {
    ops::with_float_type(k_eff.dtype, [&]<typename Y>(Y) {
      with_parts({R / 2, D / 2}, {rows.cos, rows.sin, from, k_eff}, [&]<int V>(std::integral_constant<int, V>) {
        if (official(options, R, D))
          each_part(cx, parts_of(k_eff, D - R / 2, V),
                    OfficialKeyPart<X, Y, V>{.rows = AngleRows(rows),
                                             .half = static_cast<int>(R / 2),
                                             .fold = pairs_of(D, D),
                                             .source = source,
                                             .from = heads_of<X>(from),
                                             .k_eff = mut_heads_of<Y>(k_eff)});
        else
          each_part(cx, parts_of(k_eff, D / 2, V),
                    KeyPart<X, Y, V>{.kind = options.kind,
                                     .pairs = pairs_of(R, D, rows),
                                     .source = source,
                                     .from = heads_of<X>(from),
                                     .k_eff = mut_heads_of<Y>(k_eff)});
      });
    });
  });
}

void key(Context& cx, const ops::CollinearOptions& options, const ops::CollinearKey& a) {
  make_keys(cx, options, a.rows, Source::kFolded, a.tbar, a.k_eff);
}

void forward(Context& cx, const ops::CollinearOptions& options, const ops::CollinearForward& a) {
  query(cx, options, {.rows = a.rows, .q = a.q, .q_eff = a.q_eff});
  make_keys(cx, options, rows_of_keys(a.rows, a.key_rows), source_of(a.t, a.q.size(3)), a.t, a.k_eff);
}

template <bool kAdd>
void official_tbar_backward(Context& cx, const ops::RopeRows& rows, TensorRef dk_eff, MutTensorRef dtbar) {
  const int64_t D = dk_eff.size(3), R = rotary_dims(rows);
  ops::with_float_type(dk_eff.dtype, [&]<typename T>(T) {
    with_parts({R / 2, D / 2}, {rows.cos, rows.sin, dk_eff, dtbar}, [&]<int V>(std::integral_constant<int, V>) {
      each_part(cx, parts_of(dtbar, D / 2, V),
                OfficialTbarBackPart<T, V, kAdd>{.rows = AngleRows(rows),
                                                 .half = static_cast<int>(R / 2),
                                                 .width = static_cast<int>(D / 2),
                                                 .dk_eff = heads_of<T>(dk_eff),
                                                 .dtbar = mut_heads_of<float>(dtbar)});
    });
  });
}

void key_backward(Context& cx, const ops::CollinearOptions& options, const ops::CollinearKeyBackward& a) {
  const int64_t D = a.dk_eff.size(3), R = rotary_dims(a.rows);
  if (official(options, R, D)) return official_tbar_backward<true>(cx, a.rows, a.dk_eff, a.dtbar);
  with_parts({R / 2, D / 2}, {a.rows.cos, a.rows.sin, a.dk_eff, a.dtbar}, [&]<int V>(std::integral_constant<int, V>) {
    each_part(cx, parts_of(a.dk_eff, D / 2, V),
              TbarBackPart<V>{.kind = options.kind,
                              .pairs = pairs_of(R, D, a.rows),
                              .dk_eff = heads_of<float>(a.dk_eff),
                              .dtbar = mut_heads_of<float>(a.dtbar)});
  });
}

template <typename T>
void query_backward(Context& cx, const ops::CollinearOptions& options, const ops::CollinearBackward& a) {
  const int64_t D = a.q.size(3), R = rotary_dims(a.rows);
  const ops::RopeRows& rows = a.rows;
  with_parts({R / 2, D / 2}, {rows.cos, rows.sin, a.q, a.dq_eff, a.dq}, [&]<int V>(std::integral_constant<int, V>) {
    each_part(cx, parts_of(a.q, D / 2, V),
              QueryBackPart<T, V>{.kind = options.kind,
                                  .pairs = pairs_of(R, D, rows),
                                  .q = heads_of<T>(a.q),
                                  .dq_eff = heads_of<T>(a.dq_eff),
                                  .dq = mut_heads_of<T>(a.dq)});
  });
}

template <typename T>
void key_backward_from_t(Context& cx, const ops::CollinearOptions& options, const ops::CollinearBackward& a) {
  const ops::RopeRows& rows = rows_of_keys(a.rows, a.key_rows);
  const int64_t D = a.q.size(3), R = rotary_dims(rows);
  if (official(options, R, D)) {
    // The pairs differ before and after the fold. Going through dtbar allows dt and dk_eff to be the same tensor.
    const MutTensorRef dtbar = cx.scratch_tensor({a.t.size(0), a.t.size(1), a.t.size(2), D / 2});
    official_tbar_backward<false>(cx, rows, a.dk_eff, dtbar);
    return fold_backward(cx, options, {.R = R, .t = a.t, .dtbar = dtbar, .dt = a.dt});
  }
  with_parts({R / 2, D / 2}, {rows.cos, rows.sin, a.t, a.dk_eff, a.dt}, [&]<int V>(std::integral_constant<int, V>) {
    each_part(cx, parts_of(a.t, D / 2, V),
              KeyBackPart<T, V>{.kind = options.kind,
                                .pairs = pairs_of(R, D, rows),
                                .source = source_of(a.t, D),
                                .t = heads_of<T>(a.t),
                                .dk_eff = heads_of<T>(a.dk_eff),
                                .dt = mut_heads_of<T>(a.dt)});
  });
}

void backward(Context& cx, const ops::CollinearOptions& options, const ops::CollinearBackward& a) {
  ops::with_float_type(a.q.dtype, [&]<typename T>(T) {
    query_backward<T>(cx, options, a);
    key_backward_from_t<T>(cx, options, a);
  });
}

}  // namespace

const ops::CollinearImpl collinear_row{.name = "cuda",
                                       .device = DeviceKind::kCuda,
                                       .run = {forward, backward, fold, query, key, key_backward, fold_backward}};

}  // namespace coca::cuda
