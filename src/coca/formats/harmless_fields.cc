// coca/formats/harmless_fields.cc - see harmless_fields.h. The names were gathered from published files.
// SPDX-License-Identifier: Apache-2.0
#include "coca/formats/harmless_fields.h"

#include <algorithm>
#include <initializer_list>
#include <nlohmann/json.hpp>
#include <set>

namespace coca::formats {

using nlohmann::json;

namespace {

bool any_begins(std::string_view key, std::initializer_list<std::string_view> parts) {
  return std::ranges::any_of(parts, [&](std::string_view part) { return key.starts_with(part); });
}
bool any_within(std::string_view key, std::initializer_list<std::string_view> parts) {
  return std::ranges::any_of(parts, [&](std::string_view part) { return key.find(part) != std::string_view::npos; });
}

// Kinds that show in the name. A tool that has changed the weights has done so already; its mark changes nothing more.
bool is_harmless_kind(std::string_view key) {
  return key.starts_with('_') || key.ends_with("version") ||  // libraries' own
         any_begins(key, {"transformers", "unsloth", "axolotl", "sentence_transformers", "sbert_"}) ||
         any_within(key, {"dropout", "drop_path", "pdrop", "layerdrop", "jitter", "neftune"}) ||  // training
         any_begins(key, {"init_", "initializer_", "gradient_checkpointing"}) || key.ends_with("_init_std") ||
         any_begins(key, {"use_flash", "flash_", "use_fused", "fused_", "use_liger", "use_sdpa", "use_memory_efficient",
                          "base_model_", "output_", "return_dict"}) ||  // how it runs, what is returned
         key.ends_with("_implementation") ||
         key.ends_with("parallel_size") || key.ends_with("parallel_degree");
}

bool is_harmless_name(std::string_view key) {
  static const std::set<std::string_view> kNames = {
      // the file, the Hub, libraries
      "architectures", "model_type", "torch_dtype", "dtype", "params_dtype", "auto_map", "custom_pipeline",
      "custom_pipelines", "name_or_path", "model_name", "library_name", "base_model", "license", "language", "datasets",
      "tags", "pipeline_tag", "model_creator", "quantized_by", "finetuned_from", "is_llama_config", "onnx",
      "chat_format", "tokenizer_class", "keys_to_ignore_at_inference", "max_sequence_length", "max_seq_length",
      "max_seq_len", "seq_length", "seq_len", "model_max_length", "tokenizer_model_max_length", "n_positions", "n_ctx",
      "padding_side", "tokenizer_padding_side", "truncation_side", "pad_vocab_size_multiple",
      "make_vocab_size_divisible_by",
      // tokens by name, or of a use that logits do not have
      "bos_token", "eos_token", "pad_token", "unk_token", "pad_token_id", "unk_token_id", "sep_token_id",
      "cls_token_id", "mask_token_id",
      // training
      "num_steps", "global_step", "seed", "learning_rate", "weight_decay", "ignore_index", "task_specific_params",
      "finetuning_task", "train_batch_size", "freeze_backbone",
      // how it runs
      "use_cache", "pretraining_tp", "torchscript", "use_bfloat16", "bf16", "fp16", "fp32", "chunk_size_feed_forward",
      "low_cpu_mem_usage", "device_map", "cache_config", "ep_size", "tie_encoder_decoder", "is_decoder", "prefix",
      // other tasks' heads
      "id2label", "label2id", "num_labels", "problem_type", "summary_type", "summary_use_proj", "summary_activation",
      "summary_proj_to_labels", "summary_first_dropout",
      // generation, which old files keep here
      "do_sample", "early_stopping", "num_beams", "num_beam_groups", "diversity_penalty", "temperature", "top_k",
      "top_p", "min_p", "typical_p", "epsilon_cutoff", "eta_cutoff", "penalty_alpha", "repetition_penalty",
      "encoder_repetition_penalty", "length_penalty", "no_repeat_ngram_size", "encoder_no_repeat_ngram_size",
      "num_return_sequences", "max_length", "min_length", "max_new_tokens", "min_new_tokens", "max_time",
      "stop_strings", "exponential_decay_length_penalty", "remove_invalid_values", "renormalize_logits",
      "guidance_scale", "decoder_start_token_id", "forced_bos_token_id", "forced_eos_token_id", "forced_decoder_ids",
      "bad_words_ids", "force_words_ids", "constraints", "sequence_bias", "suppress_tokens", "begin_suppress_tokens",
      "low_memory", "num_assistant_tokens", "token_healing", "generation_config"};
  return kNames.contains(key);
}

// Factors, of which 1 changes nothing.
const std::set<std::string_view> kOnes = {
    "embedding_multiplier", "residual_multiplier", "logits_scaling", "logit_scale",         "scale_emb",
    "scale_depth",          "mup_scale",           "rope_ratio",     "rope_scaling_factor", "rope_condense_ratio",
    "lm_head_multiplier"};

// Whether the field names something that this model has, so that "true" changes nothing and "false" is another model.
bool names_what_it_has(std::string_view key, const model::ModelSpec& s) {
  static const std::set<std::string_view> kAlways = {"scale_attn_weights",
                                                     "scale_attention",
                                                     "scale_attn",
                                                     "scale_attention_scores",
                                                     "scale_attn_scores",
                                                     "scale_qk",
                                                     "qk_scale",
                                                     "use_qk_scale",
                                                     "attention_scale",
                                                     "attn_scale",
                                                     "use_attention_scale",
                                                     "use_attn_scale",
                                                     "softmax_scale",
                                                     "elementwise_affine",
                                                     "layer_norm_elementwise_affine",
                                                     "norm_elementwise_affine",
                                                     "do_layer_norm_before",
                                                     "normalize_before",
                                                     "decoder_normalize_before",
                                                     "pre_norm",
                                                     "prenorm",
                                                     "use_pre_norm",
                                                     "pre_layer_norm",
                                                     "add_final_layer_norm",
                                                     "final_layer_norm",
                                                     "final_layernorm",
                                                     "final_norm",
                                                     "use_final_norm",
                                                     "use_final_layernorm"};
  static const std::set<std::string_view> kRotary = {"rope",
                                                     "use_rope",
                                                     "apply_rope",
                                                     "rotary",
                                                     "use_rotary",
                                                     "apply_rotary",
                                                     "rotary_emb",
                                                     "use_rotary_emb",
                                                     "rotary_embedding",
                                                     "rotary_embeddings",
                                                     "use_rotary_embedding",
                                                     "use_rotary_embeddings",
                                                     "use_rotary_pos_emb",
                                                     "use_rotary_position_embedding",
                                                     "use_rotary_position_embeddings",
                                                     "use_rope_embeddings",
                                                     "use_rope_position_embeddings"};
  static const std::set<std::string_view> kGated = {"gated_mlp",         "use_gated_mlp", "mlp_gated", "is_gated_act",
                                                    "gated_linear_unit", "use_glu",       "glu",       "swiglu",
                                                    "use_swiglu"};
  static const std::set<std::string_view> kRms = {"rms_norm", "rmsnorm", "use_rms_norm", "use_rmsnorm"};
  static const std::set<std::string_view> kHeadNorm = {"qk_norm", "use_qk_norm", "qk_layernorm", "use_qk_layernorm"};
  static const std::set<std::string_view> kParallel = {"parallel_attn", "parallel_attention", "parallel_residual",
                                                       "gpt_j_residual"};
  if (kAlways.contains(key)) return true;
  if (kRotary.contains(key)) return model::uses_rotary(s.attention);
  if (kGated.contains(key)) return s.mlp == model::Mlp::kSwiGlu;
  if (kRms.contains(key)) return s.norm == ops::NormKind::kRmsNorm;
  if (kHeadNorm.contains(key)) return s.head_norm != model::HeadNorm::kNone;
  if (kParallel.contains(key)) return s.residual == model::ResidualKind::kParallel;
  return s.direction == model::Direction::kCausal && any_within(key, {"causal"}) &&
         !any_within(key, {"non_causal", "noncausal"});
}

// What the model is anyway; another value would be another model.
bool says_what_holds(std::string_view key, const json& value, const model::ModelSpec& s) {
  if (kOnes.contains(key)) return value.is_number() && value == 1;
  if (key == "rope_interleaved" || key == "use_mrope" || key == "load_in_8bit" || key == "load_in_4bit")
    return value == false;
  if (key == "layer_types")
    return s.layer_window.empty() && value.is_array() &&
           std::ranges::all_of(value, [](const json& v) { return v == "full_attention"; });
  const auto is = [&](std::initializer_list<std::string_view> texts) {
    return value.is_string() && std::ranges::find(texts, value.get_ref<const std::string&>()) != texts.end();
  };
  if (key == "activation" || key == "mlp_type") return s.mlp == model::Mlp::kSwiGlu && is({"swiglu", "SwiGLU"});
  if (key == "normalization" || key == "normalization_type" || key == "norm_type")
    return s.norm == ops::NormKind::kRmsNorm ? is({"rmsnorm", "rms_norm", "RMSNorm"})
                                             : is({"layernorm", "layer_norm", "LayerNorm"});
  if (key == "position_embedding_type" || key == "position_encoding_type")
    return model::uses_rotary(s.attention) && is({"rope", "rotary"});
  if (key == "max_window_layers")
    return s.architecture == model::Architecture::kLlama || s.architecture == model::Architecture::kMistral;
  if (key == "add_cross_attention") return value.is_null() || value == false;
  if (key == "cross_attention_hidden_size") return value.is_null();
  if (key == "pruned_heads") return value.is_null() || (value.is_structured() && value.empty());
  return (value.is_null() || value == true) && names_what_it_has(key, s);
}

}  // namespace

bool is_harmless_field(std::string_view key, const json& value, const model::ModelSpec& spec) {
  return is_harmless_kind(key) || is_harmless_name(key) || says_what_holds(key, value, spec);
}

bool is_wrong_when_off(std::string_view key, const json& value, const model::ModelSpec& spec) {
  const bool zero = value.is_number() && value == 0;
  if (!zero && value != false) return false;
  if (kOnes.contains(key) || names_what_it_has(key, spec)) return true;
  return zero && any_within(key, {"multiplier", "scale", "scalar", "fraction"});  // a factor of 0 leaves nothing
}

}  // namespace coca::formats
