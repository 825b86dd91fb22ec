// SPDX-License-Identifier: Apache-2.0
#include "coca/model/select.h"

#include <gmock/gmock.h>

#include <cmath>
#include <map>

#include "coca/model/decoder.h"
#include "support/message.h"
#include "support/tiny_model.h"

namespace coca::model::select_test {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

std::vector<std::string> names_of(const ModelSpec& spec, const std::vector<std::string>& patterns) {
  std::vector<std::string> names;
  for (const ParamInfo& info : select_parameters(spec, patterns)) names.push_back(info.name);
  return names;
}

std::string error_of(const ModelSpec& spec, const std::vector<std::string>& patterns) {
  return test::message([&] { select_parameters(spec, patterns); });
}

TEST(Glob, StarsAndQuestionMarks) {
  for (const auto& [pattern, name] : std::vector<std::pair<const char*, const char*>>{{"", ""},
                                                                                      {"*", ""},
                                                                                      {"*", "a.b"},
                                                                                      {"a?c", "abc"},
                                                                                      {"*.weight", "x.y.weight"},
                                                                                      {"a*b*c", "aXbYbZc"},
                                                                                      {"**x", "x"},
                                                                                      {"a.b", "a.b"}})
    EXPECT_TRUE(glob_matches(pattern, name)) << pattern << " " << name;
  for (const auto& [pattern, name] : std::vector<std::pair<const char*, const char*>>{{"", "a"},
                                                                                      {"?", ""},
                                                                                      {"a?c", "ac"},
                                                                                      {"*.weight", "x.weights"},
                                                                                      {"a*b*c", "acb"},
                                                                                      {"a.b", "axb"},
                                                                                      {"a", "ab"}})
    EXPECT_FALSE(glob_matches(pattern, name)) << pattern << " " << name;
}

TEST(Select, PatternsAddAndTakeOutInOrder) {
  const ModelSpec s = test::tiny_llama(AttentionKind::kCocaSlack);
  EXPECT_EQ(names_of(s, {}).size(), parameter_list(s).size());
  EXPECT_THAT(names_of(s, {"*t_proj*"}),
              ElementsAre("model.layers.0.self_attn.t_proj.weight", "model.layers.1.self_attn.t_proj.weight"));
  EXPECT_EQ(names_of(s, {"*.0.*", "!*mlp*", "!*norm*"}), names_of(s, {"*.0.self_attn.*"}));
  EXPECT_EQ(names_of(s, {"*.0.*,!*mlp*,!*norm*"}), names_of(s, {"*.0.self_attn.*"}));
  EXPECT_EQ(names_of(s, {"!*.layers.*"}),
            (std::vector<std::string>{"model.embed_tokens.weight", "model.norm.weight", "lm_head.weight"}));
  EXPECT_EQ(names_of(s, {"!*.layers.*", "*.1.mlp.up_proj.weight"}).size(), 4u);
}

TEST(Select, PartsOfAFusedProjection) {
  const ModelSpec s = test::tiny_neox(AttentionKind::kCocaSlack);
  const std::string fused = "gpt_neox.layers.0.attention.query_key_value.";
  EXPECT_THAT(names_of(s, {"*.0.*query_key_value.t.*"}), ElementsAre(fused + "t.weight", fused + "t.bias"));
  EXPECT_THAT(names_of(s, {"*.0.*query_key_value.weight"}), ElementsAre(fused + "weight"));
  EXPECT_THAT(names_of(s, {"*.0.*query_key_value.?.weight"}),
              ElementsAre(fused + "weight"));  // all three parts select the whole tensor
  EXPECT_THAT(names_of(s, {"*.0.*query_key_value*", "!*.q.*"}),
              ElementsAre(fused + "t.weight", fused + "v.weight", fused + "t.bias", fused + "v.bias"));
  EXPECT_THAT(names_of(test::tiny_neox(AttentionKind::kRope), {"*.0.*query_key_value.k.weight"}),
              ElementsAre(fused + "k.weight"));
  const auto parts = select_parameters(s, {"*query_key_value.t.weight"});
  EXPECT_EQ(parts[0].shape, Dims({s.H * s.D, s.C}));
  EXPECT_EQ(element_count(parts), s.L * s.H * s.D * s.C);
  EXPECT_EQ(names_of(s, {}).size(), parameter_list(s).size());
}

TEST(Select, APatternWithoutAMatchIsNamedWithTheNearestName) {
  const ModelSpec s = test::tiny_llama(AttentionKind::kCocaSlack);
  EXPECT_THAT(error_of(s, {"*t-proj*"}), AllOf(HasSubstr("\"*t-proj*\" matches none"), HasSubstr("t_proj")));
  EXPECT_THAT(error_of(s, {"*", "!*mpl*"}), AllOf(HasSubstr("\"!*mpl*\""), HasSubstr("matches none of ")));
  EXPECT_THAT(error_of(s, {"*", "!*"}), HasSubstr("nothing is left"));
  EXPECT_THAT(error_of(s, {"zebra"}), HasSubstr("; the parts of the names are down_proj, embed_tokens, gate_proj, "));
  const ModelSpec neox = test::tiny_neox(AttentionKind::kCocaSlack);
  EXPECT_THAT(error_of(neox, {"*t_prj*"}), HasSubstr("; did you mean *query_key_value.t*?"));
  ModelSpec tied = s;
  tied.embeddings = Embeddings::kTied;
  EXPECT_THAT(error_of(tied, {"lm_head*"}), HasSubstr("\"lm_head*\" matches none"));
}

class SelectInSpec : public testing::TestWithParam<test::NamedSpec> {};

// Gradients of a selection equal those of a full backward pass. Gradients of other parameters are not even stored.
TEST_P(SelectInSpec, GradientsOfASelection) {
  constexpr int64_t kB = 2, kN = 9;
  const test::TinyModel m(GetParam().spec);
  std::vector<int32_t> ids = test::random_ids(kB * kN, m.spec.V, 1), targets = test::random_ids(kB * kN, m.spec.V, 2);
  const TensorRef ids_ref(ids.data(), DType::kI32, {kB, kN}, kHost),
      targets_ref(targets.data(), DType::kI32, {kB, kN}, kHost);
  Context cx;
  TrainingDecoder decoder(m.spec, kB, kN);
  ParamStore all(m.spec);
  decoder.forward_backward(cx, m.params.weights(), ids_ref, targets_ref, 1.0f, all.tensors());
  std::vector<std::vector<std::string>> selections = {
      {"*embed*"}, {"*norm*"}, {"*.1.*"}, {"!*.0.*", "!*embed*"}, {"*.bias"}};
  if (m.spec.qkv == Qkv::kFused)
    selections.insert(selections.end(),
                      {{"*value.q.*"}, {"*value.q.*", "*value.v.*"}, {"*.1.*value.?.bias", "!*.q.*"}});
  for (const std::vector<std::string>& patterns : selections) {
    if (patterns[0] == "*.bias" && m.spec.attention_bias == Bias::kNone) continue;
    SCOPED_TRACE(patterns.back());
    ParamStore some(m.spec, select_parameters(m.spec, patterns));
    EXPECT_LT(some.flat().numel(), all.flat().numel());
    decoder.forward_backward(cx, m.params.weights(), ids_ref, targets_ref, 1.0f, some.tensors());
    for (const ParamInfo& info : some.infos()) {
      int64_t at = 0;
      for (const MutTensorRef& block : all.blocks(info)) {
        for (int64_t i = 0; i < block.numel(); ++i, ++at) {
          const double whole = static_cast<double>(block.as<float>()[i]);
          // A part is a separate product over the same rows: sums of B N = 18 terms in another order.
          const double bound = info.part == ParamPart::kWhole ? 0.0 : 18 * 0x1p-23 * (1 + std::abs(whole));
          EXPECT_NEAR(static_cast<double>(some.at(info).as<float>()[at]), whole, bound) << info.name << " " << at;
        }
      }
      EXPECT_EQ(at, info.shape.product());
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Specs, SelectInSpec, testing::ValuesIn(test::all_specs()), test::spec_test_name);

}  // namespace
}  // namespace coca::model::select_test
