// SPDX-License-Identifier: Apache-2.0
#include "coca/model/config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "coca/model/model.h"
#include "support/paths.h"
#include "support/tiny_model.h"

namespace coca::model {
namespace {

using nlohmann::json;
using testing::AllOf;
using testing::HasSubstr;

void expect_equal(const ModelSpec& a, const ModelSpec& b) {
  EXPECT_EQ(a.architecture, b.architecture);
  EXPECT_EQ(a.attention, b.attention);
  EXPECT_EQ(a.fold, b.fold);
  EXPECT_EQ(a.norm, b.norm);
  EXPECT_EQ(a.mlp, b.mlp);
  EXPECT_EQ(a.residual, b.residual);
  EXPECT_EQ(a.qkv, b.qkv);
  EXPECT_EQ(a.attention_bias, b.attention_bias);
  EXPECT_EQ(a.mlp_bias, b.mlp_bias);
  EXPECT_EQ(a.embeddings, b.embeddings);
  for (const auto member : {&ModelSpec::V, &ModelSpec::C, &ModelSpec::F, &ModelSpec::L, &ModelSpec::H,
                            &ModelSpec::G, &ModelSpec::D, &ModelSpec::R, &ModelSpec::max_position})
    EXPECT_EQ(a.*member, b.*member);
  EXPECT_EQ(a.rope_theta, b.rope_theta);
  EXPECT_EQ(a.rope_scaling, b.rope_scaling);
  EXPECT_EQ(a.norm_eps, b.norm_eps);
  EXPECT_EQ(a.init_std, b.init_std);
  EXPECT_EQ(a.bos_id, b.bos_id);
  EXPECT_EQ(a.eos_id, b.eos_id);
}

TEST(Config, EverySpecRoundTrips) {
  for (const test::NamedSpec& named : test::all_specs()) {
    SCOPED_TRACE(named.name);
    ModelSpec s = named.spec;
    for (const RopeScaling scaling :
         {RopeScaling{}, RopeScaling{Scaling::kLinear, 4.0}, RopeScaling{Scaling::kDynamic, 2.5}}) {
      s.rope_scaling = scaling;
      s.rope_theta = 12345.678;
      s.norm_eps = 3e-7;
      s.bos_id = 3;
      s.eos_id = scaling.type == Scaling::kLinear ? std::nullopt : std::optional<int64_t>(0);
      expect_equal(spec_from_json(json::parse(spec_to_json(s).dump()), "config.json"), s);
    }
  }
}

// A head dim that is not width / heads, and rotary shares that floating point would cut short.
TEST(Config, UnevenSizesRoundTrip) {
  ModelSpec s = test::tiny_neox(AttentionKind::kCocaSlack);
  s.C = 50;
  s.D = 34;
  for (s.R = 2; s.R <= 34; s.R += 2)
    expect_equal(spec_from_json(json::parse(spec_to_json(s).dump()), "config.json"), s);
}

json neox() {
  return json::parse(
      R"({"model_type": "gpt_neox", "vocab_size": 100, "hidden_size": 64, "intermediate_size": 256, "num_hidden_layers": 2,
    "num_attention_heads": 4, "hidden_act": "gelu", "rotary_pct": 1.0})");
}
json llama() {
  return json::parse(
      R"({"model_type": "llama", "vocab_size": 100, "hidden_size": 64, "intermediate_size": 172, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "hidden_act": "silu"})");
}
ModelSpec read(json config, const json& changes = {}) {
  config.update(changes.is_null() ? json::object() : changes);
  return spec_from_json(config, "here.json");
}

TEST(Config, HuggingFaceDefaults) {
  const ModelSpec n = read(neox());
  EXPECT_EQ(n.attention, AttentionKind::kRope);
  EXPECT_EQ(n.residual, ResidualKind::kParallel);
  EXPECT_EQ(n.embeddings, Embeddings::kUntied);
  EXPECT_EQ(n.attention_bias, Bias::kYes);
  EXPECT_EQ(n.norm_eps, 1e-5);
  EXPECT_EQ(n.rope_theta, 10000.0);
  EXPECT_EQ(n.max_position, 2048);
  EXPECT_EQ(n.R, 16);
  EXPECT_EQ(n.bos_id, std::nullopt);
  json quarter = neox();
  quarter.erase("rotary_pct");
  EXPECT_EQ(read(quarter).R, 4);  // a quarter of the head
  const ModelSpec l = read(llama());
  EXPECT_EQ(l.G, 2);
  EXPECT_EQ(l.R, 16);
  EXPECT_EQ(l.norm_eps, 1e-6);
  EXPECT_EQ(l.residual, ResidualKind::kSequential);
  EXPECT_EQ(l.attention_bias, Bias::kNone);
  json full = llama();
  full.erase("num_key_value_heads");
  EXPECT_EQ(read(full).G, 4);
}

TEST(Config, FieldsOfOtherSpellings) {
  EXPECT_EQ(read(neox(), {{"attention_type", "coca"}, {"rotary_pct", 0.5}}).fold, ops::Fold::kOfficial);
  EXPECT_EQ(read(neox(), {{"attention_type", "coca"}}).attention, AttentionKind::kCocaSlack);
  EXPECT_EQ(read(neox(), {{"rotary_emb_base", 500.0}}).rope_theta, 500.0);
  EXPECT_EQ(read(neox(), {{"rope_theta", 600.0}}).rope_theta, 600.0);
  EXPECT_EQ(read(neox(), {{"hidden_act", "gelu_new"}}).mlp, Mlp::kGeluTanh);
  EXPECT_EQ(read(llama(), {{"eos_token_id", {5, 7}}}).eos_id, 5);
  EXPECT_EQ(read(llama(), {{"bos_token_id", nullptr}}).bos_id, std::nullopt);
  EXPECT_EQ(read(llama(), {{"head_dim", 20}}).D, 20);
  EXPECT_EQ(read(llama(), {{"some_new_field", 1}}).V, 100);  // fields we do not know are none of our business
  for (const char* key : {"type", "rope_type"}) {
    EXPECT_EQ(read(llama(), {{"rope_scaling", {{key, "dynamic"}, {"factor", 4}}}}).rope_scaling,
              (RopeScaling{Scaling::kDynamic, 4.0}));
    EXPECT_EQ(read(llama(), {{"rope_scaling", {{key, "default"}}}}).rope_scaling, RopeScaling{});
  }
}

// Every mistake names the file and the field.
TEST(Config, MistakesAreNamed) {
  struct Mistake {
    json config, changes;
    const char* text;
  };
  const Mistake mistakes[] = {
      {neox(), {{"model_type", "gpt2"}}, "model_type \"gpt2\""},
      {neox(), {{"vocab_size", "many"}}, "\"vocab_size\" is \"many\"; expected an integer"},
      {neox(), {{"vocab_size", 0}}, "vocabulary 0"},
      {neox(), {{"num_attention_heads", 0}}, "num_attention_heads is 0"},
      {neox(), {{"num_attention_heads", 5}}, "hidden_size 64 is not a multiple of num_attention_heads 5"},
      {neox(), {{"rotary_pct", 1.5}}, "rotary_pct is 1.5"},
      {neox(), {{"hidden_act", "relu"}}, "hidden_act \"relu\""},
      {neox(), {{"attention_type", "linear"}}, "attention_type \"linear\" is unknown"},
      {neox(),
       {{"attention_type", "coca-strict"}, {"rotary_pct", 0.5}, {"coca_fold", "official"}},
       "official fold"},
      {neox(), {{"coca_fold", "odd"}, {"attention_type", "coca-slack"}}, "coca_fold \"odd\""},
      {neox(), {{"rotary_pct", 0.0}}, "needs rotary dims"},
      {neox(), {{"max_position_embeddings", 0}}, "max_position_embeddings 0"},
      {neox(), {{"bos_token_id", 100}}, "bos_token_id 100"},
      {neox(), {{"eos_token_id", -1}}, "eos_token_id -1"},
      {llama(), {{"num_key_value_heads", 3}}, "4 heads are not a multiple of 3"},
      {llama(), {{"mlp_bias", true}}, "mlp_bias"},
      {llama(), {{"hidden_act", "gelu"}}, "hidden_act \"gelu\""},
      {llama(), {{"head_dim", 15}}, "15 must be even"},
      {llama(), {{"tie_word_embeddings", 1}}, "\"tie_word_embeddings\" is 1; expected true or false"},
      {llama(), {{"rope_scaling", {{"type", "yarn"}, {"factor", 4}}}}, "rope_scaling type \"yarn\""},
      {llama(), {{"rope_scaling", {{"type", "linear"}}}}, "needs a factor"},
      {llama(), {{"rope_scaling", {{"type", "linear"}, {"factor", 0.5}}}}, "factor is 0.5"},
      {llama(), {{"rope_scaling", "dynamic"}}, "expected a JSON object"},
  };
  for (const Mistake& mistake : mistakes) {
    try {
      read(mistake.config, mistake.changes);
      ADD_FAILURE() << "accepted: " << mistake.text;
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), ErrorKind::kBadFile) << mistake.text;
      EXPECT_THAT(error.what(), AllOf(HasSubstr("here.json"), HasSubstr(mistake.text)));
    }
  }
  for (const char* field :
       {"vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads"}) {
    json config = neox();
    config.erase(field);
    EXPECT_THAT([&] { spec_from_json(config, "here.json"); },
                testing::ThrowsMessage<Error>(HasSubstr(std::string("field \"") + field + "\" is missing")));
  }
  EXPECT_THAT([] { spec_from_json(json::array(), "here.json"); },
              testing::ThrowsMessage<Error>(HasSubstr("expected a JSON object")));
}

TEST(Config, OfficialConfigsAreRead) {
  for (const char* name : {"gpt_neox_coca", "gpt_neox_coca_sequential", "llama_coca_gqa"}) {
    const std::filesystem::path dir = test::golden_dir() / name;
    COCA_SKIP_WITHOUT(dir);
    const ModelSpec spec = load_spec(dir);
    EXPECT_EQ(spec.attention, AttentionKind::kCocaSlack) << name;
    EXPECT_EQ(spec.V, 131) << name;
  }
}

TEST(Config, FoldersThatAreNoModelsAreNamed) {
  const test::TempDir dir;
  EXPECT_THAT([&] { load_spec(dir.path() / "nowhere"); },
              testing::ThrowsMessage<Error>(HasSubstr("does not exist")));
  EXPECT_THAT([&] { load_spec(dir.path()); }, testing::ThrowsMessage<Error>(HasSubstr("no config.json")));
}

}  // namespace
}  // namespace coca::model
