// tools/model_flags.h - the flags of subcommands that run a model, and the loading of that model.
// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "cli.h"
#include "coca/formats/model_folder.h"
#include "coca/model/adapter.h"
#include "coca/text/tokenizer.h"

namespace coca::tools {

struct ModelFlags {
  std::string model, tokenizer, adapter;
  std::optional<model::Scaling> rope_scaling;
  std::optional<double> factor;
  std::optional<model::Pattern> pattern;
  std::optional<int64_t> window, sinks, distance, group, middle_top_k, middle_from_layer;
  std::optional<model::SlackFrame> slack_frame;
  model::Precision precision = model::Precision::kF32;

  template <class V>
  void visit(V&& v) {
    v.group("Model");
    v("model", "model folder: config.json, model.safetensors, tokenizer", model);
    visit_rest(v);
  }
  // All except the folder.
  template <class V>
  void visit_rest(V&& v) {
    v("tokenizer", "\"byte\", a sentencepiece .model file or a folder; default: the model folder", tokenizer);
    v("adapter", "LoRA adapter in PEFT's layout, merged into the model", adapter);
    v("rope_scaling", "position scaling instead of config.json's; all but none and longrope need --factor",
      rope_scaling);
    v("factor", "factor of --rope-scaling, at least 1", factor);
    v("pattern", "visible keys and their positions: patterns for texts beyond the trained length", pattern);
    v("window", "of --pattern: nearest keys, at their own positions, the query's own included", window, Least{1});
    v("sinks", "of --pattern streaming-llm and lm-infinite: first tokens that always stay visible", sinks);
    v("distance", "of --pattern lm-infinite: the distance at which the first tokens are visible", distance, Least{1});
    v("middle_top_k",
      "of --pattern lm-infinite: keys between the first tokens and the window that each query and head picks; default: "
      "none",
      middle_top_k);
    v("middle_from_layer", "the first layer (of 0, 1, ...) for --middle-top-k; default: 4", middle_from_layer);
    v("group", "of --pattern self-extend: positions of distant keys are divided by it; divides 64", group, Least{1});
    v("slack_frame", "of --pattern with slack CoCA: position of queries, inside the window or absolute", slack_frame);
    v("precision", "type of matrices and activations, whatever the file's; statistics and sums are fp32", precision);
  }
};

struct LoadedModel {
  model::Model model;
  std::string adapter;  // folder of the adapter merged into the model; empty: none
  std::unique_ptr<text::Tokenizer> tokenizer;
  std::optional<model::RopeScaling> scaling;  // as given by the flags
  model::RopeScaling used_scaling;            // the flags' scaling, or else that of config.json
};

// A model without its weights, whose names and shapes are still checked. Errors name the flag that is missing or that
// contradicts the model.
struct ModelShape {
  std::unique_ptr<formats::ModelFolder> folder;
  model::ModelSpec spec;                      // includes the flags' pattern and the tokenizer's bos
  std::optional<model::RopeScaling> scaling;  // as given by the flags
  std::unique_ptr<text::Tokenizer> tokenizer;
  std::shared_ptr<model::Adapter> adapter;
};
ModelShape load_shape(const ModelFlags&);

// Throws the same errors, and others if the weights cannot be used. shape: the result of load_shape() for the same
// flags.
LoadedModel load_with_flags(const ModelFlags&);
LoadedModel load_with_flags(const ModelFlags&, ModelShape shape);
std::string scaling_text(const model::RopeScaling&);       // "none", "dynamic x4"
std::string pattern_text(const model::AttentionPattern&);  // "full", "streaming-llm, window 252, 4 sinks"

// The text given as an argument, or else all of standard input without its last newline, converted by utf8_of(). A note
// tells the user if input is read from a terminal.
std::string text_or_stdin(const std::optional<std::string>& text);
// Removes a byte order mark and converts UTF-16 and UTF-32 to UTF-8, with a warning that begins with the name. Other
// bytes are returned unchanged.
std::string utf8_of(std::string bytes, std::string_view name);

nlohmann::ordered_json number_json(double value);  // infinities and NaN as text, since JSON has no such numbers
nlohmann::ordered_json number_or_null(std::optional<double> value);

}  // namespace coca::tools
