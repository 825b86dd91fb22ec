// SPDX-License-Identifier: Apache-2.0
#include "coca/optim/optimizer.h"

#include <gmock/gmock.h>

#include <cstring>

#include "coca/model/select.h"
#include "support/numerics.h"

namespace coca::optim::optimizer_test {
namespace {

using model::ParamInfo;
using model::ParamRole;
using model::ParamStore;

model::ModelSpec tiny_spec() {
  model::ModelSpec s;
  s.V = 11;
  s.C = 8;
  s.F = 12;
  s.L = 1;
  s.H = 2;
  s.G = 2;
  s.D = 4;
  s.R = 4;
  return s;
}

void fill(ParamStore& store, uint64_t seed, double size) {
  for (const ParamInfo& info : store.infos()) {
    const auto values = test::random_values(info.shape.product(), seed++, -size, size);
    std::copy(values.begin(), values.end(), store.at(info).as<float>());
  }
}

std::vector<float> copy_of(TensorRef flat) {
  const float* values = flat.as<float>();
  return {values, values + flat.numel()};
}
std::vector<float> copy_of(const model::TensorStore& store) { return copy_of(store.flat()); }

bool same_bits(const std::vector<float>& before, TensorRef flat) {
  return std::memcmp(before.data(), flat.data, flat.bytes()) == 0;
}
bool same_bits(const std::vector<float>& before, const model::TensorStore& store) {
  return same_bits(before, store.flat());
}

bool decays(const ParamInfo& info) {
  return info.name.ends_with(".weight") && info.name.find("norm") == std::string::npos;
}

TEST(AdamW, MatchesTheFormulaInDouble) {
  const AdamWOptions options{.beta1 = 0.8, .beta2 = 0.9, .eps = 1e-6, .weight_decay = 0.2, .clip_norm = 1.5};
  const double lr = 0.01;
  ParamStore params(tiny_spec()), grads(tiny_spec());
  fill(params, 1, 1.0);
  AdamW optimizer(tiny_spec(), options);
  Context context;
  const std::vector<float> start = copy_of(params);
  std::vector<double> p(start.begin(), start.end()), m(p.size()), v(p.size());
  for (int step = 1; step <= 4; ++step) {
    const double size = step == 2 ? 1e-3 : 1.0;  // the second step is below the clipping norm
    fill(grads, static_cast<uint64_t>(100 * step), size);
    double squares = 0;
    for (const float g : copy_of(grads)) squares += static_cast<double>(g) * g;
    const double norm = std::sqrt(squares), scale = std::min(1.0, options.clip_norm / norm);
    ASSERT_EQ(norm > options.clip_norm, step != 2);
    const UpdateReport report = optimizer.step(context, lr, grads, params);
    EXPECT_NEAR(report.grad_norm, norm, 1e-12 * norm);
    EXPECT_EQ(report.outcome, UpdateReport::Outcome::kApplied);
    EXPECT_EQ(optimizer.updates(), step);
    for (const ParamInfo& info : params.infos()) {
      const float* grad = grads.at(info).as<float>();
      for (int64_t i = 0; i < info.shape.product(); ++i) {
        const size_t at = info.offset + static_cast<size_t>(i);
        const double g = scale * grad[i];
        m[at] = options.beta1 * m[at] + (1 - options.beta1) * g;
        v[at] = options.beta2 * v[at] + (1 - options.beta2) * g * g;
        p[at] -= lr * (decays(info) ? options.weight_decay : 0.0) * p[at];
        p[at] -= lr * (m[at] / (1 - std::pow(options.beta1, step))) /
                 (std::sqrt(v[at] / (1 - std::pow(options.beta2, step))) + options.eps);
      }
    }
  }
  for (const ParamInfo& info : params.infos())
    for (int64_t i = 0; i < info.shape.product(); ++i) {
      const size_t at = info.offset + static_cast<size_t>(i);
      // Four steps of about a dozen float operations on numbers of size one.
      ASSERT_NEAR(params.at(info).as<float>()[i], p[at], 48 * 0x1p-24) << info.name << " " << i;
      ASSERT_NEAR(optimizer.first_moment().as<float>()[at], m[at], 16 * 0x1p-24) << info.name << " " << i;
      ASSERT_NEAR(optimizer.second_moment().as<float>()[at], v[at], 16 * 0x1p-24) << info.name << " " << i;
    }
}

TEST(AdamW, OnlyMatricesAndEmbeddingsDecay) {
  ParamStore params(tiny_spec()), grads(tiny_spec());  // zero gradients, so that only decay changes anything
  fill(params, 1, 1.0);
  const std::vector<float> before = copy_of(params);
  AdamW optimizer(tiny_spec(), {.weight_decay = 0.5});
  Context context;
  optimizer.step(context, 0.1, grads, params);
  size_t decayed = 0;
  for (const ParamInfo& info : params.infos()) {
    decayed += decays(info);
    for (int64_t i = 0; i < info.shape.product(); ++i) {
      const float old = before[info.offset + static_cast<size_t>(i)];
      EXPECT_FLOAT_EQ(params.at(info).as<float>()[i], decays(info) ? 0.95f * old : old) << info.name;
    }
  }
  EXPECT_EQ(decayed, 6u);  // embedding, head, qkv, dense, mlp up and down
}

// After each step the model's bf16 copy equals the result of copy_params, bit by bit.
TEST(AdamW, ABf16CopyFollowsTheParameters) {
  ParamStore params(tiny_spec()), grads(tiny_spec()), copy(tiny_spec(), model::Precision::kBF16),
      expected(tiny_spec(), model::Precision::kBF16);
  fill(params, 1, 1.0);
  AdamW optimizer(tiny_spec(), {});
  Context context;
  for (uint64_t step = 1; step <= 3; ++step) {
    fill(grads, 100 * step, 1.0);
    optimizer.step(context, 0.01, grads, params, &copy);
    model::copy_params(context, params, expected);
    EXPECT_EQ(std::memcmp(copy.flat().data, expected.flat().data, expected.flat().bytes()), 0) << step;
  }
}

// Trains only k of a fused projection and the biases of the mlp. These get the same values as when everything is
// trained; all others keep their bits.
TEST(AdamW, UpdatesASelectionAndNothingElse) {
  const std::vector<model::ParamInfo> trained = model::select_parameters(tiny_spec(), {"*.k.*", "*mlp*bias"});
  ParamStore all(tiny_spec()), all_grads(tiny_spec()), params(tiny_spec()), grads(tiny_spec(), trained),
      copy(tiny_spec(), model::Precision::kBF16), expected(tiny_spec(), model::Precision::kBF16);
  fill(all, 1, 1.0);
  fill(params, 1, 1.0);
  Context context;
  model::copy_params(context, params, copy);
  const AdamWOptions options{
      .weight_decay = 0.5,
      .clip_norm = 0};  // clipping would use the norm of all gradients in one case and of some in the other
  AdamW whole(tiny_spec(), options), some(trained, options);
  EXPECT_EQ(some.first_moment().numel(), grads.flat().numel());
  for (uint64_t step = 1; step <= 3; ++step) {
    fill(all_grads, 100 * step, 1.0);
    for (const model::ParamInfo& info : trained) {
      float* to = grads.at(info).as<float>();
      for (const MutTensorRef& block : all_grads.blocks(info)) to = std::copy_n(block.as<float>(), block.numel(), to);
    }
    whole.step(context, 0.01, all_grads, all);
    some.step(context, 0.01, grads, params, &copy);
  }
  ParamStore before(tiny_spec());
  fill(before, 1, 1.0);
  for (const model::ParamInfo& info : trained) {
    const auto from = all.blocks(info), to = before.blocks(info);
    for (size_t i = 0; i < from.size(); ++i) std::memcpy(to[i].data, from[i].data, from[i].bytes());
  }
  EXPECT_EQ(copy_of(params), copy_of(before));
  EXPECT_NE(copy_of(params), copy_of(all));
  model::copy_params(context, params, expected);
  EXPECT_EQ(std::memcmp(copy.flat().data, expected.flat().data, expected.flat().bytes()), 0);
}

TEST(AdamW, NonFiniteGradientsChangeNothing) {
  Context context;
  for (const float poison : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
    ParamStore params(tiny_spec()), grads(tiny_spec());
    AdamW optimizer(tiny_spec(), {});
    fill(params, 1, 1.0);
    fill(grads, 50, 1.0);
    optimizer.step(context, 0.1, grads, params);
    const auto p = copy_of(params), m = copy_of(optimizer.first_moment()), v = copy_of(optimizer.second_moment());
    const ParamInfo& last = grads.infos().back();
    grads.at(last).as<float>()[last.shape.product() - 1] = poison;
    const UpdateReport report = optimizer.step(context, 0.1, grads, params);
    EXPECT_EQ(report.outcome, UpdateReport::Outcome::kSkippedNonFinite);
    EXPECT_FALSE(std::isfinite(report.grad_norm));
    EXPECT_EQ(optimizer.updates(), 1);
    EXPECT_TRUE(same_bits(p, params) && same_bits(m, optimizer.first_moment()) &&
                same_bits(v, optimizer.second_moment()));
  }
}

TEST(AdamW, ZeroClipNormDoesNotClip) {
  ParamStore params(tiny_spec()), grads(tiny_spec());
  fill(grads, 50, 1e3);
  AdamW optimizer(tiny_spec(), {.clip_norm = 0});
  Context context;
  EXPECT_GT(optimizer.step(context, 0.1, grads, params).grad_norm, 1e3);
  const ParamInfo& info = params.infos().front();
  EXPECT_FLOAT_EQ(optimizer.first_moment().as<float>()[info.offset], 0.1f * grads.at(info).as<float>()[0]);
}

TEST(AdamW, BadOptionsAreNamed) {
  const auto expect_error = [](const AdamWOptions& o, const char* text) {
    EXPECT_THAT([&] { AdamW(tiny_spec(), o); }, testing::ThrowsMessage<Error>(testing::HasSubstr(text)));
  };
  expect_error({.beta1 = 1.0}, "beta1 is 1;");
  expect_error({.beta2 = -0.1}, "beta2 is -0.1;");
  expect_error({.eps = 0}, "adam_eps is 0;");
  expect_error({.weight_decay = -1}, "weight_decay is -1;");
  expect_error({.clex_rate = 0}, "clex_rate is 0;");
  expect_error({.clip_norm = -1}, "clip_norm is -1;");
}

}  // namespace
}  // namespace coca::optim::optimizer_test
