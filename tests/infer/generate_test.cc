// SPDX-License-Identifier: Apache-2.0
#include "coca/infer/generate.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "coca/base/stop.h"
#include "coca/ops/linear.h"
#include "support/tiny_model.h"

namespace coca::infer::generate_test {
namespace {

using test::AttentionKind;
using test::TinyModel;

// Greedy decoding that runs the whole text again for every token.
std::vector<int32_t> slow_greedy(const TinyModel& m, std::vector<int32_t> ids, int64_t count, int64_t scaling_length) {
  Context cx;
  std::vector<int32_t> out;
  Tensor logits({1, m.spec.V});
  for (int64_t i = 0; i < count; ++i) {
    model::Decoder decoder(m.spec, m.params.weights());
    const auto N = static_cast<int64_t>(ids.size());
    const TensorRef hidden = decoder.forward(cx, {ids.data(), DType::kI32, {1, N}, kHost}, scaling_length);
    ops::linear_forward(cx, {.x = hidden.narrow(0, N - 1, 1), .w = m.params.weights().head, .y = logits});
    out.push_back(argmax(logits.values<float>()));
    ids.push_back(out.back());
  }
  return out;
}

const Request kGreedy{.prompt = {}, .max_new_tokens = 12, .sampling = {.temperature = 0}};

GenerateResult continued(Context& cx, const TinyModel& m, const std::vector<int32_t>& prompt, Request request,
                         const SessionOptions& options = {}, const std::function<bool(int32_t)>& on_token = {}) {
  BatchDecoder decoder(m.spec, m.params.weights());
  request.prompt = prompt;
  return generate(cx, decoder, request, options, on_token);
}

class Generate : public testing::TestWithParam<test::NamedSpec> {};
INSTANTIATE_TEST_SUITE_P(Specs, Generate, testing::ValuesIn(test::all_specs()), test::spec_test_name);

TEST_P(Generate, GreedyEqualsRunningTheWholeTextForEachToken) {
  TinyModel m(GetParam().spec);
  const std::vector<int32_t> prompt = test::random_ids(5, m.spec.V, 3);
  Context cx;
  EXPECT_EQ(continued(cx, m, prompt, kGreedy).ids, slow_greedy(m, prompt, 12, 0));
  if (!model::uses_rotary(m.spec.attention)) return;
  // With the base of the request, dynamic NTK gives the same too. 5 + 12 tokens exceed the trained 8.
  m.spec.rope_scaling = {model::Scaling::kDynamic, 2.0};
  EXPECT_EQ(continued(cx, m, prompt, kGreedy, {.dynamic_base = DynamicBase::kRequest}).ids,
            slow_greedy(m, prompt, 12, 17));
}

class GenerateOnce : public testing::Test {
 protected:
  TinyModel m{test::tiny_llama(AttentionKind::kCocaSlack)};
  std::vector<int32_t> prompt = {3, 1, 4, 1, 5};
  Context cx;
  GenerateResult run(const Request& request, const std::function<bool(int32_t)>& on_token = {}) {
    return continued(cx, m, prompt, request, {}, on_token);
  }
};

TEST_F(GenerateOnce, EndsAtTheStopToken) {
  const std::vector<int32_t> all = run(kGreedy).ids;
  ASSERT_EQ(all.size(), 12u);
  Request stop = kGreedy;
  stop.stop_ids = {22, all[4]};
  ASSERT_EQ(std::count(all.begin(), all.end(), 22), 0);
  const auto first = std::find(all.begin(), all.end(), all[4]) - all.begin();
  EXPECT_EQ(run(stop).ids, std::vector<int32_t>(all.begin(), all.begin() + first));  // the stop token is not returned
  EXPECT_EQ(run(stop).finish, Finish::kStopId);
  EXPECT_EQ(run(kGreedy).finish, Finish::kLength);
}

// A strong enough penalty prevents any token of the text so far from being repeated.
TEST_F(GenerateOnce, APenaltyPreventsRepetition) {
  Request options = kGreedy;
  options.sampling.repetition_penalty = 1e6;
  std::vector<int32_t> ids = run(options).ids;
  ids.insert(ids.end(), {3, 1, 4, 5});
  std::sort(ids.begin(), ids.end());
  EXPECT_EQ(std::adjacent_find(ids.begin(), ids.end()), ids.end());
}

TEST_F(GenerateOnce, ReportsTokensAtOnceAndMayBeStopped) {
  const std::vector<int32_t> all = run(kGreedy).ids;
  std::vector<int32_t> seen;
  const GenerateResult result = run(kGreedy, [&](int32_t id) {
    seen.push_back(id);
    return seen.size() < 3;
  });
  EXPECT_EQ(seen, std::vector<int32_t>(all.begin(), all.begin() + 3));
  EXPECT_EQ(result.ids, seen);
  EXPECT_GT(result.cache_bytes, 0u);
  EXPECT_GE(result.prefill_seconds, 0);
}

TEST_F(GenerateOnce, TheCacheHasTheRequestedType) {
  for (const KvType type : {KvType::kF32, KvType::kBF16, KvType::kInt8}) {
    BatchDecoder decoder(m.spec, m.params.weights(), {.cache = type});
    Request request = kGreedy;
    request.prompt = prompt;
    const GenerateResult result = generate(cx, decoder, request);
    EXPECT_EQ(result.ids.size(), 12u);
    EXPECT_EQ(result.cache_bytes, kv_pool(m.spec, type).page_bytes());  // 16 tokens fit in one page
  }
}

TEST_F(GenerateOnce, StopRequestEndsIt) {
  int64_t seen = 0;
  const GenerateResult result = run(kGreedy, [&](int32_t) {
    if (++seen == 2) request_stop();
    return true;
  });
  clear_stop();
  EXPECT_EQ(result.ids.size(), 2u);
}

TEST_F(GenerateOnce, SamplingDependsOnlyOnTheSeed) {
  Request options{.prompt = {}, .max_new_tokens = 30, .seed = 1};
  const std::vector<int32_t> one = run(options).ids;
  EXPECT_EQ(run(options).ids, one);
  options.seed = 2;
  EXPECT_NE(run(options).ids, one);
}

TEST_F(GenerateOnce, Edges) {
  EXPECT_TRUE(run({.prompt = {}, .max_new_tokens = 0}).ids.empty());
  EXPECT_EQ(run({.prompt = {}, .max_new_tokens = 1}).ids.size(), 1u);
  const auto message = [](const char* text) { return testing::ThrowsMessage<Error>(testing::HasSubstr(text)); };
  EXPECT_THAT([&] { run({.prompt = {}, .max_new_tokens = -1}); }, message("-1"));
  EXPECT_THAT([&] { run({.prompt = {}, .sampling = {.top_p = 2}}); }, message("top-p"));
  prompt = {1, 23};
  EXPECT_THAT([&] { run({}); }, message("23"));
  prompt.clear();
  EXPECT_THAT([&] { run({}); }, message("empty"));
}

}  // namespace
}  // namespace coca::infer::generate_test
