// Attention over the cache compared with the reference in double, which reads the cache's contents: every storage type
// and score, grouped queries, partial rotary, uneven lengths, every target.
// SPDX-License-Identifier: Apache-2.0
#include "coca/ops/decode_attention.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "coca/kernels/ref/decode_attention.h"
#include "coca/ops/attention.h"
#include "coca/ops/device.h"
#include "coca/ops/kv_store.h"
#include "ops/op_test.h"
#include "support/views.h"

namespace coca::ops::decode_attention_test {
namespace {

using test::as_view;

struct Case {
  int64_t B, N, S, H, G, E, R;
  DecodeAttentionOptions options;
  bool alibi = false;
  int64_t window = 0;
  std::vector<int64_t> dilation = {};
  int64_t D = E;  // of values
  bool gates = false;
  ref::DecodeKeys keys() const { return ref::decode_keys(options, R, E); }
  int64_t stored() const { return options.score == Score::kCollinear ? stored_width(options.collinear, E) : E; }
  DecodeAttentionOptions all_options() const {
    DecodeAttentionOptions o = options;
    o.window = window;
    o.dilation = dilation;
    return o;
  }
};
constexpr DecodeAttentionOptions kRope{.score = Score::kRope};
constexpr DecodeAttentionOptions collinear(Collinear kind, Fold fold = Fold::kRotary, int64_t content = 0) {
  return {.score = Score::kCollinear, .collinear = {.kind = kind, .fold = fold, .content = content}};
}
constexpr auto kSlack = collinear(Collinear::kSlack), kStrict = collinear(Collinear::kStrict),
               kTied = collinear(Collinear::kTied), kOfficial = collinear(Collinear::kSlack, Fold::kOfficial),
               kSlackContent = collinear(Collinear::kSlack, Fold::kRotary, 6),
               kPopeContent = collinear(Collinear::kPope, Fold::kRotary, 7);

const Case kCases[] = {
    {1, 1, 1, 1, 1, 2, 2, kSlack, false},
    {2, 1, 63, 2, 2, 6, 6, kRope, false},
    {1, 1, 64, 3, 1, 34, 34, kSlack, false},
    {1, 2, 65, 6, 2, 16, 8, kStrict, false},
    {2, 1, 256, 4, 4, 64, 64, kTied, false},
    {1, 3, 257, 4, 2, 20, 6, kSlack, false},
    {1, 1, 300, 7, 1, 48, 16, kRope, false},
    {1, 5, 600, 2, 1, 80, 80, kSlack, false},
    {1, 8, 700, 4, 1, 32, 32, kRope, false},
    {1, 1, 520, 2, 2, 24, 8, kOfficial, false},   // R < D/2
    {1, 2, 130, 4, 2, 16, 12, kOfficial, false},  // R > D/2
    {1, 1, 90, 2, 2, 16, 16, kOfficial, false},   // R = D: the same as our fold
    {2, 1, 333, 4, 2, 40, 0, {}, true},
    {1, 4, 70, 3, 3, 10, 0, {}, false},
    {1, 100, 100, 2, 2, 16, 16, kSlack, false},  // prefill
    {2, 70, 333, 4, 2, 18, 10, kStrict, false},  // prefill after other tokens
    {1, 75, 300, 2, 1, 16, 0, {}, true},
    {1, 1, 2100, 4, 1, 64, 64, kSlack, false},  // three ranges
    {1, 6, 1500, 2, 2, 34, 34, kRope, false},
    {1, 1, 700, 4, 2, 16, 16, kSlack, false, 100},               // windows: pages before the window, part of a page,
    {2, 9, 333, 2, 2, 18, 10, kRope, false, 77},                 // rows whose windows start at different tokens,
    {1, 70, 600, 2, 1, 8, 8, kStrict, false, 1},                 // only the token itself,
    {1, 100, 100, 2, 1, 8, 0, {}, true, 30},                     // prefill,
    {1, 2, 2100, 2, 2, 10, 10, kSlack, false, 257},              // ranges without visible keys
    {1, 3, 90, 2, 2, 6, 6, kRope, false, 500},                   // wider than the cache
    {1, 1, 700, 4, 2, 16, 16, kSlack, false, 40, {3, 3, 1, 1}},  // dilated: pages before the window,
    {2, 9, 333, 2, 2, 18, 10, kRope, false, 30, {2, 7}},         // heads of different kinds,
    {1, 70, 600, 2, 1, 8, 0, {}, true, 25, {5, 5}},              // ALiBi, several rows
    {2, 3, 333, 4, 2, 22, 10, kSlackContent, false, 0, {}, 12},  // content channels, values of another width
    {1, 1, 520, 2, 1, 39, 20, kPopeContent, false, 0, {}, 16},
    {1, 9, 300, 4, 2, 40, 32, collinear(Collinear::kPope), false, 0, {}, 20},
    {1, 2, 130, 4, 2, 24, 8, kRope, false, 0, {}, 40},
    {1, 3, 90, 2, 2, 10, 0, {}, true, 7, {}, 6},
    {2, 3, 333, 4, 2, 18, 10, kStrict, false, 0, {}, 18, true},  // forget gates: several rows and pages,
    {1, 1, 2100, 4, 1, 16, 16, kRope, true, 0, {}, 16, true},    // several ranges, with ALiBi,
    {1, 70, 600, 2, 1, 8, 0, {}, false, 25, {5, 5}, 8, true},    // a dilated window,
    {1, 1, 1, 1, 1, 2, 2, kSlack, false, 0, {}, 2, true},        // one token
};
std::ostream& operator<<(std::ostream& out, const Case& c) {
  return out << fmt::format("B{} N{} S{} H{} G{} E{} R{} D{} score {}{}", c.B, c.N, c.S, c.H, c.G, c.E, c.R, c.D,
                            static_cast<int>(c.options.score), c.alibi ? " alibi" : "");
}

const KvType kTypes[] = {KvType::kF32, KvType::kBF16, KvType::kInt8};

Rotation rotation_of(int64_t R) {
  Rotation r;
  for (double j = 0; j < static_cast<double>(R) / 2; ++j)
    r.frequencies.push_back(std::pow(10000.0, -2 * j / static_cast<double>(R)));
  return r;
}

// The arguments for one or several sequences, which a test may change.
struct Args {
  std::vector<DecodeSequence> sequences;
  TensorRef slopes;
  operator DecodeAttention() const { return {.sequences = sequences, .slopes = slopes}; }
};

// Queries, filled caches and their positions.
struct Decoding {
  Case c;
  std::vector<KvPages> pages;                // of B sequences
  Tensor q, keys, values, slopes, cos, sin;  // keys, values: as read from the cache; cos, sin [1, S, R/2]
  Tensor decay;                              // [B, H, S]
  KeyAngles angles;

  Decoding(const Case& c_, KvType type, uint64_t seed = 1)
      : c(c_),
        pages(static_cast<size_t>(c.B), KvPages(KvPool(layout(c_, type), 1))),
        q(test::random_tensor({c.B, c.N, c.H, c.E}, seed, -2, 2)),
        keys({c.B, c.S, c.G, pages.front().layout().W}),
        values({c.B, c.S, c.G, c.D}),
        slopes({c.H}),
        cos({1, c.S, c.R / 2}),
        sin({1, c.S, c.R / 2}),
        decay({c.B, c.H, c.S}) {
    Rng gate(seed, 5);
    float sum = 0;
    for (int64_t i = 0; i < decay.numel(); ++i) {
      if (i % c.S == 0) sum = -100;
      sum -= static_cast<float>(0.2 * gate.uniform());
      decay.values<float>()[static_cast<size_t>(i)] = sum;
    }
    const bool folded = c.options.score == Score::kCollinear;
    Tensor k = test::random_tensor(keys.shape(), seed + 1, -2, 2), v = test::random_tensor(values.shape(), seed + 2);
    const int64_t W = c.stored(), lengths = W - c.options.collinear.content;
    for (int64_t i = 0; folded && i < k.numel(); ++i)
      if (float& x = k.values<float>()[static_cast<size_t>(i)]; i % W < lengths)
        x = std::max(x, 0.0f);  // as after ReLU
    Context cx;
    for (int64_t b = 0; b < c.B; ++b) {
      KvPages& own = pages[static_cast<size_t>(b)];
      own.reserve(c.S);
      kv_store(cx,
               {.keys = k.ref().narrow(0, b, 1), .values = v.ref().narrow(0, b, 1), .cache = own.mut_view(0, 0, c.S)});
      kv_load(cx,
              {.cache = own.view(0, c.S), .keys = keys.ref().narrow(0, b, 1), .values = values.ref().narrow(0, b, 1)});
    }
    const std::vector<float> a = alibi_slopes(c.H);
    std::copy(a.begin(), a.end(), slopes.values<float>().begin());
    const Rotation rotation = rotation_of(c.R);
    const std::vector<double>& f = rotation.frequencies;
    angles.build(rotation, c.S);
    for (int64_t i = 0; i < cos.numel(); ++i) {
      const double angle = static_cast<double>(i / (c.R / 2)) * f[static_cast<size_t>(i % (c.R / 2))];
      cos.values<float>()[static_cast<size_t>(i)] = static_cast<float>(std::cos(angle));
      sin.values<float>()[static_cast<size_t>(i)] = static_cast<float>(std::sin(angle));
    }
  }
  static KvLayout layout(const Case& c, KvType type) {
    const bool lengths = c.options.score == Score::kCollinear && c.options.collinear.content == 0;
    return {.type = type,
            .key_sign = lengths ? KeySign::kNonNegative : KeySign::kSigned,
            .G = c.G,
            .W = c.stored(),
            .D = c.D};
  }
  RopeRows key_rows() const { return c.R == 0 ? RopeRows{} : RopeRows{cos, sin}; }
  TensorRef decay_of(TensorRef all, int64_t b) const { return all.narrow(0, b, 1).reshape({c.H, c.S}); }
  Dims o_shape() const { return {c.B, c.N, c.H, c.D}; }
  Args args(MutTensorRef o, MutTensorRef lse = {}) const {
    Args a{.sequences = {}, .slopes = c.alibi ? slopes.ref() : TensorRef()};
    for (int64_t b = 0; b < c.B; ++b)
      a.sequences.push_back({.q = q.ref().narrow(0, b, 1),
                             .angles = c.R > 0 ? &angles : nullptr,
                             .cache = pages[static_cast<size_t>(b)].view(0, c.S),
                             .decay = c.gates ? decay_of(decay, b) : TensorRef(),
                             .o = o.narrow(0, b, 1),
                             .lse = lse.empty() ? lse : lse.narrow(0, b, 1)});
    return a;
  }
  // In double with exact angles, or in float with the rounded cos and sin of a table.
  template <typename T>
  std::vector<T> reference(double* largest_lse = nullptr, std::vector<T>* all_lse = nullptr) const {
    const auto qx = test::convert<T>(q), kx = test::convert<T>(keys), vx = test::convert<T>(values),
               gates = test::convert<T>(decay);
    std::vector<T> o(static_cast<size_t>(o_shape().product())), lse(static_cast<size_t>(c.B * c.H * c.N));
    const std::vector<double> f = rotation_of(c.R).frequencies;
    const auto angle = [&](int64_t s, int64_t j) { return static_cast<double>(s) * f[static_cast<size_t>(j)]; };
    ref::decode_attention<T>(
        {.scale = 1.0 / std::sqrt(static_cast<float>(c.E)),
         .window = c.window,
         .query_start = c.S - c.N,
         .dilation = c.dilation.empty() ? nullptr : c.dilation.data(),
         .slopes = c.alibi ? slopes.values<float>().data() : nullptr},
        c.keys(), [&](int64_t, int64_t s, int64_t j) { return static_cast<T>(std::cos(angle(s, j))); },
        [&](int64_t, int64_t s, int64_t j) { return static_cast<T>(std::sin(angle(s, j))); },
        as_view<const T, 4>(qx, q.shape()), as_view<const T, 4>(kx, keys.shape()),
        as_view<const T, 4>(vx, values.shape()), as_view<T, 4>(o, o_shape()), as_view<T, 3>(lse, {c.B, c.H, c.N}),
        c.gates ? as_view<const T, 3>(gates, decay.shape()) : TensorView<const T, 3>{});
    if (all_lse) *all_lse = lse;
    if (largest_lse)
      for (const T l : lse) *largest_lse = std::max(*largest_lse, std::abs(static_cast<double>(l)));
    return o;
  }
  // Rounding D products changes the exponent, and exp(s - max) turns an absolute error of eps |s| into a relative error
  // of the probability. With terms = a^2 the rule's last term is a eps (as in attention_test.cc).
  test::ErrorRule rule(double largest_lse) const {
    return {.terms = static_cast<double>(c.S + c.E) + 4 * largest_lse * largest_lse};
  }
};

// The same operands on a device.
class OnDevice {
 public:
  OnDevice(Context& cx, const Decoding& s)
      : s_(s),
        q_(to_device(cx, s.q)),
        cos_(to_device(cx, s.cos)),
        sin_(to_device(cx, s.sin)),
        slopes_(to_device(cx, s.slopes)),
        decay_(to_device(cx, s.decay)) {
    const KvPool pool(s.pages.front().layout(), 1, 0, cx.memory());
    for (const KvPages& host : s.pages) {
      KvPages& own = pages_.emplace_back(pool);
      own.reserve(s.c.S);
      const KvView from = host.view(0, s.c.S);
      const MutKvView to = own.mut_view(0, 0, s.c.S);
      for (int64_t page = 0; page * kKvPage < s.c.S; ++page)
        cx.memory()->upload(to.pages[page], from.pages[page], pool.page_bytes());
    }
    cx.memory()->synchronize();
  }
  Args args(MutTensorRef o, MutTensorRef lse = {}) const {
    Args a = s_.args(o, lse);
    a.slopes = s_.c.alibi ? slopes_.ref() : TensorRef();
    for (size_t b = 0; b < a.sequences.size(); ++b) {
      DecodeSequence& one = a.sequences[b];
      one.q = q_.ref().narrow(0, static_cast<int64_t>(b), 1);
      one.cache = pages_[b].view(0, s_.c.S);
      if (s_.c.gates) one.decay = s_.decay_of(decay_, static_cast<int64_t>(b));
    }
    return a;
  }
  RopeRows key_rows() const { return {cos_, sin_}; }

 private:
  const Decoding& s_;
  Tensor q_, cos_, sin_, slopes_, decay_;
  std::vector<KvPages> pages_;
};

std::vector<float> values_of(const Tensor& t) { return {t.values<float>().begin(), t.values<float>().end()}; }

TEST(DecodeAttention, MatchesTheReferenceOnEveryTarget) {
  for (const Case& c : kCases)
    for (const KvType type : kTypes) {
      SCOPED_TRACE(testing::PrintToString(c) + " " + std::string(enum_name(type)));
      const Decoding s(c, type);
      double lse = 0;
      const std::vector<double> expected = s.reference<double>(&lse);
      const std::vector<float> naive = s.reference<float>();
      test::for_each_target([&] {
        Context cx;
        Tensor o(s.o_shape());
        decode_attention(cx, c.all_options(), s.args(o));
        test::expect_close(o.values<float>(), expected, naive, s.rule(lse), "evenly spaced");
        if (c.R == 0) return;
        Args given = s.args(o);
        for (DecodeSequence& a : given.sequences) {
          a.angles = nullptr;
          a.key_rows = s.key_rows();
        }
        decode_attention(cx, c.all_options(), given);
        test::expect_close(o.values<float>(), expected, naive, s.rule(lse), "given rows");
      });
      Context reference;
      reference.force_impl("decode_attention", "ref");
      Tensor o(s.o_shape());
      decode_attention(reference, c.all_options(), s.args(o));
      test::expect_close(o.values<float>(), expected, naive, s.rule(lse), "forced reference");
    }
}

TEST(DecodeAttention, MatchesTheReferenceOnAGpu) {
  if (const Gpus found = gpus(); found.list.empty()) GTEST_SKIP() << "not run on a GPU: " << found.none;
  Context cx(device_memory({DeviceKind::kCuda, 0}));
  size_t turn = 0;
  for (const Case& c : kCases)
    for (const KvType type : {kTypes[turn++ % std::size(kTypes)]}) {  // the types take turns
      SCOPED_TRACE(testing::PrintToString(c) + " " + std::string(enum_name(type)));
      const Decoding s(c, type);
      const OnDevice there(cx, s);
      double largest = 0;
      std::vector<double> lse_expected;
      std::vector<float> lse_naive;
      const std::vector<double> expected = s.reference<double>(&largest, &lse_expected);
      const std::vector<float> naive = s.reference<float>(nullptr, &lse_naive);
      Tensor o(s.o_shape(), DType::kF32, cx.memory()), lse({c.B, c.H, c.N}, DType::kF32, cx.memory());
      decode_attention(cx, c.all_options(), there.args(o, lse));
      test::expect_close(values_of(to_host(cx, o)), expected, naive, s.rule(largest), "evenly spaced");
      test::expect_close(values_of(to_host(cx, lse)), lse_expected, lse_naive, s.rule(largest), "lse");
      if (c.R == 0 || c.N > 5) continue;
      Args given = there.args(o);
      for (DecodeSequence& a : given.sequences) {
        a.angles = nullptr;
        a.key_rows = there.key_rows();
      }
      decode_attention(cx, c.all_options(), given);
      test::expect_close(values_of(to_host(cx, o)), expected, naive, s.rule(largest), "given rows");
    }
}

// The tables of angles change with the base, and sequences in the same call change no bit of each other.
TEST(DecodeAttention, AnglesAndSequencesOnAGpu) {
  if (const Gpus found = gpus(); found.list.empty()) GTEST_SKIP() << "not run on a GPU: " << found.none;
  Context cx(device_memory({DeviceKind::kCuda, 0}));
  const Case cases[] = {{1, 1, 40, 4, 2, 16, 8, kSlack, false},
                        {1, 3, 1500, 4, 2, 16, 8, kSlack, false},
                        {1, 1, 1, 4, 2, 16, 8, kSlack, false}};
  std::vector<Decoding> all;
  std::vector<OnDevice> there;
  std::vector<Tensor> together, alone;
  all.reserve(std::size(cases));  // OnDevice refers to them
  for (const Case& c : cases) {
    Decoding& s = all.emplace_back(c, KvType::kBF16, 10 * all.size() + 1);
    there.emplace_back(cx, s);
    const Rotation right = rotation_of(c.R);
    Rotation other = right;
    for (double& f : other.frequencies) f *= 0.9;
    Tensor o(s.o_shape(), DType::kF32, cx.memory());
    s.angles.build(other, c.S);
    decode_attention(cx, c.all_options(), there.back().args(o));
    const std::vector<float> wrong = values_of(to_host(cx, o));
    s.angles.build(right, c.S);
    decode_attention(cx, c.all_options(), there.back().args(o));
    alone.push_back(to_host(cx, o));
    if (c.S > 1) {
      EXPECT_NE(values_of(alone.back()), wrong);
    }
  }
  Args args;
  for (size_t i = 0; i < all.size(); ++i) {
    together.emplace_back(all[i].o_shape(), DType::kF32, cx.memory());
    args.sequences.push_back(there[i].args(together.back()).sequences.front());
  }
  decode_attention(cx, cases[0].all_options(), args);
  for (size_t i = 0; i < all.size(); ++i) EXPECT_EQ(values_of(to_host(cx, together[i])), values_of(alone[i])) << i;
}

// All queries see the first tokens, in addition to a dilated window that contains none of them.
TEST(DecodeAttention, TokensThatAllQueriesSee) {
  constexpr int64_t kFar = 5;
  const Tensor far_q = test::random_tensor({2, 4, 4, 16}, 9, -2, 2);  // queries of their own, as at other positions
  for (const bool alibi : {false, true}) {
    Case c{2, 4, 300, 4, 2, 16, alibi ? 0 : 8, alibi ? DecodeAttentionOptions{} : kRope, alibi, 9, {40, 40, 1, 1}};
    const Decoding s(c, KvType::kF32);
    const auto reference = [&](auto zero) {
      using T = decltype(zero);
      const auto qx = test::convert<T>(s.q), kx = test::convert<T>(s.keys), vx = test::convert<T>(s.values),
                 farx = test::convert<T>(far_q);
      std::vector<T> o(static_cast<size_t>(s.o_shape().product()));
      const std::vector<double> f = rotation_of(c.R).frequencies;
      const auto angle = [&](auto of, int64_t first) {
        return [&f, of, first](int64_t, int64_t n, int64_t j) {
          return T(of(static_cast<double>(first + n) * f[static_cast<size_t>(j)]));
        };
      };
      const auto cosine = [](double x) { return std::cos(x); };
      const auto sine = [](double x) { return std::sin(x); };
      ref::DecodeSide<T> near{.spec = {.scale = 1.0 / std::sqrt(static_cast<float>(c.E)),
                                       .window = c.window,
                                       .query_start = c.S - c.N,
                                       .dilation = c.dilation.data(),
                                       .first = kFar,
                                       .slopes = c.alibi ? s.slopes.template values<float>().data() : nullptr},
                              .tokens = c.S,
                              .q = as_view<const T, 4>(qx, s.q.shape()),
                              .key_cos = angle(cosine, 0),
                              .key_sin = angle(sine, 0)};
      ref::DecodeSide<T> far = near;
      far.tokens = kFar;
      far.spec.window = 0;
      far.spec.dilation = nullptr;
      far.spec.first = 0;
      far.spec.causal = false;
      far.q = as_view<const T, 4>(farx, s.q.shape());
      const ref::DecodeSide<T> sides[] = {near, far};
      ref::decode_attention<T>(sides, c.keys(), as_view<const T, 4>(kx, s.keys.shape()),
                               as_view<const T, 4>(vx, s.values.shape()), as_view<T, 4>(o, s.o_shape()), {});
      return o;
    };
    double lse = 0;
    s.reference<double>(&lse);
    for (const char* impl : {"cpu", "ref"}) {
      Context cx;
      cx.force_impl("decode_attention", impl);
      Tensor o(s.o_shape());
      Args args = s.args(o);
      for (size_t b = 0; b < args.sequences.size(); ++b)
        args.sequences[b].far = {.tokens = kFar,
                                 .range = FarRange::kAll,
                                 .q = far_q.ref().narrow(0, static_cast<int64_t>(b), 1),
                                 .angles = c.R > 0 ? &s.angles : nullptr};
      decode_attention(cx, c.all_options(), args);
      test::expect_close(o.values<float>(), reference(0.0), reference(0.0f), s.rule(lse), impl);
    }
  }
}

// Rows of cos and sin that differ between sequences and are not linear in the position.
TEST(DecodeAttention, AnyPositionsPerSequence) {
  const Case c{2, 3, 300, 4, 2, 24, 16, kSlack, false};
  const Decoding s(c, KvType::kF32);
  Tensor cos({2, c.S, 8}), sin({2, c.S, 8});
  Rng rng(3);
  for (size_t i = 0; i < cos.values<float>().size(); ++i) {
    const double angle = 50 * rng.uniform();
    cos.values<float>()[i] = static_cast<float>(std::cos(angle));
    sin.values<float>()[i] = static_cast<float>(std::sin(angle));
  }
  const auto at = [&](const Tensor& t, int64_t b, int64_t n, int64_t j) {
    return t.values<float>()[static_cast<size_t>((b * c.S + n) * 8 + j)];
  };
  const auto reference = [&](auto zero) {
    using T = decltype(zero);
    const auto qx = test::convert<T>(s.q), kx = test::convert<T>(s.keys), vx = test::convert<T>(s.values);
    std::vector<T> o(static_cast<size_t>(s.o_shape().product()));
    ref::decode_attention<T>(
        {.scale = 1.0 / std::sqrt(static_cast<float>(c.E)), .query_start = c.S - c.N}, c.keys(),
        [&](int64_t b, int64_t n, int64_t j) { return T(at(cos, b, n, j)); },
        [&](int64_t b, int64_t n, int64_t j) { return T(at(sin, b, n, j)); }, as_view<const T, 4>(qx, s.q.shape()),
        as_view<const T, 4>(kx, s.keys.shape()), as_view<const T, 4>(vx, s.values.shape()),
        as_view<T, 4>(o, s.o_shape()), {});
    return o;
  };
  Tensor o(s.o_shape());
  Args args = s.args(o);
  for (int64_t b = 0; b < c.B; ++b) {
    DecodeSequence& a = args.sequences[static_cast<size_t>(b)];
    a.angles = nullptr;
    a.key_rows = {cos.ref().narrow(0, b, 1), sin.ref().narrow(0, b, 1)};
  }
  Context cx;
  decode_attention(cx, c.all_options(), args);
  double lse = 0;
  s.reference<double>(&lse);  // the scores have the same size
  test::expect_close(o.values<float>(), reference(0.0), reference(0.0f), s.rule(lse), "any positions");
}

// Other sequences in the same call do not change a single bit: short ones, one with several ranges, and one with more
// rows than a task handles.
TEST(DecodeAttention, SequencesOfOneCallAreIndependent) {
  const Case cases[] = {{1, 1, 40, 4, 2, 16, 8, kSlack, false},
                        {1, 3, 2500, 4, 2, 16, 8, kSlack, false},
                        {1, 130, 200, 4, 2, 16, 8, kSlack, false},
                        {1, 1, 1, 4, 2, 16, 8, kSlack, false}};
  for (const KvType type : kTypes)
    for (const char* impl : {"cpu", "ref"}) {
      SCOPED_TRACE(std::string(enum_name(type)) + " " + impl);
      Context cx;
      cx.force_impl("decode_attention", impl);
      std::vector<Decoding> all;
      std::vector<Tensor> together, alone;
      Args args;
      for (const Case& c : cases) {
        const Decoding& s = all.emplace_back(c, type, 10 * all.size() + 1);
        decode_attention(cx, c.all_options(), s.args(alone.emplace_back(s.o_shape())));
      }
      for (const Decoding& s : all)
        args.sequences.push_back(s.args(together.emplace_back(s.o_shape())).sequences.front());
      decode_attention(cx, cases[0].all_options(), args);
      for (size_t i = 0; i < all.size(); ++i) EXPECT_EQ(values_of(together[i]), values_of(alone[i])) << i;
    }
}

TEST(DecodeAttention, LongCache) {
  const Case cases[] = {{1, 1, 32768 + 5, 2, 1, 16, 16, kRope, false}, {1, 1, 131072, 2, 1, 64, 64, kSlack, false}};
  for (const Case& c : cases)
    for (const KvType type : kTypes) {
      SCOPED_TRACE(testing::PrintToString(c) + " " + std::string(enum_name(type)));
      const Decoding s(c, type);
      double lse = 0;
      const std::vector<double> expected = s.reference<double>(&lse);
      Context cx;
      Tensor o(s.o_shape());
      decode_attention(cx, c.options, s.args(o));
      test::expect_close(o.values<float>(), expected, s.reference<float>(), s.rule(lse), "long");
    }
}

TEST(DecodeAttention, LseIsThatOfTheReference) {
  for (const Case& c : kCases) {
    SCOPED_TRACE(testing::PrintToString(c));
    const Decoding s(c, KvType::kF32);
    std::vector<double> expected;
    std::vector<float> naive;
    double largest = 0;
    s.reference<double>(&largest, &expected);
    s.reference<float>(nullptr, &naive);
    test::for_each_target([&] {
      Context cx;
      Tensor o(s.o_shape()), lse({c.B, c.H, c.N});
      decode_attention(cx, c.all_options(), s.args(o, lse));
      test::expect_close(lse.values<float>(), expected, naive, s.rule(largest), "lse");
    });
    Context forced;
    forced.force_impl("decode_attention", "ref");
    Tensor o(s.o_shape()), lse({c.B, c.H, c.N});
    decode_attention(forced, c.all_options(), s.args(o, lse));
    test::expect_close(lse.values<float>(), expected, naive, s.rule(largest), "lse of ref");
  }
}

// bf16 queries and outputs: one rounding of o, so at most twice the error of the rounded naive form.
TEST(DecodeAttention, Bf16QueriesAndOutputs) {
  for (const KvType type : kTypes) {
    const Case c{1, 3, 300, 4, 2, 20, 12, kSlack, false};
    Decoding s(c, type);
    Tensor q16(s.q.shape(), DType::kBF16), o16(s.q.shape(), DType::kBF16);
    for (size_t i = 0; i < q16.values<BF16>().size(); ++i) {
      q16.values<BF16>()[i] = BF16(s.q.values<float>()[i]);
      s.q.values<float>()[i] = static_cast<float>(q16.values<BF16>()[i]);
    }
    Args args = s.args(o16);
    args.sequences[0].q = q16;
    Context cx;
    decode_attention(cx, c.all_options(), args);
    double lse = 0;
    const std::vector<double> expected = s.reference<double>(&lse);
    std::vector<float> naive = s.reference<float>(), actual;
    for (float& x : naive) x = static_cast<float>(BF16(x));
    for (const BF16 x : o16.values<BF16>()) actual.push_back(static_cast<float>(x));
    test::expect_close(actual, expected, naive, s.rule(lse), "bf16");
  }
}

TEST(DecodeAttention, SameBitsForAnyNumberOfThreads) {
  for (const Case& c : {Case{1, 1, 5000, 4, 2, 32, 32, kSlack}, Case{1, 130, 2000, 4, 2, 16, 8, kRope}}) {
    const Decoding s(c, KvType::kInt8);
    test::expect_same_bits(
        [&] {
          Context cx;
          Tensor o(s.o_shape());
          decode_attention(cx, c.all_options(), s.args(o));
          return values_of(o);
        },
        "decode_attention");
  }
}

// Angles extended in several steps, or after another base, equal angles built at once.
TEST(DecodeAttention, AnglesDependOnFrequenciesAlone) {
  const Case c{1, 1, 900, 2, 2, 16, 16, kSlack};
  Decoding s(c, KvType::kF32);
  Context cx;
  Tensor once(s.o_shape()), grown(s.o_shape());
  decode_attention(cx, c.all_options(), s.args(once));
  Rotation other = rotation_of(c.R);
  for (double& f : other.frequencies) f *= 0.9;
  s.angles.build(other, 2000);
  decode_attention(cx, c.all_options(), s.args(grown));
  EXPECT_NE(values_of(once), values_of(grown));
  for (const int64_t S : {1, 70, 64, 900}) s.angles.build(rotation_of(c.R), S);
  decode_attention(cx, c.all_options(), s.args(grown));
  EXPECT_EQ(values_of(once), values_of(grown));
}

TEST(DecodeAttention, NansAffectOnlyQueriesThatSeeThem) {
  for (const KvType type : kTypes) {
    const Case c{1, 20, 300, 2, 1, 16, 16, kSlack};
    Decoding s(c, type);
    Context cx;
    Tensor clean(s.o_shape()), o(s.o_shape());
    decode_attention(cx, c.all_options(), s.args(clean));
    Tensor nan_keys({1, 1, 1, 8}), nan_values({1, 1, 1, 16});
    std::fill_n(nan_keys.values<float>().begin(), 8, std::numeric_limits<float>::quiet_NaN());
    std::fill_n(nan_values.values<float>().begin(), 16, std::numeric_limits<float>::quiet_NaN());
    // NaNs beyond the end, as after truncation, change no bit.
    kv_store(cx, {.keys = nan_keys, .values = nan_values, .first = 300, .cache = s.pages[0].mut_view(0, 300, 301)});
    decode_attention(cx, c.all_options(), s.args(o));
    EXPECT_EQ(values_of(o), values_of(clean));
    // With a NaN key, exactly the queries that see token 290 are NaN.
    Tensor value({1, 1, 1, 16});
    kv_store(cx, {.keys = nan_keys, .values = value, .first = 290, .cache = s.pages[0].mut_view(0, 290, 300)});
    decode_attention(cx, c.all_options(), s.args(o));
    for (int64_t n = 0; n < c.N; ++n)
      ASSERT_EQ(std::isnan(o.values<float>()[static_cast<size_t>(n * 32)]), 280 + n >= 290) << n;
  }
}

TEST(DecodeAttention, LargeScoresStayFinite) {
  const Case c{1, 2, 2000, 2, 1, 16, 16, kSlack};
  Decoding s(c, KvType::kF32);
  for (float& x : s.q.values<float>()) x *= 1e6f;  // CoCA's scores grow with the cube of their inputs
  Context cx;
  Tensor o(s.o_shape());
  decode_attention(cx, c.all_options(), s.args(o));
  for (const float x : o.values<float>()) ASSERT_TRUE(std::isfinite(x));
}

TEST(DecodeAttention, MisuseIsNamed) {
  const Case c{1, 1, 10, 4, 2, 8, 8, kSlack};
  const Decoding s(c, KvType::kF32);
  Tensor o({1, 1, 4, 8});
  Context cx;
  const auto with = [&](const auto& change, DecodeAttentionOptions options = kSlack) {
    return [&, change, options] {
      Args args = s.args(o);
      change(args.sequences[0]);
      decode_attention(cx, options, args);
    };
  };
  test::expect_error(with([](DecodeSequence&) {}, kRope), "keys have 4 numbers; expected 8");
  test::expect_error(with([](DecodeSequence& a) { a.angles = nullptr; }), "either angles or key_rows");
  test::expect_error(with([&](DecodeSequence& a) { a.key_rows = s.key_rows(); }), "either angles or key_rows");
  test::expect_error(with([](DecodeSequence& a) { a.cache.length = 0; }),
                     "1 queries; expected at least 1, and at most the cache's 0 tokens");
  const std::vector<int64_t> short_list = {1, 1}, split = {2, 1, 1, 1}, twos = {2, 2, 2, 2};
  const auto dilated = [](const std::vector<int64_t>& dilation, int64_t window) {
    DecodeAttentionOptions options = kSlack;
    options.dilation = dilation;
    options.window = window;
    return options;
  };
  test::expect_error(with([](DecodeSequence&) {}, dilated(short_list, 3)), "2 dilations; expected 4");
  test::expect_error(with([](DecodeSequence&) {}, dilated(split, 3)),
                     "dilation[1]=1 must be at least 1, and the same for all heads that share a key/value head");
  test::expect_error(with([](DecodeSequence&) {}, dilated(twos, 0)), "dilation[0]=2 needs a window");
  KeyAngles small;
  small.build(rotation_of(4), 10);
  Args two = s.args(o);
  two.sequences.push_back(two.sequences.front());
  two.sequences.back().angles = &small;
  test::expect_error([&] { decode_attention(cx, kSlack, two); }, "angles of 2 pairs");
  KeyAngles large;
  large.build(rotation_of(12), 10);
  test::expect_error(with([&](DecodeSequence& a) { a.angles = &large; }),
                     "12 rotary dims exceed the 8 that can rotate");
  Tensor o16({1, 1, 4, 8}, DType::kBF16), q5({1, 1, 5, 8}), o5({1, 1, 5, 8});
  test::expect_error(with([&](DecodeSequence& a) { a.o = o16; }), "o has type BF16; expected F32");
  test::expect_error(with([&](DecodeSequence& a) { a.q = q5, a.o = o5; }), "H=5 must be a multiple of G=2");
  const Decoding other({1, 1, 10, 4, 2, 8, 8, kSlack}, KvType::kInt8);
  Args mixed = s.args(o);
  mixed.sequences.push_back(other.args(o).sequences.front());
  test::expect_error([&] { decode_attention(cx, kSlack, mixed); }, "the same layout of the cache");
}

}  // namespace
}  // namespace coca::ops::decode_attention_test
