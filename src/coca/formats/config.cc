// SPDX-License-Identifier: Apache-2.0
#include "coca/formats/config.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <string>
#include <tuple>

#include "coca/base/count.h"
#include "coca/formats/config_fields.h"
#include "coca/formats/harmless_fields.h"

namespace coca::formats {

using nlohmann::json;

namespace {

// One of an enum's names; Error with all of them.
template <typename E>
E read_name(const ConfigFields& f, const char* field, const char* otherwise) {
  const std::string found = f.text(field, otherwise);
  for (const auto& entry : EnumTraits<E>::names())
    if (entry.name == found) return entry.value;
  fail(ErrorKind::kBadFile, "{}: {} \"{}\" is unknown; expected {}", f.origin(), field, found,
       enum_choices_for<E>(found));
}

void read_modifiers(const ConfigFields& f, model::ModelSpec& s) {
  std::vector<const model::Modifier*> found;
  for (const std::string& name : f.texts("attention_modifiers")) {
    const auto& known = EnumTraits<const model::Modifier*>::names();
    const auto it = std::ranges::find(known, name, [](const auto& entry) { return entry.name; });
    COCA_CHECK_AS(kBadFile, it != known.end(), "{}: attention_modifiers names \"{}\", which is unknown; expected {}",
                  f.origin(), name, enum_choices_for<const model::Modifier*>(name));
    COCA_CHECK_AS(kBadFile, std::ranges::find(found, it->value) == found.end(),
                  "{}: attention_modifiers names \"{}\" twice", f.origin(), name);
    found.push_back(it->value);
  }
  s.modifiers = model::ordered(found);
}

void read_attention(const ConfigFields& f, model::ModelSpec& s) {
  read_modifiers(f, s);
  const std::string kind = f.text("attention_type", "rope"), fold = f.text("coca_fold", "rotary");
  s.t_width = read_name<model::TWidth>(f, "coca_t_width", "full");
  if (f.has("coca_magnitude")) s.magnitude = read_name<ops::Magnitude>(f, "coca_magnitude", "relu");
  s.content = f.integer("coca_content_dims", 0);
  if (kind == "coca") {
    s.attention = model::AttentionKind::kCocaSlack;
    s.fold = ops::Fold::kOfficial;
    return;
  }
  bool known = false;
  for (const auto& entry : EnumTraits<model::AttentionKind>::names()) known = known || entry.name == kind;
  COCA_CHECK_AS(kBadFile, known, "{}: attention_type \"{}\" is unknown; expected coca, {}", f.origin(), kind,
                enum_choices_for<model::AttentionKind>(kind));
  s.attention = enum_from_name<model::AttentionKind>(kind);
  COCA_CHECK_AS(kBadFile, fold == "rotary" || fold == "official",
                "{}: coca_fold \"{}\" is unknown; expected rotary or official", f.origin(), fold);
  s.fold = fold == "official" ? ops::Fold::kOfficial : ops::Fold::kRotary;
}

// v4: rope_theta beside "rope_scaling" {"type" or "rope_type", ...}. v5: everything in "rope_parameters". The names the
// architecture has for the base and the share that rotates come first in v4.
struct RopeFields {
  double theta = 10000.0, share = 1.0;
  const char* share_name = "rotary_pct";
  model::RopeScaling scaling;
};

RopeFields read_rope(const ConfigFields& f, const char* theta_name, double share, int64_t max_position) {
  RopeFields rope{.theta = f.number_like("rope_theta", theta_name, f.number_like("rope_theta", "rope_theta", 10000.0)),
                  .share = share,
                  .scaling = {}};
  const char* share_name = f.has("rotary_pct") ? "rotary_pct" : nullptr;
  const auto read_share = [&](const ConfigFields& fields, const char* where) {
    if (!fields.has("partial_rotary_factor")) return;
    const double value = fields.number("partial_rotary_factor");
    COCA_CHECK_AS(kBadFile, !share_name || value == rope.share,
                  "{}: {} is {} and {} is {}; they mean the same, so keep the right one", f.origin(), share_name,
                  rope.share, where, value);
    rope.share = value;
    share_name = where;
  };
  read_share(f, "partial_rotary_factor");
  const LengthsOfConfig lengths{.max_position = max_position,
                                .original = f.optional_id("original_max_position_embeddings")};
  const auto scaling = [&](const char* key) {
    rope.scaling = rope_scaling_from_json(f.raw(key), f.origin(), lengths, key);
  };
  const bool v4 = f.has("rope_scaling"), v5 = f.has("rope_parameters");
  COCA_CHECK_AS(kBadFile, !v4 || !v5, "{}: holds both \"rope_scaling\" and \"rope_parameters\"; keep the right one",
                f.origin());
  if (v4) scaling("rope_scaling");
  if (v4 || v5) {
    const ConfigFields nested(f.raw(v4 ? "rope_scaling" : "rope_parameters"), f.origin(),
                              v4 ? "rope_scaling." : "rope_parameters.");
    rope.theta = nested.number_like("rope_theta", "rope_theta", rope.theta);
    read_share(nested, v4 ? "rope_scaling.partial_rotary_factor" : "rope_parameters.partial_rotary_factor");
  }
  if (v5) scaling("rope_parameters");
  COCA_CHECK_AS(kBadFile, rope.share >= 0 && rope.share <= 1,
                "{}: the share of the head that rotates (rotary_pct, partial_rotary_factor) is {}; expected 0 to 1",
                f.origin(), rope.share);
  if (share_name) rope.share_name = share_name;
  return rope;
}

void apply_rope(const ConfigFields& f, const RopeFields& rope, model::ModelSpec& s) {
  s.rope_theta = rope.theta;
  s.rope_scaling = rope.scaling;
  const int64_t dims = s.plane_dims();
  s.R = static_cast<int64_t>(static_cast<double>(dims) * rope.share + 1e-6);  // 6/34 * 34 must be 6
  const bool rotates = model::transforms_keys(s.attention);
  COCA_CHECK_AS(kBadFile, dims % 2 != 0 || (s.R % 2 == 0 && (s.R >= 2 || !rotates)),
                "{}: field \"{}\" is {}, which rotates {} of the {} dims of a head; expected {}an even number",
                f.origin(), rope.share_name, rope.share, s.R, dims, rotates ? "at least 2, and " : "");
}

void read_common(const ConfigFields& f, model::ModelSpec& s) {
  COCA_CHECK_AS(kBadFile, !f.boolean("is_encoder_decoder", false), "{}: is_encoder_decoder is true; expected a decoder",
                f.origin());
  s.V = f.count("vocab_size");
  s.C = f.count("hidden_size");
  s.L = f.integer("num_hidden_layers");
  s.H = f.count("num_attention_heads");
  s.F = f.count("intermediate_size");
  COCA_CHECK_AS(kBadFile, s.L >= 1 && s.L <= 10'000, "{}: num_hidden_layers is {}; expected 1 to 10000", f.origin(),
                s.L);
  if (f.has("head_dim")) {
    s.D = f.count("head_dim");
  } else {
    COCA_CHECK_AS(kBadFile, s.C % s.H == 0, "{}: hidden_size {} is not a multiple of num_attention_heads {}",
                  f.origin(), s.C, s.H);
    s.D = s.C / s.H;
  }
  // Before a share of it becomes a whole number again.
  COCA_CHECK_AS(kBadFile, s.D <= (1 << 24), "{}: a head dim of {}; expected at most {}", f.origin(), s.D, 1 << 24);
  s.init_std = f.number_like("init_std", "initializer_range", 0.02);
  s.bos_id = f.optional_id("bos_token_id");
  s.eos_ids = f.ids("eos_token_id");
  s.embeddings = f.boolean("tie_word_embeddings", false) ? model::Embeddings::kTied : model::Embeddings::kUntied;
  read_attention(f, s);
}

model::Mlp gelu_from(const ConfigFields& f, const std::string& act) {
  if (act == "gelu") return model::Mlp::kGelu;
  if (act == "gelu_new" || act == "gelu_fast" || act == "gelu_pytorch_tanh") return model::Mlp::kGeluTanh;
  fail(ErrorKind::kBadFile,
       "{}: hidden_act \"{}\" is not supported; expected gelu, gelu_new, gelu_fast or gelu_pytorch_tanh", f.origin(),
       act);
}

model::ModelSpec read_gpt_neox(const ConfigFields& f) {
  model::ModelSpec s;
  s.architecture = model::Architecture::kGptNeoX;
  s.norm = ops::NormKind::kLayerNorm;
  s.qkv = model::Qkv::kFused;
  s.attention_bias = s.output_bias = f.boolean("attention_bias", true) ? model::Bias::kYes : model::Bias::kNone;
  s.mlp_bias = model::Bias::kYes;
  read_common(f, s);
  s.G = s.H;
  s.max_position = f.count("max_position_embeddings", 2048);
  apply_rope(f, read_rope(f, "rotary_emb_base", f.number("rotary_pct", 0.25), s.max_position), s);
  s.norm_eps = f.number_like("norm_eps", "layer_norm_eps", 1e-5);
  s.residual =
      f.boolean("use_parallel_residual", true) ? model::ResidualKind::kParallel : model::ResidualKind::kSequential;
  s.mlp = gelu_from(f, f.text("hidden_act", "gelu"));
  return s;
}

// What LLaMA, Mistral and Qwen have in common. Defaults are those of Hugging Face's classes.
model::ModelSpec read_llama_family(const ConfigFields& f, model::Architecture architecture,
                                   int64_t default_max_position) {
  model::ModelSpec s;
  s.architecture = architecture;
  s.norm = ops::NormKind::kRmsNorm;
  s.qkv = model::Qkv::kSeparate;
  s.residual = model::ResidualKind::kSequential;
  s.attention_bias = s.output_bias = s.mlp_bias = model::Bias::kNone;
  read_common(f, s);
  s.max_position = f.count("max_position_embeddings", default_max_position);
  apply_rope(f, read_rope(f, "rope_theta", 1.0, s.max_position), s);
  COCA_CHECK_AS(kBadFile, s.R == s.plane_dims(), "{}: partial_rotary_factor rotates {} of {}; {} models rotate all",
                f.origin(), grouped(s.R), counted(s.plane_dims(), "dim"), enum_name(architecture));
  s.norm_eps = f.number_like("norm_eps", "rms_norm_eps", 1e-6);
  const std::string act = f.text("hidden_act", "silu");
  COCA_CHECK_AS(kBadFile, act == "silu" || act == "swish",
                "{}: hidden_act \"{}\" is not supported for {}; expected silu", f.origin(), act,
                enum_name(architecture));
  s.mlp = model::Mlp::kSwiGlu;
  return s;
}

model::ModelSpec read_llama(const ConfigFields& f) {
  model::ModelSpec s = read_llama_family(f, model::Architecture::kLlama, 2048);
  s.G = f.count("num_key_value_heads", s.H);
  s.attention_bias = s.output_bias = f.boolean("attention_bias", false) ? model::Bias::kYes : model::Bias::kNone;
  s.mlp_bias = f.boolean("mlp_bias", false) ? model::Bias::kYes : model::Bias::kNone;
  return s;
}

// Hugging Face's default is 8 key/value heads and a window of 4096 where config.json says nothing (null: no window).
model::ModelSpec read_mistral(const ConfigFields& f, const json& config) {
  model::ModelSpec s = read_llama_family(f, model::Architecture::kMistral, 4096 * 32);
  s.G = f.count("num_key_value_heads", 8);
  if (f.has("sliding_window") || !config.contains("sliding_window"))
    s.layer_window.assign(static_cast<size_t>(s.L), f.integer("sliding_window", 4096));
  return s;
}

// Layers with a window: those named by layer_types, else those from max_window_layers on.
void read_qwen_windows(const ConfigFields& f, model::ModelSpec& s) {
  const int64_t window = f.integer("sliding_window", 4096), first = f.integer("max_window_layers", 28);
  const bool used = f.boolean("use_sliding_window", false);
  const std::vector<std::string> types = f.texts("layer_types");
  COCA_CHECK_AS(kBadFile, types.empty() || static_cast<int64_t>(types.size()) == s.L,
                "{}: layer_types names {}; num_hidden_layers is {}", f.origin(), counted(types.size(), "layer"), s.L);
  for (const std::string& type : types)
    COCA_CHECK_AS(kBadFile, type == "full_attention" || type == "sliding_attention",
                  "{}: layer type \"{}\" is not supported; expected full_attention or sliding_attention", f.origin(),
                  type);
  std::vector<int64_t> windows;
  for (int64_t i = 0; i < s.L; ++i) {
    const bool slides = types.empty() ? used && i >= first : types[static_cast<size_t>(i)] == "sliding_attention";
    COCA_CHECK_AS(kBadFile, !slides || used, "{}: layer {} is a sliding_attention, but use_sliding_window is not true",
                  f.origin(), i);
    windows.push_back(slides ? window : 0);
  }
  if (std::any_of(windows.begin(), windows.end(), [](int64_t w) { return w != 0; }))
    s.layer_window = std::move(windows);
}

model::ModelSpec read_qwen2(const ConfigFields& f) {
  model::ModelSpec s = read_llama_family(f, model::Architecture::kQwen2, 32768);
  s.G = f.count("num_key_value_heads", 32);
  s.attention_bias = model::Bias::kYes;
  read_qwen_windows(f, s);
  return s;
}

model::ModelSpec read_qwen3(const ConfigFields& f) {
  model::ModelSpec s = read_llama_family(f, model::Architecture::kQwen3, 32768);
  if (!f.has("head_dim")) {
    s.D = 128;
    s.R = s.plane_dims();
  }
  s.G = f.count("num_key_value_heads", 32);
  s.attention_bias = s.output_bias = f.boolean("attention_bias", false) ? model::Bias::kYes : model::Bias::kNone;
  s.head_norm = model::HeadNorm::kRms;
  read_qwen_windows(f, s);
  return s;
}

// What no field of Hugging Face's says: windows of other models, or several of them, and dilations.
void read_windows(const ConfigFields& f, model::ModelSpec& s) {
  if (f.has("layer_window")) {
    COCA_CHECK_AS(kBadFile, s.layer_window.empty(),
                  "{}: layer_window names the layers' windows, and sliding_window does too; keep the right one",
                  f.origin());
    s.layer_window = f.integers("layer_window");
  }
  if (f.has("no_rope_layers")) s.rope_layers = f.integers("no_rope_layers");  // 1: it rotates (Hugging Face's SmolLM3)
  if (f.has("layer_dilation")) s.dilation = f.integers("layer_dilation");
  s.global_tokens = f.integer("global_tokens", 0);
  s.direction = read_name<model::Direction>(f, "direction", "causal");
  if (s.direction == model::Direction::kBidirectional) s.mask_id = f.optional_id("mask_token_id");
}

// Sizes that some files hold under a second name, from the library that trained the model.
void check_other_spellings(const ConfigFields& f, const model::ModelSpec& s) {
  const std::tuple<const char*, int64_t, const char*> kSpellings[] = {
      {"n_embd", s.C, "hidden_size"},
      {"n_embed", s.C, "hidden_size"},
      {"d_model", s.C, "hidden_size"},
      {"n_layer", s.L, "num_hidden_layers"},
      {"n_layers", s.L, "num_hidden_layers"},
      {"num_layers", s.L, "num_hidden_layers"},
      {"n_head", s.H, "num_attention_heads"},
      {"n_heads", s.H, "num_attention_heads"},
      {"num_heads", s.H, "num_attention_heads"},
      {"n_kv_heads", s.G, "num_key_value_heads"},
      {"num_kv_heads", s.G, "num_key_value_heads"},
      {"multi_query_group_num", s.G, "num_key_value_heads"},
      {"n_inner", s.F, "intermediate_size"},
      {"ffn_hidden_size", s.F, "intermediate_size"},
      {"ffn_dim", s.F, "intermediate_size"},
      {"kv_channels", s.D, "head_dim"},
      {"head_size", s.D, "head_dim"},
      {"rotary_dim", s.R, "the dims of a head that rotate"}};
  for (const auto& [key, size, name] : kSpellings)
    COCA_CHECK_AS(kBadFile, !f.has(key) || f.raw(key) == size, "{}: field \"{}\" is {}; expected {}, as {} says",
                  f.origin(), key, f.raw(key).dump(), size, name);
}

model::ModelSpec read_architecture(const ConfigFields& f, const json& config) {
  const std::string type = f.text("model_type", "");
  if (type == "gpt_neox") return read_gpt_neox(f);
  if (type == "llama") return read_llama(f);
  if (type == "mistral") return read_mistral(f, config);
  if (type == "qwen2") return read_qwen2(f);
  if (type == "qwen3") return read_qwen3(f);
  fail(ErrorKind::kBadFile, "{}: model_type \"{}\" is not supported; expected {}", f.origin(), type,
       enum_choices<model::Architecture>());
}

// Whether Hugging Face's fields say this model's windows: Mistral's one for all layers, Qwen's one for some.
bool names_windows(const model::ModelSpec& s) {
  const int64_t largest = s.layer_window.empty() ? 0 : *std::max_element(s.layer_window.begin(), s.layer_window.end());
  const bool some = s.architecture == model::Architecture::kQwen2 || s.architecture == model::Architecture::kQwen3;
  if (!some && s.architecture != model::Architecture::kMistral) return false;
  return std::all_of(s.layer_window.begin(), s.layer_window.end(),
                     [&](int64_t w) { return w == largest || (some && w == 0); });
}

// "architectures" of config.json.
std::string_view class_name(model::Architecture architecture) {
  switch (architecture) {
    case model::Architecture::kGptNeoX: return "GPTNeoXForCausalLM";
    case model::Architecture::kLlama: return "LlamaForCausalLM";
    case model::Architecture::kMistral: return "MistralForCausalLM";
    case model::Architecture::kQwen2: return "Qwen2ForCausalLM";
    case model::Architecture::kQwen3: return "Qwen3ForCausalLM";
  }
  return "";
}

void write_llama_family(const model::ModelSpec& s, nlohmann::ordered_json& c) {
  const bool named = !s.layer_window.empty() && names_windows(s);
  c["num_key_value_heads"] = s.G;
  c["rope_theta"] = s.rope_theta;
  c["rms_norm_eps"] = s.norm_eps;
  c["hidden_act"] = "silu";
  if (s.architecture == model::Architecture::kLlama) {
    c["attention_bias"] = s.attention_bias == model::Bias::kYes;
    c["mlp_bias"] = s.mlp_bias == model::Bias::kYes;
  } else if (s.architecture == model::Architecture::kMistral) {
    c["sliding_window"] = named ? json(s.layer_window.front()) : json(nullptr);
  } else {
    if (s.architecture == model::Architecture::kQwen3) c["attention_bias"] = s.attention_bias == model::Bias::kYes;
    c["use_sliding_window"] = named;
    if (!named) return;
    c["sliding_window"] = *std::max_element(s.layer_window.begin(), s.layer_window.end());
    for (const int64_t window : s.layer_window)
      c["layer_types"].push_back(window > 0 ? "sliding_attention" : "full_attention");
  }
}

}  // namespace

model::ModelSpec spec_from_json(const json& config, std::string_view origin) {
  const ConfigFields f(config, origin);
  model::ModelSpec spec = read_architecture(f, config);
  read_windows(f, spec);
  check_other_spellings(f, spec);
  for (const auto& [key, value] : config.items()) {
    if (f.was_read(key)) continue;
    COCA_CHECK_AS(
        kBadFile, !is_wrong_when_off(key, value, spec),
        "{}: field \"{}\" is {}, but coca computes {} models with it on; remove the field if the weights were "
        "trained that way",
        origin, key, value.dump(), enum_name(spec.architecture));
    if (is_harmless_field(key, value, spec)) f.ignore({key});
  }
  f.refuse_unread();
  try {
    model::validate(spec);
  } catch (const Error& error) {
    fail(ErrorKind::kBadFile, "{}: {}", origin, error.what());
  }
  return spec;
}

nlohmann::ordered_json spec_to_json(const model::ModelSpec& s, model::Precision precision) {
  nlohmann::ordered_json c;
  const bool neox = s.architecture == model::Architecture::kGptNeoX;
  c["architectures"] = {std::string(class_name(s.architecture))};
  c["model_type"] = std::string(enum_name(s.architecture));
  c["torch_dtype"] = precision == model::Precision::kBF16 ? "bfloat16" : "float32";
  c["attention_type"] = std::string(enum_name(s.attention));
  if (model::is_coca(s.attention) && s.R != s.plane_dims())
    c["coca_fold"] = s.fold == ops::Fold::kOfficial ? "official" : "rotary";
  if (s.t_width != model::TWidth::kFull) c["coca_t_width"] = std::string(enum_name(s.t_width));
  if (s.magnitude) c["coca_magnitude"] = std::string(enum_name(*s.magnitude));
  if (s.content > 0) c["coca_content_dims"] = s.content;
  for (const model::Modifier* m : s.modifiers) c["attention_modifiers"].push_back(std::string(m->info().name));
  c["vocab_size"] = s.V;
  c["hidden_size"] = s.C;
  c["intermediate_size"] = s.F;
  c["num_hidden_layers"] = s.L;
  c["num_attention_heads"] = s.H;
  if (s.D * s.H != s.C || s.architecture == model::Architecture::kQwen3) c["head_dim"] = s.D;
  c["max_position_embeddings"] = s.max_position;
  c["initializer_range"] = s.init_std;
  c["tie_word_embeddings"] = s.embeddings == model::Embeddings::kTied;
  c["rope_scaling"] = rope_scaling_to_json(s.rope_scaling);
  if (neox) {
    c["attention_bias"] = s.attention_bias == model::Bias::kYes;
    c["rotary_pct"] = static_cast<double>(s.R) / static_cast<double>(s.plane_dims());
    c["rotary_emb_base"] = s.rope_theta;
    c["layer_norm_eps"] = s.norm_eps;
    c["use_parallel_residual"] = s.residual == model::ResidualKind::kParallel;
    c["hidden_act"] = s.mlp == model::Mlp::kGelu ? "gelu" : "gelu_new";
  } else {
    write_llama_family(s, c);
  }
  if (!s.layer_window.empty() && !names_windows(s)) c["layer_window"] = s.layer_window;
  for (int64_t i = 0; i < s.L && !s.dilation.empty(); ++i) {
    const auto heads = s.dilation_of(static_cast<size_t>(i));
    c["layer_dilation"].push_back(std::vector<int64_t>(heads.begin(), heads.end()));
  }
  if (!s.rope_layers.empty()) c["no_rope_layers"] = s.rope_layers;
  if (s.global_tokens > 0) c["global_tokens"] = s.global_tokens;
  if (s.direction != model::Direction::kCausal) c["direction"] = std::string(enum_name(s.direction));
  if (s.mask_id) c["mask_token_id"] = *s.mask_id;
  if (s.bos_id) c["bos_token_id"] = *s.bos_id;
  if (s.eos_ids.size() == 1) c["eos_token_id"] = s.eos_ids.front();
  if (s.eos_ids.size() > 1) c["eos_token_id"] = s.eos_ids;
  return c;
}

}  // namespace coca::formats
