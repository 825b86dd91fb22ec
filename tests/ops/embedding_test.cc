// SPDX-License-Identifier: Apache-2.0
#include "coca/ops/embedding.h"

#include "coca/kernels/ref/embedding.h"
#include "ops/op_test.h"

namespace coca::test::embedding_test {
namespace {

struct Shape {
  int64_t M, V, C;
};
const std::vector<Shape> kShapes = {{1, 1, 1},      {3, 5, 7},    {40, 11, 67},  {129, 17, 257},
                                    {9, 300, 1031}, {5, 3, 1032}, {1300, 600, 8}};

std::vector<int32_t> random_ids(int64_t M, int64_t V, uint64_t seed) {
  Rng rng(seed);
  std::vector<int32_t> ids(static_cast<size_t>(M));
  for (int32_t& id : ids) id = static_cast<int32_t>(rng.below(static_cast<uint64_t>(V)));
  return ids;
}

template <typename T>
std::vector<T> expected_gradient(const Shape& s, const std::vector<int32_t>& ids, const std::vector<float>& dy,
                                 const std::vector<float>& start) {
  auto d = as<T>(start);
  ref::embedding_backward<T>(s.M, s.C, ids.data(), as<T>(dy).data(), d.data());
  return d;
}

template <typename T>  // type of the table
void run_case(Context& context, const Shape& s) {
  const std::vector<int32_t> id_values = random_ids(s.M, s.V, 5);
  const Tensor ids = to_device(context, int_tensor(id_values));
  const auto dy_values = random_values(s.M * s.C, 2), start = random_values(s.V * s.C, 3);
  GuardedOf<T> table(context, s.V, s.C, random_values(s.V * s.C, 1));
  Guarded y(context, s.M, s.C), dy(context, s.M, s.C, dy_values), dtable(context, s.V, s.C, start);
  ops::embedding_forward(context, {.ids = ids, .table = table.ref(), .y = y.ref()});
  ops::embedding_backward(context, {.ids = ids, .dy = dy.ref(), .dtable = dtable.ref(), .check = ops::IdCheck::kDone});
  std::vector<float> looked_up(static_cast<size_t>(s.M * s.C));
  ref::embedding_forward<float>(s.M, s.C, id_values.data(), table.values().data(), looked_up.data());
  EXPECT_EQ(y.values(), looked_up);
  // Ids on the host are sent where the op runs; the host may change them at once.
  Guarded y_sent(context, s.M, s.C), dtable_sent(context, s.V, s.C, start);
  Tensor on_host = int_tensor(id_values);
  ops::embedding_forward(context, {.ids = on_host, .table = table.ref(), .y = y_sent.ref()});
  ops::embedding_backward(context, {.ids = on_host, .dy = dy.ref(), .dtable = dtable_sent.ref()});
  on_host.set_zero();
  EXPECT_EQ(y_sent.values(), looked_up);
  EXPECT_EQ(dtable_sent.values(), dtable.values());
  // The additions are in the reference's order, so even the bits agree.
  EXPECT_EQ(dtable.values(), expected_gradient<float>(s, id_values, dy_values, start));
  expect_close(dtable.values(), expected_gradient<double>(s, id_values, dy_values, start),
               expected_gradient<float>(s, id_values, dy_values, start), {.terms = static_cast<double>(s.M + 1)},
               "dtable");
  y.expect_intact("y");
  dtable.expect_intact("dtable");
}

TEST(Embedding, ValuesAndGradientsOnEveryTarget) {
  for (const Shape& shape : kShapes) {
    SCOPED_TRACE(fmt::format("M={} V={} C={}", shape.M, shape.V, shape.C));
    for_each_way({"embedding"}, [&](Context& context) {
      run_case<float>(context, shape);
      run_case<BF16>(context, shape);
    });
  }
}

TEST(Embedding, ReferenceGradientIsTheComplexStep) {
  constexpr int64_t M = 6, V = 4, C = 3;
  const std::vector<int32_t> ids = {2, 0, 2, 3, 2, 0};
  const auto table = as<double>(random_values(V * C, 1)), dy = as<double>(random_values(M * C, 2));
  std::vector<double> dtable(V * C);
  ref::embedding_backward<double>(M, C, ids.data(), dy.data(), dtable.data());
  const auto expected = complex_step_gradient(table, [&](std::span<const Complex> at) {
    std::vector<Complex> y(M * C);
    ref::embedding_forward<Complex>(M, C, ids.data(), at.data(), y.data());
    return weighted_sum(y, dy);
  });
  expect_gradient(dtable, expected, "embedding");
}

TEST(Embedding, BitsDoNotDependOnThreads) {
  constexpr int64_t M = 500, V = 7, C = 200;
  const Tensor ids = int_tensor(random_ids(M, V, 1)), dy = random_tensor({M, C}, 2);
  expect_same_bits(
      [&] {
        Context context;
        Tensor dtable({V, C});
        ops::embedding_backward(context, {.ids = ids, .dy = dy, .dtable = dtable});
        return convert<float>(dtable);
      },
      "dtable");
}

TEST(Embedding, Errors) {
  Context context;
  Tensor table({50, 4}), y({3, 4}), narrow({3, 3}), half({50, 4}, DType::kBF16);
  const Tensor good = int_tensor({0, 49, 7});
  const auto forward = [&](TensorRef ids, MutTensorRef to) {
    return [&context, &table, ids, to] { ops::embedding_forward(context, {.ids = ids, .table = table, .y = to}); };
  };
  expect_error(forward(good, narrow), "[embedding] y has shape [3, 3]; expected [3, 4]");
  expect_error(forward(y, y), "[embedding] ids has type F32; expected I32");
  expect_error([&] { ops::embedding_backward(context, {.ids = good, .dy = y, .dtable = half}); },
               "[embedding] dtable has type BF16; expected F32");
}

// An invalid id must prevent any write.
void expect_bad_id(Context& cx, const std::vector<int32_t>& values, const std::string& text) {
  const auto M = static_cast<int64_t>(values.size());
  const Tensor here = int_tensor(values), there = to_device(cx, here);
  Guarded table(cx, 50, 4, random_values(200, 1)), y(cx, M, 4, random_values(4 * M, 2));
  const std::vector<float> table_before = table.values(), y_before = y.values();
  for (const Tensor* ids : {&here, &there}) {
    expect_error([&] { ops::embedding_forward(cx, {.ids = *ids, .table = table.ref(), .y = y.ref()}); }, text);
    expect_error([&] { ops::embedding_backward(cx, {.ids = *ids, .dy = y.ref(), .dtable = table.ref()}); }, text);
  }
  EXPECT_EQ(table.values(), table_before);
  EXPECT_EQ(y.values(), y_before);
}

TEST(Embedding, TheFirstBadIdIsNamed) {
  for_each_way({"embedding"}, [](Context& cx) {
    expect_bad_id(cx, {0, 77, 99}, "[embedding] ids[1] = 77 is not in 0..49");
    expect_bad_id(cx, {0, 1, -1}, "[embedding] ids[2] = -1 is not in 0..49");
    expect_bad_id(cx, {50}, "[embedding] ids[0] = 50 is not in 0..49");
    std::vector<int32_t> many(600, 49);  // several blocks on a GPU
    many[599] = -5;
    many[301] = 1 << 30;
    many[300] = 51;
    expect_bad_id(cx, many, "[embedding] ids[300] = 51 is not in 0..49");
  });
}

}  // namespace
}  // namespace coca::test::embedding_test
