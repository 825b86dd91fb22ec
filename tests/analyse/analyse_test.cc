// Analyses of whole models: every figure is recomputed by plain loops over all pairs, and CoCA's constraint and stored
// models of other programs are checked.
// SPDX-License-Identifier: Apache-2.0
#include "coca/analyse/analyse.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <functional>
#include <limits>
#include <map>
#include <nlohmann/json.hpp>

#include "coca/analyse/induction_results.h"
#include "coca/analyse/report.h"
#include "coca/analyse/results.h"
#include "coca/base/stop.h"
#include "coca/formats/model_folder.h"
#include "coca/model/clex.h"
#include "coca/model/decoder.h"
#include "coca/ops/attention.h"
#include "coca/report/html.h"
#include "support/first_gpu.h"
#include "support/tiny_clex.h"

namespace coca::analyse::analyse_test {
namespace {

using Windows = std::vector<std::vector<int32_t>>;
constexpr int64_t kN = 12;

AnalyseOptions everything() { return {.pairs = 0, .rows = 0, .shifts = {5}, .borders = {.multiples = {1, 4}}}; }

Windows two_windows(const model::ModelSpec& s) { return {test::random_ids(kN, s.V, 1), test::random_ids(kN, s.V, 2)}; }

// The traced tensors of one layer by name: q, k (before rotation), q_eff, k_eff.
using LayerTrace = std::map<std::string, TensorView<const float, 4>>;
void for_each_layer(const test::TinyModel& m, const std::vector<int32_t>& ids,
                    const std::function<void(int64_t, LayerTrace&)>& look) {
  Context cx;
  LayerTrace trace;
  int64_t layer = 0;
  cx.set_trace([&](std::string_view name, TensorRef value) {
    if (value.rank() != 4) return;
    const std::string short_name(name.substr(name.rfind('.') + 1));
    trace[short_name] = value.view<float, 4>();
    if (short_name == "k_eff") look(layer++, trace);
  });
  model::Decoder(m.spec, m.params.weights())
      .forward(cx, TensorRef(ids.data(), DType::kI32, {1, static_cast<int64_t>(ids.size())}, kHost));
  ASSERT_EQ(layer, m.spec.L);
}

double dot(const float* x, const float* y, int64_t D) {
  double sum = 0;
  for (int64_t d = 0; d < D; ++d) sum += static_cast<double>(x[d]) * static_cast<double>(y[d]);
  return sum;
}

class AnalyseOfSpec : public testing::TestWithParam<test::NamedSpec> {};
class AnalyseOfRope : public testing::TestWithParam<test::NamedSpec> {};

// Those whose softmax is analysed; and of these, for tests of angles, those whose queries nothing changes.
std::vector<test::NamedSpec> analysed(std::vector<test::NamedSpec> all) {
  std::erase_if(all, [](const test::NamedSpec& s) {
    return model::has_stage(s.spec, model::Stage::kDecay) || model::has_stage(s.spec, model::Stage::kSoftmax);
  });
  return all;
}
std::vector<test::NamedSpec> plain_queries(std::vector<test::NamedSpec> all) {
  std::erase_if(all, [](const test::NamedSpec& s) { return model::has_stage(s.spec, model::Stage::kQueries); });
  return analysed(std::move(all));
}

std::vector<test::NamedSpec> rope_specs() {
  std::vector<test::NamedSpec> all = plain_queries(test::all_specs());
  std::erase_if(all, [](const test::NamedSpec& s) {
    return !model::uses_rotary(s.spec.attention) || model::is_coca(s.spec.attention);
  });
  return all;
}

// What is looked at are copies of what lies on the device.
TEST(AnalyseOnADevice, FiguresAreThoseOfTheCpu) {
  for (const model::ModelSpec& s :
       {test::tiny_neox(test::AttentionKind::kCocaSlack), test::tiny_llama(test::AttentionKind::kRope)}) {
    test::TinyModel m(s);
    const auto run = [&] { return analyse(m.spec, m.params.weights(), two_windows(s), everything()).all(); };
    const HeadStats cpu = run();
    const test::OnTheGpu there;
    m.params.move_to(&test::gpu());
    const HeadStats ours = run();
    EXPECT_EQ(ours.pairs, cpu.pairs);
    EXPECT_EQ(ours.collinear.values, cpu.collinear.values);
    ASSERT_EQ(ours.planes.size(), cpu.planes.size());
    // q and k depend on 400 roundings of numbers up to about 4 on either side, and the scores are their products: to
    // within 2 sqrt(400) eps of the mean product of this many pairs.
    for (size_t j = 0; j < cpu.planes.size(); ++j)
      EXPECT_NEAR(ours.planes[j].weighted_cos, cpu.planes[j].weighted_cos,
                  1e-5 * static_cast<double>(cpu.pairs) + 1e-5 * std::abs(cpu.planes[j].weighted_cos))
          << j;
  }
}

// Recomputes entropy and sinks from the decoder's traces by plain loops.
TEST_P(AnalyseOfSpec, AttentionAgreesWithPlainLoops) {
  const model::ModelSpec& s = GetParam().spec;
  test::TinyModel m(s);
  const std::vector<int32_t> ids = test::random_ids(kN, s.V, 1);
  const Analysis a = analyse(m.spec, m.params.weights(), Windows{ids}, everything());
  const std::vector<float> slopes =
      model::uses_alibi(s.attention) ? ops::alibi_slopes(s.H) : std::vector<float>(static_cast<size_t>(s.H));
  const auto exponential = [&](LayerTrace& t, int64_t layer, int64_t h, int64_t i, int64_t n) {
    if (const int64_t window = s.window_of(static_cast<size_t>(layer)); window > 0 && i - n >= window) return 0.0;
    const double score = dot(t["q_eff"].ptr(0, i, h), t["k_eff"].ptr(0, n, h / (s.H / s.G)), s.score_width()) /
                         std::sqrt(static_cast<double>(s.D));
    return std::exp(score - static_cast<double>(slopes[static_cast<size_t>(h)]) * static_cast<double>(i - n));
  };
  for_each_layer(m, ids, [&](int64_t layer, LayerTrace& t) {
    for (int64_t h = 0; h < s.H; ++h) {
      double entropy = 0, sink = 0;
      for (int64_t i = 1; i < kN; ++i) {
        double total = 0;
        for (int64_t n = 0; n <= i; ++n) total += exponential(t, layer, h, i, n);
        for (int64_t n = 0; n <= i; ++n) {
          const double p = exponential(t, layer, h, i, n) / total;
          entropy -= p > 0 ? p * std::log(p) : 0;
          sink += n < 4 ? p : 0;
        }
      }
      const AttentionStats& got = a.head(layer, h).attention;
      EXPECT_NEAR(got.mean_entropy(), entropy / (kN - 1), 1e-10)
          << layer;  // doubles; only the order of summation differs
      EXPECT_NEAR(got.mean_sink(), sink / (kN - 1), 1e-10) << layer;
    }
  });
}

// With RoPE and xPos the analysis recovers the angles before rotation from rotated floats, and the weights without
// amplitude and decay. Both must agree with q and k before rotation.
TEST_P(AnalyseOfRope, AnglesAreThoseBeforeRotation) {
  const model::ModelSpec& s = GetParam().spec;
  test::TinyModel m(s);
  const std::vector<int32_t> ids = test::random_ids(kN, s.V, 1);
  const Analysis a = analyse(m.spec, m.params.weights(), Windows{ids}, everything());
  for_each_layer(m, ids, [&](int64_t layer, LayerTrace& t) {
    const int64_t window = s.window_of(static_cast<size_t>(layer));
    for (int64_t h = 0; h < s.H; ++h)
      for (int64_t j = 0; j < s.R / 2; ++j) {
        AngleStats expected;
        for (int64_t i = 0; i < kN; ++i)
          for (int64_t n = 0; n <= i; ++n) {
            if (window > 0 && i - n >= window) continue;
            if (!s.has_positions(static_cast<size_t>(layer))) continue;  // no plane turns
            const float *q = t["q"].ptr(0, i, h), *k = t["k"].ptr(0, n, h / (s.H / s.G));
            const double angle = wrapped(std::atan2(q[j + s.R / 2], q[j]) - std::atan2(k[j + s.R / 2], k[j]));
            expected.add(
                {.angle = angle, .weight = std::hypot(q[j], q[j + s.R / 2]) * std::hypot(k[j], k[j + s.R / 2])},
                course_of(angle, a.rotation.frequencies[static_cast<size_t>(j)], static_cast<double>(s.max_position)));
          }
        const AngleStats& got = a.head(layer, h).planes[static_cast<size_t>(j)];
        // Rotated floats are off by about 1e-7, and no angle of these models is close enough to a border to change its
        // course.
        EXPECT_EQ(got.courses, expected.courses) << layer << " " << h << " " << j;
        EXPECT_NEAR(got.weighted_cos, expected.weighted_cos, 1e-5 * expected.weight);
        EXPECT_NEAR(got.weighted_sin, expected.weighted_sin, 1e-5 * expected.weight);
      }
  });
}

TEST(Analyse, ModifiersOfTheSoftmaxAreRefused) {
  model::ModelSpec s = test::tiny_llama(model::AttentionKind::kRope);
  s.modifiers = {enum_from_name<const model::Modifier*>("sinks")};
  test::TinyModel m(s);
  try {
    analyse(m.spec, m.params.weights(), two_windows(s), everything());
    ADD_FAILURE();
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("attention modifier sinks changes the softmax"), std::string::npos);
  }
}

// Totals of the counts are right, and every model can be reported as JSON and tables.
TEST_P(AnalyseOfSpec, CountsAndReportsOfEveryModel) {
  const model::ModelSpec& s = GetParam().spec;
  test::TinyModel m(s);
  int64_t calls = 0;
  AnalyseOptions options = everything();
  options.progress = [&](int64_t done, int64_t total) {
    EXPECT_EQ(done, ++calls);
    EXPECT_EQ(total, 2 * s.L);
  };
  const Analysis a = analyse(m.spec, m.params.weights(), two_windows(s), options);
  EXPECT_EQ(calls, 2 * s.L);
  for (int64_t i = 0; i < s.L; ++i) {
    const int64_t window = s.window_of(static_cast<size_t>(i)) > 0 ? s.window_of(static_cast<size_t>(i)) : kN;
    int64_t seen = 0;
    for (int64_t n = 0; n < kN; ++n) seen += std::min(n + 1, window);
    EXPECT_EQ(a.head(i, 0).pairs, 2 * seen);
    if (s.attention == model::AttentionKind::kRope && !model::has_stage(s, model::Stage::kQueries)) {
      EXPECT_EQ(a.head(i, 0).planes[0].pairs, s.has_positions(static_cast<size_t>(i)) ? 2 * seen : 0);
    }
    EXPECT_EQ(a.head(i, 0).attention.rows, 2 * (kN - 1));
  }
  const nlohmann::ordered_json j = to_json(a);
  EXPECT_EQ(j["heads"].size(), static_cast<size_t>(s.L * s.H));
  EXPECT_EQ(j["planes"].size(), static_cast<size_t>(s.L * s.H) * a.rotation.frequencies.size());
  EXPECT_EQ(j["heads"][0].contains("anomalous"), model::uses_rotary(s.attention));
  EXPECT_EQ(layer_table(a).rows.size(), static_cast<size_t>(s.L) + 1);
  EXPECT_EQ(a.borders.empty(), !model::uses_rotary(s.attention));
  EXPECT_FALSE(findings(a).empty());
}

// Ids with repeats: by plain loops over the whole attention of every head.
TEST(Induction, ScoresAreThoseOfTheWholeAttention) {
  for (const model::ModelSpec& s :
       {test::tiny_neox(model::AttentionKind::kCocaStrict), test::tiny_llama(model::AttentionKind::kRope)}) {
    test::TinyModel m(s);
    const std::vector<int32_t> ids = {4, 9, 2, 2, 4, 9, 17, 2, 4, 4, 9, 1};
    const Windows windows{ids};
    const Analysis a = analyse(m.spec, m.params.weights(), windows, everything());
    for_each_layer(m, ids, [&](int64_t layer, LayerTrace& t) {
      for (int64_t h = 0; h < s.H; ++h) {
        double previous = 0, induction = 0, duplicate = 0;
        int64_t repeats = 0;
        for (int64_t i = 1; i < kN; ++i) {
          std::vector<double> p;
          double sum = 0;
          for (int64_t n = 0; n <= i; ++n) {
            p.push_back(std::exp(dot(t["q_eff"].ptr(0, i, h), t["k_eff"].ptr(0, n, h / (s.H / s.G)), s.D) /
                                 std::sqrt(static_cast<double>(s.D))));
            sum += p.back();
          }
          const auto at = [&](int64_t n) { return p[static_cast<size_t>(n)] / sum; };
          previous += at(i - 1);
          int64_t earlier = i - 1;
          while (earlier >= 0 && ids[static_cast<size_t>(earlier)] != ids[static_cast<size_t>(i)]) --earlier;
          if (earlier < 0 || earlier == i - 1) continue;
          ++repeats;
          induction += at(earlier + 1);
          duplicate += at(earlier);
        }
        const InductionStats& got = a.head(layer, h).induction;
        EXPECT_EQ(got.rows, kN - 1);
        EXPECT_EQ(got.repeats, repeats);
        EXPECT_NEAR(got.previous, previous, 1e-9);
        EXPECT_NEAR(got.induction, induction, 1e-9);
        EXPECT_NEAR(got.duplicate, duplicate, 1e-9);
      }
    });
  }
}

// The sign constraint: a collinear plane is one channel, an ordinary one two. Strict and tied heads prefer distance 0.
TEST(Induction, ReachIsBoundedByTheForm) {
  for (const test::NamedSpec& named : plain_queries(test::rotary_specs())) {
    test::TinyModel m(named.spec);
    AnalyseOptions options = everything();
    options.slow_turn = 0.25;
    const InductionAnalysis a{.step = 40,
                              .random = analyse(m.spec, m.params.weights(), two_windows(m.spec), options),
                              .text = {},
                              .slow_turn = 0.25};
    const auto slow = slow_planes(m.spec, a.random.rotation, 0.25);
    const auto planes = static_cast<double>(std::ranges::count(slow, 1));
    EXPECT_GT(planes, 0) << named.name;
    const bool strict = has_collinear_planes(m.spec) && model::collinear_options(m.spec).kind != ops::Collinear::kSlack;
    for (int64_t layer = 0; layer < m.spec.L; ++layer)
      for (int64_t h = 0; h < m.spec.H; ++h) {
        const HeadReach r = head_reach(a, layer, h);
        EXPECT_GE(r.channels, 1 - 1e-6) << named.name;
        EXPECT_LE(r.channels, r.most_channels * (1 + 1e-5)) << named.name;  // vectors are floats, 6e-8 each
        EXPECT_TRUE(r.slow_share >= 0 && r.slow_share <= 1) << named.name;
        if (m.spec.R == m.spec.plane_dims() && m.spec.has_positions(static_cast<size_t>(layer))) {
          EXPECT_EQ(r.most_channels,
                    planes * (has_collinear_planes(m.spec) ? 1 : 2) + static_cast<double>(m.spec.content))
              << named.name;
        }
        if (strict) {
          EXPECT_EQ(r.distance.best, 0) << named.name;
          EXPECT_LT(r.distance.previous, 0.5) << named.name;
        }
      }
    const nlohmann::ordered_json j = to_json(std::vector{a, a});
    EXPECT_EQ(j["heads"].size(), static_cast<size_t>(2 * m.spec.L * m.spec.H));
    EXPECT_EQ(j["heads"][0]["step"], 40);
    EXPECT_EQ(head_table(a).rows.size(), static_cast<size_t>(m.spec.L * m.spec.H));
    EXPECT_EQ(step_table({a, a}).rows.size(), 2U);
    EXPECT_EQ(step_chart({a, a}).series.at(0).x.size(), 2U);
  }
}

INSTANTIATE_TEST_SUITE_P(Specs, AnalyseOfSpec, testing::ValuesIn(analysed(test::all_specs())), test::spec_test_name);
INSTANTIATE_TEST_SUITE_P(Specs, AnalyseOfRope, testing::ValuesIn(rope_specs()), test::spec_test_name);

// The anomalous share of slack CoCA looks like an error in view of the article's claim, so its reports explain it.
// Reports of other models do not mention it.
TEST(Analyse, SlackSaysWhyItsAnglesAreAnomalous) {
  const char* const why = "Slack is not collinear in this sense";
  for (const test::NamedSpec& named : analysed(test::all_specs())) {
    test::TinyModel m(named.spec);
    const Analysis a = analyse(m.spec, m.params.weights(), two_windows(m.spec), everything());
    const bool slack = model::is_coca(m.spec.attention) && model::uses_rotary(m.spec.attention) &&
                       model::collinear_options(m.spec).kind == ops::Collinear::kSlack;
    EXPECT_EQ(slack_note(a).starts_with(why), slack) << named.name;
    EXPECT_EQ(findings(a)[0].find("Slack does not constrain this angle") != std::string::npos, slack) << named.name;
  }
  test::TinyModel m(test::tiny_llama(model::AttentionKind::kCocaSlack));
  const Analysis a = analyse(m.spec, m.params.weights(), two_windows(m.spec), everything());
  EXPECT_NE(report::to_html(make_document(a, "slack", "source")).find(why), std::string::npos);
}

// The sentence for no planes and for all planes.
TEST(Analyse, PlanesWithALongAnomalyAreCountedInWords) {
  test::TinyModel m(test::tiny_llama(model::AttentionKind::kRope));
  Analysis a = analyse(m.spec, m.params.weights(), two_windows(m.spec), everything());
  a.spec.max_position = int64_t{1} << 40;
  EXPECT_EQ(findings(a)[1], "In no plane is the median anomaly longer than the trained length.");
  a.spec.max_position = 0;
  EXPECT_TRUE(findings(a)[1].starts_with("In every plane the median anomaly is longer")) << findings(a)[1];
}

TEST(Analyse, StrictAndTiedHaveNoInitialAngle) {
  for (const test::NamedSpec& named : plain_queries(test::rotary_specs())) {
    test::TinyModel m(named.spec);
    const Analysis a = analyse(m.spec, m.params.weights(), two_windows(m.spec), everything());
    const HeadStats all = a.all();
    const bool collinear =
        model::is_coca(named.spec.attention) && model::collinear_options(named.spec).kind != ops::Collinear::kSlack;
    if (collinear) {
      EXPECT_LT(all.collinear.largest_angle, 1e-6) << named.name;  // fp32 rotations: about 6e-8 each
      EXPECT_EQ(all.all_planes().anomalous_share(), 0) << named.name;
      EXPECT_LT(all.collinear.moved_departure(0), 1e-12) << named.name;
    } else {
      EXPECT_GT(all.all_planes().anomalous_share(), 0.05) << named.name;
    }
  }
}

TEST(Analyse, ScoreOfAllPairsAtDistanceZeroIsTheMeanOfUnrotatedProducts) {
  test::TinyModel m(test::tiny_llama(model::AttentionKind::kRope));
  const std::vector<int32_t> ids = test::random_ids(kN, m.spec.V, 1);
  const Analysis a = analyse(m.spec, m.params.weights(), Windows{ids}, everything());
  for_each_layer(m, ids, [&](int64_t layer, LayerTrace& t) {
    double sum = 0;
    for (int64_t i = 0; i < kN; ++i)
      for (int64_t n = 0; n <= i; ++n) sum += dot(t["q"].ptr(0, i, 1), t["k"].ptr(0, n, 0), m.spec.D);
    const double expected = sum / (kN * (kN + 1) / 2) / std::sqrt(static_cast<double>(m.spec.D));
    EXPECT_NEAR(a.head(layer, 1).score_at(0, a.rotation, m.spec.D), expected,
                1e-5);  // floats: 1e-7 of products of size up to 10
  });
}

TEST(Analyse, ScoreHasAmplitudeAndDecayOfThePositions) {
  HeadStats head;
  head.pairs = 2;
  head.planes.resize(1);
  head.planes[0].add({.angle = 0, .weight = 6}, Course::kFalls);
  const ops::Rotation rotation{.frequencies = {0.2}, .amplitude = 1.5, .growth = {-0.1}};
  EXPECT_NEAR(head.score_at(3, rotation, 4), 6 * std::cos(0.6) * 2.25 * std::exp(-0.3) / 2 / 2, 1e-14);
}

TEST(Analyse, ZeroShareCountsTheFoldedT) {
  test::TinyModel m(test::tiny_neox(model::AttentionKind::kCocaSlack));
  const Analysis a = analyse(m.spec, m.params.weights(), two_windows(m.spec), everything());
  EXPECT_EQ(a.head(0, 0).collinear.values, 2 * kN * m.spec.D / 2);
  EXPECT_GT(a.all().collinear.zero_share(), 0.2);
  EXPECT_LT(a.all().collinear.zero_share(), 0.8);
}

TEST(Analyse, StoredModelsOfTransformers) {
  const std::filesystem::path dir = std::filesystem::path(COCA_SOURCE_DIR) / "tests" / "stored" / "hf";
  for (const char* name : {"llama", "llama3", "qwen2", "qwen3", "gpt_neox"}) {
    const model::Model m = formats::load_model(dir / name);
    const Analysis a = analyse(m.spec, m.params->weights(), Windows{test::random_ids(24, m.spec.V, 7)}, everything());
    const double share = a.all().all_planes().anomalous_share();
    EXPECT_GT(share, 0.2) << name;  // random weights prefer no angle
    EXPECT_LT(share, 0.8) << name;
    EXPECT_EQ(a.borders[0].scaling, m.spec.rope_scaling) << name;
    EXPECT_EQ(a.borders[0].unseen_planes(), 0) << name << ": nothing is new at the trained length";
  }
}

// A scaling at evaluation changes the angles at run time, not those of training.
TEST(Analyse, ScalingAtEvaluationLeavesTheTrainedAngles) {
  test::TinyModel m(test::tiny_llama(model::AttentionKind::kRope));
  AnalyseOptions options = everything();
  const Analysis plain = analyse(m.spec, m.params.weights(), two_windows(m.spec), options);
  options.scaling = {.type = model::Scaling::kLinear, .factor = 4};
  const Analysis scaled = analyse(m.spec, m.params.weights(), two_windows(m.spec), options);
  for (size_t j = 0; j < plain.rotation.frequencies.size(); ++j) {
    EXPECT_EQ(scaled.rotation.frequencies[j], plain.rotation.frequencies[j] / 4);
    EXPECT_EQ(scaled.borders[0].planes[j].trained_turns, plain.borders[0].planes[j].trained_turns);
    // Layer 0 projects the same q and k, so the initial angles stay the same at any frequency.
    EXPECT_EQ(scaled.head(0, 0).planes[j].anomalous_share(), plain.head(0, 0).planes[j].anomalous_share());
  }
  EXPECT_NE(scaled.head(0, 0).attention.mean_entropy(), plain.head(0, 0).attention.mean_entropy());
}

TEST(Analyse, TheSameSeedDrawsTheSamePairs) {
  test::TinyModel m(test::tiny_llama(model::AttentionKind::kRope));
  const auto json = [&](int64_t seed) {
    return to_json(analyse(m.spec, m.params.weights(), two_windows(m.spec), {.pairs = 20, .rows = 4, .seed = seed}))
        .dump();
  };
  EXPECT_EQ(json(1), json(1));
  EXPECT_NE(json(1), json(2));
}

// The analysis uses the decoder's angles, computed from the weights with the length factor of the window.
TEST(Analyse, ClexHasTheAnglesOfItsWeights) {
  for (const model::AttentionKind kind : {model::AttentionKind::kRope, model::AttentionKind::kCocaStrict}) {
    const test::TinyModel m = test::clex_model(test::clex_spec(test::tiny_llama(kind)));
    const Windows windows{test::random_ids(20, m.spec.V, 1)};
    AnalyseOptions options;
    options.borders.multiples = {1, 3};
    const Analysis a = analyse(m.spec, m.params.weights(), windows, options);
    const model::ClexOde ode(m.spec, m.params.weights().clex_up, m.params.weights().clex_down);
    const auto tables = ode.tables(4);
    const auto factor = static_cast<size_t>(model::clex_factor(m.spec, 20));
    ASSERT_GT(factor, 1u);
    EXPECT_EQ(a.rotation.frequencies, tables[factor - 1]);
    ASSERT_EQ(a.borders.size(), 2u);  // only its own scaling
    for (size_t j = 0; j < tables[0].size(); ++j) {
      EXPECT_EQ(a.borders[0].planes[j].compression, 1);
      EXPECT_EQ(a.borders[1].planes[j].compression, tables[0][j] / tables[2][j]);
    }
    if (kind == model::AttentionKind::kRope) continue;
    const HeadStats all =
        a.all();  // strict CoCA's initial angle is 0 if k is taken before rotation with the right angles
    for (const AngleStats& plane : all.planes) EXPECT_EQ(plane.anomalous_share(), 0);
  }
}

TEST(Analyse, RefusesUnsupportedInput) {
  test::TinyModel m(test::tiny_llama(model::AttentionKind::kRope));
  const auto with = [&](const Windows& windows, const AnalyseOptions& options = {}) {
    return analyse(m.spec, m.params.weights(), windows, options);
  };
  const auto message = [](const char* text) { return testing::ThrowsMessage<Error>(testing::HasSubstr(text)); };
  EXPECT_THAT([&] { with({}); }, message("no window"));
  EXPECT_THAT([&] { with({{1}}); }, message("a window of 1 token"));
  EXPECT_THAT([&] { with({{1, 2, 3}, {1, 2}}); }, message("equally long"));
  EXPECT_THAT([&] { with(two_windows(m.spec), {.borders = {.multiples = {0}}}); }, message("multiples holds 0"));
  model::ModelSpec patterned = m.spec, clex = m.spec;  // clex is given without its network's weights
  patterned.pattern = model::default_pattern(model::Pattern::kReRope, 8);
  model::ModelSpec dilated = m.spec;
  dilated.layer_window.assign(static_cast<size_t>(dilated.L), 4);
  dilated.dilation.assign(static_cast<size_t>(dilated.L * dilated.H), 2);
  EXPECT_THAT([&] { analyse(dilated, m.params.weights(), two_windows(m.spec), {}); },
              message("windowed; this model has dilated windows"));
  EXPECT_THAT([&] { analyse(patterned, m.params.weights(), two_windows(m.spec), {}); },
              message("pattern rerope is not analysed"));
  clex.rope_scaling = {.type = model::Scaling::kClex};
  EXPECT_THAT([&] { analyse(clex, m.params.weights(), two_windows(m.spec), {}); },
              message("rope scaling clex needs the weights of its network"));
  test::TinyModel broken(m.spec);
  broken.params.tensors().layers[0].q_w.as<float>()[0] = std::numeric_limits<float>::infinity();
  EXPECT_THAT([&] { analyse(broken.spec, broken.params.weights(), two_windows(m.spec), {}); }, message("in q or k"));
  request_stop();
  EXPECT_THAT([&] { with(two_windows(m.spec)); }, message("stopped"));
  clear_stop();
}

// If stopped within the second window, the result is that of the first.
TEST(Analyse, KeepsFinishedWindows) {
  const test::TinyModel m(test::tiny_neox(test::AttentionKind::kCocaSlack));
  AnalyseOptions options = everything();
  options.progress = [&](int64_t done, int64_t) {
    if (done == m.spec.L + 1) request_stop();
  };
  Analysis a;
  const Windows windows = two_windows(m.spec);
  EXPECT_THROW(analyse(m.spec, m.params.weights(), windows, options, a), Error);
  clear_stop();
  EXPECT_EQ(a.windows, 1);
  EXPECT_EQ(to_json(a).dump(), to_json(analyse(m.spec, m.params.weights(), Windows{windows[0]}, everything())).dump());
}

// Uses ALiBi only, because it has few charts to draw. A test of the program makes CoCA's document.
TEST(Report, LeavesOutWhatDoesNotApply) {
  test::TinyModel m(test::tiny_neox(model::AttentionKind::kAlibi));
  const std::string html = report::to_html(
      make_document(analyse(m.spec, m.params.weights(), two_windows(m.spec), everything()), "Inside", "a model"));
  for (const char* there : {"What was found", "initial angles and borders do not apply", "By layer"})
    EXPECT_THAT(html, testing::HasSubstr(there));
  for (const char* absent : {"Beyond the trained length", "Collinear constraint", "nan"})
    EXPECT_THAT(html, testing::Not(testing::HasSubstr(absent)));
}

}  // namespace
}  // namespace coca::analyse::analyse_test
