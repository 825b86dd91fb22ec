// SPDX-License-Identifier: Apache-2.0
#include "coca/model/params.h"

#include <gtest/gtest.h>

#include <cmath>
#include <type_traits>

#include "support/tiny_model.h"

namespace coca::model::params_test {
namespace {

std::vector<std::string> names_of(const ModelSpec& spec) {
  std::vector<std::string> names;
  for (const ParamInfo& info : parameter_list(spec)) names.push_back(info.name);
  return names;
}

// Training holds the gradients of a whole model or of an adapter through one pointer type.
static_assert(std::has_virtual_destructor_v<TensorStore>);

TEST(Params, NamesOfGptNeoX) {
  ModelSpec s = test::tiny_neox(AttentionKind::kCocaSlack);
  s.L = 1;
  const std::vector<std::string> expected = {"gpt_neox.embed_in.weight",
                                             "gpt_neox.layers.0.input_layernorm.weight",
                                             "gpt_neox.layers.0.input_layernorm.bias",
                                             "gpt_neox.layers.0.post_attention_layernorm.weight",
                                             "gpt_neox.layers.0.post_attention_layernorm.bias",
                                             "gpt_neox.layers.0.attention.query_key_value.weight",
                                             "gpt_neox.layers.0.attention.query_key_value.bias",
                                             "gpt_neox.layers.0.attention.dense.weight",
                                             "gpt_neox.layers.0.attention.dense.bias",
                                             "gpt_neox.layers.0.mlp.dense_h_to_4h.weight",
                                             "gpt_neox.layers.0.mlp.dense_h_to_4h.bias",
                                             "gpt_neox.layers.0.mlp.dense_4h_to_h.weight",
                                             "gpt_neox.layers.0.mlp.dense_4h_to_h.bias",
                                             "gpt_neox.final_layer_norm.weight",
                                             "gpt_neox.final_layer_norm.bias",
                                             "embed_out.weight"};
  EXPECT_EQ(names_of(s), expected);
}

TEST(Params, NamesOfLlama) {
  ModelSpec s = test::tiny_llama(AttentionKind::kRope);
  s.L = 1;
  std::vector<std::string> expected = {"model.embed_tokens.weight",
                                       "model.layers.0.input_layernorm.weight",
                                       "model.layers.0.post_attention_layernorm.weight",
                                       "model.layers.0.self_attn.q_proj.weight",
                                       "model.layers.0.self_attn.k_proj.weight",
                                       "model.layers.0.self_attn.v_proj.weight",
                                       "model.layers.0.self_attn.o_proj.weight",
                                       "model.layers.0.mlp.gate_proj.weight",
                                       "model.layers.0.mlp.up_proj.weight",
                                       "model.layers.0.mlp.down_proj.weight",
                                       "model.norm.weight",
                                       "lm_head.weight"};
  EXPECT_EQ(names_of(s), expected);
  s.attention = AttentionKind::kCocaSlack;
  expected[4] = "model.layers.0.self_attn.t_proj.weight";
  EXPECT_EQ(names_of(s), expected);
  s.embeddings = Embeddings::kTied;
  expected.pop_back();
  EXPECT_EQ(names_of(s), expected);
}

class ParamsOfSpec : public testing::TestWithParam<test::NamedSpec> {};
INSTANTIATE_TEST_SUITE_P(Specs, ParamsOfSpec, testing::ValuesIn(test::all_specs()), test::spec_test_name);

TEST_P(ParamsOfSpec, TensorsAreAlignedApartAndCounted) {
  const ModelSpec& s = GetParam().spec;
  ParamStore store(s);
  int64_t count = 0;
  size_t free_from = 0;
  for (const ParamInfo& info : store.infos()) {
    EXPECT_EQ(info.offset % 16, 0u) << info.name;
    EXPECT_GE(info.offset, free_from) << info.name;
    free_from = info.offset + static_cast<size_t>(info.shape.product());
    count += info.shape.product();
  }
  EXPECT_LE(free_from, static_cast<size_t>(store.flat().numel()));
  EXPECT_EQ(count, parameter_count(s));
  EXPECT_EQ(store.weights().head.data == store.weights().embed.data, s.embeddings == Embeddings::kTied);
  EXPECT_EQ(store.weights().layers.size(), static_cast<size_t>(s.L));
}

TEST_P(ParamsOfSpec, InitialValues) {
  const ModelSpec& s = GetParam().spec;
  ParamStore a(s), b(s), c(s);
  initialise(s, 1, a);
  initialise(s, 1, b);
  initialise(s, 2, c);
  double sum = 0, squares = 0, n = 0, differences = 0;
  for (const ParamInfo& info : a.infos())
    for (int64_t i = 0; i < info.shape.product(); ++i) {
      const float value = a.at(info).as<float>()[i];
      ASSERT_EQ(value, b.at(info).as<float>()[i]);
      if (info.role == ParamRole::kNormWeight) {
        ASSERT_EQ(value, 1.0f);
      } else if (info.role == ParamRole::kBias) {
        ASSERT_EQ(value, 0.0f);
      } else {
        sum += value;
        squares += static_cast<double>(value) * value;
        differences += value != c.at(info).as<float>()[i];
        n += 1;
      }
    }
  // Mean within 5 sigma / sqrt(n), variance within 5 sigma^2 sqrt(2 / n).
  EXPECT_NEAR(sum / n, 0, 5 * s.init_std / std::sqrt(n));
  EXPECT_NEAR(squares / n, s.init_std * s.init_std, 5 * s.init_std * s.init_std * std::sqrt(2 / n));
  EXPECT_GT(differences, 0.99 * n);
}

// Models that differ only in attention start from the same numbers, so that comparisons isolate the attention.
TEST(Params, KindsShareTheirDraws) {
  for (const auto make : {test::tiny_neox, test::tiny_llama}) {
    const ModelSpec rope = make(AttentionKind::kRope);
    ParamStore first(rope);
    initialise(rope, 9, first);
    for (const AttentionKind kind : test::attention_kinds()) {
      const ModelSpec other = make(kind);
      ParamStore store(other);
      initialise(other, 9, store);
      const float *a = first.flat().as<float>(), *b = store.flat().as<float>();
      EXPECT_TRUE(std::equal(a, a + first.flat().numel(), b)) << enum_name(kind);
    }
  }
}

}  // namespace
}  // namespace coca::model::params_test
