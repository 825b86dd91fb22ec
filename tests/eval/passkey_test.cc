// Teacher-forced scoring equals greedy decoding by infer::generate, on models that are right some of the time.
// SPDX-License-Identifier: Apache-2.0
#include "coca/eval/passkey.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "coca/base/stop.h"
#include "coca/infer/generate.h"
#include "coca/model/decoder.h"
#include "coca/ops/cross_entropy.h"
#include "support/tiny_model.h"

namespace coca::eval::passkey_test {
namespace {

using test::AttentionKind;
using test::TinyModel;

auto message(const char* text) { return testing::ThrowsMessage<Error>(testing::HasSubstr(text)); }

// A byte model that answers with a space and then digits: after "s" comes a space, after a space or a digit comes a
// digit. The random weights decide which digit. Keys of one or two digits are then matched by chance, fully or in part.
TinyModel babbler(AttentionKind kind, uint64_t seed) {
  model::ModelSpec spec = kind == AttentionKind::kRope ? test::tiny_neox(kind) : test::tiny_llama(kind);
  spec.V = 264;  // 257 and padding
  spec.bos_id = 256;
  spec.max_position = 64;
  TinyModel m(spec, seed);
  float* embed = m.params.tensors().embed.as<float>();
  float* head = m.params.tensors().head.as<float>();
  const auto row = [&](float* table, int32_t id) { return table + id * spec.C; };
  for (int32_t id = 0; id < spec.V; ++id) {
    row(head, id)[0] = row(head, id)[1] = -1;
    for (int64_t c = 0; c < spec.C; ++c) row(embed, id)[c] *= 3;
  }
  row(embed, 's')[0] += 12;
  row(head, ' ')[0] = 6;
  row(embed, ' ')[1] += 12;
  for (int32_t d = '0'; d <= '9'; ++d) {
    row(embed, d)[1] += 12;
    row(head, d)[1] = 6;
  }
  return m;
}

PasskeyResult run(const TinyModel& m, const PasskeyOptions& options) {
  Context cx;
  return passkey(cx, m.spec, m.params.weights(), *text::make_byte_tokenizer(), options);
}

PasskeyOptions compact(std::vector<int64_t> lengths, std::vector<double> depths, int64_t trials, int64_t digits) {
  return {.protocol = {.lengths = std::move(lengths),
                       .wording = data::PasskeyWording::kCompact,
                       .depths = std::move(depths),
                       .keys = data::keys_of_digits(digits),
                       .trials = trials}};
}

// The same score from real greedy decoding, prompt by prompt, with the RoPE base of the whole request.
PasskeyScore by_generation(const TinyModel& m, const PasskeyOptions& o, int64_t length, std::optional<double> depth) {
  const auto tokenizer = text::make_byte_tokenizer();
  const model::ModelSpec spec = with_scaling(m.spec, o.scaling);
  Context cx;
  PasskeyScore score{.nll = 0};
  for (int64_t i = 0; i < o.protocol.trials; ++i) {
    const std::optional<int32_t> bos = bos_token(spec, o.protocol.bos);
    const PasskeyTrial t = make_passkey_trial(*tokenizer, o, bos, plan_passkey(*tokenizer, o, bos, length), depth, i);
    const std::vector<int32_t> prompt(t.ids.begin(), t.ids.begin() + t.answer_start);
    const int64_t A = static_cast<int64_t>(t.ids.size()) - t.answer_start;
    infer::BatchDecoder batch(spec, m.params.weights());
    const infer::GenerateResult g =
        infer::generate(cx, batch, {.prompt = prompt, .max_new_tokens = A, .sampling = {.temperature = 0}},
                        {.dynamic_base = infer::DynamicBase::kRequest});
    std::string text;
    text::DecodeState inside{.at_start = false};
    for (const int32_t id : g.ids)
      if (id < tokenizer->vocab_size()) tokenizer->append_decoded(id, inside, text);
    ++score.trials;
    score.correct += text == t.answer;
    double digits = 0;
    for (size_t c = 1; c < t.answer.size(); ++c) digits += c < text.size() && text[c] == t.answer[c];
    score.digit_accuracy += digits / static_cast<double>(t.answer.size() - 1);

    model::Decoder decoder(spec, m.params.weights());
    const auto N = static_cast<int64_t>(t.ids.size());
    const TensorRef hidden = decoder.forward(cx, {t.ids.data(), DType::kI32, {1, N}, kHost});
    Tensor nll({A});
    ops::lm_loss_forward(cx, {.x = hidden.narrow(0, t.answer_start - 1, A),
                              .w = m.params.weights().head,
                              .targets = {t.ids.data() + t.answer_start, DType::kI32, {A}, kHost},
                              .nll = nll});
    for (const float value : nll.values<float>()) *score.nll += static_cast<double>(value) / static_cast<double>(A);
  }
  score.digit_accuracy /= static_cast<double>(o.protocol.trials);
  *score.nll /= static_cast<double>(o.protocol.trials);
  return score;
}

class Passkey : public testing::TestWithParam<AttentionKind> {};
INSTANTIATE_TEST_SUITE_P(Kinds, Passkey,
                         testing::Values(AttentionKind::kRope, AttentionKind::kCocaSlack, AttentionKind::kCocaStrict,
                                         AttentionKind::kAlibi),
                         [](const auto& kind_info) {
                           std::string name(enum_name(kind_info.param));
                           std::replace(name.begin(), name.end(), '-', '_');
                           return name;
                         });

TEST_P(Passkey, EqualsGreedyGeneration) {
  const TinyModel m = babbler(GetParam(), 2);
  for (const int64_t digits : {1, 2}) {
    PasskeyOptions options = compact({60, 90}, {0.0, 0.3, 1.0}, 30, digits);
    if (model::uses_rotary(GetParam()))
      options.scaling = model::RopeScaling{model::Scaling::kDynamic, 4.0};  // 90 exceeds the trained length of 64
    const PasskeyResult result = run(m, options);
    ASSERT_EQ(result.cells.size(), 6u);
    EXPECT_EQ(result.bos, 256);
    int64_t correct = 0, partly = 0, trials = 0;
    for (const PasskeyCell& cell : result.cells) {
      SCOPED_TRACE(fmt::format("length {} depth {} digits {}", cell.length, *cell.depth, digits));
      const PasskeyScore expected = by_generation(m, options, cell.length, cell.depth);
      EXPECT_EQ(cell.score.trials, 30);
      EXPECT_GT(cell.least_tokens, 0);
      EXPECT_LE(cell.least_tokens, cell.most_tokens);
      EXPECT_LE(cell.most_tokens, cell.length);
      EXPECT_EQ(cell.score.correct, expected.correct);
      EXPECT_NEAR(cell.score.digit_accuracy, expected.digit_accuracy, 1e-12);
      // Both are float passes over two layers with an nll up to about 20: see the bound in perplexity_test.cc.
      EXPECT_NEAR(*cell.score.nll, *expected.nll, 1e-4);
      EXPECT_DOUBLE_EQ(cell.score.accuracy, static_cast<double>(cell.score.correct) / 30);
      correct += cell.score.correct;
      trials += cell.score.trials;
      partly += cell.score.digit_accuracy > cell.score.accuracy;
    }
    // A model that was always right or always wrong would prove little.
    EXPECT_LT(correct, trials);
    EXPECT_GE(digits == 1 ? correct : partly, 3);
    int64_t total = 0;
    for (const PasskeyTotal& t : result.totals) total += t.score.correct;
    EXPECT_EQ(total, correct);
  }
}

TEST(PasskeyEval, BatchesChangeNothing) {
  const TinyModel m = babbler(AttentionKind::kCocaSlack, 2);
  PasskeyOptions options = compact({50, 70}, {0.0, 0.5}, 12, 1);
  options.batch_tokens = 1;
  const PasskeyResult one = run(m, options);
  options.batch_tokens = 300;
  const PasskeyResult many = run(m, options);
  for (size_t i = 0; i < one.cells.size(); ++i) {
    EXPECT_EQ(one.cells[i].score.correct, many.cells[i].score.correct);
    EXPECT_EQ(one.cells[i].score.digit_accuracy, many.cells[i].score.digit_accuracy);
    EXPECT_NEAR(*one.cells[i].score.nll, *many.cells[i].score.nll, 1e-4);
  }
}

// A prompt depends only on seed, length, depth and index. Other lengths and depths in the list change nothing.
TEST(PasskeyEval, PromptsDependOnlyOnTheirPlace) {
  const TinyModel m = babbler(AttentionKind::kRope, 2);
  PasskeyOptions options = compact({50, 70}, {0.0, 0.5}, 10, 1);
  const PasskeyResult wide = run(m, options);
  options.protocol.lengths = {70};
  options.protocol.depths = {0.5};
  const PasskeyResult narrow = run(m, options);
  EXPECT_EQ(*narrow.cells[0].score.nll, *run(m, options).cells[0].score.nll);
  EXPECT_NEAR(*narrow.cells[0].score.nll, *wide.cells[3].score.nll, 1e-4);
  options.seed = 1;
  EXPECT_GT(std::abs(*run(m, options).cells[0].score.nll - *narrow.cells[0].score.nll), 1e-3);
}

TEST(PasskeyEval, TrialsHoldBosPromptAndAnswer) {
  const auto tokenizer = text::make_byte_tokenizer();
  const PasskeyOptions options;
  for (const std::optional<int32_t> bos : {std::optional<int32_t>(), std::optional<int32_t>(256)}) {
    const PasskeyTrial t = make_passkey_trial(*tokenizer, options, bos, {.length = 512}, 0.5, 3);
    EXPECT_LE(t.ids.size(), 512u);
    EXPECT_GE(t.ids.size(), 500u);
    EXPECT_EQ(t.ids[0] == 256, bos.has_value());
    const std::string text = tokenizer->decode(t.ids);
    EXPECT_THAT(text, testing::EndsWith("The pass key is" + t.answer));
    EXPECT_EQ(tokenizer->decode(std::span(t.ids).subspan(static_cast<size_t>(t.answer_start))), t.answer);
    EXPECT_EQ(t.answer.size(), 6u);
  }
}

TEST(PasskeyEval, LogitsThatAreNotFiniteMakeTheScoresNan) {
  TinyModel m = babbler(AttentionKind::kRope, 2);
  m.params.tensors().head.as<float>()[5] = std::numeric_limits<float>::quiet_NaN();
  PasskeyOptions options = compact({60}, {0.5}, 5, 5);
  const PasskeyResult r = run(m, options);
  EXPECT_EQ(r.totals[0].score.correct, 0);
  EXPECT_TRUE(std::isnan(*r.totals[0].score.nll));
  options.protocol.rule = PasskeyRule::kContains;
  options.protocol.new_tokens = 4;
  for (const PasskeyScore& score : {r.totals[0].score, r.cells[0].score, run(m, options).totals[0].score}) {
    EXPECT_EQ(score.trials, 5);
    for (const double x : {score.accuracy, score.accuracy_low, score.accuracy_high, score.digit_accuracy})
      EXPECT_TRUE(std::isnan(x)) << x;
  }
}

TEST(PasskeyEval, StopsWhenAsked) {
  const TinyModel m = babbler(AttentionKind::kRope, 2);
  PasskeyOptions options = compact({60}, {0.5}, 9, 5);
  options.batch_tokens = 60;
  int64_t done = 0;
  options.progress = [&](const PasskeyProgress& p) {
    EXPECT_EQ(p.total, 9);
    done = p.done;
    if (p.done == 4) request_stop();
  };
  PasskeyResult result;  // results up to the stop
  try {
    Context cx;
    passkey(cx, m.spec, m.params.weights(), *text::make_byte_tokenizer(), options, result);
    ADD_FAILURE() << "it went on";
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::kInterrupted);
  }
  clear_stop();
  EXPECT_EQ(done, 4);
  ASSERT_EQ(result.totals.size(), 1u);
  EXPECT_EQ(result.totals[0].score.trials, 4);
  EXPECT_EQ(result.cells.at(0).score.trials, 4);
  EXPECT_EQ(result.cells.at(0).score.accuracy_high, wilson_interval(result.totals[0].score.correct, 4).high);
}

// The depths take turns for any batch size.
TEST(PasskeyEval, PartialLengthsAreBalanced) {
  const TinyModel m = babbler(AttentionKind::kRope, 2);
  for (const int64_t together : {1, 2, 3}) {
    PasskeyOptions options = compact({60}, {0, 0.5, 1}, 9, 5);
    options.batch_tokens = 60 * together;
    options.progress = [](const PasskeyProgress& p) {
      if (p.done >= 12) request_stop();
    };
    PasskeyResult result;
    Context cx;
    EXPECT_THAT([&] { passkey(cx, m.spec, m.params.weights(), *text::make_byte_tokenizer(), options, result); },
                message("12 of 27 prompts done"));
    clear_stop();
    for (const PasskeyCell& cell : result.cells) EXPECT_EQ(cell.score.trials, 4) << *cell.depth;
  }
}

// A cell without trials has no accuracy, and a length without trials is not listed.
TEST(PasskeyEval, CellsWithoutTrialsHaveNoAccuracy) {
  const TinyModel m = babbler(AttentionKind::kRope, 2);
  PasskeyOptions options = compact({60, 70}, {0, 1}, 2, 5);
  options.batch_tokens = 60;
  options.progress = [](const PasskeyProgress&) { request_stop(); };
  PasskeyResult result;
  Context cx;
  EXPECT_THAT([&] { passkey(cx, m.spec, m.params.weights(), *text::make_byte_tokenizer(), options, result); },
              message("1 of 8 prompts done"));
  clear_stop();
  ASSERT_EQ(result.totals.size(), 1u);
  ASSERT_EQ(result.cells.size(), 2u);
  EXPECT_EQ(result.cells[0].score.trials + result.cells[1].score.trials, 1);
  EXPECT_EQ(std::isnan(result.cells[0].score.accuracy), result.cells[0].score.trials == 0);
  EXPECT_EQ(std::isnan(result.cells[1].score.accuracy), result.cells[1].score.trials == 0);
  for (const PasskeyCell& cell : result.cells)
    EXPECT_EQ(cell.least_tokens, cell.score.trials == 0 ? 0 : result.totals[0].least_tokens);
}

TEST(PasskeyEval, MistakesAreNamed) {
  const TinyModel m = babbler(AttentionKind::kRope, 2);
  const auto with = [&](const auto& change) {
    return [&m, change] {
      PasskeyProtocol p;
      change(p);
      run(m, {.protocol = p});
    };
  };
  EXPECT_THAT(with([](auto& p) { p.lengths = {}; }), message("lengths: none given"));
  EXPECT_THAT(with([](auto& p) { p.depths = {}; }), message("depths: none given"));
  EXPECT_THAT(with([](auto& p) { p.depths = {1.5}; }), message("depths holds 1.5"));
  EXPECT_THAT(with([](auto& p) { p.trials = 0; }), message("trials is 0"));
  EXPECT_THAT(with([](auto& p) { p.keys = {9, 8}; }), message("key_most is 8; expected at least key_least, 9"));
  EXPECT_THAT(with([](auto& p) { p.new_tokens = 3; }), message("new_tokens is 3; expected 0"));
  EXPECT_THAT(with([](auto& p) { p.rule = PasskeyRule::kContains; }),
              message("new_tokens is 0; expected at least 1 with rule contains"));
  EXPECT_THAT(with([](auto& p) { p.lengths = {1}; }), message("lengths holds 1 (tokens); expected at least 2"));
  EXPECT_THAT(with([](auto& p) { p.length_control = data::PasskeyLength::kUnits, p.lengths = {68}; }),
              message("must be at least 69"));
  EXPECT_THAT(with([](auto& p) {
                p.lengths = {4096, 60};
              }),
              message("without any garbage it takes"));  // reported before any work
  const TinyModel small(test::tiny_neox(AttentionKind::kRope));
  EXPECT_THAT([&] { run(small, {}); }, message("257 ids"));
}

// Rules that generate: each prompt is also run alone through infer::generate with the tokenizer's end tokens, and the
// answer is judged by separate code.
TEST_P(Passkey, GeneratedRulesEqualGeneration) {
  const TinyModel m = babbler(GetParam(), 2);
  const auto tokenizer = text::make_byte_tokenizer();
  int64_t right = 0, wrong = 0;
  for (const PasskeyRule rule : {PasskeyRule::kFirstNumber, PasskeyRule::kContains}) {
    PasskeyOptions o = compact({60, 90}, {}, 20, 1);
    o.protocol.place = PasskeyPlace::kRandom;
    o.protocol.rule = rule;
    o.protocol.new_tokens = 6;
    if (rule == PasskeyRule::kFirstNumber) o.protocol.length_control = data::PasskeyLength::kCharacters;
    const PasskeyResult result = run(m, o);
    ASSERT_EQ(result.cells.size(), 2u);
    for (const PasskeyCell& cell : result.cells) {
      EXPECT_FALSE(cell.depth || cell.score.nll);
      int64_t correct = 0;
      Context cx;
      for (int64_t i = 0; i < o.protocol.trials; ++i) {
        const PasskeyTrial t =
            make_passkey_trial(*tokenizer, o, 256, plan_passkey(*tokenizer, o, 256, cell.length), {}, i);
        EXPECT_EQ(static_cast<size_t>(t.answer_start), t.ids.size());
        infer::BatchDecoder decoder(m.spec, m.params.weights());
        const infer::GenerateResult g = infer::generate(
            cx, decoder,
            {.prompt = t.ids, .max_new_tokens = 6, .sampling = {.temperature = 0}, .stop_ids = tokenizer->eos_ids()});
        std::string text;
        for (const int32_t id : g.ids) text += id < 256 ? std::string(1, static_cast<char>(id)) : "";
        const size_t digit = text.find_first_of("0123456789");
        const bool first = digit != std::string::npos && std::stoll(text.substr(digit)) == t.key;
        correct += rule == PasskeyRule::kFirstNumber ? first : text.find(std::to_string(t.key)) != std::string::npos;
      }
      EXPECT_EQ(cell.score.correct, correct) << enum_name(rule) << " " << cell.length;
      right += correct;
      wrong += o.protocol.trials - correct;
    }
  }
  EXPECT_GT(right, 0);
  EXPECT_GT(wrong, 0);
}

// (p + z^2/2n +- z sqrt(p(1-p)/n + z^2/4n^2)) / (1 + z^2/n) with z = 1.959964, computed independently.
TEST(WilsonInterval, KnownValues) {
  const auto near = [](Interval interval, double low, double high) {
    EXPECT_NEAR(interval.low, low, 5e-5);
    EXPECT_NEAR(interval.high, high, 5e-5);
  };
  near(wilson_interval(0, 10), 0.0, 0.2775);
  near(wilson_interval(10, 10), 0.7225, 1.0);
  near(wilson_interval(5, 10), 0.2366, 0.7634);
  near(wilson_interval(1, 20), 0.0089, 0.2361);
  near(wilson_interval(89, 100), 0.8137, 0.9375);
  EXPECT_THROW(wilson_interval(0, 0), Error);
  EXPECT_THROW(wilson_interval(3, 2), Error);
}

}  // namespace
}  // namespace coca::eval::passkey_test
