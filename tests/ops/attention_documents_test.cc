// Packed documents: each gives the same result as alone, to the last bit if the sums are the same; other documents are
// not touched; the bits are the same for any number of threads.
// SPDX-License-Identifier: Apache-2.0
#include "coca/ops/attention.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <numeric>

#include "coca/base/parallel.h"
#include "coca/kernels/ref/attention.h"
#include "ops/attention_case.h"
#include "support/numerics.h"
#include "support/targets.h"
#include "support/views.h"

namespace coca::ops::attention_documents_test {
namespace {

// o, lse, dq, dk, dv of packed documents, or of the document [start, start + length) alone, in one vector.
struct Packed {
  Dims qd, kd;
  Tensor q, k, v, d_o, starts;
  Packed(const Case& c, DType type) : qd{c.B, c.N, c.H, c.D}, kd{c.B, c.S, c.G, c.D}, starts(documents_of(c)) {
    const auto make = [&](const Dims& dims, uint64_t seed) {
      const auto values = test::random_values(dims.product(), seed, -2, 2);
      return type == DType::kF32 ? test::tensor_of<float>(dims, values) : test::tensor_of<BF16>(dims, values);
    };
    q = make(qd, 1);
    k = make(kd, 2);
    v = make(kd, 3);
    d_o = make(qd, 4);
  }
};
struct Written {
  Tensor o, lse, dq, dk, dv;
  Written(const Packed& p, DType type)
      : o(p.qd, type), lse({p.qd[0], p.qd[2], p.qd[1]}), dq(p.qd, type), dk(p.kd, type), dv(p.kd, type) {}
  std::vector<float> all() const {
    std::vector<float> out;
    for (const Tensor* t : {&o, &lse, &dq, &dk, &dv}) {
      const std::vector<float> values = test::float_values(*t);
      out.insert(out.end(), values.begin(), values.end());
    }
    return out;
  }
};

Written run(Context& context, const Packed& p, DType type) {
  Written w(p, type);
  attention_forward(context, {}, {.q = p.q, .k = p.k, .v = p.v, .document_start = p.starts, .o = w.o, .lse = w.lse});
  attention_backward(context, {},
                     {.q = p.q,
                      .k = p.k,
                      .v = p.v,
                      .document_start = p.starts,
                      .o = w.o,
                      .lse = w.lse,
                      .d_o = p.d_o,
                      .dq = w.dq,
                      .dk = w.dk,
                      .dv = w.dv});
  return w;
}

// If documents start at multiples of a tile, the same tiles are summed in the same order: equal to the last bit.
TEST(AttentionDocuments, DocumentsAtTilesEqualDocumentsAloneBitForBit) {
  const Case c{1, 500, 500, 4, 2, 24, true, false, 0, {64, 128, 192, 116}};
  for (const DType type : {DType::kF32, DType::kBF16}) {
    const Packed p(c, type);
    test::for_each_target([&] {
      Context context;
      const Written packed = run(context, p, type);
      Written alone(p, type);
      int64_t start = 0;
      for (const int64_t length : c.documents) {
        const auto rows = [&](auto t) { return t.narrow(1, start, length); };
        Tensor lse({1, c.H, length});
        attention_forward(
            context, {},
            {.q = rows(p.q.ref()), .k = rows(p.k.ref()), .v = rows(p.v.ref()), .o = rows(alone.o.ref()), .lse = lse});
        attention_backward(context, {},
                           {.q = rows(p.q.ref()),
                            .k = rows(p.k.ref()),
                            .v = rows(p.v.ref()),
                            .o = rows(alone.o.ref()),
                            .lse = lse,
                            .d_o = rows(p.d_o.ref()),
                            .dq = rows(alone.dq.ref()),
                            .dk = rows(alone.dk.ref()),
                            .dv = rows(alone.dv.ref())});
        for (int64_t h = 0; h < c.H; ++h)
          std::copy_n(lse.values<float>().data() + h * length, length,
                      alone.lse.values<float>().data() + h * c.N + start);
        start += length;
      }
      const std::vector<float> a = packed.all(), b = alone.all();
      EXPECT_EQ(std::memcmp(a.data(), b.data(), a.size() * sizeof(float)), 0) << dtype_name(type);
    });
  }
}

// A few queries are processed row by row from their first visible key: equal to a cache that starts at the document.
TEST(AttentionDocuments, AFewQueriesOfADocumentEqualTheDocumentAloneBitForBit) {
  const Case c{1, 4, 150, 2, 1, 40, true, true, 0, {77, 73}};
  const Packed p(c, DType::kF32);
  const std::vector<float> slope_values = alibi_slopes(c.H);
  Tensor slopes({c.H}), o(p.qd), alone(p.qd);
  std::copy(slope_values.begin(), slope_values.end(), slopes.values<float>().begin());
  test::for_each_target([&] {
    Context context;
    attention_forward(context, {.query_start = 146},
                      {.q = p.q, .k = p.k, .v = p.v, .slopes = slopes, .document_start = p.starts, .o = o});
    attention_forward(
        context, {.query_start = 146 - 77},
        {.q = p.q, .k = p.k.ref().narrow(1, 77, 73), .v = p.v.ref().narrow(1, 77, 73), .slopes = slopes, .o = alone});
    EXPECT_EQ(std::memcmp(o.values<float>().data(), alone.values<float>().data(),
                          static_cast<size_t>(o.numel()) * sizeof(float)),
              0);
  });
}

// 0 * NaN would be NaN, so tiles of other documents must not take part in any product, forward or backward.
TEST(AttentionDocuments, TilesOfOtherDocumentsAreNeverTouched) {
  const Case c{1, 640, 640, 2, 1, 16, true, false, 0, {192, 320, 128}};
  for (const DType type : {DType::kF32, DType::kBF16}) {
    Packed p(c, type);
    const auto spoil = [&](Tensor& t, int64_t from, int64_t to) {
      const int64_t row = t.size(2) * t.size(3);
      for (int64_t i = from * row; i < to * row; ++i) {
        if (type == DType::kF32)
          t.values<float>()[static_cast<size_t>(i)] = std::numeric_limits<float>::quiet_NaN();
        else
          t.values<BF16>()[static_cast<size_t>(i)] = BF16(std::numeric_limits<float>::quiet_NaN());
      }
    };
    for (Tensor* t : {&p.q, &p.k, &p.v, &p.d_o}) {
      spoil(*t, 0, 192);
      spoil(*t, 512, 640);
    }
    Context context;
    const Written w = run(context, p, type);
    for (const Tensor* t : {&w.o, &w.dq, &w.dk, &w.dv}) {
      const std::vector<float> values = test::float_values(*t);
      const int64_t row = t->size(2) * t->size(3);
      for (int64_t i = 0; i < t->numel(); ++i)
        ASSERT_EQ(std::isnan(values[static_cast<size_t>(i)]), i < 192 * row || i >= 512 * row) << i / row;
    }
  }
}
TEST(AttentionDocuments, SameBitsForAnyNumberOfThreads) {
  for (const Case& c :
       {Case{2, 200, 200, 4, 2, 32, true, false}, Case{1, 1100, 1100, 2, 1, 32, true, false},
        Case{5, 70, 70, 2, 2, 32, true, false}, Case{2, 1100, 1100, 2, 1, 32, true, false, 0, {1, 399, 64, 500, 136}}})
    for (const DType type : {DType::kF32, DType::kBF16}) {
      const Packed p(c, type);
      std::vector<float> first;
      const int before = max_threads();
      for (const int threads : {1, 2, 3}) {
        set_max_threads(threads);
        Context context;
        const std::vector<float> all = run(context, p, type).all();
        if (first.empty()) first = all;
        EXPECT_EQ(std::memcmp(first.data(), all.data(), all.size() * sizeof(float)), 0)
            << threads << " threads, " << testing::PrintToString(c);
      }
      set_max_threads(before);
    }
}

TEST(AttentionDocuments, BadDocumentsAreNamed) {
  Tensor q({1, 4, 1, 8}), o({1, 4, 1, 8});
  Context context;
  const auto message = [&](const AttentionOptions& options, std::vector<int32_t> starts, const Dims& shape,
                           const char* text) {
    const TensorRef documents(starts.data(), DType::kI32, shape, kHost);
    EXPECT_THAT(
        [&] { attention_forward(context, options, {.q = q, .k = q, .v = q, .document_start = documents, .o = o}); },
        testing::ThrowsMessage<Error>(testing::HasSubstr(text)));
  };
  message({}, {0, 0, 3, 3}, {1, 4}, "document_start[0, 2]=3 must be at least 0 and at most 2");
  message({}, {0, 1, 1, 0}, {1, 4}, "document_start[0, 3]=0 must be at least 1 and at most 3");
  message({.query_start = 5}, {-1, 0, 0, 0}, {1, 4}, "document_start[0, 0]=-1 must be at least 0 and at most 5");
  message({}, {0, 0, 0, 0}, {4, 1}, "document_start has shape [4, 1]; expected [1, 4]");
  message({.mask = Mask::kNone}, {0, 0, 0, 0}, {1, 4}, "document_start needs a causal mask");
  Tensor wrong({1, 4});
  EXPECT_THAT([&] { attention_forward(context, {}, {.q = q, .k = q, .v = q, .document_start = wrong, .o = o}); },
              testing::ThrowsMessage<Error>(testing::HasSubstr("document_start has type F32; expected I32")));
}

}  // namespace
}  // namespace coca::ops::attention_documents_test
