// SPDX-License-Identifier: Apache-2.0
#include "coca/model/config.h"

#include <string>

namespace coca::model {

using nlohmann::json;

namespace {

// Reads fields of one object; errors name the file, the field, what was found and what was expected.
class Fields {
 public:
  Fields(const json& object, std::string_view origin) : object_(object), origin_(origin) {
    COCA_CHECK_AS(kBadFile, object.is_object(), "{}: expected a JSON object, found {}", origin, object.type_name());
  }
  bool has(const char* key) const { return object_.contains(key) && !object_.at(key).is_null(); }
  int64_t integer(const char* key) const { return number_at(key, &json::is_number_integer, "an integer").get<int64_t>(); }
  int64_t integer(const char* key, int64_t otherwise) const { return has(key) ? integer(key) : otherwise; }
  double number(const char* key, double otherwise) const {
    return has(key) ? number_at(key, &json::is_number, "a number").get<double>() : otherwise;
  }
  bool boolean(const char* key, bool otherwise) const {
    return has(key) ? number_at(key, &json::is_boolean, "true or false").get<bool>() : otherwise;
  }
  std::string text(const char* key, std::string otherwise) const {
    return has(key) ? number_at(key, &json::is_string, "a string").get<std::string>() : std::move(otherwise);
  }
  std::optional<int64_t> optional_id(const char* key) const {
    if (!has(key)) return std::nullopt;
    const json& value = object_.at(key);  // LLaMA 3 lists several eos ids; the first ends a document
    if (value.is_array() && !value.empty() && value[0].is_number_integer()) return value[0].get<int64_t>();
    return integer(key);
  }
  const json& raw(const char* key) const { return object_.at(key); }
  std::string_view origin() const { return origin_; }

 private:
  const json& number_at(const char* key, bool (json::*is)() const noexcept, const char* expected) const {
    COCA_CHECK_AS(kBadFile, object_.contains(key), "{}: field \"{}\" is missing", origin_, key);
    const json& value = object_.at(key);
    COCA_CHECK_AS(kBadFile, (value.*is)(), "{}: field \"{}\" is {}; expected {}", origin_, key, value.dump(), expected);
    return value;
  }

  const json& object_;
  std::string_view origin_;
};

void read_attention(const Fields& f, ModelSpec& s) {
  const std::string kind = f.text("attention_type", "rope");
  if (kind == "coca") {
    s.attention = AttentionKind::kCocaSlack;
    s.fold = ops::Fold::kOfficial;
    return;
  }
  bool known = false;
  for (const auto& entry : EnumTraits<AttentionKind>::names()) known = known || entry.name == kind;
  COCA_CHECK_AS(kBadFile, known, "{}: attention_type \"{}\" is unknown; expected coca, {}", f.origin(), kind,
                enum_choices<AttentionKind>());
  s.attention = enum_from_name<AttentionKind>(kind);
  const std::string fold = f.text("coca_fold", "rotary");
  COCA_CHECK_AS(kBadFile, fold == "rotary" || fold == "official", "{}: coca_fold \"{}\" is unknown; expected rotary or official",
                f.origin(), fold);
  s.fold = fold == "official" ? ops::Fold::kOfficial : ops::Fold::kRotary;
}

void read_common(const Fields& f, ModelSpec& s) {
  s.V = f.integer("vocab_size");
  s.C = f.integer("hidden_size");
  s.L = f.integer("num_hidden_layers");
  s.H = f.integer("num_attention_heads");
  s.F = f.integer("intermediate_size");
  COCA_CHECK_AS(kBadFile, s.H >= 1, "{}: num_attention_heads is {}; expected at least 1", f.origin(), s.H);
  if (f.has("head_dim")) {
    s.D = f.integer("head_dim");
  } else {
    COCA_CHECK_AS(kBadFile, s.C % s.H == 0, "{}: hidden_size {} is not a multiple of num_attention_heads {}", f.origin(), s.C, s.H);
    s.D = s.C / s.H;
  }
  s.max_position = f.integer("max_position_embeddings", 2048);
  s.init_std = f.number("initializer_range", 0.02);
  s.bos_id = f.optional_id("bos_token_id");
  s.eos_id = f.optional_id("eos_token_id");
  if (f.has("rope_scaling")) s.rope_scaling = rope_scaling_from_json(f.raw("rope_scaling"), f.origin());
  read_attention(f, s);
}

Mlp gelu_from(const Fields& f, const std::string& act) {
  if (act == "gelu") return Mlp::kGelu;
  if (act == "gelu_new" || act == "gelu_fast" || act == "gelu_pytorch_tanh") return Mlp::kGeluTanh;
  fail(ErrorKind::kBadFile, "{}: hidden_act \"{}\" is not supported; expected gelu, gelu_new, gelu_fast or gelu_pytorch_tanh",
       f.origin(), act);
}

ModelSpec read_gpt_neox(const Fields& f) {
  ModelSpec s;
  s.architecture = Architecture::kGptNeoX;
  s.norm = ops::NormKind::kLayerNorm;
  s.qkv = Qkv::kFused;
  s.attention_bias = f.boolean("attention_bias", true) ? Bias::kYes : Bias::kNone;
  s.mlp_bias = Bias::kYes;
  read_common(f, s);
  s.G = s.H;
  const double rotary_pct = f.number("rotary_pct", 0.25);
  COCA_CHECK_AS(kBadFile, rotary_pct >= 0 && rotary_pct <= 1, "{}: rotary_pct is {}; expected 0 to 1", f.origin(), rotary_pct);
  s.R = static_cast<int64_t>(static_cast<double>(s.D) * rotary_pct + 1e-6);  // 6/34 * 34 must be 6
  s.rope_theta = f.number("rotary_emb_base", f.number("rope_theta", 10000.0));
  s.norm_eps = f.number("layer_norm_eps", 1e-5);
  s.residual = f.boolean("use_parallel_residual", true) ? ResidualKind::kParallel : ResidualKind::kSequential;
  s.embeddings = f.boolean("tie_word_embeddings", false) ? Embeddings::kTied : Embeddings::kUntied;
  s.mlp = gelu_from(f, f.text("hidden_act", "gelu"));
  return s;
}

ModelSpec read_llama(const Fields& f) {
  ModelSpec s;
  s.architecture = Architecture::kLlama;
  s.norm = ops::NormKind::kRmsNorm;
  s.qkv = Qkv::kSeparate;
  s.residual = ResidualKind::kSequential;
  s.attention_bias = f.boolean("attention_bias", false) ? Bias::kYes : Bias::kNone;
  COCA_CHECK_AS(kBadFile, !f.boolean("mlp_bias", false), "{}: mlp_bias true is not supported", f.origin());
  s.mlp_bias = Bias::kNone;
  read_common(f, s);
  s.G = f.integer("num_key_value_heads", s.H);
  s.R = s.D;
  s.rope_theta = f.number("rope_theta", 10000.0);
  s.norm_eps = f.number("rms_norm_eps", 1e-6);
  s.embeddings = f.boolean("tie_word_embeddings", false) ? Embeddings::kTied : Embeddings::kUntied;
  const std::string act = f.text("hidden_act", "silu");
  COCA_CHECK_AS(kBadFile, act == "silu" || act == "swish", "{}: hidden_act \"{}\" is not supported for llama; expected silu",
                f.origin(), act);
  s.mlp = Mlp::kSwiGlu;
  return s;
}

}  // namespace

RopeScaling rope_scaling_from_json(const json& value, std::string_view origin) {
  if (value.is_null()) return {};
  const Fields f(value, origin);
  const std::string type = f.text("rope_type", f.text("type", ""));
  if (type == "default") return {};
  COCA_CHECK_AS(kBadFile, type == "linear" || type == "dynamic", "{}: rope_scaling type \"{}\" is not supported; expected linear or dynamic",
                origin, type);
  COCA_CHECK_AS(kBadFile, f.has("factor"), "{}: rope_scaling of type {} needs a factor", origin, type);
  RopeScaling scaling{type == "linear" ? Scaling::kLinear : Scaling::kDynamic, f.number("factor", 1.0)};
  COCA_CHECK_AS(kBadFile, scaling.factor >= 1.0, "{}: rope_scaling factor is {}; expected at least 1", origin, scaling.factor);
  return scaling;
}

ModelSpec spec_from_json(const json& config, std::string_view origin) {
  const Fields f(config, origin);
  const std::string type = f.text("model_type", "");
  COCA_CHECK_AS(kBadFile, type == "gpt_neox" || type == "llama", "{}: model_type \"{}\" is not supported; expected gpt_neox or llama",
                origin, type);
  const ModelSpec spec = type == "gpt_neox" ? read_gpt_neox(f) : read_llama(f);
  try {
    validate(spec);
  } catch (const Error& error) {
    fail(ErrorKind::kBadFile, "{}: {}", origin, error.what());
  }
  return spec;
}

nlohmann::ordered_json spec_to_json(const ModelSpec& s, Precision precision) {
  nlohmann::ordered_json c;
  const bool neox = s.architecture == Architecture::kGptNeoX;
  c["architectures"] = {neox ? "GPTNeoXForCausalLM" : "LlamaForCausalLM"};
  c["model_type"] = neox ? "gpt_neox" : "llama";
  c["torch_dtype"] = precision == Precision::kBF16 ? "bfloat16" : "float32";
  c["attention_type"] = std::string(enum_name(s.attention));
  if (is_coca(s.attention) && s.R != s.D) c["coca_fold"] = s.fold == ops::Fold::kOfficial ? "official" : "rotary";
  c["vocab_size"] = s.V;
  c["hidden_size"] = s.C;
  c["intermediate_size"] = s.F;
  c["num_hidden_layers"] = s.L;
  c["num_attention_heads"] = s.H;
  if (s.D * s.H != s.C) c["head_dim"] = s.D;
  c["max_position_embeddings"] = s.max_position;
  c["initializer_range"] = s.init_std;
  c["tie_word_embeddings"] = s.embeddings == Embeddings::kTied;
  c["attention_bias"] = s.attention_bias == Bias::kYes;
  if (s.rope_scaling.type == Scaling::kNone) {
    c["rope_scaling"] = nullptr;
  } else {
    c["rope_scaling"] = {{"type", std::string(enum_name(s.rope_scaling.type))}, {"factor", s.rope_scaling.factor}};
  }
  if (neox) {
    c["rotary_pct"] = static_cast<double>(s.R) / static_cast<double>(s.D);
    c["rotary_emb_base"] = s.rope_theta;
    c["layer_norm_eps"] = s.norm_eps;
    c["use_parallel_residual"] = s.residual == ResidualKind::kParallel;
    c["hidden_act"] = s.mlp == Mlp::kGelu ? "gelu" : "gelu_new";
  } else {
    c["num_key_value_heads"] = s.G;
    c["rope_theta"] = s.rope_theta;
    c["rms_norm_eps"] = s.norm_eps;
    c["hidden_act"] = "silu";
  }
  if (s.bos_id) c["bos_token_id"] = *s.bos_id;
  if (s.eos_id) c["eos_token_id"] = *s.eos_id;
  return c;
}

}  // namespace coca::model
