// What methods do to heads around attention: gradients of the reference against complex steps, and every implementation
// against the reference in double, with strided heads of both types.
// SPDX-License-Identifier: Apache-2.0
#include "coca/ops/head_modifiers.h"

#include "coca/kernels/ref/head_modifiers.h"
#include "coca/ops/heads.h"
#include "ops/head_modifiers_case.h"

namespace coca::ops::head_modifiers_test {
namespace {

using test::Complex;
using test::Fused;
using test::in;
using test::out;
using test::Packed;

struct Shape {
  int64_t B, N, H, X, P;
  Dims heads() const { return {B, N, H, X}; }
  Dims gates() const { return {B, N, H, 1}; }
  Dims before() const { return {B, 1, H, X}; }
  Dims sums() const { return {B, H, N}; }
  int64_t tokens() const { return B * N; }
};
const Shape kShapes[] = {{1, 1, 1, 2, 1},   {2, 5, 3, 8, 4},  {1, 7, 2, 48, 8},
                         {2, 3, 2, 34, 17}, {3, 70, 2, 5, 1}, {1, 150, 2, 64, 32}};

// Inputs of all steps. `x` is also the y or o that a backward pass takes.
template <typename S>
struct Operands {
  std::vector<S> x, dy, g, gate, before, phases, scale, row, w, sink, lse;
  template <typename To>
  Operands<To> as() const {
    const auto to = [](const std::vector<S>& v) { return std::vector<To>(v.begin(), v.end()); };
    return {to(x), to(dy), to(g), to(gate), to(before), to(phases), to(scale), to(row), to(w), to(sink), to(lse)};
  }
};

// Inputs of heads are numbers of type T.
template <typename T>
Operands<float> random_operands(const Shape& s) {
  const auto heads = [&](const Dims& shape, uint64_t seed) {
    return test::as_stored<T>(test::random_values(shape.product(), seed, -2, 2));
  };
  return {.x = heads(s.heads(), 1),
          .dy = heads(s.heads(), 2),
          .g = heads(s.heads(), 3),
          .gate = heads(s.gates(), 4),
          .before = heads(s.before(), 5),
          .phases = test::random_values(s.H * s.P, 6, -4, 4),
          .scale = test::random_values(s.H, 7, 0.3, 1.5),
          .row = test::random_values(s.tokens(), 8, 0.5, 3),
          .w = test::random_values(s.H * 2, 9),
          .sink = test::random_values(s.H, 10, -3, 3),
          .lse = test::random_values(s.tokens() * s.H, 11, -3, 3)};
}

constexpr int64_t kStart = 3;  // position of token 0

// Documents of 4 tokens. They begin at different positions in each sequence, with token 0 in the third.
std::vector<int32_t> document_starts(const Shape& s) {
  std::vector<int32_t> starts;
  for (int64_t b = 0; b < s.B; ++b)
    for (int64_t n = 0; n < s.N; ++n) {
      const int64_t first = kStart - (b + 1) % 3;
      starts.push_back(static_cast<int32_t>(first + (kStart + n - first) / 4 * 4));
    }
  return starts;
}

// Results in the order in which an op's call gives them, from the reference in S.
template <typename S>
using Results = std::vector<std::vector<S>>;

template <typename S>
Results<S> turn(const Shape& s, const Operands<S>& o) {
  Results<S> r(3);
  const auto phases = in<2>(o.phases, {s.H, s.P});
  ref::turn_heads<S>(phases, in<4>(o.x, s.heads()), out<4>(r[0], s.heads()));
  ref::turn_heads<S>(phases, in<4>(o.dy, s.heads()), out<4>(r[1], s.heads()), -1.0);
  ref::turn_heads_phases<S>(in<4>(o.x, s.heads()), in<4>(o.dy, s.heads()), out<2>(r[2], {s.H, s.P}));
  return r;
}

template <typename S>
Results<S> scale(const Shape& s, const Operands<S>& o) {
  Results<S> r(3);
  const auto by_head = in<1>(o.scale, {s.H});
  const auto by_token = in<2>(o.row, {s.B, s.N});
  ref::scale_heads<S>(by_head, by_token, in<4>(o.x, s.heads()), out<4>(r[0], s.heads()));
  ref::scale_heads<S>(by_head, by_token, in<4>(o.dy, s.heads()), out<4>(r[1], s.heads()));
  ref::scale_heads_scale<S>(by_head, in<4>(o.x, s.heads()), in<4>(o.dy, s.heads()), out<1>(r[2], {s.H}));
  return r;
}

template <typename S>
Results<S> gate(const Shape& s, const Operands<S>& o, const std::vector<S>& gates, const Dims& of) {
  Results<S> r(3);
  const auto x = in<4>(o.x, s.heads()), g = in<4>(gates, of);
  ref::gate_heads<S>(x, g, out<4>(r[0], s.heads()));
  ref::gate_heads_backward<S>(x, g, in<4>(o.dy, s.heads()), out<4>(r[1], s.heads()), out<4>(r[2], of));
  return r;
}
template <typename S>
Results<S> gate_numbers(const Shape& s, const Operands<S>& o) {
  return gate(s, o, o.g, s.heads());
}
template <typename S>
Results<S> gate_heads(const Shape& s, const Operands<S>& o) {
  return gate(s, o, o.gate, s.gates());
}

template <typename S>
Results<S> mix(const Shape& s, const Operands<S>& o) {
  Results<S> r(4);
  const std::vector<int32_t> starts = document_starts(s);
  const ref::DocumentStarts where{in<2>(starts, {s.B, s.N}), kStart};
  const auto w = in<2>(o.w, {s.H, 2});
  const auto x = in<4>(o.x, s.heads()), before = in<4>(o.before, s.before()), dy = in<4>(o.dy, s.heads());
  ref::mix_heads<S>(w, x, before, where, out<4>(r[0], s.heads()));
  ref::mix_heads_backward<S>(w, where, dy, out<4>(r[1], s.heads()), out<4>(r[2], s.before()));
  ref::mix_heads_weights<S>(x, before, where, dy, out<2>(r[3], {s.H, 2}));
  return r;
}

template <typename S>
Results<S> sink(const Shape& s, const Operands<S>& o) {
  Results<S> r{o.x, o.lse, {}};
  ref::sink_heads<S>(in<1>(o.sink, {s.H}), out<4>(r[0], s.heads()), out<3>(r[1], s.sums()));
  ref::sink_heads_sink<S>(in<1>(o.sink, {s.H}), in<4>(o.x, s.heads()), in<3>(o.lse, s.sums()), in<4>(o.dy, s.heads()),
                          out<1>(r[2], {s.H}));
  return r;
}

template <typename T>
Results<float> turn_op(Context& cx, const Shape& s, const Operands<float>& o) {
  Fused<T> x(cx, s.heads(), o.x), y(cx, s.heads()), dy(cx, s.heads(), o.dy), dx(cx, s.heads());
  Packed phases(cx, {s.H, s.P}, o.phases), dphases(cx, {s.H, s.P}), alone(cx, {s.H, s.P});
  turn_heads_forward(cx, {.phases = phases, .x = x, .y = y});
  turn_heads_backward(cx, {.phases = phases, .y = x, .dy = dy, .dx = dx, .dphases = dphases});
  Results<float> r{y.values(), dx.values(), dphases.values()};
  turn_heads_backward(cx, {.phases = phases, .y = x, .dy = dy, .dx = {}, .dphases = alone});
  EXPECT_EQ(alone.values(), r[2]);
  turn_heads_forward(cx, {.phases = phases, .x = x, .y = x});  // in place
  turn_heads_backward(cx, {.phases = phases, .y = {}, .dy = dy, .dx = dy, .dphases = {}});
  EXPECT_EQ(x.values(), r[0]);
  EXPECT_EQ(dy.values(), r[1]);
  return r;
}

template <typename T>
Results<float> scale_op(Context& cx, const Shape& s, const Operands<float>& o) {
  Fused<T> x(cx, s.heads(), o.x), y(cx, s.heads()), dy(cx, s.heads(), o.dy), dx(cx, s.heads());
  Packed scale(cx, {s.H}, o.scale), row(cx, {s.B, s.N}, o.row), dscale(cx, {s.H}), alone(cx, {s.H});
  scale_heads_forward(cx, {.scale = scale, .row = row, .x = x, .y = y});
  scale_heads_backward(cx, {.scale = scale, .row = row, .y = x, .dy = dy, .dx = dx, .dscale = dscale});
  Results<float> r{y.values(), dx.values(), dscale.values()};
  scale_heads_backward(cx, {.scale = scale, .row = row, .y = x, .dy = dy, .dx = {}, .dscale = alone});
  scale_heads_forward(cx, {.scale = scale, .row = row, .x = x, .y = x});  // in place
  scale_heads_backward(cx, {.scale = scale, .row = row, .y = {}, .dy = dy, .dx = dy, .dscale = {}});
  EXPECT_EQ(x.values(), r[0]);
  EXPECT_EQ(dy.values(), r[1]);
  EXPECT_EQ(alone.values(), r[2]);
  return r;
}

template <typename T>
Results<float> gate_op(Context& cx, const Shape& s, const Operands<float>& o, const std::vector<float>& gates,
                       const Dims& of) {
  Fused<T> x(cx, s.heads(), o.x), g(cx, of, gates), y(cx, s.heads()), dy(cx, s.heads(), o.dy), dx(cx, s.heads()),
      dg(cx, of);
  gate_heads_forward(cx, {.x = x, .g = g, .y = y});
  gate_heads_backward(cx, {.x = x, .g = g, .dy = dy, .dx = dx, .dg = dg});
  Results<float> r{y.values(), dx.values(), dg.values()};
  gate_heads_backward(cx, {.x = x, .g = g, .dy = dy, .dx = dy, .dg = g});  // in place
  EXPECT_EQ(dy.values(), r[1]);
  EXPECT_EQ(g.values(), r[2]);
  Fused<T> again(cx, of, gates);
  gate_heads_forward(cx, {.x = x, .g = again, .y = x});
  EXPECT_EQ(x.values(), r[0]);
  return r;
}
template <typename T>
Results<float> gate_numbers_op(Context& cx, const Shape& s, const Operands<float>& o) {
  return gate_op<T>(cx, s, o, o.g, s.heads());
}
template <typename T>
Results<float> gate_heads_op(Context& cx, const Shape& s, const Operands<float>& o) {
  return gate_op<T>(cx, s, o, o.gate, s.gates());
}

Tensor starts_on(Context& cx, const Shape& s) {
  return to_device(cx, test::int_tensor(document_starts(s)).ref().reshape({s.B, s.N}));
}

template <typename T>
Results<float> mix_op(Context& cx, const Shape& s, const Operands<float>& o) {
  Fused<T> x(cx, s.heads(), o.x), y(cx, s.heads()), dy(cx, s.heads(), o.dy), dx(cx, s.heads()),
      before(cx, s.before(), o.before), dbefore(cx, s.before());
  Packed w(cx, {s.H, 2}, o.w), dw(cx, {s.H, 2});
  const Tensor starts = starts_on(cx, s);
  mix_heads_forward(cx, {.w = w, .x = x, .before = before, .document_start = starts, .query_start = kStart, .y = y});
  mix_heads_backward(cx, {.w = w,
                          .x = x,
                          .before = before,
                          .document_start = starts,
                          .query_start = kStart,
                          .dy = dy,
                          .dx = dx,
                          .dw = dw,
                          .dbefore = dbefore});
  Results<float> r{y.values(), dx.values(), dbefore.values(), dw.values()};
  Fused<T> alone(cx, s.heads());
  mix_heads_backward(cx, {.w = w,
                          .x = {},
                          .before = {},
                          .document_start = starts,
                          .query_start = kStart,
                          .dy = dy,
                          .dx = alone,
                          .dw = {},
                          .dbefore = {}});
  EXPECT_EQ(alone.values(), r[1]);
  return r;
}

template <typename T>
Results<float> sink_op(Context& cx, const Shape& s, const Operands<float>& o) {
  Fused<T> x(cx, s.heads(), o.x), heads(cx, s.heads(), o.x), dy(cx, s.heads(), o.dy);
  Packed sink(cx, {s.H}, o.sink), lse(cx, s.sums(), o.lse), old(cx, s.sums(), o.lse), dsink(cx, {s.H});
  sink_heads_forward(cx, {.sink = sink, .o = heads, .lse = lse});
  sink_heads_backward(cx, {.sink = sink, .o = x, .lse = old, .d_o = dy, .dsink = dsink});
  return {heads.values(), lse.values(), dsink.values()};
}

// The largest number of terms that are added up for a number of each result, and whether results have type T.
struct Rule {
  double terms;
  bool heads;
};

template <typename T, typename Run, typename Op>
void compare(const Shape& s, const std::vector<Rule>& rules, const Run& run, const Op& op) {
  SCOPED_TRACE(fmt::format("{} {} P={}", dtype_name(DTypeOf<T>::value), s.heads().text(), s.P));
  const Operands<float> o = random_operands<T>(s);
  const Results<double> wanted = run(s, o.template as<double>());
  const Results<float> naive = run(s, o);
  test::for_each_way({"head_modifiers"}, [&](Context& cx) {
    const Results<float> got = op.template operator()<T>(cx, s, o);
    ASSERT_EQ(got.size(), wanted.size());
    for (size_t i = 0; i < got.size(); ++i)
      test::expect_close(got[i], wanted[i], naive[i],
                         {.terms = rules[i].terms, .stored = rules[i].heads ? DTypeOf<T>::value : DType::kF32},
                         fmt::format("result {}", i));
  });
  test::expect_same_bits(
      [&] {
        Context cx;
        std::vector<float> all;
        for (const auto& part : op.template operator()<T>(cx, s, o)) all.insert(all.end(), part.begin(), part.end());
        return all;
      },
      "head_modifiers");
}

#define COMPARE(rules, run, op)                                                                           \
  do {                                                                                                    \
    const auto in_scalar = [](const Shape& shape, const auto& operands) { return run(shape, operands); }; \
    const auto by_op = []<typename T>(Context& cx, const Shape& shape, const Operands<float>& operands) { \
      return op<T>(cx, shape, operands);                                                                  \
    };                                                                                                    \
    compare<float>(s, rules, in_scalar, by_op);                                                           \
    compare<BF16>(s, rules, in_scalar, by_op);                                                            \
  } while (false)

// Numbers that are summed over tokens, or over the tokens and numbers of a head.
double over_tokens(const Shape& s) { return static_cast<double>(2 * s.tokens()); }
double over_heads(const Shape& s) { return static_cast<double>(s.tokens() * s.X); }

TEST(HeadModifiers, TurnMatchesTheReferenceInEveryWay) {
  for (const Shape& s : kShapes)
    COMPARE((std::vector<Rule>{{2, true}, {2, true}, {over_tokens(s), false}}), turn, turn_op);
}
TEST(HeadModifiers, ScaleMatchesTheReferenceInEveryWay) {
  for (const Shape& s : kShapes)
    COMPARE((std::vector<Rule>{{2, true}, {2, true}, {over_heads(s), false}}), scale, scale_op);
}
TEST(HeadModifiers, GateMatchesTheReferenceInEveryWay) {
  for (const Shape& s : kShapes) {
    const std::vector<Rule> rules{{4, true}, {4, true}, {static_cast<double>(4 + s.X), true}};
    COMPARE(rules, gate_numbers, gate_numbers_op);
    COMPARE(rules, gate_heads, gate_heads_op);
  }
}
TEST(HeadModifiers, MixMatchesTheReferenceInEveryWay) {
  for (const Shape& s : kShapes)
    if (s.N > 1)  // else dbefore is all zeros
      COMPARE((std::vector<Rule>{{2, true}, {2, true}, {1, true}, {over_heads(s), false}}), mix, mix_op);
}
TEST(HeadModifiers, SinkMatchesTheReferenceInEveryWay) {
  for (const Shape& s : kShapes)
    COMPARE((std::vector<Rule>{{4, true}, {4, false}, {over_heads(s), false}}), sink, sink_op);
}

// ---- gradients of the reference

// The reference's gradients in double against complex steps of the loss sum(weights * y), y the first result of `run`
// for inputs that `set` replaces in the operands.
void check_gradient(const Shape& s, const std::vector<double>& inputs, const std::vector<double>& gradient,
                    const std::function<Results<Complex>(Operands<Complex>, std::span<const Complex>)>& run,
                    const std::string& what) {
  const Operands<float> o = random_operands<float>(s);
  const std::vector<double> weights(o.dy.begin(), o.dy.end());
  const auto loss = [&](std::span<const Complex> at) {
    return test::weighted_sum(run(o.as<Complex>(), at)[0], weights);
  };
  test::expect_gradient(gradient, test::complex_step_gradient(inputs, loss), what);
}

std::vector<Complex> taken(std::span<const Complex>& from, size_t count) {
  std::vector<Complex> part(from.begin(), from.begin() + static_cast<std::ptrdiff_t>(count));
  from = from.subspan(count);
  return part;
}

std::vector<double> less_start(std::vector<double> gradient) {
  for (double& g : gradient) g -= 0.5;  // what it was added to
  return gradient;
}

const Shape kSmall{3, 5, 2, 6, 2};

TEST(HeadModifiers, GradientsOfTheReferenceAreThoseOfComplexSteps) {
  const Shape& s = kSmall;
  Operands<double> o = random_operands<float>(s).as<double>();
  check_gradient(
      s, test::joined({o.x, o.phases}),
      [&] {
        Operands<double> at_y = o;
        at_y.x = turn(s, o)[0];
        const Results<double> r = turn(s, at_y);
        return test::joined({r[1], less_start(r[2])});
      }(),
      [&](Operands<Complex> c, std::span<const Complex> at) {
        c.x = taken(at, c.x.size());
        c.phases = taken(at, c.phases.size());
        return turn(s, c);
      },
      "turn");
  check_gradient(
      s, test::joined({o.x, o.scale}),
      [&] {
        Operands<double> at_y = o;
        at_y.x = scale(s, o)[0];
        const Results<double> r = scale(s, at_y);
        return test::joined({r[1], less_start(r[2])});
      }(),
      [&](Operands<Complex> c, std::span<const Complex> at) {
        c.x = taken(at, c.x.size());
        c.scale = taken(at, c.scale.size());
        return scale(s, c);
      },
      "scale");
  check_gradient(
      s, test::joined({o.x, o.g}),
      [&] {
        const Results<double> r = gate_numbers(s, o);
        return test::joined({r[1], r[2]});
      }(),
      [&](Operands<Complex> c, std::span<const Complex> at) {
        c.x = taken(at, c.x.size());
        c.g = taken(at, c.g.size());
        return gate_numbers(s, c);
      },
      "gate for each number");
  check_gradient(
      s, test::joined({o.x, o.gate}),
      [&] {
        const Results<double> r = gate_heads(s, o);
        return test::joined({r[1], r[2]});
      }(),
      [&](Operands<Complex> c, std::span<const Complex> at) {
        c.x = taken(at, c.x.size());
        c.gate = taken(at, c.gate.size());
        return gate_heads(s, c);
      },
      "gate for each head");
  check_gradient(
      s, test::joined({o.x, o.before, o.w}),
      [&] {
        const Results<double> r = mix(s, o);
        return test::joined({r[1], r[2], less_start(r[3])});
      }(),
      [&](Operands<Complex> c, std::span<const Complex> at) {
        c.x = taken(at, c.x.size());
        c.before = taken(at, c.before.size());
        c.w = taken(at, c.w.size());
        return mix(s, c);
      },
      "mix");
  check_gradient(
      s, o.sink,
      [&] {
        Operands<double> after = o;
        const Results<double> r = sink(s, o);
        after.x = r[0];
        after.lse = r[1];
        return less_start(sink(s, after)[2]);
      }(),
      [&](Operands<Complex> c, std::span<const Complex> at) {
        c.sink = taken(at, c.sink.size());
        return sink(s, c);
      },
      "sink");
}

// ---- mix and scale

// Two calls, the second with the last token of the first, give the bits of one call. Without `before`, and without
// documents, token 0 has none before it.
TEST(HeadModifiers, MixedPartsAreTheBitsOfTheWhole) {
  const Shape s{2, 9, 3, 10, 1};
  const Operands<float> o = random_operands<BF16>(s);
  test::for_each_way({"head_modifiers"}, [&](Context& cx) {
    Fused<BF16> x(cx, s.heads(), o.x), whole(cx, s.heads()), parts(cx, s.heads());
    Packed w(cx, {s.H, 2}, o.w);
    const MutTensorRef in = x, to = parts;
    mix_heads_forward(cx, {.w = w, .x = in, .before = {}, .document_start = {}, .y = whole});
    mix_heads_forward(cx,
                      {.w = w, .x = in.narrow(1, 0, 4), .before = {}, .document_start = {}, .y = to.narrow(1, 0, 4)});
    mix_heads_forward(cx, {.w = w,
                           .x = in.narrow(1, 4, 5),
                           .before = in.narrow(1, 3, 1),
                           .document_start = {},
                           .query_start = 4,
                           .y = to.narrow(1, 4, 5)});
    EXPECT_EQ(parts.values(), whole.values());
    const std::vector<float> y = whole.values();
    for (size_t h = 0; h < 3; ++h)
      EXPECT_EQ(y[h * 10], static_cast<float>(BF16(o.w[2 * h] * o.x[h * 10]))) << "token 0 of head " << h;
  });
}

// The gradients too, up to roundings: what a part gives to the token before it is added there.
TEST(HeadModifiers, GradientsOfMixedPartsAreThoseOfTheWhole) {
  const Shape s{2, 9, 3, 10, 1};
  const Operands<float> o = random_operands<float>(s);
  test::for_each_way({"head_modifiers"}, [&](Context& cx) {
    Fused<float> x(cx, s.heads(), o.x), dy(cx, s.heads(), o.dy), whole(cx, s.heads()), parts(cx, s.heads()),
        back(cx, s.before());
    Packed w(cx, {s.H, 2}, o.w), dw(cx, {s.H, 2}), sum(cx, {s.H, 2});
    const MutTensorRef in = x, from = dy, to = parts;
    const auto backward = [&](TensorRef x_, TensorRef before, TensorRef dy_, MutTensorRef dx, MutTensorRef dw_,
                              MutTensorRef dbefore) {
      mix_heads_backward(cx, {.w = w,
                              .x = x_,
                              .before = before,
                              .document_start = {},
                              .dy = dy_,
                              .dx = dx,
                              .dw = dw_,
                              .dbefore = dbefore});
    };
    backward(in, {}, from, whole, dw, {});
    backward(in.narrow(1, 0, 4), {}, from.narrow(1, 0, 4), to.narrow(1, 0, 4), sum, {});
    backward(in.narrow(1, 4, 5), in.narrow(1, 3, 1), from.narrow(1, 4, 5), to.narrow(1, 4, 5), sum, back);
    add_heads(cx, back, to.narrow(1, 3, 1));
    // Two products below 2 in size and their sum; 180 products below 4.
    const std::vector<float> got = parts.values(), wanted = whole.values();
    for (size_t i = 0; i < wanted.size(); ++i) ASSERT_NEAR(got[i], wanted[i], 4 * 0x1p-23) << i;
    for (size_t i = 0; i < 6; ++i) ASSERT_NEAR(sum.values()[i], dw.values()[i], 180 * 4 * 0x1p-23) << i;
  });
}

TEST(HeadModifiers, RowsMayBeSharedBySequences) {
  const Shape s{2, 5, 3, 8, 1};
  const Operands<float> o = random_operands<float>(s);
  const std::vector<float> row(o.row.begin(), o.row.begin() + s.N);
  std::vector<float> both = row;
  both.insert(both.end(), row.begin(), row.end());
  test::for_each_way({"head_modifiers"}, [&](Context& cx) {
    Packed x(cx, s.heads(), o.x), scale(cx, {s.H}, o.scale), shared(cx, {s.N}, row), each(cx, {s.B, s.N}, both);
    Packed y(cx, s.heads()), again(cx, s.heads());
    scale_heads_forward(cx, {.scale = scale, .row = shared, .x = x, .y = y});
    scale_heads_forward(cx, {.scale = scale, .row = each, .x = x, .y = again});
    EXPECT_EQ(y.values(), again.values());
    scale_heads_backward(cx, {.scale = scale, .row = shared, .y = {}, .dy = x, .dx = again, .dscale = {}});
    EXPECT_EQ(y.values(), again.values());
  });
}

// ---- mistakes

TEST(HeadModifiers, MistakesAreNamed) {
  Context cx;
  const Dims heads{2, 4, 3, 8};
  Tensor x(heads), y(heads), half(heads, DType::kBF16), thin({2, 4, 3, 6}), phases({3, 5}), scale({3}), row({5}),
      w({3, 2}), w3({3, 3}), lse({2, 4, 3}), starts({2, 4}, DType::kI32), few({2, 3}, DType::kI32);
  using test::expect_error;
  expect_error([&] { turn_heads_forward(cx, {.phases = phases, .x = x, .y = y}); },
               "[head_modifiers] phases [3, 5] must be [3, P] with 2P at most 8");
  const Tensor fitting({3, 4}), token_row({4});
  expect_error([&] { turn_heads_forward(cx, {.phases = fitting, .x = x, .y = half}); },
               "[head_modifiers] y has type BF16; expected F32");
  expect_error([&] { turn_heads_forward(cx, {.phases = fitting, .x = lse, .y = y}); },
               "[head_modifiers] x has shape [2, 4, 3]; expected [B, N, H, X]");
  Tensor dphases({3, 4});
  expect_error([&] { turn_heads_backward(cx, {.phases = fitting, .y = {}, .dy = x, .dx = y, .dphases = dphases}); },
               "[head_modifiers] y is missing");
  expect_error([&] { scale_heads_forward(cx, {.scale = scale, .row = row, .x = x, .y = y}); },
               "[head_modifiers] row has shape [5]; expected [4] or [2, 4]");
  expect_error([&] { gate_heads_forward(cx, {.x = x, .g = thin, .y = y}); },
               "[head_modifiers] g has shape [2, 4, 3, 6]; expected [2, 4, 3, 8]");
  expect_error([&] { mix_heads_forward(cx, {.w = w3, .x = x, .before = {}, .document_start = {}, .y = y}); },
               "[head_modifiers] w has shape [3, 3]; expected [3, 2]");
  expect_error([&] { mix_heads_forward(cx, {.w = w, .x = x, .before = {}, .document_start = {}, .y = x}); },
               "[head_modifiers] y must not be x");
  expect_error([&] { mix_heads_forward(cx, {.w = w, .x = x, .before = {}, .document_start = few, .y = y}); },
               "[head_modifiers] document_start has shape [2, 3]; expected [2, 4]");
  expect_error([&] { mix_heads_forward(cx, {.w = w, .x = x, .before = x, .document_start = starts, .y = y}); },
               "[head_modifiers] before has shape [2, 4, 3, 8]; expected [2, 1, 3, 8]");
  expect_error([&] { sink_heads_forward(cx, {.sink = scale, .o = x, .lse = lse}); },
               "[head_modifiers] lse has shape [2, 4, 3]; expected [2, 3, 4]");
}

}  // namespace
}  // namespace coca::ops::head_modifiers_test
