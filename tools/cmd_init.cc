// coca init: creates a model folder with random weights, in the shape that a config.json describes.
// SPDX-License-Identifier: Apache-2.0
#include "cli.h"
#include "coca/base/count.h"
#include "coca/eval/protocol.h"
#include "coca/formats/config.h"
#include "coca/formats/model_folder.h"
#include "coca/io/fs.h"
#include "coca/report/table.h"

namespace coca::tools {

namespace {

struct Options {
  std::string model_config, out, tokenizer = "byte";
  model::Precision precision = model::Precision::kF32;
  int64_t seed = 0;

  template <class V>
  void visit(V&& v) {
    v("model_config",
      "config.json that describes the model (model_type, hidden_size, ...); not the options of coca train",
      model_config);
    v("out", "model folder to write", out);
    v("tokenizer", "byte, a sentencepiece .model, or a folder with one", tokenizer);
    v("precision", "of matrices and embeddings in the file", precision);
    v("seed", "of the weights", seed);
  }
  // --model-config used to be called --config.
  bool takes_config(const nlohmann::json& object, std::string_view file) {
    if (!object.is_object() || !(object.contains("model_type") || object.contains("hidden_size"))) return false;
    print_note(fmt::format("--config {} describes a model, which is deprecated: use --model-config {}", file, file));
    model_config = file;
    return true;
  }
};

// Points out a file with the options of a command, whose names for sizes differ from those of a config.json.
void check_describes_model(const nlohmann::json& config, const std::string& file) {
  if (!config.is_object() || config.contains("model_type") || config.contains("hidden_size")) return;
  std::string found;
  for (const char* option : {"preset", "layers", "width", "heads", "length", "steps", "batch", "learning_rate"})
    if (config.contains(option)) found += fmt::format("{}\"{}\"", found.empty() ? "" : ", ", option);
  COCA_CHECK_AS(kBadFile, found.empty(),
                "--model-config {}: holds options of a command ({}), where a model's config.json with \"model_type\", "
                "\"hidden_size\" and so on is expected; to train a model of these sizes, run coca train --config {}",
                file, found, file);
}

int make(const Options& o) {
  COCA_CHECK(!o.model_config.empty(), "--model-config: no config.json given");
  COCA_CHECK(!o.out.empty(), "--out: no folder given");
  check_is_no_file("--out", o.out);
  const nlohmann::json config = io::read_json(o.model_config);
  check_describes_model(config, o.model_config);
  const model::ModelSpec spec = formats::spec_from_json(config, o.model_config);
  const auto tokenizer = text::load_tokenizer(o.tokenizer);
  eval::check_tokenizer(*tokenizer, spec);
  io::AtomicDir folder(o.out, io::AtomicDir::Existing::kRefuse);
  model::ParamStore params(spec, o.precision);
  model::initialise(spec, static_cast<uint64_t>(o.seed), params);
  formats::save_model(folder.path(), spec, params);
  tokenizer->save(folder.path());
  folder.commit();
  print_prose(fmt::format("{}: {}, {}\n", o.out, counted(model::parameter_count(spec), "random parameter"),
                          enum_name(o.precision)));
  return 0;
}

int run(const Options& o) {
  return all_or_nothing([&] { return make(o); });
}

}  // namespace

void add_init(CLI::App& root, Action* action) {
  add_command<Options>(root, action, "init", "Make a model of any shape with random weights, for measurements",
                       "Example: coca init --model-config configs/model-350m.json --precision bf16 --out out/random",
                       run);
}

}  // namespace coca::tools
