// SPDX-License-Identifier: Apache-2.0
#include "coca/formats/config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "coca/formats/model_folder.h"
#include "support/faults.h"
#include "support/paths.h"
#include "support/tiny_model.h"

namespace coca::formats::config_test {
namespace {

using namespace model;
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
  for (const auto member : {&ModelSpec::V, &ModelSpec::C, &ModelSpec::F, &ModelSpec::L, &ModelSpec::H, &ModelSpec::G,
                            &ModelSpec::D, &ModelSpec::R, &ModelSpec::max_position})
    EXPECT_EQ(a.*member, b.*member);
  EXPECT_EQ(a.rope_theta, b.rope_theta);
  EXPECT_EQ(a.rope_scaling, b.rope_scaling);
  EXPECT_EQ(a.norm_eps, b.norm_eps);
  EXPECT_EQ(a.init_std, b.init_std);
  EXPECT_EQ(a.bos_id, b.bos_id);
  EXPECT_EQ(a.eos_ids, b.eos_ids);
  EXPECT_EQ(a.output_bias, b.output_bias);
  EXPECT_EQ(a.head_norm, b.head_norm);
  EXPECT_EQ(a.t_width, b.t_width);
  EXPECT_EQ(a.modifiers, b.modifiers);
  EXPECT_EQ(a.magnitude, b.magnitude);
  EXPECT_EQ(a.content, b.content);
  EXPECT_EQ(a.rope_layers, b.rope_layers);
  EXPECT_EQ(a.layer_window, b.layer_window);
  EXPECT_EQ(a.dilation, b.dilation);
  EXPECT_EQ(a.global_tokens, b.global_tokens);
  EXPECT_EQ(a.direction, b.direction);
}

// Sets every number that the type uses to a value other than its default.
RopeScaling full_scaling(Scaling type, int64_t pairs) {
  RopeScaling r = test::tiny_scaling(type, pairs);
  const bool yarn = type == Scaling::kYarn || type == Scaling::kYarnPaper;
  if (yarn || type == Scaling::kLlama3 || type == Scaling::kLongRope || type == Scaling::kClex)
    r.original_max_position = 5;
  if (type == Scaling::kClex) {
    r.factor = 1;
    r.max_factor = 5;
    r.param_factor = 3;
    r.activation = ClexActivation::kSilu;
    r.time_step = 0.125;
  }
  if (type == Scaling::kLlama3) {
    r.low_freq_factor = 2;
    r.high_freq_factor = 9;
  }
  if (yarn) {
    r.borders = YarnBorders::kFractional;
    r.mscale = 0.7;
    r.mscale_all_dim = 0.9;
  }
  if (yarn || type == Scaling::kLongRope) r.attention_factor = 1.25;
  return r;
}

TEST(Config, EverySpecRoundTrips) {
  for (const test::NamedSpec& named : test::all_specs()) {
    SCOPED_TRACE(named.name);
    ModelSpec s = named.spec;
    for (const auto& entry : EnumTraits<Scaling>::names()) {
      if (!uses_rotary(s.attention) && entry.value != Scaling::kNone) continue;
      if (uses_xpos(s.attention) && entry.value == Scaling::kClex) continue;
      if (model::has_stage(s, model::Stage::kQueries) && entry.value == Scaling::kClex) continue;
      const RopeScaling scaling = full_scaling(entry.value, s.R / 2);
      s.rope_scaling = scaling;
      s.rope_theta = 12345.678;
      s.norm_eps = 3e-7;
      s.bos_id = 3;
      s.eos_ids = scaling.type == Scaling::kLinear ? std::vector<int64_t>{} : std::vector<int64_t>{0, 4};
      expect_equal(spec_from_json(json::parse(spec_to_json(s).dump()), "config.json"), s);
    }
  }
}

// Windows are written in Hugging Face's fields where these can express them, and otherwise as a list.
TEST(Config, WindowsRoundTripInEveryArchitecture) {
  for (const Architecture architecture : {Architecture::kGptNeoX, Architecture::kLlama, Architecture::kMistral,
                                          Architecture::kQwen2, Architecture::kQwen3})
    for (const std::vector<int64_t>& windows : {std::vector<int64_t>{5, 5}, {0, 5}, {5, 7}, {}}) {
      ModelSpec s = architecture == Architecture::kGptNeoX ? test::tiny_neox(AttentionKind::kCocaStrict)
                    : architecture == Architecture::kQwen3 ? test::tiny_qwen3(AttentionKind::kCocaStrict)
                                                           : test::tiny_llama(AttentionKind::kCocaStrict);
      s.architecture = architecture;
      if (architecture == Architecture::kQwen2) s.attention_bias = Bias::kYes;
      s.layer_window = windows;
      if (windows == std::vector<int64_t>{5, 7} && s.H == 4) s.dilation = {1, 1, 2, 2, 3, 3, 1, 1};
      if (architecture != Architecture::kQwen3) s.global_tokens = 3;
      s.direction = windows.empty() ? Direction::kBidirectional : Direction::kCausal;
      const json written = json::parse(spec_to_json(s).dump());
      SCOPED_TRACE(written.dump());
      expect_equal(spec_from_json(written, "config.json"), s);
      const bool qwen = architecture == Architecture::kQwen2 || architecture == Architecture::kQwen3;
      const bool said = windows.empty() || (architecture == Architecture::kMistral && windows[0] == windows[1]) ||
                        (qwen && windows[1] == 5);
      EXPECT_EQ(written.contains("layer_window"), !said);
    }
}

// A head dim other than width / heads, and rotary fractions that floating point would round down.
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
json qwen2() {
  json config = llama();
  config["model_type"] = "qwen2";
  return config;
}
ModelSpec read(json config, const json& changes = {}) {
  config.update(changes.is_null() ? json::object() : changes);
  return spec_from_json(config, "here.json");
}

TEST(Config, ContradictoryWindowsAreNamed) {
  const auto error = [](json config, const json& changes, const char* text) {
    EXPECT_THAT([&] { read(config, changes); }, testing::ThrowsMessage<Error>(HasSubstr(text)));
  };
  json mistral = llama();
  mistral["model_type"] = "mistral";
  error(mistral, {{"sliding_window", 7}, {"layer_window", {7, 7}}},
        "layer_window names the layers' windows, and sliding_window does too");
  error(llama(), {{"layer_window", {7}}}, "sliding windows are given for 1 layer, the model has 2");
  error(llama(), {{"layer_window", {7, "x"}}}, "field \"layer_window\" holds \"x\"; expected integers");
  error(llama(), {{"layer_window", {7, 7}}, {"layer_dilation", {{1, 1, 1, 1}}}},
        "dilation is given for 4 heads, the model has 8");
  error(llama(), {{"direction", "sideways"}}, "direction \"sideways\" is unknown; expected causal, bidirectional");
  error(llama(), {{"global_tokens", -1}}, "global tokens -1");
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
  EXPECT_EQ(read(quarter).R, 4);  // a quarter of the head dim
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

TEST(Config, AlternativeNamesOfFields) {
  EXPECT_EQ(read(neox(), {{"attention_type", "coca"}, {"rotary_pct", 0.5}}).fold, ops::Fold::kOfficial);
  EXPECT_EQ(read(neox(), {{"attention_type", "coca"}}).attention, AttentionKind::kCocaSlack);
  EXPECT_EQ(read(neox(), {{"rotary_emb_base", 500.0}}).rope_theta, 500.0);
  EXPECT_EQ(read(neox(), {{"rope_theta", 600.0}}).rope_theta, 600.0);
  EXPECT_EQ(read(neox(), {{"hidden_act", "gelu_new"}}).mlp, Mlp::kGeluTanh);
  EXPECT_EQ(read(llama(), {{"eos_token_id", {5, 7}}}).eos_ids, (std::vector<int64_t>{5, 7}));
  EXPECT_EQ(read(llama(), {{"bos_token_id", nullptr}}).bos_id, std::nullopt);
  EXPECT_EQ(read(llama(), {{"head_dim", 20}}).D, 20);
  for (const json& nothing : {json(nullptr), json(false), json(""), json::array(), json::object()})
    EXPECT_EQ(read(llama(), {{"some_new_field", nothing}}).V, 100);  // an empty value has no effect
  EXPECT_EQ(read(llama(), {{"transformers_version", "4.30"}, {"_attn_implementation", "sdpa"}, {"pad_token_id", 3}}).V,
            100);
  for (const char* key : {"type", "rope_type"}) {
    EXPECT_EQ(read(llama(), {{"rope_scaling", {{key, "dynamic"}, {"factor", 4}}}}).rope_scaling,
              (RopeScaling{Scaling::kDynamic, 4.0}));
    EXPECT_EQ(read(llama(), {{"rope_scaling", {{key, "default"}}}}).rope_scaling, RopeScaling{});
  }
}

// Defaults must match those of Hugging Face's classes.
TEST(Config, FamiliesOfLlama) {
  const ModelSpec llama_bias = read(llama(), {{"attention_bias", true}, {"mlp_bias", true}});
  EXPECT_EQ(llama_bias.output_bias, Bias::kYes);
  EXPECT_EQ(llama_bias.mlp_bias, Bias::kYes);
  const ModelSpec q2 = read(qwen2());
  EXPECT_EQ(q2.attention_bias, Bias::kYes);
  EXPECT_EQ(q2.output_bias, Bias::kNone);
  EXPECT_EQ(q2.max_position, 32768);
  EXPECT_TRUE(q2.layer_window.empty());
  EXPECT_TRUE(read(qwen2(), {{"sliding_window", 64}, {"max_window_layers", 0}}).layer_window.empty());
  EXPECT_EQ(
      read(qwen2(), {{"use_sliding_window", true}, {"sliding_window", 64}, {"max_window_layers", 1}}).layer_window,
      (std::vector<int64_t>{0, 64}));
  EXPECT_EQ(read(qwen2(), {{"use_sliding_window", true},
                           {"sliding_window", 64},
                           {"layer_types", {"sliding_attention", "full_attention"}}})
                .layer_window,
            (std::vector<int64_t>{64, 0}));
  const ModelSpec q3 = read(qwen2(), {{"model_type", "qwen3"}});
  EXPECT_EQ(q3.head_norm, HeadNorm::kRms);
  EXPECT_EQ(q3.D, 128);
  EXPECT_EQ(q3.R, 128);
  EXPECT_EQ(q3.attention_bias, Bias::kNone);
  json mistral = llama();
  mistral["model_type"] = "mistral";
  EXPECT_EQ(read(mistral).layer_window, (std::vector<int64_t>{4096, 4096}));
  EXPECT_TRUE(read(mistral, {{"sliding_window", nullptr}}).layer_window.empty());
  EXPECT_EQ(read(mistral, {{"sliding_window", 7}}).layer_window, (std::vector<int64_t>{7, 7}));
}

// transformers 4 and 5 write the same positions in two different ways.
TEST(Config, BothFormsOfRope) {
  const json llama3 = {{"rope_type", "llama3"},
                       {"factor", 8.0},
                       {"low_freq_factor", 1.0},
                       {"high_freq_factor", 4.0},
                       {"original_max_position_embeddings", 64}};
  json v5 = llama3;
  v5["rope_theta"] = 500000.0;
  const ModelSpec a = read(llama(), {{"rope_theta", 500000.0}, {"rope_scaling", llama3}}),
                  b = read(llama(), {{"rope_parameters", v5}});
  const RopeScaling expected{
      .type = Scaling::kLlama3, .factor = 8, .original_max_position = 64, .low_freq_factor = 1, .high_freq_factor = 4};
  for (const ModelSpec& spec : {a, b}) {
    EXPECT_EQ(spec.rope_theta, 500000.0);
    EXPECT_EQ(spec.rope_scaling, expected);
  }
  EXPECT_EQ(read(llama(), {{"rope_parameters", {{"rope_type", "default"}, {"rope_theta", 700.0}}}}).rope_theta, 700.0);
  json n = neox();
  n.erase("rotary_pct");
  const ModelSpec neox5 =
      read(n, {{"rope_parameters",
                {{"rope_type", "dynamic"}, {"factor", 2.0}, {"rope_theta", 600.0}, {"partial_rotary_factor", 0.5}}}});
  EXPECT_EQ(neox5.R, 8);
  EXPECT_EQ(neox5.rope_theta, 600.0);
  EXPECT_EQ(neox5.rope_scaling, (RopeScaling{Scaling::kDynamic, 2.0}));
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
      {neox(), {{"vocab_size", 0}}, "\"vocab_size\" is 0; expected at least 1"},
      {neox(), {{"hidden_size", -64}}, "\"hidden_size\" is -64; expected at least 1"},
      {neox(), {{"intermediate_size", 0}}, "\"intermediate_size\" is 0; expected at least 1"},
      {neox(), {{"rotary_emb_base", 0}}, "\"rotary_emb_base\" is 0; expected 1 to 1e+15"},
      {neox(), {{"rotary_emb_base", 1e308}}, "\"rotary_emb_base\" is 1e+308; expected 1 to 1e+15"},
      {neox(), {{"layer_norm_eps", 1e308}}, "\"layer_norm_eps\" is 1e+308; expected 0 to 1"},
      {neox(), {{"layer_norm_eps", -1e-5}}, "\"layer_norm_eps\" is -1e-05; expected 0 to 1"},
      {neox(), {{"initializer_range", 1e20}}, "\"initializer_range\" is 1e+20; expected 0 to 1e+06"},
      {neox(), {{"rotary_pct", 1e-320}}, "which rotates 0 of the 16 dims of a head; expected at least 2, and an even"},
      {neox(), {{"rotary_pct", 0.2}}, "field \"rotary_pct\" is 0.2, which rotates 3 of the 16 dims of a head"},
      {llama(), {{"num_key_value_heads", 0}}, "\"num_key_value_heads\" is 0; expected at least 1"},
      {llama(), {{"head_dim", 0}}, "\"head_dim\" is 0; expected at least 1"},
      {llama(), {{"rope_theta", 1e-320}}, "expected 1 to 1e+15"},
      {llama(), {{"rms_norm_eps", 1e308}}, "\"rms_norm_eps\" is 1e+308; expected 0 to 1"},
      {llama(),
       {{"rope_parameters", {{"rope_type", "default"}, {"rope_theta", 1e308}}}},
       "\"rope_parameters.rope_theta\" is 1e+308; expected 1 to 1e+15"},
      {llama(),
       {{"rope_scaling", {{"type", "dynamic"}, {"factor", 1e308}}}},
       "\"rope_scaling.factor\" is 1e+308; expected 1 to 1e+06"},
      {llama(),
       {{"rope_scaling", {{"rope_type", "yarn"}, {"factor", 2}, {"attention_factor", 1e308}}}},
       "rope scaling yarn has attention_factor 1e+308; expected 1e-06 to 1e6"},
      {neox(), {{"num_attention_heads", 0}}, "\"num_attention_heads\" is 0; expected at least 1"},
      {neox(), {{"num_attention_heads", 5}}, "hidden_size 64 is not a multiple of num_attention_heads 5"},
      {neox(), {{"rotary_pct", 1.5}}, "rotates (rotary_pct, partial_rotary_factor) is 1.5"},
      {neox(), {{"hidden_act", "relu"}}, "hidden_act \"relu\""},
      {neox(), {{"attention_type", "linear"}}, "attention_type \"linear\" is unknown"},
      {neox(), {{"attention_type", "coca-strict"}, {"rotary_pct", 0.5}, {"coca_fold", "official"}}, "official fold"},
      {neox(), {{"coca_fold", "odd"}, {"attention_type", "coca-slack"}}, "coca_fold \"odd\""},
      {neox(), {{"rotary_pct", 0.0}}, "field \"rotary_pct\" is 0, which rotates 0 of the 16 dims"},
      {neox(), {{"max_position_embeddings", 0}}, "\"max_position_embeddings\" is 0; expected at least 1"},
      {neox(), {{"max_position_embeddings", int64_t{1} << 62}}, "max_position_embeddings 4611686018427387904; at most"},
      {neox(), {{"bos_token_id", 100}}, "bos_token_id 100"},
      {neox(), {{"eos_token_id", -1}}, "eos_token_id -1"},
      {llama(), {{"num_key_value_heads", 3}}, "4 heads are not a multiple of 3"},
      {llama(), {{"some_new_field", 1}}, "field \"some_new_field\" (1) is unknown and may change"},
      {llama(), {{"rope_interleaved", true}}, "field \"rope_interleaved\" (true) is unknown"},
      {llama(), {{"layer_types", {"full_attention", "sliding_attention"}}}, "layer_types"},
      {llama(), {{"embedding_multiplier", 12.0}}, "embedding_multiplier"},
      {llama(), {{"activation", "gelu"}}, "\"activation\" (\"gelu\")"},
      {llama(), {{"n_layer", 9}}, "field \"n_layer\" is 9; expected 2, as num_hidden_layers says"},
      {neox(), {{"activation", "swiglu"}}, "\"activation\" (\"swiglu\")"},
      {llama(), {{"quantization_config", {{"bits", 4}}}}, "quantization_config"},
      {llama(), {{"partial_rotary_factor", 0.5}}, "partial_rotary_factor"},
      {llama(),
       {{"rope_parameters", {{"full_attention", {{"rope_type", "default"}}}}}},
       "rope_parameters.full_attention"},
      {llama(), {{"rope_scaling", {{"type", "linear"}, {"factor", 2}, {"odd", 1}}}}, "rope_scaling.odd"},
      {llama(),
       {{"rope_scaling", {{"rope_type", "llama3"}, {"factor", 2}}}},
       "rope_scaling.low_freq_factor\" is missing"},
      {llama(),
       {{"rope_scaling", {{"rope_type", "llama3"}, {"factor", 2}, {"low_freq_factor", 4}, {"high_freq_factor", 1}}}},
       "llama3 needs"},
      {llama(), {{"eos_token_id", {1, "two"}}}, "eos_token_id"},
      {llama(), {{"num_hidden_layers", 1000000000}}, "num_hidden_layers is 1000000000"},
      {qwen2(), {{"layer_types", {"full_attention"}}}, "layer_types names 1 layer"},
      {qwen2(), {{"layer_types", {"full_attention", "linear_attention"}}}, "layer type \"linear_attention\""},
      {qwen2(), {{"layer_types", {"full_attention", "sliding_attention"}}}, "use_sliding_window is not true"},
      {qwen2(), {{"use_sliding_window", true}, {"max_window_layers", 0}, {"sliding_window", -1}}, "sliding window -1"},
      {llama(), {{"hidden_act", "gelu"}}, "hidden_act \"gelu\""},
      {llama(), {{"head_dim", 15}}, "15 must be even"},
      {llama(), {{"tie_word_embeddings", 1}}, "\"tie_word_embeddings\" is 1; expected true or false"},
      {llama(), {{"rope_scaling", {{"type", "ntk-by-parts"}, {"factor", 4}}}}, "rope_scaling type \"ntk-by-parts\""},
      {llama(), {{"rope_scaling", {{"type", "linear"}}}}, "needs a factor"},
      {llama(),
       {{"rope_scaling", {{"type", "linear"}, {"factor", 0.5}}}},
       "\"rope_scaling.factor\" is 0.5; expected 1 to"},
      {llama(), {{"rope_scaling", "dynamic"}}, "expected a JSON object"},
      {llama(), {{"add_cross_attention", true}}, "add_cross_attention"},
      {llama(), {{"is_encoder_decoder", true}}, "is_encoder_decoder is true"},
      {llama(), {{"pruned_heads", {{"1", {0, 2}}}}}, "pruned_heads"},
      {llama(), {{"cross_attention_hidden_size", 64}}, "cross_attention_hidden_size"},
      {llama(), {{"logit_scale", 0}}, "\"logit_scale\" is 0"},
      {llama(), {{"qk_scale", 0.0}}, "\"qk_scale\" is 0.0"},
      {llama(), {{"gated_mlp", false}}, "\"gated_mlp\" is false"},
      {neox(), {{"gpt_j_residual", false}}, "\"gpt_j_residual\" is false"},
      {neox(),
       {{"rotary_pct", 0.25}, {"partial_rotary_factor", 0.5}},
       "rotary_pct is 0.25 and partial_rotary_factor is 0.5"},
      {neox(),
       {{"rotary_pct", 0.25}, {"rope_parameters", {{"rope_type", "default"}, {"partial_rotary_factor", 0.5}}}},
       "rotary_pct is 0.25 and rope_parameters.partial_rotary_factor is 0.5"},
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

// Fields of published files that do not affect the logits. Unknown fields that are off are named in one note.
TEST(Config, HarmlessFieldsPass) {
  const test::Warnings notes;
  const json harmless = {{"is_llama_config", true},
                         {"transformers.js_config", {{"dtype", "q4"}}},
                         {"unsloth_fixed", true},
                         {"unsloth_version", "2025.1"},
                         {"attention_probs_dropout_prob", 0},
                         {"hidden_dropout_prob", 0.1},
                         {"embedding_dropout", 0.1},
                         {"cache_implementation", "hybrid"},
                         {"neftune_noise_alpha", 5},
                         {"initializer_factor", 1.0},
                         {"custom_pipelines", {{"text-generation", {{"impl", "a.B"}}}}},
                         {"num_steps", "global_step301000"},
                         {"n_positions", 2048},
                         {"model_max_length", 4096},
                         {"use_flash_attn", "auto"},
                         {"n_embd", 64},
                         {"n_layer", 2},
                         {"activation", "swiglu"},
                         {"embedding_multiplier", 1.0},
                         {"_name_or_path", "a/b"},
                         {"bf16", true},
                         {"keys_to_ignore_at_inference", {"past_key_values"}},
                         {"tensor_parallel_size", 2},
                         {"is_causal", true},
                         {"max_window_layers", 28},
                         {"pruned_heads", json::object()},
                         {"add_cross_attention", false},
                         {"cross_attention_hidden_size", nullptr},
                         {"rope_interleaved", false},
                         {"layer_types", {"full_attention", "full_attention"}}};
  expect_equal(read(llama(), harmless), read(llama(), json::object()));
  EXPECT_THAT(notes.texts(), testing::IsEmpty());
  const json off = {{"odd_flag", false}, {"odd_cap", 0.0}, {"odd_list", json::array()}, {"odd_null", nullptr}};
  for (int time = 0; time < 2; ++time) expect_equal(read(llama(), off), read(llama(), json::object()));
  EXPECT_THAT(notes.texts(), testing::ElementsAre(AllOf(HasSubstr("here.json"), HasSubstr("\"odd_flag\" (false)"),
                                                        HasSubstr("\"odd_cap\" (0.0)"), HasSubstr("\"odd_list\" ([])"),
                                                        HasSubstr("\"odd_null\" (null)"))));
}

// Features that are always on: a file that turns one off describes another model, "true" changes nothing.
TEST(Config, PartsThatAreAlwaysOnCannotBeTurnedOff) {
  const test::Warnings notes;
  for (const char* field : {"is_causal", "use_causal_mask", "scale_attn_weights", "scale_attention", "use_rope",
                            "use_rotary", "rotary", "do_layer_norm_before", "layer_norm_elementwise_affine"}) {
    EXPECT_THAT(
        [&] {
          read(llama(), {{field, false}});
        },
        testing::ThrowsMessage<Error>(
            AllOf(HasSubstr("here.json"), HasSubstr(std::string("field \"") + field + "\" is false"))));
    expect_equal(read(llama(), {{field, true}}), read(llama(), json::object()));
    expect_equal(read(llama(), {{field, nullptr}}), read(llama(), json::object()));
  }
  expect_equal(read(neox(), {{"gated_mlp", false}}), read(neox(), json::object()));  // it has no gate
  expect_equal(read(llama(), {{"scale_attn_by_inverse_layer_idx", false}}), read(llama(), json::object()));
  EXPECT_EQ(read(neox(), {{"rotary_pct", 0.5}, {"partial_rotary_factor", 0.5}}).R, 8);
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
  EXPECT_THAT([&] { load_spec(dir.path() / "nowhere"); }, testing::ThrowsMessage<Error>(HasSubstr("does not exist")));
  EXPECT_THAT([&] { load_spec(dir.path()); }, testing::ThrowsMessage<Error>(HasSubstr("no config.json")));
}

TEST(Config, TWidth) {
  json config = spec_to_json(test::half_t_specs().front().spec);
  EXPECT_EQ(spec_from_json(config, "c.json").t_width, TWidth::kHalf);
  config["coca_t_width"] = "third";
  EXPECT_THAT(
      [&] { spec_from_json(config, "c.json"); },
      testing::ThrowsMessage<Error>(AllOf(HasSubstr("c.json: coca_t_width \"third\""), HasSubstr("full, half"))));
  config["coca_t_width"] = "half";
  config["attention_type"] = "rope";
  EXPECT_THAT([&] { spec_from_json(config, "c.json"); },
              testing::ThrowsMessage<Error>(HasSubstr("attention \"rope\" has no t")));
}

}  // namespace
}  // namespace coca::formats::config_test
