// SPDX-License-Identifier: Apache-2.0
#include "coca/train/batches.h"

#include <cmath>

#include "train/tiny_run.h"

namespace coca::train::batches_test {
namespace {

struct Made {
  Tensor ids, targets;
  std::vector<int32_t> all() const {
    std::vector<int32_t> v(ids.values<int32_t>().begin(), ids.values<int32_t>().end());
    v.insert(v.end(), targets.values<int32_t>().begin(), targets.values<int32_t>().end());
    return v;
  }
};

Made batch_of(const TrainConfig& c, const test::TinyData& data, int64_t step, int64_t part = 0) {
  Made b{Tensor({c.batch, c.length}, DType::kI32), Tensor({c.batch, c.length}, DType::kI32)};
  Batches(c, data.tokens, *data.tokenizer).fill(step, part, {b.ids, b.targets, {}});
  return b;
}

TEST(Batches, AreAPureFunctionOfSeedAndStep) {
  const test::TinyData data;
  TrainConfig c = test::tiny_config("unused");
  c.length = 96;
  c.passkey_share = 0.5;
  const Batches batches(c, data.tokens, *data.tokenizer);
  Tensor ids({2, 96}, DType::kI32), targets({2, 96}, DType::kI32);
  for (const int64_t step : {7, 0, 3, 7}) {  // any order, with a new object each time, as resuming requires
    batches.fill(step, 0, {ids, targets, {}});
    const Made fresh = batch_of(c, data, step);
    EXPECT_TRUE(std::ranges::equal(ids.values<int32_t>(), fresh.ids.values<int32_t>())) << step;
    EXPECT_TRUE(std::ranges::equal(targets.values<int32_t>(), fresh.targets.values<int32_t>())) << step;
  }
  EXPECT_NE(batch_of(c, data, 0).all(), batch_of(c, data, 1).all());
  TrainConfig other = c;
  other.seed = 1;
  EXPECT_NE(batch_of(c, data, 0).all(), batch_of(other, data, 0).all());
}

TEST(Batches, TargetsAreTheNextTokensOfTheText) {
  const test::TinyData data;
  const TrainConfig c = test::tiny_config("unused");
  std::vector<int32_t> text(static_cast<size_t>(data.tokens.size()));
  data.tokens.read(0, text);
  for (int64_t step = 0; step < 5; ++step) {
    const Made b = batch_of(c, data, step);
    for (int64_t row = 0; row < c.batch; ++row) {
      const int32_t* ids = b.ids.values<int32_t>().data() + row * c.length;
      const int32_t* targets = b.targets.values<int32_t>().data() + row * c.length;
      EXPECT_TRUE(std::equal(ids + 1, ids + c.length, targets));
      std::vector<int32_t> window(ids, ids + c.length);
      window.push_back(targets[c.length - 1]);
      EXPECT_FALSE(std::ranges::search(text, window).empty());
    }
  }
}

TEST(Batches, AccumulationSplitsTheSameWindows) {
  const test::TinyData data;
  TrainConfig whole = test::tiny_config("unused"), split = whole;
  whole.batch = 4;
  split.batch = 2;
  split.accumulation = 2;
  for (int64_t step = 0; step < 3; ++step) {
    const Made all = batch_of(whole, data, step);
    const size_t half = static_cast<size_t>(2 * whole.length);
    for (int64_t part = 0; part < 2; ++part)
      EXPECT_TRUE(std::ranges::equal(batch_of(split, data, step, part).ids.values<int32_t>(),
                                     all.ids.values<int32_t>().subspan(static_cast<size_t>(part) * half, half)));
  }
}

TEST(Batches, TheShareOfPasskeysIsRight) {
  const test::TinyData data;  // the text has only letters, so a window with a digit is a passkey prompt
  TrainConfig c = test::tiny_config("unused");
  c.length = 96;
  c.batch = 50;
  for (const double share : {0.0, 0.3, 1.0}) {
    c.passkey_share = share;
    int passkeys = 0, windows = 0;
    for (int64_t step = 0; step < 20; ++step) {
      const Made b = batch_of(c, data, step);
      for (int64_t row = 0; row < c.batch; ++row, ++windows) {
        const auto targets =
            b.targets.values<int32_t>().subspan(static_cast<size_t>(row * c.length), static_cast<size_t>(c.length));
        const bool passkey = std::ranges::any_of(targets, [](int32_t id) { return id >= '0' && id <= '9'; });
        passkeys += passkey;
        if (passkey) {  // the window ends with the answer or the last of the digits
          for (const int32_t id : targets.last(3)) EXPECT_TRUE(id >= '0' && id <= '9') << id;
        }
      }
    }
    const double sigma = std::sqrt(share * (1 - share) * windows);
    EXPECT_NEAR(passkeys, share * windows, 4 * sigma) << share;
  }
}

TEST(Batches, TheFirstStepsAreAllPasskeys) {
  const test::TinyData data;
  TrainConfig c = test::tiny_config("unused");
  c.length = 96;
  c.batch = 20;
  c.passkey_first_steps = 3;
  for (int64_t step = 0; step < 6; ++step) {
    const Made b = batch_of(c, data, step);
    for (int64_t row = 0; row < c.batch; ++row) {
      const int32_t last = b.targets.values<int32_t>()[static_cast<size_t>((row + 1) * c.length - 1)];
      EXPECT_EQ(last >= '0' && last <= '9', step < 3) << step;
    }
  }
}

TEST(Batches, APasskeyThatDoesNotFitFailsAtOnce) {
  const test::TinyData data;
  TrainConfig c = test::tiny_config("unused");
  c.passkey_share = 0.01;
  test::expect_error([&] { Batches(c, data.tokens, *data.tokenizer); }, ErrorKind::kInvalidArgument,
                     "passkey prompt of 17 tokens");
}

TEST(Batches, TextShorterThanAWindowIsAnError) {
  const test::TinyData data;
  TrainConfig c = test::tiny_config("unused");
  c.length = 2000;
  test::expect_error([&] { Batches(c, data.tokens, *data.tokenizer); }, ErrorKind::kInvalidArgument, "2,000 tokens");
}

}  // namespace
}  // namespace coca::train::batches_test
