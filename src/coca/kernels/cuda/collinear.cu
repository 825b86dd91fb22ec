// The collinear prologue, plane by plane. Each tensor is read once and written once. Math: docs/math/collinear.md.
// SPDX-License-Identifier: Apache-2.0
#include "coca/kernels/args/collinear.h"

#include "coca/kernels/args/float_types.h"
#include "coca/kernels/cuda/head_parts.h"
#include "coca/kernels/cuda/rows.h"

namespace coca::cuda {

namespace {

using ops::KeyDirection;
using ops::Magnitude;

// The parts of a head: its planes, then its content channels. Plane j < R/2 is the pair (j, j + R/2) with the row's
// angle; the others are, with i = j - R/2, (R + i, R + rest + i) with angle 0. Part j behind the planes is the channel
// at planes + j of q_eff and k_eff.
struct Planes {
  AngleRows rows;
  int half, planes, content;  // R/2, P, C

  __device__ int first(int j) const { return j < half ? j : j + half; }
  __device__ int second(int j) const { return j < half ? j + half : j + planes; }
  __device__ bool is_plane(int j) const { return j < planes; }
  // Where the number of a content part lies in a head with `members` numbers for each plane.
  __device__ int channel(int members, int j) const { return (members - 1) * planes + j; }
};

template <int V>
struct Turn {
  Floats<V> cos, sin;
  __device__ Turn(const Planes& planes, const Place& p) {
    const int j = p.part * V;
    if (j < planes.half) {
      cos = load_part<V>(planes.rows.cos_at(p) + j);
      sin = load_part<V>(planes.rows.sin_at(p) + j);
    } else {
      for (int i = 0; i < V; ++i) {
        cos.x[i] = 1.0f;
        sin.x[i] = 0.0f;
      }
    }
  }
};

// Input for the keys: t [E], folded by pairs, t with one number for each plane [P + C], or tbar [P + C].
enum class Source : uint8_t { kWhole, kHalf, kFolded };
__device__ inline int members_of(Source source) { return source == Source::kWhole ? 2 : 1; }

__device__ inline float key_length(Magnitude magnitude, float t) {
  return magnitude == Magnitude::kRelu ? forms::key_length<Magnitude::kRelu>(t)
                                       : forms::key_length<Magnitude::kSoftplus>(t);
}
__device__ inline float key_length_backward(Magnitude magnitude, float t, float dlength) {
  return magnitude == Magnitude::kRelu ? forms::key_length_backward<Magnitude::kRelu>(t, dlength)
                                       : forms::key_length_backward<Magnitude::kSoftplus>(t, dlength);
}

// How lengths are made.
struct Lengths {
  Source source;
  Magnitude magnitude;
  Planes fold;
};

template <int V, typename T>
__device__ Floats<V> tbar_of(const T* head, const Lengths& l, int j) {
  if (l.source == Source::kFolded) return load_part<V>(head + j);
  Floats<V> a = load_part<V>(head + (l.source == Source::kWhole ? l.fold.first(j) : j));
  if (l.source == Source::kWhole) {
    const Floats<V> b = load_part<V>(head + l.fold.second(j));
    for (int i = 0; i < V; ++i) a.x[i] = (a.x[i] + b.x[i]) * 0.5f;
  }
  for (int i = 0; i < V; ++i) a.x[i] = key_length(l.magnitude, a.x[i]);
  return a;
}

// Writes the gradient with respect to the input of tbar_of().
template <int V, typename T>
__device__ void store_fold_gradient(const T* head, const Lengths& l, int j, Floats<V> dtbar, T* out) {
  const bool whole = l.source == Source::kWhole;
  Floats<V> t = load_part<V>(head + (whole ? l.fold.first(j) : j));
  if (whole) {
    const Floats<V> b = load_part<V>(head + l.fold.second(j));
    for (int i = 0; i < V; ++i) {
      t.x[i] = (t.x[i] + b.x[i]) * 0.5f;
      dtbar.x[i] *= 0.5f;
    }
  }
  for (int i = 0; i < V; ++i) dtbar.x[i] = key_length_backward(l.magnitude, t.x[i], dtbar.x[i]);
  store_part<V>(out + (whole ? l.fold.first(j) : j), dtbar);
  if (whole) store_part<V>(out + l.fold.second(j), dtbar);
}

template <typename X, typename Y, int V>
struct FoldPart {
  Lengths lengths;
  Heads<const X> t;
  Heads<Y> tbar;
  __device__ void operator()(const Place& p) const {
    const int j = p.part * V;
    const Planes& planes = lengths.fold;
    if (!planes.is_plane(j))
      return store_part<V>(tbar.at(p) + j, load_part<V>(t.at(p) + planes.channel(members_of(lengths.source), j)));
    store_part<V>(tbar.at(p) + j, tbar_of<V>(t.at(p), lengths, j));
  }
};

template <typename T, int V>
struct FoldBackPart {
  Lengths lengths;
  Heads<const T> t;
  Heads<const float> dtbar;
  Heads<T> dt;
  __device__ void operator()(const Place& p) const {
    const int j = p.part * V;
    const Planes& planes = lengths.fold;
    const Floats<V> g = load_part<V>(dtbar.at(p) + j);
    if (!planes.is_plane(j)) return store_part<V>(dt.at(p) + planes.channel(members_of(lengths.source), j), g);
    store_fold_gradient<V>(t.at(p), lengths, j, g, dt.at(p));
  }
};

template <typename Form, typename T, int V>
struct QueryPart {
  static constexpr int kMembers = Form::kInfo.members;
  Planes planes;
  Heads<const T> q;
  Heads<T> q_eff;
  __device__ void operator()(const Place& p) const {
    const int j = p.part * V;
    const T* in = q.at(p);
    if (!planes.is_plane(j))
      return store_part<V>(q_eff.at(p) + planes.channel(2, j), load_part<V>(in + planes.channel(kMembers, j)));
    const Turn<V> turn(planes, p);
    const int first = planes.first(j), second = planes.second(j);
    Floats<V> x = load_part<V>(in + (kMembers == 2 ? first : j)), y = kMembers == 2 ? load_part<V>(in + second) : x;
    for (int i = 0; i < V; ++i) {
      const ops::Plane<float> e = Form::query(x.x[i], y.x[i], turn.cos.x[i], turn.sin.x[i]);
      x.x[i] = e.x;
      y.x[i] = e.y;
    }
    store_part<V>(q_eff.at(p) + first, x);
    store_part<V>(q_eff.at(p) + second, y);
  }
};

template <typename Form, typename T, int V>
struct QueryBackPart {
  static constexpr int kMembers = Form::kInfo.members;
  Planes planes;
  Heads<const T> q, dq_eff;
  Heads<T> dq;
  __device__ void operator()(const Place& p) const {
    const int j = p.part * V;
    const T *in = q.at(p), *g = dq_eff.at(p);
    T* out = dq.at(p);
    if (!planes.is_plane(j))
      return store_part<V>(out + planes.channel(kMembers, j), load_part<V>(g + planes.channel(2, j)));
    const Turn<V> turn(planes, p);
    const int first = planes.first(j), second = planes.second(j);
    const Floats<V> x = load_part<V>(in + (kMembers == 2 ? first : j)),
                    y = kMembers == 2 ? load_part<V>(in + second) : x;
    Floats<V> ga = load_part<V>(g + first), gb = load_part<V>(g + second);
    for (int i = 0; i < V; ++i) {
      const ops::Plane<float> d = Form::query_backward(x.x[i], y.x[i], turn.cos.x[i], turn.sin.x[i], ga.x[i], gb.x[i]);
      ga.x[i] = d.x;
      gb.x[i] = d.y;
    }
    store_part<V>(out + (kMembers == 2 ? first : j), ga);
    if (kMembers == 2) store_part<V>(out + second, gb);
  }
};

template <typename X, typename Y, int V>
struct KeyPart {
  KeyDirection direction;
  Lengths lengths;
  Heads<const X> from;
  Heads<Y> k_eff;
  __device__ void operator()(const Place& p) const {
    const int j = p.part * V;
    const Planes& planes = lengths.fold;
    if (!planes.is_plane(j))
      return store_part<V>(k_eff.at(p) + planes.channel(2, j),
                           load_part<V>(from.at(p) + planes.channel(members_of(lengths.source), j)));
    const Turn<V> turn(planes, p);
    const Floats<V> tbar = tbar_of<V>(from.at(p), lengths, j);
    Floats<V> a, b;
    for (int i = 0; i < V; ++i) {
      const ops::Plane<float> k = forms::key_of(direction, tbar.x[i], turn.cos.x[i], turn.sin.x[i]);
      a.x[i] = k.x;
      b.x[i] = k.y;
    }
    store_part<V>(k_eff.at(p) + planes.first(j), a);
    store_part<V>(k_eff.at(p) + planes.second(j), b);
  }
};

template <int V, typename T>
__device__ Floats<V> tbar_gradient(KeyDirection direction, const Planes& planes, const Place& p, const T* dk_eff) {
  const int j = p.part * V;
  if (!planes.is_plane(j)) return load_part<V>(dk_eff + planes.channel(2, j));
  const Turn<V> turn(planes, p);
  Floats<V> a = load_part<V>(dk_eff + planes.first(j));
  const Floats<V> b = load_part<V>(dk_eff + planes.second(j));
  for (int i = 0; i < V; ++i) a.x[i] = forms::key_backward(direction, turn.cos.x[i], turn.sin.x[i], a.x[i], b.x[i]);
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
  KeyDirection direction;
  Planes planes;
  Heads<const float> dk_eff;
  Heads<float> dtbar;
  __device__ void operator()(const Place& p) const {
    add_part(dtbar.at(p) + p.part * V, tbar_gradient<V>(direction, planes, p, dk_eff.at(p)));
  }
};

template <typename T, int V>
struct KeyBackPart {
  KeyDirection direction;
  Lengths lengths;
  Heads<const T> t, dk_eff;
  Heads<T> dt;
  __device__ void operator()(const Place& p) const {
    const int j = p.part * V;
    const Planes& planes = lengths.fold;
    const Floats<V> dtbar = tbar_gradient<V>(direction, planes, p, dk_eff.at(p));
    if (!planes.is_plane(j)) return store_part<V>(dt.at(p) + planes.channel(members_of(lengths.source), j), dtbar);
    store_fold_gradient<V>(t.at(p), lengths, j, dtbar, dt.at(p));
  }
};

// The official fold with R < D: [tbar, tbar] is made from pairs (j, j + D/2), and then dims (i, i + R/2), i < R/2,
// rotate. The parts are those pairs, followed by the dims R..D-1, which do not rotate.
template <typename X, typename Y, int V>
struct OfficialKeyPart {
  AngleRows rows;
  int half;         // R/2
  Lengths lengths;  // with half = D/2
  Heads<const X> from;
  Heads<Y> k_eff;
  __device__ Floats<V> copied(const X* head, int i) const { return tbar_of<V>(head, lengths, i % lengths.fold.half); }
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

Planes planes_of(const ops::CollinearOptions& options, int64_t R, int64_t E, const ops::RopeRows& rows = {}) {
  return {.rows = rows.cos.empty() ? AngleRows{} : AngleRows(rows),
          .half = static_cast<int>(R / 2),
          .planes = static_cast<int>(ops::planes_of(options, E)),
          .content = static_cast<int>(options.content)};
}

// If R = E the two folds are the same.
bool official(const ops::CollinearOptions& options, int64_t R, int64_t E) {
  return options.fold == ops::Fold::kOfficial && R != E;
}
// The R that determines the pairs for folding.
int64_t fold_dims(const ops::CollinearOptions& options, int64_t R, int64_t E) {
  return official(options, R, E) ? E : R;
}
int64_t rotary_dims(const ops::RopeRows& rows) { return 2 * rows.cos.size(2); }
Source source_of(const ops::CollinearOptions& options, TensorRef t, int64_t E) {
  return t.size(3) == ops::stored_width(options, E) ? Source::kHalf : Source::kWhole;
}
const ops::RopeRows& rows_of_keys(const ops::RopeRows& rows, const ops::RopeRows& key_rows) {
  return key_rows.cos.empty() ? rows : key_rows;
}

PartCounts parts_of(TensorRef x, int64_t numbers, int V) { return {x.size(0), x.size(1), x.size(2), numbers / V}; }

// Calls body(V) with parts of V numbers that are of one kind: planes that rotate, planes that do not, or channels.
template <typename Body>
void with_head_parts(const ops::CollinearOptions& options, int64_t R, int64_t E,
                     std::initializer_list<TensorRef> tensors, const Body& body) {
  with_parts({R / 2, ops::planes_of(options, E), options.content}, tensors, body);
}

void fold(Context& cx, const ops::CollinearOptions& options, const ops::CollinearFold& a) {
  const int64_t W = a.tbar.size(3), E = ops::effective_width(options, W), R = fold_dims(options, a.R, E);
  const Lengths lengths{source_of(options, a.t, E), options.magnitude, planes_of(options, R, E)};
  ops::with_float_type(a.t.dtype, [&]<typename X>(X) {
    ops::with_float_type(a.tbar.dtype, [&]<typename Y>(Y) {
      with_head_parts(options, R, E, {a.t, a.tbar}, [&]<int V>(std::integral_constant<int, V>) {
        each_part(cx, parts_of(a.tbar, W, V),
                  FoldPart<X, Y, V>{.lengths = lengths, .t = heads_of<X>(a.t), .tbar = mut_heads_of<Y>(a.tbar)});
      });
    });
  });
}

void fold_backward(Context& cx, const ops::CollinearOptions& options, const ops::CollinearFoldBackward& a) {
  const int64_t W = a.dtbar.size(3), E = ops::effective_width(options, W), R = fold_dims(options, a.R, E);
  const Lengths lengths{source_of(options, a.t, E), options.magnitude, planes_of(options, R, E)};
  ops::with_float_type(a.t.dtype, [&]<typename T>(T) {
    with_head_parts(options, R, E, {a.t, a.dtbar, a.dt}, [&]<int V>(std::integral_constant<int, V>) {
      each_part(cx, parts_of(a.dtbar, W, V),
                FoldBackPart<T, V>{.lengths = lengths,
                                   .t = heads_of<T>(a.t),
                                   .dtbar = heads_of<float>(a.dtbar),
                                   .dt = mut_heads_of<T>(a.dt)});
    });
  });
}

// For queries the official fold equals slack: dims that do not rotate have the angle zero in both.
void query(Context& cx, const ops::CollinearOptions& options, const ops::CollinearQuery& a) {
  const int64_t E = a.q_eff.size(3), R = rotary_dims(a.rows), W = ops::stored_width(options, E);
  const Planes planes = planes_of(options, R, E, a.rows);
  ops::with_form(options.kind, [&]<typename Form>(Form) {
    ops::with_float_type(a.q.dtype, [&]<typename T>(T) {
      with_head_parts(
          options, R, E, {a.rows.cos, a.rows.sin, a.q, a.q_eff}, [&]<int V>(std::integral_constant<int, V>) {
            each_part(
                cx, parts_of(a.q, W, V),
                QueryPart<Form, T, V>{.planes = planes, .q = heads_of<T>(a.q), .q_eff = mut_heads_of<T>(a.q_eff)});
          });
    });
  });
}

void make_keys(Context& cx, const ops::CollinearOptions& options, const ops::RopeRows& rows, Source source,
               TensorRef from, MutTensorRef k_eff) {
  const int64_t E = k_eff.size(3), R = rotary_dims(rows);
  const bool by_official = official(options, R, E);
  const Lengths lengths{source, options.magnitude, planes_of(options, fold_dims(options, R, E), E, rows)};
  ops::with_float_type(from.dtype, [&]<typename X>(X) {
    ops::with_float_type(k_eff.dtype, [&]<typename Y>(Y) {
      with_head_parts(options, R, E, {rows.cos, rows.sin, from, k_eff}, [&]<int V>(std::integral_constant<int, V>) {
        if (by_official)
          each_part(cx, parts_of(k_eff, E - R / 2, V),
                    OfficialKeyPart<X, Y, V>{.rows = AngleRows(rows),
                                             .half = static_cast<int>(R / 2),
                                             .lengths = lengths,
                                             .from = heads_of<X>(from),
                                             .k_eff = mut_heads_of<Y>(k_eff)});
        else
          each_part(cx, parts_of(k_eff, ops::stored_width(options, E), V),
                    KeyPart<X, Y, V>{.direction = ops::key_direction(options.kind),
                                     .lengths = lengths,
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
  make_keys(cx, options, rows_of_keys(a.rows, a.key_rows), source_of(options, a.t, a.k_eff.size(3)), a.t, a.k_eff);
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
  const int64_t E = a.dk_eff.size(3), R = rotary_dims(a.rows);
  if (official(options, R, E)) return official_tbar_backward<true>(cx, a.rows, a.dk_eff, a.dtbar);
  with_head_parts(options, R, E, {a.rows.cos, a.rows.sin, a.dk_eff, a.dtbar},
                  [&]<int V>(std::integral_constant<int, V>) {
                    each_part(cx, parts_of(a.dk_eff, ops::stored_width(options, E), V),
                              TbarBackPart<V>{.direction = ops::key_direction(options.kind),
                                              .planes = planes_of(options, R, E, a.rows),
                                              .dk_eff = heads_of<float>(a.dk_eff),
                                              .dtbar = mut_heads_of<float>(a.dtbar)});
                  });
}

template <typename T>
void query_backward(Context& cx, const ops::CollinearOptions& options, const ops::CollinearBackward& a) {
  const int64_t E = a.dq_eff.size(3), R = rotary_dims(a.rows), W = ops::stored_width(options, E);
  const Planes planes = planes_of(options, R, E, a.rows);
  ops::with_form(options.kind, [&]<typename Form>(Form) {
    with_head_parts(options, R, E, {a.rows.cos, a.rows.sin, a.q, a.dq_eff, a.dq},
                    [&]<int V>(std::integral_constant<int, V>) {
                      each_part(cx, parts_of(a.q, W, V),
                                QueryBackPart<Form, T, V>{.planes = planes,
                                                          .q = heads_of<T>(a.q),
                                                          .dq_eff = heads_of<T>(a.dq_eff),
                                                          .dq = mut_heads_of<T>(a.dq)});
                    });
  });
}

template <typename T>
void key_backward_from_t(Context& cx, const ops::CollinearOptions& options, const ops::CollinearBackward& a) {
  const ops::RopeRows& rows = rows_of_keys(a.rows, a.key_rows);
  const int64_t E = a.dk_eff.size(3), R = rotary_dims(rows), W = ops::stored_width(options, E);
  if (official(options, R, E)) {
    // The pairs differ before and after the fold. Going through dtbar allows dt and dk_eff to be the same tensor.
    const MutTensorRef dtbar = cx.scratch_tensor({a.t.size(0), a.t.size(1), a.t.size(2), W});
    official_tbar_backward<false>(cx, rows, a.dk_eff, dtbar);
    return fold_backward(cx, options, {.R = R, .t = a.t, .dtbar = dtbar, .dt = a.dt});
  }
  const Lengths lengths{source_of(options, a.t, E), options.magnitude, planes_of(options, R, E, rows)};
  with_head_parts(options, R, E, {rows.cos, rows.sin, a.t, a.dk_eff, a.dt}, [&]<int V>(std::integral_constant<int, V>) {
    each_part(cx, parts_of(a.t, W, V),
              KeyBackPart<T, V>{.direction = ops::key_direction(options.kind),
                                .lengths = lengths,
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
